"""Against an oracle written from torchvision's documentation, which uses nothing of the package."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from adder_onnx.errors import DataError
from adder_onnx.evaluation.dataset import Planes
from adder_onnx.evaluation.preprocessing import preprocess
from adder_onnx.metadata import CIFAR10, IMAGENET, Preprocessing

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def _image(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _resize(image: Image.Image, size: int) -> Image.Image:
    """Resize(size): the smaller edge becomes size, the longer int(size * long / short)."""
    w, h = image.size
    short, long = min(w, h), max(w, h)
    new_long = int(size * long / short)
    new_w, new_h = (size, new_long) if w <= h else (new_long, size)
    return image.resize((new_w, new_h), Image.Resampling.BILINEAR)


def _center_crop(image: Image.Image, size: int) -> Image.Image:
    """CenterCrop(size): top and left are (image - size) / 2, rounded as Python rounds."""
    w, h = image.size
    top = round((h - size) / 2.0)
    left = round((w - size) / 2.0)
    return image.crop((left, top, left + size, top + size))


def _to_tensor(image: Image.Image) -> NDArray[np.float32]:
    """ToTensor: (H, W, C) in [0, 255] becomes float32 (C, H, W) in [0, 1]."""
    pixels = np.array(image, np.uint8)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    scaled: NDArray[np.float32] = np.moveaxis(pixels, 2, 0).astype(np.float32) / np.float32(255)
    return scaled


def _normalize(
    tensor: NDArray[np.float32], mean: tuple[float, ...], std: tuple[float, ...]
) -> NDArray[np.float32]:
    """Normalize(mean, std): (x - mean) / std for each channel."""
    return np.stack(
        [(x - np.float32(m)) / np.float32(s) for x, m, s in zip(tensor, mean, std, strict=True)]
    )


def _triangle_filter(length: int, new_length: int) -> NDArray[np.float64]:
    """Weights (new, old) of Pillow's bilinear filter, which widens when it makes smaller."""
    scale = length / new_length
    width = max(scale, 1.0)
    centres = (np.arange(new_length) + 0.5) * scale
    distances = np.abs(np.arange(length) + 0.5 - centres[:, None]) / width
    weights: NDArray[np.float64] = np.maximum(1.0 - distances, 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


@pytest.mark.parametrize(
    ("width", "height"),
    [
        (256, 256),
        (256, 341),
        (301, 225),
        (225, 303),
        (500, 375),
        (333, 500),
        (343, 256),
        (700, 600),
        (97, 61),
        (61, 97),
    ],
)
def test_imagenet(width: int, height: int) -> None:
    """Resize(256), CenterCrop(224), ToTensor, Normalize: to the last bit."""
    image = _image(width, height)
    expected = _normalize(_to_tensor(_center_crop(_resize(image, 256), 224)), _MEAN, _STD)
    found = preprocess(image, IMAGENET)
    assert found.dtype == np.float32
    assert found.shape == (3, 224, 224)
    assert found.flags.c_contiguous
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("crop", [9, 10])
@pytest.mark.parametrize("short", [3, 7, 10, 11, 16])
def test_every_remainder_of_sizes(crop: int, short: int) -> None:
    """All roundings of the longer side and of the window's corner, in both orientations."""
    how = Preprocessing(3, crop, crop, _MEAN, _STD, resize=11, crop=True)
    for long in range(short, 3 * short):
        for width, height in ((short, long), (long, short)):
            image = _image(width, height)
            cut = _center_crop(_resize(image, 11), crop)
            expected = _normalize(_to_tensor(cut), _MEAN, _STD)
            assert np.array_equal(preprocess(image, how), expected), (width, height)


@pytest.mark.parametrize(("width", "height"), [(90, 61), (61, 90), (20, 13), (13, 20)])
def test_resizing_is_an_antialiased_triangle_filter(width: int, height: int) -> None:
    """Against the filter's definition in NumPy; Pillow rounds to 8 bits after each direction."""
    image = _image(width, height)
    size = 32
    new_w, new_h = _resize(image, size).size
    how = Preprocessing(3, new_h, new_w, (0.0,) * 3, (1.0,) * 3, resize=size)
    pixels = np.asarray(image, np.float64)
    rows = np.round(np.einsum("xw,hwc->hxc", _triangle_filter(width, new_w), pixels))
    expected = np.einsum("yh,hxc->cyx", _triangle_filter(height, new_h), rows)
    found = preprocess(image, how) * 255
    assert found.shape == (3, new_h, new_w)
    assert np.abs(found - expected).max() <= 1.5


def test_cifar10() -> None:
    """ToTensor and Normalize only; pixel by pixel in float64."""
    image = _image(32, 32)
    found = preprocess(image, CIFAR10)
    pixels = np.asarray(image, np.float64)
    mean, std = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2023, 0.1994, 0.2010])
    expected = ((pixels / 255 - mean) / std).transpose(2, 0, 1)
    assert found.shape == (3, 32, 32)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    assert np.array_equal(found, _normalize(_to_tensor(image), CIFAR10.mean, CIFAR10.std))


