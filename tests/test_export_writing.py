"""Weights in a file of their own, and models larger than protobuf takes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import adder_onnx
from adder_onnx.cli import export
from adder_onnx.errors import AdderError, ExportError
from adder_onnx.export import AdderConv2d, export_onnx, writing

SHAPE = (3, 6, 6)


def network() -> nn.Module:
    return nn.Sequential(AdderConv2d(3, 32, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def assert_runs(model: nn.Module, path: Path) -> None:
    x = torch.randn(2, *SHAPE)
    with torch.no_grad():
        expected = model(x).numpy()
    for session in (adder_onnx.InferenceSession(path), onnxruntime.InferenceSession(path)):
        np.testing.assert_allclose(session.run(None, {"input": x.numpy()})[0], expected, rtol=1e-4)


def test_weights_beside_the_model(tmp_path: Path) -> None:
    model, path = network(), tmp_path / "net.onnx"
    done = export_onnx(model, path, SHAPE, external_data=True)
    assert files(tmp_path) == {"net.onnx", "net.onnx.data"}
    assert done.external_data == tmp_path / "net.onnx.data"
    assert done.bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert done.verification is not None
    proto = onnx.load(path, load_external_data=False)
    (weight,) = (t for t in proto.graph.initializer if t.name == "0.adder")
    assert {e.key: e.value for e in weight.external_data}["location"] == "net.onnx.data"
    assert_runs(model, path)
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("net.onnx", "net.onnx.data"):
        (tmp_path / name).rename(moved / name)
    assert_runs(model, moved / "net.onnx")


def test_what_is_too_large_for_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MAX_BYTES", 3000)
    model, path = network(), tmp_path / "net.onnx"
    done = export_onnx(model, path, SHAPE)
    assert done.external_data == tmp_path / "net.onnx.data"
    assert_runs(model, path)


def test_nothing_is_left_where_the_file_differs(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"model of before")
    (tmp_path / "net.onnx.data").write_bytes(b"weights of before")
    with pytest.raises(ExportError, match="differs"):
        export_onnx(network(), tmp_path / "net.onnx", SHAPE, external_data=True, rtol=0)
    assert files(tmp_path) == {"net.onnx", "net.onnx.data"}
    assert (tmp_path / "net.onnx").read_bytes() == b"model of before"
    assert (tmp_path / "net.onnx.data").read_bytes() == b"weights of before"


def test_files_have_the_usual_permissions(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        export_onnx(network(), tmp_path / "net.onnx", SHAPE, external_data=True, no_verify=True)
    finally:
        os.umask(mask)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


def test_model_without_large_weights_needs_no_second_file(tmp_path: Path) -> None:
    model = nn.Sequential(AdderConv2d(3, 2, 1), nn.Flatten()).eval()
    done = export_onnx(model, tmp_path / "net.onnx", SHAPE, external_data=True)
    assert done.external_data is None
    assert files(tmp_path) == {"net.onnx"}


def test_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.onnx").symlink_to(tmp_path / "real" / "net.onnx")
    export_onnx(network(), tmp_path / "link.onnx", SHAPE, external_data=True, no_verify=True)
    assert files(tmp_path / "real") == {"net.onnx", "net.onnx.data"}
    assert (tmp_path / "link.onnx").is_symlink()


def test_device_takes_no_external_data() -> None:
    with pytest.raises(AdderError, match="external data need a file beside the model"):
        export_onnx(network(), "/dev/null", SHAPE, external_data=True, no_verify=True)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = "from tests.test_export_writing import network as make\n"
    (tmp_path / "writingnet.py").write_text(code)
    torch.save(network().state_dict(), tmp_path / "net.pth")
    arguments = [str(tmp_path / "net.pth"), str(tmp_path / "net.onnx"), "--external-data"]
    arguments += ["--arch", f"{tmp_path}/writingnet.py:make", "--input-shape", "3,6,6"]
    arguments += ["--mean", "0,0,0", "--std", "1,1,1", "--json", str(tmp_path / "net.json")]
    assert export.main(arguments) == 0
    data = str(tmp_path / "net.onnx.data")
    assert f"weights in {data}, which belongs to it" in capsys.readouterr().out.splitlines()
    assert json.loads((tmp_path / "net.json").read_text())["external_data"] == data


@pytest.mark.parametrize("external", [False, True])
def test_a_file_says_what_it_is_and_how_it_was_checked(tmp_path: Path, external: bool) -> None:
    path = tmp_path / "net.onnx"
    exported = export_onnx(network(), path, SHAPE, external_data=external)
    proto = onnx.load(path)
    onnx.checker.check_model(proto)
    assert proto.doc_string.startswith(
        "A network: 1 AdderConv among 3 nodes. Compared with PyTorch "
    )
    assert exported.verification is not None
    (output,) = exported.verification.outputs.values()
    assert f"is {max(output.errors.values()):.2g}, of values up to {output.scale:.3g}." in (
        proto.doc_string
    )
    assert exported.bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert adder_onnx.InferenceSession(path).get_inputs()[0].name == "input"
    export_onnx(network(), path, SHAPE, external_data=external, no_verify=True)
    assert "without a comparison" in onnx.load(path, load_external_data=False).doc_string
