"""Images that are larger than they look, or none at all, and folders and files around them."""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from tests.hostile.case import Case
from tests.hostile.mutations import mutated
from tests.hostile.pickles import DIGITS, MODEL, place


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes = b"", *more: bytes) -> bytes:
    """A grey PNG that says its size, whatever its rows are."""
    head = _chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0))
    data = _chunk(b"IDAT", zlib.compress(rows, 1))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + data + _chunk(b"IEND", b"")


def _encoded(mode: str, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (8, 8)).save(file, kind, **options)
    return file.getvalue()


@cache
def _images() -> dict[str, bytes]:
    rows = (b"\0" + bytes(8)) * 8
    text = PngImagePlugin.PngInfo()
    text.add_itxt("a", "b" * (8 << 20), zip=True)
    gif = io.BytesIO()
    frames = [Image.new("L", (8, 8), i) for i in range(20)]
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:])
    formats = [
        ("L", "PNG"),
        ("RGB", "JPEG"),
        ("RGB", "BMP"),
        ("L", "TIFF"),
        ("L", "PPM"),
        ("RGB", "WEBP"),
        ("P", "GIF"),
        ("CMYK", "JPEG"),
        ("I", "TIFF"),
        ("F", "TIFF"),
        ("1", "PNG"),
        ("LA", "PNG"),
        ("I;16", "PNG"),
        ("RGB", "ICO"),
        ("RGB", "EPS"),
        ("RGB", "PDF"),
        ("RGB", "TGA"),
        ("RGB", "PCX"),
    ]
    return {
        "good": png(8, 8, rows),
        "of 10**18 pixels": png(10**9, 10**9),
        "of no pixels": png(0, 0),
        "of 170 million pixels": png(13_000, 13_000, bytes(13_001 * 13_000)),
        "of 100 million pixels": png(10_000, 10_000, bytes(10_001 * 10_000)),
        "of one row": png(20_000_000, 1, bytes(20_000_001)),
        "of one column": png(1, 20_000_000, bytes(2 * 20_000_000)),
        "with a large text": _encoded("L", "PNG", pnginfo=text),
        "with a profile that is none": png(8, 8, rows, _chunk(b"iCCP", b"a\0\0" + bytes(99))),
        "with EXIF that is none": png(8, 8, rows, _chunk(b"eXIf", b"MM\0*" + b"\xff" * 99)),
        "that moves": gif.getvalue(),
        "of too many rows": png(8, 8, rows * 100_000),
        "of too few rows": png(8, 8, rows[:9]),
        "TIFF of 2**32 pixels": _encoded("L", "TIFF").replace(
            struct.pack("<HHII", 256, 4, 1, 8), struct.pack("<HHII", 256, 4, 1, 2**31 - 1)
        ),
        "PPM of 10**10 pixels": b"P5 100000 100000 255\n",
        "PPM of text": b"P2 8 8 255\n" + b"9" * 1_000_000,
        "PPM of a size that is long": b"P5 " + b"9" * 1_000_000,
        "empty": b"",
        "text": b"no image\n",
        **{f"{kind} of mode {mode}": _encoded(mode, kind) for mode, kind in formats},
    }


def _folders(folder: Path) -> Iterator[tuple[str, Path]]:
    """What lies where images should: links, pipes, sockets, odd names."""
    good = _images()["good"]
    for suffix in ("", ".png", ".npz", ".bin", ".tar.gz", ".csv"):
        pipe = place(folder) / f"pipe{suffix}"
        os.mkfifo(pipe)
        yield f"a pipe{suffix}", pipe
    inside = place(folder)
    (inside / "cat").mkdir()
    os.mkfifo(inside / "cat" / "a.png")
    yield "a folder of a pipe", inside
    plug = place(folder) / "s.png"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(plug))
    yield "a socket", plug
    circle = place(folder) / "circle.png"
    circle.symlink_to(circle)
    yield "a link to itself", circle
    around = place(folder)
    (around / "cat").mkdir()
    (around / "cat" / "a.png").write_bytes(good)
    (around / "cat" / "again").symlink_to(around)
    (around / "cat" / "b.png").symlink_to(around / "cat" / "b.png")
    yield "a folder in itself", around
    for name in ("/dev/zero", "/dev/full", "/dev/null", "/proc/self/mem", "/proc/self/environ"):
        if os.path.exists(name):
            yield name, Path(name)
    yield "a name of 300 letters", folder / ("a" * 300)
    yield "a path of 5000 letters", folder / "/".join(["abcd"] * 1000)
    yield "a name with a zero", folder / "a\0b.png"
    yield "no name", Path()
    folders = place(folder)
    (folders / "a.png").mkdir()
    yield "a folder called like an image", folders
    yield "a folder called like an image itself", folders / "a.png"


