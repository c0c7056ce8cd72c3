from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adder_onnx.errors import DataError
from adder_onnx.evaluation import decode_image, open_dataset

_RED, _GREEN, _BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def _save(path: Path, colour: tuple[int, int, int] = _RED, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def _noise(seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_classes_are_sorted_and_files_carry_their_class(tmp_path: Path) -> None:
    """Sorted as strings, as torchvision's ImageFolder does: Zebra before ant, 10 before 9."""
    names = ["ant", "Zebra", "10", "9", "zoo"]
    colours = {name: (40 * i, 255 - 40 * i, 7) for i, name in enumerate(names)}
    for name in names:
        for file in ("b.png", "a.png"):
            _save(tmp_path / name / file, colours[name])
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("10", "9", "Zebra", "ant", "zoo")
    assert dataset.split is None
    assert dataset.images == 10
    assert dataset.labels is not None
    assert dataset.labels.dtype == np.int64
    assert dataset.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    for i in range(10):
        name = dataset.classes[dataset.labels[i]]
        assert dataset.load(i).getpixel((0, 0)) == colours[name]
        assert dataset.name_of(i) == str(tmp_path / name / ("a.png", "b.png")[i % 2])


def test_nested_files_belong_to_the_class_above(tmp_path: Path) -> None:
    _save(tmp_path / "cat" / "x" / "y" / "deep.png", _GREEN)
    _save(tmp_path / "cat" / "top.png", _RED)
    _save(tmp_path / "dog" / "x" / "one.png", _BLUE)
    dataset = open_dataset(tmp_path, "imagefolder")
    assert dataset.classes == ("cat", "dog")
    found = {dataset.name_of(i): dataset.load(i).getpixel((0, 0)) for i in range(dataset.images)}
    assert found == {
        str(tmp_path / "cat" / "x" / "y" / "deep.png"): _GREEN,
        str(tmp_path / "cat" / "top.png"): _RED,
        str(tmp_path / "dog" / "x" / "one.png"): _BLUE,
    }
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [0, 0, 1]


def test_other_files_are_ignored_and_suffixes_have_no_case(tmp_path: Path) -> None:
    for file in ("a.JPG", "b.Png", "c.jpeg", "d.bmp", "e.webp", "f.TIFF", "g.ppm"):
        _save(tmp_path / "cat" / file)
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "cat" / "folder.png").mkdir()
    (tmp_path / "README.png.md").write_text("not a class")
    _save(tmp_path / "loose.png")
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("cat",)
    assert [Path(dataset.name_of(i)).name[0] for i in range(dataset.images)] == list("abcdefg")


def test_links_are_followed(tmp_path: Path) -> None:
    _save(tmp_path / "elsewhere" / "one.png", _GREEN)
    _save(tmp_path / "set" / "dog" / "two.png", _BLUE)
    (tmp_path / "set" / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "dog" / "one.png").symlink_to(tmp_path / "elsewhere" / "one.png")
    dataset = open_dataset(tmp_path / "set")
    assert dataset.classes == ("cat", "dog")
    assert [dataset.load(i).getpixel((0, 0)) for i in range(3)] == [_GREEN, _GREEN, _BLUE]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "LA", "1"])
