"""Arrays, archives and compressed files that become more than they are, or not what they say."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests import datasets
from tests.hostile.case import Case
from tests.hostile.mutations import mutated
from tests.hostile.pickles import MODEL, place

_Entry = tuple[str, bytes]


def npy(header: str, data: bytes = b"", version: int = 1, length: int | None = None) -> bytes:
    """An array by its header."""
    text = header.encode("latin-1") + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


def _described(shape: str, kind: str = "'|u1'", order: str = "False") -> str:
    return f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}, }}"


@cache
def _arrays() -> dict[str, bytes]:
    """Arrays by what is wrong with their headers."""
    data = bytes(128)
    good = npy(_described("(2, 1, 8, 8)"), data)
    return {
        "good": good,
        "of 10**12 images": npy(_described("(1000000000000, 1, 8, 8)"), data),
        "of 10**12 images without pixels": npy(_described("(1000000000000, 1, 0, 8)")),
        "of 10**12 floats without pixels": npy(_described("(1000000000000, 1, 0, 8)", "'<f4'")),
        "of 10**12 texts without letters": npy(_described("(1000000000000,)", "'<U0'")),
        "of 10**12 voids": npy(_described("(1000000000000,)", "'|V0'")),
        "of 2**80 images": npy(_described(f"({2**40}, {2**40})"), data),
        "of sizes below 0": npy(_described("(-2, -1, 8, 8)"), data),
        "of sizes that are texts": npy(_described("('2', 1, 8, 8)"), data),
        "of no sizes": npy(_described("()"), data[:1]),
        "of 100 axes": npy(_described(str((1,) * 100)), data[:1]),
        "of columns": npy(_described("(2, 1, 8, 8)", order="True"), data),
        "of an order that is none": npy(_described("(2, 1, 8, 8)", order="5"), data),
        "of objects": npy(_described("(2, 1, 8, 8)", "'|O'"), data * 8),
        "of records": npy(_described("(2,)", "[('a', '<f4'), ('b', '<f4')]"), data[:16]),
        "of arrays": npy(_described("(2,)", "('<f4', (1000000, 1000000))"), data),
        "of texts of 2 GB": npy(_described("(1,)", f"'|S{2**31 - 1}'"), data),
        "of a type that is none": npy(_described("(2, 1, 8, 8)", "'?!'"), data),
        "of long doubles": npy(_described("(2, 1, 8, 8)", "'<f16'"), data * 16),
        "of times": npy(_described("(2, 1, 8, 8)", "'<M8[s]'"), data * 8),
        "of complex numbers": npy(_described("(2, 1, 8, 8)", "'<c8'"), data * 8),
        "of not finite numbers": npy(_described("(2, 1, 8, 8)", "'<f4'"), b"\xff" * 512),
        "of a header of parentheses": npy("(" * 9000),
        "of a header of minus signs": npy("-" * 9000 + "1"),
        "of a header of sums": npy("1" + "+1j" * 3000),
        "of a header that is called": npy("__import__('os').getcwd()"),
        "of a header of a power": npy("{'descr': '|u1', 'shape': (9**9**9,)}"),
        "of a long header": npy(_described("(2, 1, 8, 8)") + " " * 60_000, data),
        "of a header that lies": npy(_described("(2,)"), data, version=2, length=2**32 - 1),
        "of an unknown version": npy(_described("(2,)"), data, version=9),
        "of no header": b"",
        "too short": good[:-1],
        "too long": good + b"\0",
    }


def _zip(entries: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


def _bomb(size: int) -> bytes:
    """An .npz file with an array of so many zeros, made without them."""
    head = npy(_described(f"({size // 64}, 1, 8, 8)"))
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    crc, parts = zlib.crc32(head), [packer.compress(head)]
    for _ in range(size >> 20):
        crc = zlib.crc32(bytes(1 << 20), crc)
        parts.append(packer.compress(bytes(1 << 20)))
    data = b"".join([*parts, packer.flush()])
    total = len(head) + size
    common = struct.pack("<4H3L2H", 20, 0, 8, 0, crc, len(data), total, 5, 0)
    local = b"PK\x03\x04" + common[:2] + common[2:4] + common[4:6] + bytes(4)
    local += struct.pack("<3L2H", crc, len(data), total, 5, 0) + b"x.npy"
    central = (
        b"PK\x01\x02"
        + struct.pack("<6H3L5H2L", 20, 20, 0, 8, 0, 0, crc, len(data), total, 5, 0, 0, 0, 0, 0, 0)
        + b"x.npy"
    )
    end = struct.pack(
        "<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(central), len(local) + len(data), 0
    )
    return local + data + central + end


def _npz(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    arrays = _arrays()
    for what, content in arrays.items():
        for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            yield f"images {what}, {how}", _zip({"x.npy": content}, how)
        yield f"labels {what}", _zip({"x.npy": arrays["good"], "labels.npy": content})
        yield (
            f"names {what}",
            _zip(
                {
                    "x.npy": arrays["good"],
                    "y.npy": npy(_described("(2,)"), b"\0\1"),
                    "class_names.npy": content,
                }
            ),
        )
    for kind, width in (("<i8", 8), ("<u8", 8), ("<f8", 8), ("|b1", 1), ("<i2", 2)):
        for values in (b"\xff" * 2 * width, bytes(2 * width), (b"\x40" * width) * 2):
            labels = npy(_described("(2,)", f"'{kind}'"), values)
            yield f"labels {kind}", _zip({"x.npy": arrays["good"], "labels.npy": labels})
    yield "a bomb of 3 GiB", _bomb(3 << 30)
    yield "many entries", _zip({f"a{i}.npy": arrays["good"] for i in range(2000)})
    for how in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        yield f"compression {how}", _zip({"x.npy": arrays["good"]}, how)
    whole = _zip({"x.npy": arrays["good"], "labels.npy": npy(_described("(2,)"), b"\0\1")})
    for i in range(150):
        yield f"damaged {i}", mutated(rng, whole)


def _tar(entries: list[tuple[tarfile.TarInfo, bytes]], kind: int = tarfile.GNU_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def _member(name: str, content: bytes, **values: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in values.items():
        setattr(info, key, value)
    return info, content


def _with_size(data: bytes, size: bytes, kind: bytes | None = None) -> bytes:
    """A tar archive whose first header says another size, and perhaps type."""
    header = bytearray(data[:512])
    header[124:136] = size.ljust(12, b"\0")
    if kind is not None:
        header[156:157] = kind
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


def _tars(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    batch = datasets.cifar10_batch(True, 2, 0)
    name = "cifar-10-batches-bin/test_batch.bin"
    whole = _tar([_member(name, batch)])
    yield "good", whole
    sizes = (b"77777777777", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"-1", b"9", b"", b"abc")
    for size in sizes:
        yield f"a size of {size!r}", _with_size(whole, size)
        for kind in b"LKxgSX15":
            yield f"{bytes([kind])!r} of {size!r}", _with_size(whole, size, bytes([kind]))
    yield "many members", _tar([_member(f"{i}", b"") for i in range(12_000)])
    yield "a long name", _tar([_member("a" * 1_000_000, b"")])
    yield (
        "long attributes",
        _tar([_member(name, batch, pax_headers={"comment": "a" * 1_000_000})], tarfile.PAX_FORMAT),
    )
    for key, value in (
        ("GNU.sparse.map", "0,1," * 1000),
        ("GNU.sparse.size", "9" * 30),
        ("size", "-5"),
        ("size", "9" * 30),
        ("path", "/etc/passwd"),
        ("path", "a\0b"),
        ("hdrcharset", "BINARY"),
        ("mtime", "nan"),
        ("uid", "x"),
    ):
        headers = {key: value, "GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        if not key.startswith("GNU"):
            headers = {key: value}
        yield (
            f"{key} {value[:9]!r}",
            _tar([_member(name, batch, pax_headers=headers)], tarfile.PAX_FORMAT),
        )
    chained = _with_size(whole, b"0", b"x")[:512] * 5000 + whole
    yield "headers of headers", chained
    for i in range(80):
        damaged = mutated(rng, whole[:512]).ljust(512, b"\0")[:512]
        checked = bytearray(damaged)
        checked[148:156] = b" " * 8
        checked[148:156] = b"%06o\0 " % sum(checked)
        yield f"damaged {i}", bytes(checked) + whole[512:]


def _gzips(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """What stands for a gzip file of MNIST's images, or of a tar archive."""
    good = gzip.compress(datasets.idx(np.zeros((2, 8, 8), np.uint8)), 1)
    yield "good", good
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    head = struct.pack(">4B3I", 0, 0, 8, 3, 2**31 - 1, 28, 28)
    zeros = [packer.compress(head)] + [packer.compress(bytes(1 << 20)) for _ in range(1 << 11)]
    yield "a bomb of 2 GiB", b"".join([*zeros, packer.flush()])
    yield "many in one", gzip.compress(b"") * 20_000
    yield "followed by zeros", good + bytes(1000)
    yield "followed by something", good + b"something"
    yield "empty", b""
    for i in range(60):
        yield f"damaged {i}", mutated(rng, good)


