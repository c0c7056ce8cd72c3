"""Files that are taken for checkpoints are named for what they are."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from adder_onnx.cli import export
from tests.models import network

STATE = {"fc.weight": torch.ones(2, 2)}


def saved() -> bytes:
    data = io.BytesIO()
    torch.save(STATE, data)
    return data.getvalue()


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("net.pth")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("download/net.pth", b"abc")
        archive.writestr("download/readme.txt", b"abc")


def numpy_dictionary(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, {"fc.weight": np.ones(2)}, allow_pickle=True)  # type: ignore[arg-type]


def npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, weight=np.ones(2))


class Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def exported_program(path: Path) -> None:
    torch.export.save(torch.export.export(Double(), (torch.zeros(2),)), path)


def torchscript(path: Path) -> None:
    torch.jit.save(torch.jit.trace(Double(), torch.zeros(2)), path)


def image(path: Path) -> None:
    Image.new("RGB", (2, 2)).save(path, "PNG")


def folder(path: Path) -> None:
    path.mkdir()


def folder_with_a_checkpoint(path: Path) -> None:
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"")


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "git-lfs": (
        lambda p: p.write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n"
        ),
        "a pointer of git-lfs",
    ),
    "web page": (lambda p: p.write_text("\n<!DOCTYPE html>\n<html><body>404"), "a web page"),
    "error as XML": (lambda p: p.write_text("<?xml version='1.0'?><Error/>"), "a web page"),
    "JSON": (lambda p: p.write_text('{"message": "Not Found"}'), "JSON"),
    "text": (lambda p: p.write_text("layer1 0.5\n"), "text"),
    "gzip": (lambda p: p.write_bytes(gzip.compress(saved())), "compressed by gzip"),
    "bzip2": (lambda p: p.write_bytes(bz2.compress(saved())), "compressed by bzip2"),
    "xz": (lambda p: p.write_bytes(lzma.compress(saved())), "compressed by xz"),
    "zip": (
        zipped,
        "a zip archive of 2 files: unpack it, and give the checkpoint in it (download/",
    ),
    "tar": (tar, "a tar archive"),
    "TorchScript": (torchscript, "a TorchScript archive"),
    "pt2": (exported_program, "a program of torch.export (.pt2)"),
    "NumPy dictionary": (numpy_dictionary, "an array of NumPy, or a pickled dictionary"),
    "npz": (npz, "an .npz file of NumPy arrays"),
    "ONNX": (lambda p: onnx.save(network(), p), "an ONNX model already"),
    "image": (image, "an image"),
    "HDF5": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "an HDF5 file"),
    "empty": (lambda p: p.write_bytes(b""), "empty"),
    "folder": (folder, "a folder: give the checkpoint's file"),
    "folder of a model": (folder_with_a_checkpoint, "model.safetensors"),
    "pickle of arrays": (
        lambda p: p.write_bytes(pickle.dumps({"fc.weight": np.ones((2, 2))})),
        "holds no network but a dict with the keys 'fc.weight'",
    ),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("what", FILES)
def test_it_is_named(what: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make, words = FILES[what]
    path = tmp_path / "net.pth"
    make(path)
    assert export.main([str(path), str(tmp_path / "net.onnx")]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert str(path) in line
    assert words in line
    assert not (tmp_path / "net.onnx").exists()


def test_checkpoint_by_any_name_is_none_of_them(tmp_path: Path) -> None:
    from adder_onnx.export.other_files import what_it_is

    for zipped_file in (True, False):
        for name in ("net.pth.tar", "net.pt2", "net.onnx_weights", "net"):
            path = tmp_path / name
            torch.save(STATE, path, _use_new_zipfile_serialization=zipped_file)
            assert what_it_is(path) is None
