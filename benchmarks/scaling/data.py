"""Generated images, as class folders, Parquet and tars, and photographs to decode."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

__all__ = ["CLASSES", "make_folders", "make_parquet", "make_tars", "photograph"]

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_OF_A_FILE = 5000
_OF_A_ROW_GROUP = 500


def _images(count: int) -> Iterator[tuple[str, str, bytes]]:
    """Name, class and PNG of images of 32 x 32 pixels, that look like nothing but compress."""
    random = np.random.default_rng(0)
    for i in range(count):
        coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize((32, 32), Image.Resampling.BILINEAR).save(file, "PNG")
        yield f"{i:06}", CLASSES[i % len(CLASSES)], file.getvalue()


def make_folders(folder: Path, count: int) -> None:
    """A folder for each class."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    for name, label, data in _images(count):
        (folder / label / f"{name}.png").write_bytes(data)


def make_parquet(folder: Path, count: int) -> None:
    """Files of columns ``image`` and ``label``."""
    import pyarrow as pa
    from pyarrow import parquet

    folder.mkdir(parents=True)
    rows: list[dict[str, object]] = []

    def write() -> None:
        file = folder / f"test-{len(list(folder.iterdir())):05}.parquet"
        parquet.write_table(pa.Table.from_pylist(rows), file, row_group_size=_OF_A_ROW_GROUP)
        rows.clear()

    for _, label, data in _images(count):
        rows.append({"image": data, "label": label})
        if len(rows) == _OF_A_FILE:
            write()
    if rows:
        write()


def make_tars(folder: Path, count: int) -> None:
    """Tar files of WebDataset."""
    folder.mkdir(parents=True)
    images = _images(count)
    for number in range(-(-count // _OF_A_FILE)):
        with tarfile.open(folder / f"{number:05}.tar", "w") as archive:
            for name, label, data in islice(images, _OF_A_FILE):
                for suffix, content in (("png", data), ("cls", label.encode())):
                    member = tarfile.TarInfo(f"{name}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def photograph() -> bytes:
    """A JPEG of 500 x 375 pixels, as large in bytes as those of ImageNet are on average."""
    noise = np.random.default_rng(0).integers(0, 256, (375, 500, 3), dtype=np.uint8)
    image = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(0.8))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()