def test_height_and_width_are_not_mixed_up() -> None:
    how = Preprocessing(3, 5, 9, (0.0,) * 3, (1.0,) * 3, crop=True)
    image = _image(20, 12)
    found = preprocess(image, how)
    expected = np.asarray(image)[4 : 4 + 5, 6 : 6 + 9].transpose(2, 0, 1)  # round(3.5), round(5.5)
    assert np.array_equal(np.round(found * 255), expected)


def test_a_grey_model_from_a_colour_image() -> None:
    """Luma of ITU-R 601-2, as Pillow documents for convert("L")."""
    image = _image(8, 8)
    found = preprocess(image, Preprocessing(1, 8, 8, (0.25,), (0.5,)))
    red, green, blue = np.moveaxis(np.asarray(image, np.float64), 2, 0)
    luma = red * 299 / 1000 + green * 587 / 1000 + blue * 114 / 1000
    assert found.shape == (1, 8, 8)
    assert np.abs((found[0] * 0.5 + 0.25) * 255 - luma).max() <= 0.51


def test_a_colour_model_from_a_grey_image() -> None:
    grey = _image(8, 8).convert("L")
    found = preprocess(grey, Preprocessing(3, 8, 8, (0.0, 0.1, 0.2), (1.0, 1.0, 1.0)))
    for channel, mean in enumerate((0.0, 0.1, 0.2)):
        expected = np.asarray(grey, np.float32) / np.float32(255) - np.float32(mean)
        assert np.array_equal(found[channel], expected)


@pytest.mark.parametrize("mode", ["P", "RGBA", "CMYK", "LA", "1", "YCbCr"])
@pytest.mark.parametrize("channels", [1, 3])
def test_other_modes_are_converted(mode: str, channels: int) -> None:
    how = Preprocessing(channels, 8, 8, (0.0,) * channels, (1.0,) * channels)
    image = _image(8, 8).convert(mode)
    expected = _to_tensor(image.convert("RGB" if channels == 3 else "L"))
    assert np.array_equal(preprocess(image, how), expected)


def test_transparency_is_dropped() -> None:
    image = _image(8, 8)
    transparent = image.copy()
    transparent.putalpha(Image.new("L", (8, 8), 17))
    how = Preprocessing(3, 8, 8, (0.0,) * 3, (1.0,) * 3)
    assert np.array_equal(preprocess(transparent, how), preprocess(image, how))


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
@pytest.mark.parametrize("channels", [1, 3])
def test_more_than_eight_bits_are_refused(mode: str, channels: int) -> None:
    """Pillow would clip them: a 16-bit grey image would come out white."""
    image = Image.new(mode, (8, 8), 3)
    how = Preprocessing(channels, 8, 8, (0.0,) * channels, (1.0,) * channels)
    with pytest.raises(DataError, match=f"{mode}.*8 bits"):
        preprocess(image, how)


