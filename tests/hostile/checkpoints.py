"""Checkpoints that say what is not so: of tensors, storages, networks, and of their files."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.hostile.case import Case
from tests.hostile.mutations import mutated
from tests.hostile.pickles import DIGITS, checkpoint


class _Called:
    """Is pickled as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


def _state() -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(DIGITS / "resnet8_digits.pth", weights_only=True)
    return loaded


def saved(value: Any, *, zipped: bool = True) -> bytes:
    """A file of torch.save."""
    data = io.BytesIO()
    torch.save(value, data, _use_new_zipfile_serialization=zipped)
    return data.getvalue()


def _tensor(offset: int, size: tuple[Any, ...], stride: tuple[Any, ...]) -> _Called:
    storage = torch.zeros(4).untyped_storage()
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    rebuild = torch._utils._rebuild_tensor_v2
    return _Called(rebuild, typed, offset, size, stride, False, OrderedDict())


def _values() -> dict[str, Any]:
    """What is saved, by what is wrong with it."""
    state = _state()
    first = next(iter(state))
    alike: Any = {}
    for _ in range(40):
        alike = {"a": alike, "b": alike}
    itself: dict[str, Any] = dict(state)
    itself["again"] = itself
    deep: Any = state
    for _ in range(200):
        deep = {"model": deep}
    tensors = {
        "beyond its storage": _tensor(0, (1000,), (1,)),
        "before its storage": _tensor(-5, (2,), (1,)),
        "behind its storage": _tensor(1 << 40, (2,), (1,)),
        "of 10**12 values": _tensor(0, (10**6, 10**6), (0, 0)),
        "of 2**80 values": _tensor(0, (2**20,) * 4, (0,) * 4),
        "of steps backwards": _tensor(3, (2,), (-1,)),
        "of a size below 0": _tensor(0, (-2,), (1,)),
        "of a size that is text": _tensor(0, ("2",), (1,)),
        "of 100 axes": _tensor(0, (1,) * 100, (1,) * 100),
        "of more strides than sizes": _tensor(0, (1,), (1, 1)),
        "of complex numbers": torch.zeros(3, dtype=torch.complex64),
        "of no values": torch.zeros(0),
        "that is sparse": torch.eye(3).to_sparse(),
        "on no device": torch.zeros(3, device="meta"),
        "that is none": None,
        "that is a number": 3.5,
        "that is a list": [torch.zeros(3)],
        "with a name of a million letters": torch.zeros(3),
    }
    long = {"a" * 1_000_000: torch.zeros(3), "module." * 100_000: torch.zeros(3)}
    many = dict.fromkeys((f"layer1.{i}.conv1.adder" for i in range(20_000)), torch.zeros(1))
    wide = {**state, "layer1.0.conv1.adder": torch.zeros(1).expand(10**6, 10**6, 3, 3)}
    return {
        **{f"a tensor {what}": {**state, first: value} for what, value in tensors.items()},
        "itself": itself,
        "alike": alike,
        "deep": deep,
        "long names": long,
        "many blocks": {**state, **many},
        "a wide layer": wide,
        "weights that are not finite": {k: v * float("nan") for k, v in state.items()},
        "names that are numbers": dict(enumerate(state.values())),
        "names that are tuples": {(k, 1): v for k, v in state.items()},
        "a size that is called": _Called(torch.Size, (10**12,)),
        "a device that is none": _Called(torch.device, "no device"),
        "the state": state,
    }


class Net(torch.nn.Module):
    """A network that is pickled whole, with what a network does not have."""

    def __init__(self, **state: Any) -> None:
        super().__init__()
        self.__dict__.update(state)


def _networks() -> dict[str, Any]:
    itself = Net()
    itself.add_module("again", itself)
    doubled = Net()
    for _ in range(40):
        outer = Net()
        outer.add_module("a", doubled)
        outer.add_module("b", doubled)
        doubled = outer
    deep = Net()
    for _ in range(300):
        outer = Net()
        outer.add_module("a", deep)
        deep = outer
    odd = {"a list": [1], "a tensor": torch.zeros(3), "a number": 5, "a text": "abc", "none": None}
    parts = ("_modules", "_parameters", "_buffers", "_forward_hooks", "_non_persistent_buffers_set")
    return {
        "a network in itself": itself,
        "networks that double": doubled,
        "deep networks": deep,
        **{
            f"{what} as {part}": Net(_parameters={"a": torch.zeros(1)}, **{part: value})
            if part != "_parameters"
            else Net(**{part: value})
            for part in parts
            for what, value in odd.items()
        },
    }


def _rezipped(data: bytes, change: Any) -> bytes:
    """A zip archive whose entries were changed one by one; None leaves one out."""
    new = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(new, "w") as archive:
        for name in old.namelist():
            content, how = change(name, old.read(name))
            if content is not None:
                archive.writestr(name, content, how)
    return new.getvalue()


