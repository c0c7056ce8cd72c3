"""ResNet-50 at its real size: random filters, statistics set by a forward pass."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import adder_onnx
from adder_onnx.cli import export
from adder_onnx.export.layer.selection import without_native_kernels
from adder_onnx.export.resnet import ResNet, ResNetConfig
from adder_onnx.graph.plan import ChainStep, OnnxruntimeStep
from adder_onnx.inspection.inputs import random_feed
from adder_onnx.inspection.json_report import to_json
from adder_onnx.inspection.profile import profile
from adder_onnx.inspection.report import inspect_model
from tests.browser import Browser
from tests.network_pages import check_network_page

pytestmark = pytest.mark.slow

CONFIG = ResNetConfig(
    "imagenet", "bottleneck", (3, 4, 6, 3), (64, 128, 256, 512), 1000, classifier_bias=True
)


@pytest.fixture(scope="module")
def network() -> ResNet:
    torch.manual_seed(0)
    model = ResNet(CONFIG).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of the one batch that follows
    with torch.no_grad():
        model(torch.randn(4, 3, 128, 128))
    return model.eval()


@pytest.fixture(scope="module")
def exported(network: ResNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resnet50")
    torch.save(network.state_dict(), folder / "resnet50.pth")
    # What is compared while it is written, a test compares.
    paths = [str(folder / "resnet50.pth"), str(folder / "resnet50.onnx")]
    status = export.main([*paths, "--no-verify"])
    assert status == 0
    return folder / "resnet50.onnx"


@pytest.fixture(scope="module")
def images() -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((8, 3, 224, 224)).astype(np.float32)


def test_agrees_with_pytorch_at_batch_1_and_8(
    network: ResNet, exported: Path, images: NDArray[np.float32]
) -> None:
    """A random network of 52 layers magnifies rounding: PyTorch's own is the yardstick."""
    with torch.no_grad(), without_native_kernels():
        float32 = network(torch.from_numpy(images[:1])).numpy()
        truth = network.double()(torch.from_numpy(images[:1]).double()).numpy()
        network.float()
    allowed = 2 * np.abs(float32 - truth).max()
    assert allowed < 0.05 * np.abs(truth).max()
    session = adder_onnx.InferenceSession(exported, arithmetic="exact")
    (eight,) = session.run(None, {"input": images})
    singly = [session.run(None, {"input": image[None]})[0] for image in images]
    assert eight.shape == (8, 1000)
    assert np.abs(singly[0] - truth).max() < allowed
    assert np.abs(eight - np.concatenate(singly)).max() < allowed
    # The bound on the rounding of fast sums is 2.5 times that of exact ones, docs/precision.md.
    (fast,) = adder_onnx.InferenceSession(exported).run(None, {"input": images[:1]})
    assert np.abs(fast - truth).max() < 2.5 * allowed
    (middle,) = [s for s in session.plan.steps if isinstance(s, ChainStep)]
    assert len(middle.nodes) == 52
    assert sum(isinstance(s, OnnxruntimeStep) for s in session.plan.steps) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_memory_in_stock_onnxruntime(
    exported: Path, images: NDArray[np.float32], tmp_path: Path
) -> None:
    """The function body must not need memory for positions x filters x taps.

    These would be 460 MB in float32 for an image. What the file takes is not counted: the peak,
    VmHWM, begins anew when it has been read.
    """
    images = images[:1]
    np.save(tmp_path / "images.npy", images)
    script = (
        "import sys; sys.modules['adder_onnx'] = None\n"
        "import numpy, onnxruntime\n"
        "s = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
        "def peak():\n"
        "    (line,) = [s for s in open('/proc/self/status') if s.startswith('VmHWM:')]\n"
        "    return int(line.split()[1]) * 1024\n"
        "with open('/proc/self/clear_refs', 'w') as file:\n"
        "    file.write('5')\n"
        "before = peak()\n"
        "y = s.run(None, {'input': numpy.load('images.npy')})[0]\n"
        "numpy.save('logits.npy', y)\n"
        "print(peak() - before)\n"
    )
    command = [sys.executable, "-I", "-c", script, str(exported)]
    result = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert int(result.stdout) < 230e6, result.stdout
    (ours,) = adder_onnx.InferenceSession(exported).run(None, {"input": images})
    theirs = np.load(tmp_path / "logits.npy")
    assert np.abs(ours - theirs).max() < 0.05 * np.abs(theirs).max()


def test_its_page(exported: Path, tmp_path: Path, browser: Browser) -> None:
    """Small enough to be sent around, and all of it works."""
    report = inspect_model(exported)
    session = adder_onnx.InferenceSession(report.model)
    times = profile(session, report, random_feed(session.get_inputs()), 2)
    result = json.loads(json.dumps(to_json("resnet50.onnx", report, times)))
    path = check_network_page(browser, result, tmp_path, most_nodes=8)
    assert path.stat().st_size < 2e6
