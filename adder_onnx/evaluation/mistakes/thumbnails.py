"""Small pictures of what a data set gives a model.

1. Images are shown whole and as they are, before preprocessing; transparency is left out, as there.
2. Of several inputs it is the first that is an image, or else an array (C, H, W).
3. One channel is grey. Of two, the first is red and the second green and blue. Of more than three,
   the first three are red, green and blue.
4. An array of floats is what preprocessing has made of pixels, which are found by turning it back.
   Where that gives no pixels, its least value becomes black and its greatest white.
5. What is larger is made smaller, nothing larger. Small pictures are PNG, which keeps every pixel,
   others JPEG. They carry nothing but pixels.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adder_onnx.evaluation.dataset import Planes, Sample
from adder_onnx.metadata import Preprocessing

__all__ = ["LONGEST_SIDE", "Thumbnail", "make_thumbnail"]

LONGEST_SIDE = 128
"""In pixels."""

_LONGEST_PNG = 64
_QUALITY = 80
_GREY = ("1", "L", "LA", "La")
_MORE_THAN_PIXELS = 0.1
"""How far beyond black and white a pixel may be, by rounding."""


@dataclass(frozen=True)
class Thumbnail:
    """A small picture.

    Attributes:
        uri: a data URI that holds it.
        width: in pixels.
        height: in pixels.
    """

    uri: str
    width: int
    height: int


def make_thumbnail(sample: Sample, how: Preprocessing | None) -> Thumbnail | None:
    """A small picture of an image, or of a model's inputs; None if nothing of it is an image.

    Args:
        sample: from a data set.
        how: how the model's input was made of images, if that is known.
    """
    values = sample if isinstance(sample, tuple) else (sample,)
    images = sorted(filter(_may_be_image, values), key=lambda value: isinstance(value, np.ndarray))
    return _encoded(_picture(images[0], how)) if images else None


def _may_be_image(value: Image.Image | Planes | NDArray[Any]) -> bool:
    if not isinstance(value, np.ndarray):
        return True
    return value.ndim == 3 and value.size > 0 and value.dtype.kind in "buif"


def _picture(value: Image.Image | Planes | NDArray[Any], how: Preprocessing | None) -> Image.Image:
    if isinstance(value, Image.Image):
        return value.convert("L" if value.mode in _GREY else "RGB")
    planes = value.pixels if isinstance(value, Planes) else _pixels(value, how)
    if len(planes) == 1:
        return Image.fromarray(planes[0])
    chosen = planes[[0, 1, 1]] if len(planes) == 2 else planes[:3]
    return Image.fromarray(np.ascontiguousarray(chosen.transpose(1, 2, 0)))


def _pixels(array: NDArray[Any], how: Preprocessing | None) -> NDArray[np.uint8]:
    """Those of an array (C, H, W), by rule 4."""
    values = array.astype(np.float64)
    if array.dtype.kind == "f" and how is not None and len(array) == how.channels:
        mean, std = (np.array(v)[:, None, None] for v in (how.mean, how.std))
        before = values * std + mean
        if before.min() >= -_MORE_THAN_PIXELS and before.max() <= 1 + _MORE_THAN_PIXELS:
            return _bytes(before)
    least, greatest = values.min(), values.max()
    half = greatest / 2 - least / 2  # the whole might be infinite
    return _bytes((values / 2 - least / 2) / half if half > 0 else np.full_like(values, 0.5))


def _bytes(shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.round(255 * shares.clip(0, 1)).astype(np.uint8)


def _encoded(picture: Image.Image) -> Thumbnail:
    picture = Image.fromarray(np.asarray(picture))  # without what else the file said
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    data = io.BytesIO()
    if max(picture.size) <= _LONGEST_PNG:
        kind = "png"
        picture.save(data, "PNG", optimize=True)
    else:
        kind = "jpeg"
        picture.save(data, "JPEG", quality=_QUALITY)
    text = base64.b64encode(data.getvalue()).decode()
    return Thumbnail(f"data:image/{kind};base64,{text}", *picture.size)
