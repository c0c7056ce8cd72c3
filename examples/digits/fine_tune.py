"""Fine-tunes the digits network for few bits, in a few minutes on a CPU.

    python examples/digits/fine_tune.py

For 3 and 2 bits, and for 8 and 4 levels of 4 bits: quantizes ``resnet8_digits.pth`` by calibration,
then fine-tunes it on the images that it was trained on, and prints how many of the 360 held-out
images each integer network has right. These take part in nothing else. Fine-tuning is ``train.py``
once more, with its settings, from the trained network on.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional
from train import CONFIG, FOLDER, load_split, shifted, to_input

import adder_onnx
from adder_onnx.export import export_onnx, export_quantized, fake_quantize
from adder_onnx.export.resnet import ResNet
from adder_onnx.quantization import quantize

SAMPLES = 128
"""Training images that ranges are found on."""


def right(model: str | Path | bytes, x: Tensor, y: Tensor) -> int:
    """How many answers of a file are right."""
    (logits,) = adder_onnx.InferenceSession(model).run(None, {"input": x.numpy()})
    return int((np.asarray(logits).argmax(axis=1) == y.numpy()).sum())


def fine_tune(model: nn.Module, x: Tensor, y: Tensor, epochs: int, lr: float, seed: int) -> None:
    """Trains a model as ``train.py`` does, and leaves it in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator).split(64):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(shifted(x[batch], generator)), y[batch])
            loss.backward()
            optimizer.step()
        schedule.step()
    model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bits", type=int, nargs="+", default=[3, 2])
    parser.add_argument("--levels", type=int, nargs="*", default=[8, 4], help="of 4 bits")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="folder that the integer networks are kept in")
    options = parser.parse_args()
    torch.set_num_threads(1)  # more round sums otherwise, and tensors as small gain nothing
    train_images, test_images, train_labels, test_labels = load_split()
    x, y = to_input(train_images), torch.from_numpy(train_labels)
    test_x, test_y = to_input(test_images), torch.from_numpy(test_labels)
    model = ResNet(CONFIG)
    model.load_state_dict(torch.load(FOLDER / "resnet8_digits.pth"))
    model.eval()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.output or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        export_onnx(model, folder / "float32.onnx", (1, 8, 8))
        proto = onnx.load(folder / "float32.onnx")
        print(f"float32: {right(folder / 'float32.onnx', test_x, test_y)} of {len(test_y)} right")
        kinds = [(bits, None) for bits in options.bits] + [(4, few) for few in options.levels]
        for bits, levels in kinds:
            feeds = [{"input": x[:SAMPLES].numpy()}]
            calibrated = quantize(proto, feeds, bits=bits, levels=levels).model
            before = right(calibrated.SerializeToString(), test_x, test_y)
            start = time.monotonic()
            rounded = fake_quantize(model, bits, [x[:SAMPLES]], levels=levels)
            fine_tune(rounded, x, y, options.epochs, options.lr, options.seed)
            name = f"{bits} bits" if levels is None else f"{bits} bits, {levels} levels"
            path = folder / f"{name.replace(', ', '_').replace(' ', '_')}.onnx"
            export_quantized(rounded, path, [x[:SAMPLES]])
            print(
                f"{name}: {before} calibrated, {right(path, test_x, test_y)} fine-tuned "
                f"({time.monotonic() - start:.0f} s)",
                flush=True,
            )


if __name__ == "__main__":
    main()