@pytest.mark.parametrize("format", ["auto", "image"])
def test_a_single_image_of_any_mode(tmp_path: Path, mode: str, format: str) -> None:
    image = _noise().convert(mode)
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    image.save(path)
    dataset = open_dataset(path, format)
    assert (dataset.images, dataset.labels, dataset.classes) == (1, None, None)
    assert dataset.name_of(0) == str(path)
    loaded = dataset.load(0)
    assert loaded.mode == mode
    assert np.array_equal(np.asarray(loaded.convert("RGB")), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("transparency", [3, bytes([0, 128, 255])])
def test_a_palette_with_transparency_is_read_without_a_warning(
    tmp_path: Path, transparency: int | bytes
) -> None:
    image = _noise().quantize(16)
    image.save(tmp_path / "image.png", transparency=transparency)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        converted = open_dataset(tmp_path / "image.png").load(0).convert("RGB")
    assert np.array_equal(np.asarray(converted), np.asarray(image.convert("RGB")))


def test_the_file_decides_the_format_not_its_suffix(tmp_path: Path) -> None:
    """ImageNet holds a PNG that is called .JPEG."""
    _noise().save(tmp_path / "image.JPEG", "PNG")
    assert np.array_equal(
        np.asarray(open_dataset(tmp_path / "image.JPEG").load(0)), np.asarray(_noise())
    )


def test_the_orientation_tag_is_ignored(tmp_path: Path) -> None:
    image = _noise().crop((0, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "image.png", exif=exif)
    assert Image.open(tmp_path / "image.png").getexif()[0x0112] == 6
    assert np.array_equal(
        np.asarray(open_dataset(tmp_path / "image.png").load(0)), np.asarray(image)
    )


def _encoded(format: str) -> bytes:
    data = io.BytesIO()
    _noise().save(data, format)
    return data.getvalue()


def _truncated(format: str) -> bytes:
    data = _encoded(format)
    return data[: len(data) * 2 // 3]


def _damaged_png() -> bytes:
    data = bytearray(_encoded("PNG"))
    data[data.index(b"IDAT") + 20] ^= 0xFF
    return bytes(data)


_CORRUPT: dict[str, Callable[[], bytes]] = {
    "empty.png": lambda: b"",
    "text.jpg": lambda: b"this is not an image",
    "truncated.png": lambda: _truncated("PNG"),
    "truncated.jpg": lambda: _truncated("JPEG"),
    "truncated.bmp": lambda: _truncated("BMP"),
    "truncated.webp": lambda: _truncated("WEBP"),
    "truncated.tif": lambda: _truncated("TIFF"),
    "damaged.png": _damaged_png,
    # Called .png, Pillow decodes it as what it is, and some decoders raise no OSError.
    "texture.png": lambda: _encoded("DDS")[:76] + bytes(32) + _encoded("DDS")[108:],
}


@pytest.mark.parametrize("name", _CORRUPT)
def test_a_corrupt_image_is_named(tmp_path: Path, name: str) -> None:
    _save(tmp_path / "set" / "cat" / "good.png")
    bad = tmp_path / "set" / "cat" / name
    bad.write_bytes(_CORRUPT[name]())
    dataset = open_dataset(tmp_path / "set")
    number = [dataset.name_of(i) for i in range(2)].index(str(bad))
    with pytest.raises(DataError) as caught:
        dataset.load(number)
    assert str(bad) in str(caught.value)
    dataset.load(1 - number)
    with pytest.raises(DataError, match=name):
        open_dataset(bad).load(0)


def test_an_enormous_image_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = _save(tmp_path / "bomb.png", size=(20, 20))
    with pytest.raises(DataError, match=r"bomb\.png"):
        open_dataset(path).load(0)


def test_wrong_paths(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match="xxx"):
        open_dataset(tmp_path / ("x" * 300))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty is an empty folder"):
        open_dataset(tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DataError, match=r"cannot tell the format of .*notes\.txt"):
        open_dataset(tmp_path / "notes.txt")
    with pytest.raises(DataError, match=r"notes\.txt is not a folder"):
        open_dataset(tmp_path / "notes.txt", "imagefolder")
    with pytest.raises(DataError, match="empty"):
        open_dataset(tmp_path / "empty", "image").load(0)


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=f"{tmp_path}: Permission denied"):
        open_dataset(tmp_path)


def test_folders_without_classes_or_images(tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "notes.txt").write_text("no images here")
    with pytest.raises(DataError, match="expected one folder per class"):
        open_dataset(tmp_path / "flat")
    _save(tmp_path / "set" / "cat" / "one.png")
    (tmp_path / "set" / "dog").mkdir()
    (tmp_path / "set" / "dog" / "notes.txt").write_text("no images here")
    with pytest.raises(DataError, match="dog holds no images"):
        open_dataset(tmp_path / "set")


def test_images_have_no_splits(tmp_path: Path) -> None:
    path = _save(tmp_path / "cat" / "one.png")
    for data in (tmp_path, path):
        with pytest.raises(DataError, match="--split test"):
            open_dataset(data, split="test")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_images_from_bytes(tmp_path: Path, kind: str) -> None:
    """They are those of a file with these bytes."""
    path = tmp_path / f"image.{kind.lower()}"
    _noise().save(path, kind)
    image = decode_image(path.read_bytes(), formats=[kind], most_pixels=256)
    assert image == open_dataset(path).load(0)


def test_bytes_that_are_no_image_that_is_taken() -> None:
    file = io.BytesIO()
    _noise().save(file, "PNG")
    data = file.getvalue()
    for bad in (b"", b"no image"):
        with pytest.raises(DataError, match=r"^the data is not an image that Pillow can read$"):
            decode_image(bad)
    with pytest.raises(DataError, match=r"^the data is not an image that Pillow can read$"):
        decode_image(data, formats=["JPEG"])
    with pytest.raises(DataError, match=r"^the image is 16 x 16 pixels, more than 255$"):
        decode_image(data, most_pixels=255)
    with pytest.raises(DataError, match=r"^cannot read the image: "):
        decode_image(data[:100])
