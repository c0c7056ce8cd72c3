"""Any size of the batch where the model's code allows that, and a word where it does not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import adder_onnx
from adder_onnx.cli import export
from adder_onnx.errors import ExportError
from adder_onnx.export import AdderConv2d, export_onnx
from adder_onnx.export.capture import TRACED_BATCH
from adder_onnx.export.verification import VERIFIED_BATCH

Way = Callable[[Tensor], Tensor]

ANY: dict[str, Way] = {
    "flatten": lambda x: x.flatten(1),
    "x.size(0)": lambda x: x.view(x.size(0), -1),
    "int(x.size(0))": lambda x: x.view(int(x.size(0)), -1),
    "len(x)": lambda x: x.flatten(1) + torch.zeros(len(x), 1),
    "an f-string": lambda x: x.flatten(1) * (1.0 if f"{x.shape[0]}" else 2.0),
    "new_zeros": lambda x: torch.cat([x.flatten(1), x.new_zeros(x.shape[0], 2)], 1)[:, :512],
    "expand": lambda x: x.flatten(1) + torch.ones(1, 512).expand(x.shape[0], -1),
    "chunk of channels": lambda x: torch.cat(x.chunk(2, 1), 1).flatten(1),
}
FIXED: dict[str, Way] = {
    "for image in x": lambda x: torch.stack([image.flatten() for image in x]),
    "range(len(x))": lambda x: torch.cat([x[i : i + 1] for i in range(len(x))]).flatten(1),
    "unbind": lambda x: torch.stack(x.unbind(0)).flatten(1),
    "a number": lambda x: x.reshape(-1, 8 * 64)[: len(list(x))],
}


class Net(nn.Module):
    def __init__(self, flatten: Way) -> None:
        super().__init__()
        self.a, self.fc, self.flatten = AdderConv2d(3, 8, 3, 2, 1), nn.Linear(512, 10), flatten

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.flatten(self.a(x)))  # type: ignore[no-any-return]


def assert_takes(model: nn.Module, path: Path, sizes: list[int]) -> None:
    session = adder_onnx.InferenceSession(path)
    for size in sizes:
        x = torch.randn(size, 3, 16, 16)
        with torch.no_grad():
            expected = model(x).numpy()
        got = session.run(None, {"input": x.numpy()})[0]
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Warnings of ours; PyTorch writes traces into its own log."""
    return [r.message for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("name", ANY)
def test_any_size(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, path = Net(ANY[name]).eval(), tmp_path / "net.onnx"
    done = export_onnx(model, path, (3, 16, 16), dynamic_batch=True)
    assert done.batch_size is None
    assert adder_onnx.InferenceSession(path).get_inputs()[0].shape == ["batch", 3, 16, 16]
    assert not said(caplog)
    assert_takes(model, path, [1, 2, 5, 7])


@pytest.mark.parametrize("name", FIXED)
def test_fixed_size_is_told(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, path = Net(FIXED[name]).eval(), tmp_path / "net.onnx"
    done = export_onnx(model, path, (3, 16, 16))
    assert done.batch_size == 1
    assert adder_onnx.InferenceSession(path).get_inputs()[0].shape == [1, 3, 16, 16]
    (message,) = said(caplog)
    assert "makes the size of the batch a constant: the file takes 1 image at a time" in message
    assert_takes(model, path, [1])


@pytest.mark.parametrize("name", FIXED)
def test_fixed_size_is_refused_where_any_is_asked_for(name: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"size of the batch a constant.*dynamic-batch"):
        export_onnx(Net(FIXED[name]), tmp_path / "net.onnx", (3, 16, 16), dynamic_batch=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("way", [ANY["flatten"], FIXED["unbind"]])
@pytest.mark.parametrize("size", [1, 2, 6])
def test_size_that_is_asked_for(way: Way, size: int, tmp_path: Path) -> None:
    model, path = Net(way).eval(), tmp_path / "net.onnx"
    assert export_onnx(model, path, (3, 16, 16), batch_size=size).batch_size == size
    assert_takes(model, path, [size])


class OverTheBatch(nn.Module):
    """Normalises over the batch, which must be of four images."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = AdderConv2d(3, 8, 3, 2, 1), nn.LayerNorm([4, 8, 8, 8])

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.a(x)).mean((2, 3))  # type: ignore[no-any-return]


def test_model_of_one_size_only(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="PyTorch cannot export the model"):
        export_onnx(OverTheBatch(), tmp_path / "net.onnx", (3, 16, 16))
    assert not list(tmp_path.iterdir())
    done = export_onnx(OverTheBatch(), tmp_path / "net.onnx", (3, 16, 16), batch_size=4)
    assert done.verification is not None


def test_it_is_verified_with_another_size_than_it_was_traced_with() -> None:
    assert TRACED_BATCH not in (VERIFIED_BATCH, 1, 2)


def test_model_that_treats_one_image_in_another_way(tmp_path: Path) -> None:
    """What is traced for many would be wrong for one."""
    model = Net(lambda x: x.flatten(1) * (2.0 if x.shape[0] == 1 else 1.0))
    with pytest.raises(ExportError, match=r"differs from PyTorch by"):
        export_onnx(model, tmp_path / "net.onnx", (3, 16, 16))


def test_options_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = "from tests.test_export_batch import Net, ANY, FIXED\n"
    code += "def loops(): return Net(FIXED['for image in x'])\n"
    code += "def plain(): return Net(ANY['flatten'])\n"
    (tmp_path / "batchnets.py").write_text(code)
    torch.save(Net(ANY["flatten"]).state_dict(), tmp_path / "net.pth")
    output = tmp_path / "net.onnx"

    def main(factory: str, *options: str) -> int:
        arguments = [str(tmp_path / "net.pth"), str(output), "--input-shape", "3,16,16"]
        arguments += ["--mean", "0,0,0", "--std", "1,1,1"]
        return export.main([*arguments, "--arch", f"{tmp_path}/batchnets.py:{factory}", *options])

    assert main("loops", "--dynamic-batch") == 2
    assert "cannot be dynamic" in capsys.readouterr().err
    assert not output.exists()
    assert main("loops") == 0
    assert "takes batches of 1 only" in capsys.readouterr().out
    assert main("plain", "--batch-size", "4") == 0
    assert "takes batches of 4 only" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main("plain", "--batch-size", "4", "--dynamic-batch")
