"""What several test files share."""

from __future__ import annotations

import fcntl
import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.browser import browser
from tests.rays import ray_here
from tests.torchlib import torchlib_read_once

__all__ = ["browser", "ray_here", "torchlib_read_once"]

ROOT = Path(__file__).resolve().parents[1]

# PyTorch's threads wait asleep, not in loops that take the cores from the tests beside. It is read
# when PyTorch is loaded, and is handed down to the commands that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """The garbage collector does not go through modules and tests: they stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real checkpoint and real CIFAR-10 images, beside the repository."""
    folder = Path(os.environ.get("ADDER_ONNX_SHARED", ROOT.parent / "shared"))
    if not (folder / "models" / "resnet20_addernet_cifar10.pt").is_file():
        pytest.skip(f"the real checkpoint and images are not in {folder}")
    return folder


@pytest.fixture(scope="session")
def resnet20(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real ResNet-20, exported with nothing but the checkpoint given; once in a test run."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which those of one test run have in common
    output = folder / "resnet20.onnx"
    checkpoint = shared / "models" / "resnet20_addernet_cifar10.pt"
    command = [sys.executable, "-m", "adder_onnx.cli.export", str(checkpoint), str(output)]
    with open(folder / "resnet20.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not output.exists():
            subprocess.run(command, check=True, capture_output=True, text=True)
    return output


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A folder that other users may read, which those of tmp_path may not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture(scope="session")
def images(shared: Path) -> NDArray[np.float32]:
    """The first 32 images, preprocessed in float64 by the reference's constants."""
    records = np.fromfile(shared / "cifar10" / "test_batch.bin", np.uint8).reshape(-1, 3073)
    pixels = records[:32, 1:].reshape(-1, 3, 32, 32) / 255
    mean = np.array([0.4914, 0.4822, 0.4465]).reshape(3, 1, 1)
    std = np.array([0.2023, 0.1994, 0.2010]).reshape(3, 1, 1)
    return ((pixels - mean) / std).astype(np.float32)  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def truth(shared: Path) -> NDArray[np.float64]:
    file = np.load(shared / "models" / "resnet20_addernet_cifar10_logits.npz")
    return file["logits"]  # type: ignore[no-any-return]