def archives(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Zip archives of torch.save that are not whole, or not what they say."""
    whole = saved({k: v.clone() for k, v in list(_state().items())[:3]})
    stored, packed = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED

    def without(end: str) -> Any:
        return lambda name, data: (None if name.endswith(end) else data, stored)

    def instead(end: str, value: bytes, how: int = stored) -> Any:
        return lambda name, data: (value if name.endswith(end) else data, how)

    yield "no pickle", _rezipped(whole, without("data.pkl"))
    yield "no storage", _rezipped(whole, without("data/0"))
    yield "a short storage", _rezipped(whole, instead("data/0", b"abc"))
    yield "an empty storage", _rezipped(whole, instead("data/0", b""))
    yield "a large storage", _rezipped(whole, instead("data/0", bytes(200 << 20), packed))
    yield "a large pickle", _rezipped(whole, instead("data.pkl", bytes(200 << 20), packed))
    yield "a large note", _rezipped(whole, instead("byteorder", bytes(1 << 20), packed))
    yield "another order", _rezipped(whole, instead("byteorder", b"big"))
    yield "an order that is none", _rezipped(whole, instead("byteorder", b"\xff"))
    yield "deflated", _rezipped(whole, lambda name, data: (data, packed))
    yield "LZMA", _rezipped(whole, lambda name, data: (data, zipfile.ZIP_LZMA))
    twice = io.BytesIO(whole)
    with zipfile.ZipFile(twice, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("archive/data.pkl", b"N.")
    yield "two pickles", twice.getvalue()
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as archive:
        for i in range(3000):
            archive.writestr(f"archive/data/{i}", b"")
    yield "many entries", many.getvalue()
    directory = whole.rindex(b"PK\x05\x06")
    start = whole.index(b"PK\x01\x02")
    for i in range(60):  # the directory, and what is in front of the first entry
        tail = mutated(rng, whole[start:directory]) + whole[directory:]
        yield f"damaged directory {i}", whole[:start] + tail
        yield f"damaged end {i}", whole[:directory] + mutated(rng, whole[directory:])
    at = whole.index(b"PK\x03\x04", 4)
    for i in range(60):
        yield f"damaged pickle {i}", mutated(rng, whole[:at]) + whole[at:]
    pickled = zipfile.ZipFile(io.BytesIO(whole)).read("archive/data.pkl")
    for i in range(80):
        data = mutated(rng, pickled)
        yield f"another pickle {i}", _rezipped(whole, instead("data.pkl", data))


def _tensors(header: Any, data: bytes = bytes(64), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


@cache
def _headers() -> dict[str, bytes]:
    """Files of safetensors by what is wrong with their headers."""

    def entry(shape: Any = (4, 4), at: Any = (0, 64), kind: Any = "F32") -> dict[str, Any]:
        return {"a": {"dtype": kind, "shape": shape, "data_offsets": at}}

    return {
        "good": _tensors(entry()),
        "a length that lies": _tensors(entry(), length=1 << 60),
        "a length of a little more": _tensors(entry(), length=300),
        "a header of 100 MB": _tensors(b"{" + b" " * (100 << 20) + b"}"),
        "a nested header": _tensors(b'{"a":' * 100_000),
        "nested arrays": _tensors(b'{"a":' + b"[" * 100_000),
        "offsets beyond the end": _tensors(entry(at=(0, 1 << 50))),
        "offsets backwards": _tensors(entry(at=(64, 0))),
        "offsets below 0": _tensors(entry(at=(-64, 0))),
        "a shape that is not that long": _tensors(entry(shape=(4, 5))),
        "a shape of 10**12": _tensors(entry(shape=(10**6, 10**6))),
        "a shape of 2**80": _tensors(entry(shape=(2**40, 2**40))),
        "a shape of 1000 axes": _tensors(entry(shape=(4, 4, *[1] * 1000))),
        "a type that is none": _tensors(entry(kind="F31")),
        "one twice": _tensors(b'{"a":' + json.dumps(entry()["a"]).encode() + b',"a":3}'),
        "two in one place": _tensors({**entry(), "b": entry()["a"]}),
        "no tensor": _tensors({}),
    }


def safetensors(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Files of safetensors whose header is wrong, or damaged."""
    yield from _headers().items()
    for i in range(80):
        yield f"damaged {i}", mutated(rng, _headers()["good"])


def cases(rng: np.random.Generator, folder: Path) -> Iterator[Case]:
    """Checkpoints of all these kinds, the pickles of old ones damaged."""
    for what, value in {**_values(), **_networks()}.items():
        for zipped in (True, False):
            try:
                data = saved(value, zipped=zipped)
            except Exception:  # PyTorch does not save it so, nor can a stranger
                continue
            yield checkpoint(folder, f"{what}, {'zip' if zipped else 'legacy'}", data)
    for what, data in archives(rng):
        yield checkpoint(folder, what, data)
    for what, data in safetensors(rng):
        yield checkpoint(folder, f"safetensors, {what}", data)
    legacy = saved({"a": torch.zeros(2), "b": torch.ones(3)}, zipped=False)
    for i in range(80):
        yield checkpoint(folder, f"legacy, damaged {i}", mutated(rng, legacy))
