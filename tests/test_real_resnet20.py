"""The real, trained ResNet-20 on real CIFAR-10 images, from the checkpoint to the accuracy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import adder_onnx
from adder_onnx.cli import run
from adder_onnx.graph.plan import ChainStep, ConversionStep, OnnxruntimeStep

TOLERANCE = 1e-3
"""On logits up to 17; one long float32 accumulator is off by 2.3e-3."""


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize(("threads", "arithmetic"), [(1, "fast"), (2, "fast"), (2, "exact")])
def test_logits(
    resnet20: Path,
    images: NDArray[np.float32],
    truth: NDArray[np.float64],
    fuse: bool,
    threads: int,
    arithmetic: str,
) -> None:
    session = adder_onnx.InferenceSession(
        resnet20, fuse=fuse, threads=threads, arithmetic=arithmetic
    )
    (logits,) = session.run(None, {"input": images})
    assert np.abs(logits - truth).max() < TOLERANCE
    (alone,) = session.run(None, {"input": images[7:8]})
    np.testing.assert_allclose(alone, logits[7:8], atol=TOLERANCE / 10)


def test_stock_onnxruntime_where_the_package_cannot_be_imported(
    resnet20: Path, images: NDArray[np.float32], truth: NDArray[np.float64], tmp_path: Path
) -> None:
    np.save(tmp_path / "images.npy", images)
    script = (
        "import sys; sys.modules['adder_onnx'] = None\n"
        "import numpy, onnxruntime\n"
        "s = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
        "numpy.save('logits.npy', s.run(None, {'input': numpy.load('images.npy')})[0])\n"
    )
    command = [sys.executable, "-I", "-c", script, str(resnet20)]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert np.abs(np.load(tmp_path / "logits.npy") - truth).max() < TOLERANCE


def test_file(resnet20: Path) -> None:
    model = onnx.load(resnet20)
    onnx.checker.check_model(model, full_check=True)
    adders = [n.name for n in model.graph.node if n.op_type == "AdderConv"]
    assert len(adders) == 20
    assert adders[:3] == ["layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1"]
    assert "layer2.0.downsample.0" in adders
    counts = {t: sum(n.op_type == t for n in model.graph.node) for t in ("Conv", "Relu", "Add")}
    assert counts == {"Conv": 2, "Relu": 19, "Add": 9}


def test_plan_is_one_chain_between_two_onnxruntime_steps(resnet20: Path) -> None:
    steps = adder_onnx.InferenceSession(resnet20).plan.steps
    assert [type(s) for s in steps] == [
        OnnxruntimeStep,
        ConversionStep,
        ChainStep,
        ConversionStep,
        OnnxruntimeStep,
    ]
    chain = steps[2]
    assert isinstance(chain, ChainStep)
    assert len(chain.nodes) == 20
    assert sum(n.residual is not None for n in chain.nodes) == 9


def test_accuracy(resnet20: Path, shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([str(resnet20), "--data", str(shared / "cifar10"), "--json", "-"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert result["images"] == 500
    assert abs(result["top1_correct"] - 456) <= 1
    assert abs(result["top5_correct"] - 499) <= 1
    assert result["top1"] == result["top1_correct"] / 5