def _idx(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    for shape in ((2**32 - 1,) * 3, (2**32 - 1, 0, 0), (0, 28, 28), (2**31, 1, 1), (2, 8, 8)):
        yield f"sizes {shape}", struct.pack(">4B3I", 0, 0, 8, 3, *shape) + bytes(128)
    for i in range(40):
        yield f"damaged {i}", mutated(rng, datasets.idx(np.zeros((2, 8, 8), np.uint8)))


def cases(rng: np.random.Generator, folder: Path) -> Iterator[Case]:
    """All of these as --data, and large files with nothing in them."""
    for what, data in _npz(rng):
        yield _data(folder, f"npz: {what}", "a.npz", data)
    for what, data in _tars(rng):
        yield _data(folder, f"tar: {what}", "a.tar", data)
        if len(data) < 1 << 20:
            yield _data(folder, f"tar.gz: {what}", "a.tar.gz", gzip.compress(data, 1))
    labels = {"t10k-labels-idx1-ubyte": datasets.idx(np.zeros(2, np.uint8))}
    for what, data in _gzips(rng):
        yield _data(folder, f"MNIST: {what}", "t10k-images-idx3-ubyte.gz", data, labels)
        yield _data(folder, f"tar.gz: {what}", "a.tar.gz", data)
    for what, data in _idx(rng):
        yield _data(folder, f"MNIST: {what}", "t10k-images-idx3-ubyte", data, labels)
    for name in ("test_batch.bin", "test_batch", "t10k-images-idx3-ubyte", "a.tar", "a.npz"):
        case = _data(folder, f"holes: {name}", name, b"", labels)
        with open(case.arguments[2], "r+b") as file:
            file.truncate(3073 * 10_000_000)
        yield case


def _data(
    folder: Path, what: str, name: str, data: bytes, beside: dict[str, bytes] | None = None
) -> Case:
    path = place(folder) / name
    datasets.write_files(path.parent, {name: data, **(beside or {})})
    return Case(what, "adder-run", (MODEL, "--data", str(path)))
