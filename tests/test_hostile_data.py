"""Data that is larger than it looks, or is not what it says."""

from __future__ import annotations

import gzip
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from adder_onnx.cli import export, run
from adder_onnx.errors import DataError, ModelError
from adder_onnx.evaluation import open_dataset
from adder_onnx.evaluation.images import open_image
from adder_onnx.evaluation.inference import infer
from adder_onnx.evaluation.preprocessing import preprocess
from adder_onnx.evaluation.text_files import read_text
from adder_onnx.memory import limited
from adder_onnx.metadata import ModelMetadata, Preprocessing
from tests import datasets
from tests.hostile import archives, images, pickles

GREY = Preprocessing(1, 8, 8, (0.3,), (0.4,))
MODEL = pickles.MODEL
RNG = np.random.default_rng(0)
_TARS = dict(archives._tars(RNG))


def _refused(path: Path, words: str = "", how: Preprocessing | None = GREY) -> str:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=words) as caught:
        open_dataset(path, preprocessing=how)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20
    return str(caught.value)


@pytest.mark.parametrize("what", pickles.bombs())
def test_bombs_as_batches(tmp_path: Path, what: str) -> None:
    (tmp_path / "test_batch").write_bytes(pickles.bombs()[what])
    _refused(tmp_path / "test_batch", "is not a Python batch of CIFAR-10, or is truncated")


@pytest.mark.parametrize("what", sorted(set(pickles.batches()) - {"good", "no pixels"}))
def test_batches_that_are_odd(tmp_path: Path, what: str) -> None:
    (tmp_path / "test_batch").write_bytes(pickles.batches()[what])
    _refused(tmp_path / "test_batch", "batch")


_ARRAYS_TAKEN = {"good", "of columns", "of a long header", "of not finite numbers"}
_ARRAYS_TAKEN.add("of long doubles")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("what", sorted(archives._arrays().keys() - _ARRAYS_TAKEN))
def test_arrays_that_are_odd(tmp_path: Path, what: str, compressed: bool) -> None:
    import zipfile

    how = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    data = archives._zip({"x.npy": archives._arrays()[what]}, how)
    (tmp_path / "a.npz").write_bytes(data)
    _refused(tmp_path / "a.npz", "a.npz")


def test_array_of_zeros_that_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.npz").write_bytes(archives._bomb(64 << 20))
    with monkeypatch.context() as patch:
        patch.setattr("adder_onnx.evaluation.npz._FREE", 16 << 20)
        _refused(tmp_path / "a.npz", "more than 50 times its size")
    with limited(32 << 20):
        _refused(tmp_path / "a.npz", r"what is compressed of its arrays takes 64\.0 MiB")
    assert open_dataset(tmp_path / "a.npz", preprocessing=GREY).images == 1 << 20


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("what", _TARS)
def test_archives_that_are_odd(tmp_path: Path, what: str, compressed: bool) -> None:
    data = _TARS[what]
    path = tmp_path / ("a.tar.gz" if compressed else "a.tar")
    path.write_bytes(gzip.compress(data, 1) if compressed else data)
    if what == "good":
        assert open_dataset(path).images == 2
    else:
        try:
            open_dataset(path)
        except DataError as error:
            assert len(str(error)) < 2000  # noqa: PT017 (a harmless change of a header is read)


def test_archive_that_becomes_large(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(bytes(512) + bytes(300 << 20), 9))
    _refused(path, "more than 50 times its size|not a tar archive")
    name = "cifar-10-batches-bin/test_batch.bin"
    data = archives._tar([archives._member(name, bytes(3073 * 60_000))])
    path.write_bytes(gzip.compress(data, 9))
    _refused(path, "more than 50 times its size")


