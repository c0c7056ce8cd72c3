"""Pickles that a reader must not believe: alone, and in what holds pickles."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from tests.hostile.case import Case
from tests.hostile.mutations import mutated

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits"
MODEL = str(DIGITS / "resnet8_digits.onnx")

_P2 = b"\x80\x02"
_P4 = b"\x80\x04"
_HUGE = 1 << 60
_MODULUS = (1 << 61) - 1


def _long1(value: int) -> bytes:
    data = pickle.encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data


@cache
def bombs() -> dict[str, bytes]:
    """Small pickles, each of which asks for much, by what they ask for."""
    nested = 100_000
    call = b"(I1000000000000\nt"  # the arguments (10**12,)
    doubled = b"]q\x00" + b"".join(
        b"]" + b"h" + bytes([i]) + b"a" + b"h" + bytes([i]) + b"a" + b"q" + bytes([i + 1])
        for i in range(40)
    )
    colliding = b"}(" + b"".join(_long1(i * _MODULUS) + b"N" for i in range(1, 40_000)) + b"u"
    slots = b"}(" + b"".join(b"K" + bytes([i]) + b"N" for i in range(256)) + b"uq\x00"
    return {
        "memo by LONG_BINPUT": _P2 + b"Nr\xff\xff\xff\x20.",
        "memo by PUT": b"Np1000000000\n.",
        "memo by a negative PUT": b"Np-5\n.",
        "memo that is empty": _P2 + b"j\xff\xff\xff\x7f.",
        "memo by a number of a million digits": b"Np" + b"9" * 1_000_000 + b"\n.",
        "BINUNICODE8 that lies": _P4 + b"\x8d" + struct.pack("<Q", _HUGE) + b"abc.",
        "BINBYTES8 that lies": _P4 + b"\x8e" + struct.pack("<Q", _HUGE) + b"abc.",
        "BYTEARRAY8 that lies": b"\x80\x05\x96" + struct.pack("<Q", 3 << 30) + b"abc.",
        "BINBYTES that lies": _P2 + b"B" + struct.pack("<I", (1 << 32) - 1) + b"abc.",
        "BINSTRING that lies": _P2 + b"T" + struct.pack("<i", -1) + b"abc.",
        "frame that lies": _P4 + b"\x95" + struct.pack("<Q", _HUGE) + b"N.",
        "LONG4 that lies": _P2 + b"\x8b" + struct.pack("<i", 2**31 - 1) + b"abc.",
        "LONG4 that is negative": _P2 + b"\x8b" + struct.pack("<i", -1) + b"abc.",
        "integer of a million bytes": _P2
        + b"\x8b"
        + struct.pack("<i", 10**6)
        + bytes(10**6)
        + b".",
        "integer of a million digits": b"L" + b"7" * 1_000_000 + b"L\n.",
        "float of a million digits": b"F" + b"7" * 1_000_000 + b"\n.",
        "nested tuples": _P2 + b")" + b"\x85" * nested + b".",
        "nested tuples as a key": _P2 + b"})" + b"\x85" * nested + b"Ns.",
        "nested lists": _P2 + b"]" * nested + b"a" * (nested - 1) + b".",
        "nested dictionaries": _P2 + b"}" + b"K\x00}" * nested + b"s" * nested + b".",
        "nested slices": b"cbuiltins\nslice\n" * nested + b"N" + b"\x85R" * nested + b".",
        "nested frozen sets": _P4 + b"(" * nested + b"\x91" * nested + b".",
        "lists that double": _P2 + doubled + b".",
        "marks alone": _P2 + b"(" * nested + b".",
        "a list in itself": _P2 + b"]q\x00h\x00a.",
        "a dictionary in itself": _P2 + b"}q\x00X\x01\x00\x00\x00ah\x00s.",
        "keys of one hash": _P2 + colliding + b".",
        "a key that has no hash": _P2 + b"}]Ns.",
        "bytes by length": b"cbuiltins\nbytearray\n" + call + b"R.",
        "a range": b"cbuiltins\nrange\n" + call + b"R.",
        "a set of text": b"cbuiltins\nset\n(I5\ntR.",
        "encoded again and again": b"c_codecs\nencode\np0\n"
        + b"(X"
        + struct.pack("<I", 1 << 20)
        + b"a" * (1 << 20)
        + b"tp1\nR"
        + b"0g0\ng1\nR" * 20_000
        + b".",
        "many classes": b"".join(b"cm\nc%d\n0" % i for i in range(50_000)) + b"N.",
        "attributes of slots": _P2 + slots + b"0cm\nc\n)\x81" + b"h\x00h\x00\x86b" * 100_000 + b".",
        "an extension": _P2 + b"\x84\xff\xff\xff\x7f.",
        "an outside buffer": b"\x80\x05\x97.",
        "a persistent id of text": b"Pabc\n.",
        "a persistent id of a list": _P2 + b"]Q.",
        "an array of a length": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
        + call
        + b"S'b'\ntR.",
        "an array by its class": b"cnumpy\nndarray\n(" + call + b"cnumpy\ndtype\n(S'O8'\ntRtR.",
        "a type of a state": b"cnumpy\ndtype\n(S'u1'\ntR(I1\nNNNNNNtb.",
        "attributes of a dictionary": b"ccollections\nOrderedDict\n)R}(S'items'\nI5\nub.",
        "a default that is called": b"ccollections\ndefaultdict\n(cos\ngetcwd\ntR.",
        "nothing on the stack": b".",
        "no end": _P2 + b"N",
    }


@cache
def batches() -> dict[str, bytes]:
    """Batches of CIFAR with something wrong in one place."""
    pixels = np.zeros((2, 3072), np.uint8)
    good = {b"labels": [1, 2], b"data": pixels}
    bad = {
        "labels of 10**18": {**good, b"labels": [10**18, 2]},
        "labels of 10**30": {**good, b"labels": [10**30, 2]},
        "labels below 0": {**good, b"labels": [-1, 2]},
        "labels that are floats": {**good, b"labels": [float("nan"), 2.0]},
        "labels that are nested": {**good, b"labels": [[1], [2]]},
        "labels that are none": {**good, b"labels": None},
        "pixels of text": {**good, b"data": "abc"},
        "pixels in one row": {**good, b"data": pixels.ravel()},
        "pixels that are floats": {**good, b"data": pixels.astype(float)},
        "objects": {**good, b"data": np.full((2, 3072), None)},
        "no pixels": {**good, b"labels": [], b"data": pixels[:0]},
        "a list": [good],
        "good": good,
    }
    return {name: pickle.dumps(value, 2) for name, value in bad.items()}


def _zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("net/data.pkl", data)
        archive.writestr("net/version", b"3\n")
    return file.getvalue()


def _legacy(data: bytes) -> bytes:
    numbers = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    return b"".join(pickle.dumps(value, 2) for value in numbers) + data + pickle.dumps([], 2)


def _old(data: bytes) -> bytes:
    file = io.BytesIO()
    parts = {"storages": pickle.dumps(0, 2) + pickle.dumps([], 2), "tensors": pickle.dumps(0, 2)}
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in {**parts, "pickle": data}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


_HOLDERS = {"alone": bytes, "zipped": _zipped, "legacy": _legacy, "old": _old}


def cases(rng: np.random.Generator, folder: Path) -> Iterator[Case]:
    """Bombs as checkpoints of each form and as batches, and damaged batches."""
    for name, data in bombs().items():
        for holder, hold in _HOLDERS.items():
            yield checkpoint(folder, f"{name}, {holder}", hold(data))
        yield batch(folder, name, data)
    for name, data in batches().items():
        yield batch(folder, name, data)
        for i in range(12):
            yield batch(folder, f"{name}, damaged {i}", mutated(rng, data))


def place(folder: Path) -> Path:
    """A new folder in a folder, so that files of all cases lie beside one another."""
    return Path(tempfile.mkdtemp(dir=folder))


def checkpoint(folder: Path, name: str, data: bytes) -> Case:
    """A file that adder-export reads as a network, and does no more with."""
    path = place(folder) / "net.pth"
    path.write_bytes(data)
    labels = str(folder / "no labels.txt")  # the first thing that is missing after the network
    shape = ("--input-shape", "1,8,8", "--mean", "0.3", "--std", "0.4")
    arguments = (str(path), str(folder / "net.onnx"), *shape, "--labels", labels)
    return Case(name, "adder-export", arguments)


def batch(folder: Path, name: str, data: bytes) -> Case:
    """A file that adder-run reads as the test data of CIFAR-10."""
    path = place(folder) / "test_batch"
    path.write_bytes(data)
    return Case(name, "adder-run", (MODEL, "--data", str(path)))
