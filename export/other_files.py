"""Naming a file that is taken for a checkpoint and is something else."""

from __future__ import annotations

import zipfile
from pathlib import Path

from adder_onnx.archives.zips import open_zip
from adder_onnx.errors import CheckpointError
from adder_onnx.export.torch_files import is_old_tar

__all__ = ["what_it_is"]

_SAVE = "save the model's state with torch.save(model.state_dict(), path)"

_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs.github.com",
        "a pointer of git-lfs, not the file itself: fetch that with git lfs pull",
    ),
    (b"\x1f\x8b", "compressed by gzip: unpack it with gunzip or tar"),
    (b"BZh", "compressed by bzip2: unpack it first"),
    (b"\xfd7zXZ", "compressed by xz: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"\x93NUMPY", f"an array of NumPy, or a pickled dictionary of such; {_SAVE}"),
    (b"\x89HDF", f"an HDF5 file, as Keras writes; {_SAVE}"),
    (b"GGUF", f"a GGUF file; {_SAVE}"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"%PDF", "a PDF"),
    (b"\x7fELF", "a program or a library"),
)
_TAR = b"ustar"
_TAR_AT = 257
_START = 512


def what_it_is(path: Path) -> str | None:
    """What a file is and what to do, for a message; None where it may be a checkpoint.

    Raises:
        OSError: the file cannot be read.
    """
    if path.is_dir():
        return _folder(path)
    with path.open("rb") as file:
        start = file.read(_START)
    if not start:
        return "empty"
    for beginning, what in _BEGINNINGS:
        if start.startswith(beginning):
            return what
    if start[_TAR_AT:].startswith(_TAR) and not is_old_tar(path):
        return "a tar archive: unpack it, and give the checkpoint in it"
    if zipfile.is_zipfile(path):
        return _zip(path)
    return _text(start) or _onnx(path, start)


def _folder(path: Path) -> str:
    usual = ("model.safetensors", "pytorch_model.bin")
    files = [name for name in usual if (path / name).is_file()]
    if files:
        return f"a folder: give the file in it, {path / files[0]}"
    if (path / ".metadata").is_file():
        return (
            "a folder that torch.distributed.checkpoint has written: convert it with "
            "torch.distributed.checkpoint.format_utils.dcp_to_torch_save"
        )
    return "a folder: give the checkpoint's file (Is a directory)"


def _zip(path: Path) -> str | None:
    try:
        with open_zip(path, CheckpointError, "a PyTorch checkpoint") as archive:
            names = archive.namelist()
    except CheckpointError:
        return None
    ends = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in ends:
        return f"a TorchScript archive, which holds code; {_SAVE}"
    if "archive_format" in ends or "serialized_exported_program.json" in ends:
        return f"a program of torch.export (.pt2), which holds code; {_SAVE}"
    if "data.pkl" in ends:
        return None
    if names and all(name.endswith(".npy") for name in names):
        return f"an .npz file of NumPy arrays; {_SAVE}"
    if {"config.json", "model.weights.h5"} <= ends:
        return f"a model of Keras; {_SAVE}"
    checkpoints = [n for n in names if n.endswith((".pth", ".pt", ".ckpt", ".tar", ".safetensors"))]
    inside = f" ({checkpoints[0]})" if checkpoints else ""
    return f"a zip archive of {len(names)} files: unpack it, and give the checkpoint in it{inside}"


def _text(start: bytes) -> str | None:
    head = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")):
        return "a web page, not the file itself: download that again, by its direct address"
    try:
        text = start.decode()
    except UnicodeDecodeError as error:
        if error.end < len(start):  # not a character that is cut
            return None
        text = start[: error.start].decode()
    if head.startswith((b"{", b"[")) and '"' in text:
        return f"JSON; {_SAVE}"
    if all(character.isprintable() or character in "\t\r\n\f" for character in text):
        return f"text; {_SAVE}"
    return None


def _onnx(path: Path, start: bytes) -> str | None:
    # The first field of an ONNX model is its IR version, the next its producer or its graph.
    if path.suffix == ".onnx" or (start[:1] == b"\x08" and start[2:3] in (b"\x12", b"\x3a")):
        return "an ONNX model already: adder-run runs it"
    if path.suffix in (".h5", ".keras", ".tflite", ".pb", ".index"):
        return f"a file of TensorFlow or Keras; {_SAVE}"
    return None