def test_more_members_than_in_any_data_set(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(archives._tar([archives._member("a", b"")] * 10_001))
    _refused(path, "more than 10000 files")


@pytest.fixture(scope="module")
def gzips() -> dict[str, bytes]:
    return dict(archives._gzips(RNG))


@pytest.mark.parametrize("what", ["many in one", "followed by zeros", "followed by something"])
def test_compressed_mnist(tmp_path: Path, gzips: dict[str, bytes], what: str) -> None:
    data = gzips[what]
    labels = datasets.idx(np.zeros(2, np.uint8))
    files = {"t10k-images-idx3-ubyte.gz": data, "t10k-labels-idx1-ubyte": labels}
    datasets.write_files(tmp_path, files)
    if what == "followed by zeros":
        assert open_dataset(tmp_path).images == 2
    else:
        _refused(tmp_path, "t10k-images-idx3-ubyte.gz")


@pytest.mark.parametrize("name", ["test_batch.bin", "test_batch", "a.tar"])
def test_files_of_holes(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate(3073 * 20_000_000)
    with limited(1 << 30):
        _refused(tmp_path / name, "takes|more than any data set")


def test_batches_within_the_memory(tmp_path: Path) -> None:
    datasets.write_files(tmp_path, datasets.cifar10_files(True))
    with limited(10_000), pytest.raises(DataError, match=r"takes .* KiB of memory"):
        open_dataset(tmp_path)
    with limited(100_000):
        assert open_dataset(tmp_path).images == 3


@pytest.fixture
def special(tmp_path: Path) -> dict[str, Path]:
    pipe, plug = tmp_path / "a.png", tmp_path / "b.png"
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(plug))
    circle = tmp_path / "c.png"
    circle.symlink_to(circle)
    return {
        "pipe": pipe,
        "socket": plug,
        "device": Path("/dev/zero"),
        "circle": circle,
        "long": tmp_path / ("a" * 300),
        "zero": tmp_path / "a\0b",
    }


_SPECIAL = ("pipe", "socket", "device", "circle", "long", "zero")


@pytest.mark.parametrize("kind", ["auto", "image", "npz", "imagefolder", "cifar10", "mnist"])
@pytest.mark.parametrize("what", _SPECIAL)
def test_what_is_no_file(special: dict[str, Path], what: str, kind: str) -> None:
    with pytest.raises(DataError, match=r"not a file|cannot read|does not exist"):
        open_dataset(special[what], kind)


def _status(command: ModuleType, arguments: list[str]) -> int | str | None:
    try:
        return command.main(arguments)  # type: ignore[no-any-return]
    except SystemExit as ended:  # the parser's
        return ended.code


@pytest.mark.parametrize("option", ["--data", "--labels-csv", "--class-map", "--output"])
@pytest.mark.parametrize("what", _SPECIAL)
def test_what_is_no_file_as_an_option(
    special: dict[str, Path], what: str, option: str, capfd: pytest.CaptureFixture[str]
) -> None:
    digits = pickles.DIGITS / "test"
    options = {"--data": digits, option: special[what]}
    arguments = [text for pair in options.items() for text in map(str, pair)]
    assert _status(run, [MODEL, *arguments]) == 2
    assert len(capfd.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("what", _SPECIAL)
def test_what_is_no_checkpoint(
    special: dict[str, Path], what: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint, output = str(special[what]), str(tmp_path / "net.onnx")
    assert _status(export, [checkpoint, output]) == 2
    good = str(pickles.DIGITS / "resnet8_digits.pth")
    shape = ["--input-shape", "1,8,8", "--mean", "0.3", "--std", "0.4"]
    assert _status(export, [good, output, *shape, "--labels", str(special[what])]) == 2
    assert len(capfd.readouterr().err.splitlines()) == 2


def test_text_is_read_from_files_only(special: dict[str, Path]) -> None:
    for path in special.values():
        with pytest.raises(DataError, match="cannot read"):
            read_text(path)


_UNREADABLE = """
import os, sys
from pathlib import Path
from adder_onnx.errors import DataError
from adder_onnx.evaluation import open_dataset
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    open_dataset(Path(sys.argv[1]))
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111])
def test_folder_that_may_not_be_read(public_path: Path, mode: int) -> None:
    for name in ("cat", "dog"):
        (public_path / "set" / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(public_path / "set" / name / "a.png")
    (public_path / "set" / "dog").chmod(mode)
    command = [sys.executable, "-c", _UNREADABLE, str(public_path / "set")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (public_path / "set" / "dog").chmod(0o755)
    if "adder_onnx" in done.stderr:
        pytest.skip("this package cannot be imported by another user")
    assert done.stdout.startswith(f"cannot read {public_path / 'set' / 'dog'}"), done.stderr
    assert "Permission denied" in done.stdout


_IMAGES_TAKEN = ("good", "that moves", "of too many rows", "of 100 million pixels", "PNG of mode")
_IMAGES_TAKEN += ("of one row", "of one column", "with a profile", "with EXIF", "of 170 million")
_RARE = ("ICO of mode RGB", "EPS of mode RGB", "PDF of mode RGB", "TGA of mode RGB", "PCX of mode")


@pytest.mark.parametrize("what", images._images())
@pytest.mark.filterwarnings(r"ignore:::PIL\.")  # as where pytest sets no filters
def test_images_that_are_odd(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(images._images()[what])
    try:
        open_image(path)
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017 (some are read)
        assert not what.startswith(("good", "that moves", "JPEG", "PNG of", "BMP", "GIF", "WEBP"))
    else:
        assert not what.startswith((*_RARE, "of 10**18", "of no", "PPM of 10", "empty", "text"))


def test_image_within_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (1000, 1000)).save(path)
    with limited(5_000_000), pytest.raises(DataError, match=r"a\.png takes 8\.6 MiB of memory"):
        open_image(path)
    with limited(10_000_000):
        assert open_image(path).size == (1000, 1000)


def test_narrow_image_whose_shorter_side_is_scaled() -> None:
    how = Preprocessing(1, 224, 224, (0.0,), (1.0,), resize=256, crop=True)
    with pytest.raises(DataError, match="256 x 5120000 with its shorter side scaled to 256"):
        preprocess(Image.new("L", (1, 20_000)), how)
    assert preprocess(Image.new("L", (10, 1000)), how).shape == (1, 224, 224)


@pytest.mark.parametrize("batch_size", [10**9, 10**18])
def test_batch_larger_than_the_memory(batch_size: int) -> None:
    pixels = np.zeros((2, 1, 8, 8), np.float32)
    from adder_onnx.evaluation import Dataset

    dataset = Dataset("two", None, 2, lambda i: (pixels[i],), str, arrays=True)
    model = lambda batch: {"y": batch}  # noqa: E731
    with pytest.raises(DataError, match=r"a batch of 10+ images takes"):
        list(infer(model, dataset, None, batch_size=batch_size, workers=1, pad=True))
    ((numbers, _),) = infer(model, dataset, None, batch_size=batch_size, workers=1)
    assert numbers.tolist() == [0, 1]


_HOW = '{"channels": 1, "height": 8, "width": 8, "mean": [0.3], "std": [0.4]'


@pytest.mark.parametrize(
    "text",
    [
        _HOW + ', "resize": 1000000000}',
        _HOW + ', "resize": 1' + "0" * 400 + "}",
        _HOW + ', "resize": 0}',
        _HOW + ', "resize": 2.5}',
        _HOW.replace("8", "1000000000") + "}",
        _HOW.replace("0.3", "1" + "0" * 400) + "}",
        _HOW.replace("0.3", "NaN") + "}",
        _HOW.replace("0.4", "-Infinity") + "}",
        _HOW.replace("0.4", "0") + "}",
        _HOW.replace("0.4", "1e-300") + "}",
        _HOW.replace("0.4", "1e300") + "}",
        _HOW.replace("1", "1000000000", 1) + "}",
        _HOW.replace("1", "9" * 5000, 1) + "}",
        "[" * 100_000,
        "{}",
        "5",
    ],
)
def test_preprocessing_of_a_stranger(text: str) -> None:
    with pytest.raises(ModelError):
        ModelMetadata.from_props({"ai.addernet.preprocessing": text})


@pytest.mark.parametrize("what", images._tables())
def test_tables_that_are_odd(tmp_path: Path, what: str, capfd: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "table.csv"
    table.write_bytes(images._tables()[what])
    digits = pickles.DIGITS / "test"
    for arguments in (
        ["--data", str(digits / "0"), "--labels-csv", str(table)],
        ["--data", str(digits), "--class-map", str(table)],
    ):
        assert run.main([MODEL, *arguments]) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert len(line) < 2200


def test_what_pillow_finds_odd_is_no_second_line(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    Image.new("L", (8, 8)).save(path)
    path.write_bytes(path.read_bytes().replace(b"\x00\x01\x04\x00", b"\x00\x01\x04\x00\xff\xff", 1))
    command = [sys.executable, "-m", "adder_onnx.cli.run", MODEL, "--data", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