@cache
def _tables() -> dict[str, bytes]:
    """Tables of labels, and lists of classes."""
    return {
        "a line of 10 MB": b"0024.png," + b"a" * 10_000_000 + b"\n",
        "no end of commas": b"," * 5_000_000 + b"\n",
        "a zero": b"0024.png,\0\n",
        "no UTF-8": b"0024.png,\xff\xfe\n",
        "two million lines": b"a,1\n" * 2_000_000,
        "many lines": b"".join(b"%d.png,%d\n" % (i, i) for i in range(50_000)),
        "numbers of 5000 digits": b"0024.png," + b"9" * 5000 + b"\n",
        "a number of 10**18": b"0024.png,1000000000000000000\n",
        "a number below 0": b"0024.png,-1\n",
        "not a number": b"0024.png,nan\n",
        "open quotes": b'0024.png,"a\n',
        "JSON that is nested": b"[" * 200_000,
        "objects that are nested": b'{"a":' * 200_000,
        "JSON of a number of 5000 digits": b'{"0": ' + b"9" * 5000 + b"}",
        "JSON of 10**18": b'{"0": 1000000000000000000}',
        "JSON of no number": b'{"0": NaN}',
        "JSON of a long list": b'{"0": [' + b"1," * 1_000_000 + b"1]}",
        "JSON of a long text": b'{"0": "' + b"a" * 10_000_000 + b'"}',
        "JSON of a list of lists": b"[[1]]",
        "JSON of nothing": b"{}",
        "empty": b"",
        "spaces": b" \n" * 1000,
    }


def cases(rng: np.random.Generator, folder: Path) -> Iterator[Case]:
    """Single images, damaged ones, what is none, and tables beside images."""
    for what, data in _images().items():
        for suffix in (".png", ".jpg", ".tiff"):
            yield _image(folder, f"{what}, {suffix}", data, suffix)
        if len(data) < 10_000:
            for i in range(8):
                yield _image(folder, f"{what}, damaged {i}", mutated(rng, data), ".png")
    for what, path in _folders(folder):
        yield Case(what, "adder-run", (MODEL, "--data", str(path)))
        for option in ("--labels-csv", "--class-map", "--output"):
            if option == "--output" and "pipe" in what:
                continue  # it is written to once somebody reads it
            arguments = (MODEL, "--data", str(DIGITS / "test"), option, str(path))
            yield Case(f"{what}, {option}", "adder-run", arguments)
        yield Case(f"{what}, a checkpoint", "adder-export", (str(path), str(folder / "net.onnx")))
    images = str(DIGITS / "test" / "0")
    for what, data in _tables().items():
        table = place(folder) / "table.csv"
        table.write_bytes(data)
        yield Case(what, "adder-run", (MODEL, "--data", images, "--labels-csv", str(table)))
        whole = str(DIGITS / "test")
        yield Case(
            f"{what}, classes", "adder-run", (MODEL, "--data", whole, "--class-map", str(table))
        )


def _image(folder: Path, what: str, data: bytes, suffix: str) -> Case:
    path = (place(folder) / "image").with_suffix(suffix)
    path.write_bytes(data)
    return Case(what, "adder-run", (MODEL, "--data", str(path)))
