"""Rounding of the float32 kernels in whole networks, against PyTorch in float64.

    python -m benchmarks.precision

Prints the largest and the median error of logits: of the trained ResNet-20 on its 500 CIFAR-10
images, with how many of them are right, and of a ResNet-50 with random weights on two random
images. The checkpoint and images of ResNet-20 are looked for in ../shared, or in the folder that
ADDER_ONNX_SHARED names.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import adder_onnx
from adder_onnx.export import export_onnx
from adder_onnx.export.checkpoint import read_checkpoint
from adder_onnx.export.layer.selection import without_native_kernels
from adder_onnx.export.recognition import load_model
from adder_onnx.kernels.cpu import ARITHMETICS
from benchmarks.documents import ROOT
from benchmarks.networks import adder_network

BATCH = 20  # images that PyTorch takes at a time
MEAN = np.array([0.4914, 0.4822, 0.4465]).reshape(3, 1, 1)
STD = np.array([0.2023, 0.1994, 0.2010]).reshape(3, 1, 1)


def by_pytorch(network: nn.Module, images: NDArray[np.float32]) -> NDArray[Any]:
    """Logits in the type of the network's parameters."""
    dtype = next(network.parameters()).dtype
    with torch.no_grad(), without_native_kernels():
        parts = [
            network(torch.from_numpy(images[i : i + BATCH]).to(dtype)).numpy()
            for i in range(0, len(images), BATCH)
        ]
    return np.concatenate(parts)


def report(
    title: str, network: nn.Module, images: NDArray[np.float32], labels: NDArray[np.uint8] | None
) -> None:
    """Prints the errors of each arithmetic, and of PyTorch in float32."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(network, path, images.shape[1:], no_verify=True)
        found = {
            f"adder-onnx, {arithmetic}": adder_onnx.InferenceSession(
                path, arithmetic=arithmetic
            ).run(None, {"input": images})[0]
            for arithmetic in ARITHMETICS
        }
    found["PyTorch, float32"] = by_pytorch(network, images)
    truth = by_pytorch(network.double(), images)
    print(f"{title}, {len(images)} images, largest logit {np.abs(truth).max():.3g}")
    for name, logits in (found | {"PyTorch, float64": truth}).items():
        errors = np.abs(logits - truth)
        right = "" if labels is None else f", {(logits.argmax(1) == labels).sum()} right"
        print(
            f"  {name:18} largest error {errors.max():.2g}, median {np.median(errors):.2g}{right}"
        )


def main() -> None:
    shared = Path(os.environ.get("ADDER_ONNX_SHARED", ROOT.parent / "shared"))
    checkpoint = shared / "models" / "resnet20_addernet_cifar10.pt"
    rows = np.fromfile(shared / "cifar10" / "test_batch.bin", np.uint8).reshape(-1, 3073)
    images = ((rows[:, 1:].reshape(-1, 3, 32, 32) / 255 - MEAN) / STD).astype(np.float32)
    report("ResNet-20", load_model(read_checkpoint(checkpoint)).eval(), images, rows[:, 0])
    noise = np.random.default_rng(1).standard_normal((2, 3, 224, 224)).astype(np.float32)
    report("ResNet-50, random weights", adder_network("resnet50"), noise, None)


if __name__ == "__main__":
    main()
