"""The order of an array's axes: images as (N, C, H, W), from what the model takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import DataError
from adder_onnx.metadata import Preprocessing

__all__ = ["channels_first"]

Shape = Sequence[int | str | None]


def channels_first(
    found: str,
    array: NDArray[Any],
    shape: Shape,
    how: Preprocessing | None,
    *,
    named: bool,
    counted: bool,
) -> NDArray[Any]:
    """An array of images with its channels in front, where they are last or left out.

    1. Floats are the model's input: (N, C, H, W) or (N, H, W, C), whichever has its sizes, and
       (N, H, W) if it takes one channel.
    2. Bytes are images that are preprocessed: they have the model's number of channels, or one or
       three, which are converted, in that place. Where both places fit, the model's height and
       width decide, unless images are resized or cropped.
    3. If nothing decides, an array that is called like the model's input has its order, and any
       other is refused. So is one without channels that may be a single image.

    What fits nowhere is given back as it is.

    Args:
        found: names the array, its type and shape, for messages.
        array: three or four axes.
        shape: that of the model's input.
        how: the model's preprocessing, if it says it.
        named: whether the array is called like the model's input.
        counted: whether its first axis is known to count images.

    Raises:
        DataError: both orders fit.
    """
    if len(shape) != 4 or array.ndim not in (3, 4):
        return array
    fits = _bytes_fit if array.dtype == np.uint8 else _floats_fit
    if array.ndim == 3:
        _, height, width = sizes = array.shape
        if not fits((1, height, width), shape, how):
            return array
        one_image = sizes[0] != 1 and (fits(sizes, shape, how) or fits(_last(sizes), shape, how))
        if one_image and not counted:
            raise DataError(f"{found}: is it one image, or grey ones? Give (N, C, H, W)")
        return array[:, None]
    first = fits(array.shape[1:], shape, how)
    last = fits(_last(array.shape[1:]), shape, how)
    if first and last and array.dtype == np.uint8:
        first, last = (_has_size(s, how) for s in (array.shape[1:], _last(array.shape[1:])))
        first, last = (first, last) if first or last else (True, True)
    if first and last and not named:
        raise DataError(
            f"{found}: (N, C, H, W) and (N, H, W, C) both fit; give the array the name of the "
            "model's input if it is (N, C, H, W)"
        )
    return np.moveaxis(array, 3, 1) if last and not first else array


def _last(sizes: Sequence[int]) -> tuple[int, ...]:
    """(C, H, W) of (H, W, C)."""
    return (sizes[2], sizes[0], sizes[1])


def _floats_fit(sizes: Sequence[int], shape: Shape, how: Preprocessing | None) -> bool:
    """Whether (C, H, W) is the model's input; its channels at least must be known."""
    channels = shape[1] if isinstance(shape[1], int) or how is None else how.channels
    return sizes[0] == channels and all(
        size == own for size, own in zip(sizes, shape[1:], strict=True) if isinstance(own, int)
    )


def _bytes_fit(sizes: Sequence[int], shape: Shape, how: Preprocessing | None) -> bool:
    """Whether (C, H, W) has channels that images for the model may have."""
    channels = how.channels if how is not None else shape[1]
    converted = channels in (1, 3) or not isinstance(channels, int)
    return sizes[0] == channels or (converted and sizes[0] in (1, 3))


def _has_size(sizes: Sequence[int], how: Preprocessing | None) -> bool:
    if how is None or how.resize is not None or how.crop:
        return True
    return tuple(sizes[1:]) == (how.height, how.width)