def test_a_mode_that_cannot_be_converted() -> None:
    with pytest.raises(DataError, match="LAB"):
        preprocess(Image.new("LAB", (8, 8)), Preprocessing(1, 8, 8, (0.0,), (1.0,)))


@pytest.mark.parametrize("size", [(28, 28), (32, 31), (31, 32), (33, 32), (64, 64)])
def test_an_image_of_another_size(size: tuple[int, int]) -> None:
    with pytest.raises(DataError, match=f"{size[0]} x {size[1]} pixels.* takes 32 x 32"):
        preprocess(_image(*size), CIFAR10)


def test_a_resized_image_must_fit_without_a_crop() -> None:
    how = Preprocessing(3, 16, 16, (0.0,) * 3, (1.0,) * 3, resize=16)
    assert preprocess(_image(40, 40), how).shape == (3, 16, 16)
    with pytest.raises(DataError, match="20 x 16"):
        preprocess(_image(40, 32), how)


@pytest.mark.parametrize("size", [(223, 300), (300, 223), (100, 100)])
def test_an_image_too_small_to_crop(size: tuple[int, int]) -> None:
    how = Preprocessing(3, 224, 224, _MEAN, _STD, crop=True)
    with pytest.raises(DataError, match=rf"{size[0]} x {size[1]} .*too small .* 224 x 224"):
        preprocess(_image(*size), how)


def test_the_image_given_is_not_changed() -> None:
    image = _image(300, 280)
    before = image.tobytes()
    preprocess(image, IMAGENET)
    assert (image.size, image.tobytes()) == ((300, 280), before)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
def test_any_number_of_channels(channels: int) -> None:
    """Each as a grey image of its own."""
    pixels = np.random.default_rng(1).integers(0, 256, (channels, 30, 41), dtype=np.uint8)
    mean, std = (tuple(np.linspace(a, b, channels)) for a, b in ((0.1, 0.9), (0.2, 2.0)))
    found = preprocess(Planes(pixels), Preprocessing(channels, 16, 16, mean, std, 20, True))
    assert found.shape == (channels, 16, 16)
    for i in range(channels):
        grey = _center_crop(_resize(Image.fromarray(pixels[i]), 20), 16)
        expected = _normalize(_to_tensor(grey), mean[i : i + 1], std[i : i + 1])
        assert np.array_equal(found[i : i + 1], expected)


def test_three_planes_are_a_colour_image() -> None:
    image = _image(301, 225)
    planes = Planes(np.moveaxis(np.asarray(image), 2, 0))
    assert np.array_equal(preprocess(planes, IMAGENET), preprocess(image, IMAGENET))


def test_channels_that_cannot_be_converted() -> None:
    four = Preprocessing(4, 8, 8, (0.0,) * 4, (1.0,) * 4)
    message = (
        r"has 3 channels, and the model takes 4, .*uint8 arrays \(N, 4, H, W\) in an \.npz file"
    )
    with pytest.raises(DataError, match=message):
        preprocess(_image(8, 8), four)
    with pytest.raises(DataError, match=r"has 1 channels, and the model takes 4"):
        preprocess(_image(8, 8).convert("L"), four)
    with pytest.raises(DataError, match=r"has 2 channels, and the model takes 3$"):
        preprocess(Planes(np.zeros((2, 32, 32), np.uint8)), CIFAR10)


@pytest.mark.parametrize("size", [(7, 8), (8, 9)])
def test_planes_of_another_size(size: tuple[int, int]) -> None:
    four = Preprocessing(4, 8, 8, (0.0,) * 4, (1.0,) * 4)
    with pytest.raises(DataError, match=f"{size[1]} x {size[0]} pixels; the model takes 8 x 8"):
        preprocess(Planes(np.zeros((4, *size), np.uint8)), four)
