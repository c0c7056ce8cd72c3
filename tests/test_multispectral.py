"""Images of other than one or three channels, from the checkpoint to the answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adder_onnx.cli import export, run
from adder_onnx.export.resnet import ResNetConfig
from tests.test_export_resnet import random_resnet

_MEAN = (0.1, 0.2, 0.3, 0.4)
_STD = (0.5, 0.6, 0.7, 0.8)


def test_four_channels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = random_resnet(ResNetConfig("cifar", "basic", (1,), (4,), 3, in_channels=4))
    torch.save(network.state_dict(), tmp_path / "net.pth")
    model = str(tmp_path / "net.onnx")
    options = ["--input-shape", "4,8,6", "--mean", "0.1,0.2,0.3,0.4", "--std", "0.5,0.6,0.7,0.8"]
    assert export.main([str(tmp_path / "net.pth"), model, *options]) == 0

    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 6, 4), dtype=np.uint8)
    inputs = (pixels / 255 - _MEAN) / _STD
    with torch.no_grad():
        logits = network(torch.from_numpy(inputs).permute(0, 3, 1, 2).float()).numpy()
    labels = np.random.default_rng(1).integers(0, 3, 20)
    np.savez(tmp_path / "set.npz", x_test=pixels, y_test=labels)
    capsys.readouterr()
    output = tmp_path / "out.npz"
    arguments = [model, "--data", str(tmp_path / "set.npz"), "--output", str(output)]
    assert run.main([*arguments, "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["top1_correct"] == (logits.argmax(axis=1) == labels).sum()
    found = np.load(output)["logits"]
    np.testing.assert_allclose(found, logits, atol=1e-4 * np.abs(logits).max())

    Image.new("RGBA", (6, 8)).save(tmp_path / "image.png")
    assert run.main([model, "--data", str(tmp_path / "image.png")]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "takes images of 4 channels, which image files do not have" in err
