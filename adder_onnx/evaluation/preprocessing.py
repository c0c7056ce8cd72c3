"""From an image to a model's input.

The arithmetic is that of torchvision's Resize, CenterCrop, ToTensor and Normalize on Pillow images,
which the evaluation script of the paper's reference implementation uses. Images of other numbers of
channels than Pillow has are treated channel by channel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adder_onnx.errors import DataError
from adder_onnx.evaluation.dataset import Planes
from adder_onnx.metadata import Preprocessing

__all__ = ["preprocess"]

_MOST_PIXELS = 1 << 27  # about where Pillow refuses to read an image
_MODES = {1: "L", 3: "RGB"}


def preprocess(image: Image.Image | Planes, how: Preprocessing) -> NDArray[np.float32]:
    """The input (C, H, W) for one image.

    Args:
        image: of any mode that has the model's channels, or one array (H, W) for each of them.
        how: what the model's metadata say.

    Returns:
        (C, H, W), float32.

    Raises:
        DataError: the image has another size than the model takes, is too small to crop, has pixels
            that are not of 8 bits per channel, or channels that cannot be converted to the model's.
    """
    planes = [_fit(plane, how) for plane in _planes(image, how.channels)]
    pixels = np.dstack([np.asarray(plane, np.float32) for plane in planes])
    scaled = pixels.transpose(2, 0, 1) / np.float32(255)
    mean = np.array(how.mean, np.float32)[:, None, None]
    std = np.array(how.std, np.float32)[:, None, None]
    return np.ascontiguousarray((scaled - mean) / std)


def _planes(image: Image.Image | Planes, channels: int) -> list[Image.Image]:
    """Images that have these channels together; their pixels do not meet in what follows."""
    if isinstance(image, Image.Image):
        if channels in _MODES:
            return [_convert(image, _MODES[channels])]
        found = len(image.getbands())
    elif len(image.pixels) == channels:
        return [Image.fromarray(plane) for plane in image.pixels]
    else:
        found = len(image.pixels)
    raise DataError(
        f"the image has {found} channels, and the model takes {channels}, which image files do not "
        f"have: give it uint8 arrays (N, {channels}, H, W) in an .npz file"
        if channels not in _MODES
        else f"the image has {found} channels, and the model takes {channels}"
    )


def _fit(image: Image.Image, how: Preprocessing) -> Image.Image:
    if how.resize is not None:
        image = _resize_shorter_side(image, how.resize)
    if how.crop:
        image = _crop_center(image, how.height, how.width)
    if image.size != (how.width, how.height):
        raise DataError(
            f"the image is {image.width} x {image.height} pixels; the model takes "
            f"{how.width} x {how.height}"
        )
    return image


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # Pillow would clip these to 8 bits
        raise DataError(
            f"the image has pixels of mode {image.mode}; convert it to 8 bits per channel"
        )
    try:
        return image.convert(mode)
    except ValueError as error:
        raise DataError(f"the image cannot be converted to {mode}: {error}") from error


def _resize_shorter_side(image: Image.Image, length: int) -> Image.Image:
    width, height = image.size
    if width <= height:
        size = (length, int(length * height / width))
    else:
        size = (int(length * width / height), length)
    if size[0] * size[1] > _MOST_PIXELS:
        raise DataError(
            f"the image is {width} x {height} pixels, and {size[0]} x {size[1]} with its shorter "
            f"side scaled to {length}, more than {_MOST_PIXELS} pixels"
        )
    return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)


def _crop_center(image: Image.Image, height: int, width: int) -> Image.Image:
    if image.width < width or image.height < height:
        raise DataError(
            f"the image is {image.width} x {image.height} pixels after resizing, too small for a "
            f"window of {width} x {height}"
        )
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))
