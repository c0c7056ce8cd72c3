"""What several test files share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real checkpoint and real CIFAR-10 images, beside the repository."""
    folder = Path(os.environ.get("ADDER_ONNX_SHARED", ROOT.parent / "shared"))
    if not (folder / "models" / "resnet20_addernet_cifar10.pt").is_file():
        pytest.skip(f"the real checkpoint and images are not in {folder}")
    return folder


@pytest.fixture(scope="session")
def resnet20(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real ResNet-20, exported with nothing but the checkpoint given."""
    output = tmp_path_factory.mktemp("resnet20") / "resnet20.onnx"
    checkpoint = shared / "models" / "resnet20_addernet_cifar10.pt"
    command = [sys.executable, "-m", "adder_onnx.cli.export", str(checkpoint), str(output)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return output
