"""Models that are strange as bytes: cut, with bytes changed, with text that is not UTF-8."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx

from tests.hostile.case import Case
from tests.hostile.models import base_models, command_for

__all__ = ["cases"]

_COUNT = 250
_DEEP = 40_000


def cases(rng: np.random.Generator, folder: Path) -> Iterator[Case]:
    """Some hundred cases, whose files are written into a folder one after the other."""
    data = folder / "images.npz"
    np.savez(data, rng.standard_normal((4, 3, 8, 8), dtype=np.float32))
    for name, path in _no_files(folder):
        yield command_for(rng, name, path, data)
    models = {name: model.SerializeToString() for name, model in base_models().items()}
    for number in range(_COUNT):
        base = list(models)[int(rng.integers(len(models)))]
        change = _CHANGES[int(rng.integers(len(_CHANGES)))]
        path = folder / f"bytes_{number}.onnx"
        path.write_bytes(change(rng, models[base]))
        yield command_for(rng, f"{number} {base}: {change.__name__.lstrip('_')}", path, data)


def _no_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Paths of what is no plain file, or none that can be read."""
    yield "a folder", folder
    yield "nothing", folder / "nothing.onnx"
    yield "a path that is too long", folder / ("a" * 300)
    yield "a device without end", Path("/dev/zero")
    yield "a pipe", _made(folder / "pipe.onnx", os.mkfifo)
    yield "an empty file", _made(folder / "empty.onnx", Path.touch)
    for size in (3 << 30, 30 << 30):
        path = _made(folder / f"sparse_{size}.onnx", Path.touch)
        os.truncate(path, size)
        yield f"a file of {size >> 30} GiB of zeros", path
    yield "deep messages", _made(folder / "deep.onnx", lambda path: path.write_bytes(_deep()))


def _made(path: Path, make: Callable[[Path], object]) -> Path:
    if not path.exists():
        make(path)
    return path


def _deep() -> bytes:
    """Graphs in attributes of nodes in graphs, far deeper than protobuf reads."""
    data = b""
    for field in (0x0A, 0x32, 0x2A) * _DEEP:  # node, g, attribute
        data = bytes((field,)) + _varint(len(data)) + data
        if len(data) > 1 << 17:
            break
    return b"\x08\x0a\x3a" + _varint(len(data)) + data + b"\x42\x02\x10\x12"


def _varint(number: int) -> bytes:
    data = b""
    while number > 0x7F:
        data += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return data + bytes((number,))


def _cut(rng: np.random.Generator, data: bytes) -> bytes:
    return data[: int(rng.integers(len(data)))]


def _flipped(rng: np.random.Generator, data: bytes) -> bytes:
    """A few bytes are others."""
    changed = bytearray(data)
    for place in rng.integers(len(data), size=int(rng.integers(1, 5))):
        changed[place] = int(rng.integers(256))
    return bytes(changed)


def _off_by_one(rng: np.random.Generator, data: bytes) -> bytes:
    """A few bytes, such as lengths and numbers of fields, differ by one."""
    changed = bytearray(data)
    for place in rng.integers(len(data), size=int(rng.integers(1, 5))):
        changed[place] = (changed[place] + int(rng.choice((-1, 1)))) % 256
    return bytes(changed)


def _removed(rng: np.random.Generator, data: bytes) -> bytes:
    start, end = sorted(int(n) for n in rng.integers(len(data), size=2))
    return data[:start] + data[min(end, start + 20) :]


def _repeated(rng: np.random.Generator, data: bytes) -> bytes:
    start, end = sorted(int(n) for n in rng.integers(len(data), size=2))
    return data[:end] + data[start:]


def _not_text(rng: np.random.Generator, data: bytes) -> bytes:
    """A text of the model is not UTF-8."""
    model = onnx.ModelProto.FromString(data)
    texts = [b"hostile", b"Relu", b"Flatten", b"AdderConv", b"ai.addernet", b"kernel_shape"]
    texts += [node.output[0].encode() for node in model.graph.node if node.output[0]]
    text = texts[int(rng.integers(len(texts)))]
    strange = (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf8")[int(rng.integers(4))]
    return data.replace(text, strange.ljust(len(text), b"x")[: len(text)])


def _other_text(rng: np.random.Generator, data: bytes) -> bytes:
    """A text of the model has a NUL, a line break or a command for terminals in it."""
    texts = (b"hostile", b"Relu", b"n_Y", b"pooled", b"ai.addernet", b"user")
    text = texts[int(rng.integers(len(texts)))]
    strange = (b"\x00", b"\n", b"\x1b[2J", b"\r", b" ")[int(rng.integers(5))]
    return data.replace(text, strange.ljust(len(text), b"x")[: len(text)])


_CHANGES: tuple[Callable[[np.random.Generator, bytes], bytes], ...] = (
    *(_cut, _flipped, _flipped, _off_by_one, _off_by_one, _removed, _repeated, _not_text),
    _other_text,
)
