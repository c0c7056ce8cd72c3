"""From an image to a model's input.

The arithmetic is that of torchvision's Resize, CenterCrop, ToTensor and Normalize on Pillow images,
which the evaluation script of the paper's reference implementation uses.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adder_onnx.errors import DataError
from adder_onnx.metadata import Preprocessing

__all__ = ["preprocess"]


def preprocess(image: Image.Image, how: Preprocessing) -> NDArray[np.float32]:
    """The input (C, H, W) for one image.

    Raises:
        DataError: the image has another size than the model takes, is too small to crop, or has
            pixels that are not of 8 bits per channel.
    """
    image = _convert(image, "RGB" if how.channels == 3 else "L")
    if how.resize is not None:
        image = _resize_shorter_side(image, how.resize)
    if how.crop:
        image = _crop_center(image, how.height, how.width)
    if image.size != (how.width, how.height):
        raise DataError(
            f"the image is {image.width} x {image.height} pixels; the model takes "
            f"{how.width} x {how.height}"
        )
    pixels = np.asarray(image, np.float32).reshape(how.height, how.width, how.channels)
    scaled = pixels.transpose(2, 0, 1) / np.float32(255)
    mean = np.array(how.mean, np.float32)[:, None, None]
    std = np.array(how.std, np.float32)[:, None, None]
    return np.ascontiguousarray((scaled - mean) / std)


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
    return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)


def _crop_center(image: Image.Image, height: int, width: int) -> Image.Image:
    if image.width < width or image.height < height:
        raise DataError(
            f"the image is {image.width} x {image.height} pixels after resizing, too small for a "
            f"window of {width} x {height}"
        )
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))
