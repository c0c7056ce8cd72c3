"""A classifier in pipelines of Ray Data, and as a function of batches."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from adder_onnx.errors import AdderError, DataError, InputError, ModelError
from adder_onnx.metadata import ModelMetadata, Preprocessing
from tests.conftest import ROOT
from tests.models import make_model, node

pytest.importorskip("ray", reason="needs adder-onnx[ray]")

import ray

from adder_onnx.ray import Classifier

DIGITS = ROOT / "examples" / "digits"
MODEL = DIGITS / "resnet8_digits.onnx"
FILES = sorted((DIGITS / "test").glob("*/*.png"))[::9]
COLUMNS = ["class", "label", "probability", "classes", "probabilities"]


def objects(values: list[Any]) -> NDArray[Any]:
    column = np.empty(len(values), object)
    for i, value in enumerate(values):
        column[i] = value
    return column


def file_bytes(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def truth() -> NDArray[np.float64]:
    """Probabilities (N, 10) by stock onnxruntime, from images that plain NumPy has preprocessed."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pixels = np.stack([np.asarray(Image.open(file), np.float32) for file in FILES])
    images = ((pixels / 255 - 0.3054) / 0.376).astype(np.float32)[:, None]
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    powers = np.exp(session.run(None, {"input": images})[0].astype(np.float64))
    return powers / powers.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]


def assert_is(truth: NDArray[np.float64], answers: dict[str, NDArray[Any]]) -> None:
    """Whether answers, as a model gives them for `FILES`, are those of stock onnxruntime."""
    best = truth.argmax(axis=1)
    assert answers["class"].tolist() == best.tolist()
    assert answers["label"].tolist() == [str(number) for number in best]
    np.testing.assert_allclose(answers["probability"], truth.max(axis=1), rtol=1e-4)
    found = np.take_along_axis(truth, np.stack(list(answers["classes"])), axis=1)
    np.testing.assert_allclose(np.stack(list(answers["probabilities"])), found, rtol=1e-4)
    assert (np.diff(found, axis=1) <= 0).all()
    assert found.shape == (len(FILES), 5)


@pytest.fixture(scope="module")
def encoded() -> list[bytes]:
    return [file.read_bytes() for file in FILES]


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    return np.stack([np.asarray(Image.open(file)) for file in FILES])


# As a function


def test_forms_of_images(
    truth: NDArray[np.float64], encoded: list[bytes], pixels: NDArray[np.uint8]
) -> None:
    classifier = Classifier(MODEL, threads=2)
    paths = objects([str(file) for file in FILES])
    forms: dict[str, Any] = {
        "objects of bytes": objects(encoded),
        "a list of bytes": encoded,
        "bytearrays": objects([bytearray(data) for data in encoded]),
        "structs": objects([{"bytes": d, "path": p} for d, p in zip(encoded, paths, strict=True)]),
        "grey": pixels,
        "grey with an axis": pixels[..., None],
        "colours": np.repeat(pixels[..., None], 3, axis=3),
        "with opacity": np.repeat(pixels[..., None], 4, axis=3),
        "objects of arrays": objects(list(pixels)),
        "images": objects([Image.fromarray(image) for image in pixels]),
        "a list of images": [Image.open(file) for file in FILES],
    }
    for images in forms.values():
        given = {"path": paths, "image": images, "number": np.arange(len(FILES))}
        answers = classifier(given)
        assert list(answers) == ["path", "number", *COLUMNS]
        assert answers["path"] is paths
        assert {name: answers[name].dtype for name in COLUMNS} == {
            "class": np.int64,
            "label": object,
            "probability": np.float64,
            "classes": np.int64,
            "probabilities": np.float64,
        }
        assert_is(truth, answers)
        assert list(given) == ["path", "image", "number"], "the batch itself has changed"


def test_images_are_found() -> None:
    image, file, many = np.zeros((8, 8), np.uint8), file_bytes(Image.new("L", (8, 8))), np.zeros(2)
    for columns, found in (
        ({"x": objects([image]), "label": many[:1]}, "x"),
        ({"bytes": objects([file]), "path": objects(["a.png"])}, "bytes"),
        ({"cls": objects([b"3"]), "jpg": objects([file])}, "jpg"),
        ({"mask": image[None], "img": image[None]}, "img"),
        ({"image": objects(["a.png"]), "data": objects([file])}, "data"),
        ({"label": np.array([1]), "x": objects([None]), "y": np.array([1.5])}, "x"),
    ):
        answers = Classifier(MODEL, skip_bad=True, prefix="p_")(columns)
        assert set(columns) - set(answers) == {found}


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (
            {"a": np.zeros((2, 8, 8), np.float32), "b": objects(["x", "y"]), "n": np.arange(2)},
            {},
            r"no column has images: say which by image_column; there are a \(float32 \[8, 8\]\), "
            r"b \(str\), n \(int64\)$",
        ),
        (
            {"a": np.zeros((1, 8, 8), np.uint8), "b": objects([b"x"])},
            {},
            r"several columns may be the images: .* a \(uint8 \[8, 8\]\), b \(bytes\)$",
        ),
        ({str(i): np.arange(2) for i in range(40)}, {}, r"11 \(int64\), and 28 more$"),
        ({"\u202e\n<": np.arange(2)}, {}, r"there are ··< \(int64\)$"),
        ({"a": np.arange(2)}, {"image_column": "x"}, "there is no column x, but a$"),
        (
            {"image": np.zeros((1, 8, 8), np.uint8), "label": np.arange(1)},
            {},
            "the data has a column label already: rename it",
        ),
        (
            {"image": np.zeros((1, 8, 8), np.uint8), "p_error": np.arange(1)},
            {"skip_bad": True, "prefix": "p_"},
            "the data has a column p_error already",
        ),
    ],
    ids=["none", "several", "many", "hostile", "named", "taken", "prefix"],
)
def test_columns_that_do_not_fit(
    columns: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        Classifier(MODEL, **options)(columns)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "the image is missing"),
        (b"", "the data is not an image that Pillow can read"),
        (b"no image", "the data is not an image that Pillow can read"),
        (file_bytes(Image.new("L", (8, 8)))[:45], "cannot read the image: "),
        (Image.open(io.BytesIO(file_bytes(Image.new("L", (8, 8)))[:45])), "cannot read the image"),
        (file_bytes(Image.new("L", (9, 8))), "9 x 8 pixels; the model takes 8 x 8"),
        ({"bytes": None, "path": "/etc/passwd"}, "has no bytes, at most a path"),
        ({"bytes": 3, "path": None}, "the image is int; expected the bytes"),
        ("a.png", "the image is str; expected the bytes of an image file"),
        (np.zeros((8, 8), np.float32), r"an array of float32 \[8, 8\]; expected uint8, \(H, W\)"),
        (np.zeros(8, np.uint8), r"an array of uint8 \[8\]; expected uint8"),
        (np.zeros((0, 8), np.uint8), r"an array of uint8 \[0, 8\]; expected uint8"),
        (np.zeros((8, 8, 5), np.uint8), "the image has 5 channels, and the model takes 1"),
    ],
)
def test_bad_images(
    image: Any, message: str, truth: NDArray[np.float64], encoded: list[bytes]
) -> None:
    """An error that names the row, or answers for all others and a reason for this one."""
    images = objects([*encoded[:2], image, *encoded[2:]])
    with pytest.raises(DataError, match=f"^row 2 of the batch.*: .*{message}") as error:
        Classifier(MODEL, image_column="x")({"x": images})
    assert len(str(error.value).splitlines()) == 1
    answers = Classifier(MODEL, image_column="x", skip_bad=True, logits=True)({"x": images})
    assert list(answers) == [*COLUMNS, "logits", "error"]
    assert_is(truth, {name: np.delete(column, 2, axis=0) for name, column in answers.items()})
    assert (answers["class"][2], answers["label"][2]) == (-1, "")
    assert answers["classes"][2].tolist() == [-1] * 5
    for name in ("probability", "probabilities", "logits"):
        assert np.isnan(answers[name][2]).all()
    assert np.delete(answers["error"], 2).tolist() == [""] * len(FILES)
    assert message.replace("\\", "") in answers["error"][2]


def test_a_row_is_called_by_its_name() -> None:
    for columns, name in (
        ({"path": objects(["b/1.png", "b/\n2.png"])}, r" \(b/·2\.png\)"),
        ({"__key__": objects(["x" * 10_000] * 2)}, r" \(x+…x+\)"),
        ({"id": np.array([5, 7])}, r" \(7\)"),
        ({"other": np.array([5, 7])}, ""),
    ):
        batch = {"image": objects([file_bytes(Image.new("L", (8, 8))), b"no"]), **columns}
        with pytest.raises(DataError, match=f"^row 1 of the batch{name}: ") as error:
            Classifier(MODEL)(batch)
        assert len(str(error.value)) < 200


def test_columns_are_the_same_without_a_good_image() -> None:
    classifier = Classifier(MODEL, skip_bad=True, logits=True)
    good = classifier({"image": np.zeros((2, 8, 8), np.uint8)})
    for batch in ({}, {"image": objects([])}, {"image": objects([None, b"no"])}):
        answers = classifier(batch)
        assert {n: (v.dtype, v.shape[1:]) for n, v in answers.items()} == {
            n: (v.dtype, v.shape[1:]) for n, v in good.items()
        }
        assert {len(v) for v in answers.values()} == {len(batch.get("image", []))}


def test_options_of_answers(pixels: NDArray[np.uint8]) -> None:
    batch = {"image": pixels, "label": np.arange(len(pixels))}
    answers = Classifier(MODEL, topk=1, logits=True, keep_image=True, prefix="x_")(batch)
    assert list(answers) == ["image", "label", "x_class", "x_label", "x_probability", "x_logits"]
    assert answers["x_logits"].dtype == np.float32
    assert (answers["x_logits"].argmax(axis=1) == answers["x_class"]).all()
    assert Classifier(MODEL, topk=99, prefix="x_")(batch)["x_classes"].shape[1] == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"topk": 0}, "topk is 0; expected"),
        ({"topk": True}, "topk is True; expected"),
        ({"threads": 0}, "threads is 0; expected"),
        ({"kind": "class numbers"}, "the model gives scores"),
        ({"device": "tpu"}, "tpu"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(AdderError, match=message):
        Classifier(MODEL, **options)


def test_other_batches_are_refused() -> None:
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    classifier = Classifier(MODEL)
    for batch, kind in (
        (pandas.DataFrame({"image": [b"x"]}), "pandas.DataFrame"),
        (pyarrow.table({"image": [b"x"]}), "pyarrow.Table"),
    ):
        with pytest.raises(InputError, match=f'the batch is a {kind}; .* batch_format at "numpy"'):
            classifier(batch)


HOW = Preprocessing(1, 2, 2, (0.0,), (1.0,))
GREY = np.array([[[0, 51], [102, 0]], [[255, 0], [0, 0]], [[0, 0], [0, 51]]], np.uint8)


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    *,
    batch: int | str = "n",
    channels: int = 1,
    output: tuple[int | str, ...] = ("n", 4),
    elem_type: int = TensorProto.FLOAT,
    how: Preprocessing | None = HOW,
) -> Path:
    """A model of images of 2 x 2 pixels, by default with a score for each pixel."""
    constants = {"shape": np.array([-1, channels * 4])}
    model = make_model(
        nodes, {"x": [batch, channels, 2, 2]}, {"y": [batch, *output[1:]]}, constants
    )
    model.graph.output[0].type.tensor_type.elem_type = elem_type
    helper.set_model_props(model, ModelMetadata(preprocessing=how).to_props())
    onnx.save(model, path)
    return path


FLAT = node("Reshape", ["x", "shape"], "y")


def test_class_numbers(tmp_path: Path) -> None:
    flat = node("Reshape", ["x", "shape"], "s")
    best = node("ArgMax", ["s"], "y", axis=1, keepdims=0)
    path = save(tmp_path / "m.onnx", [flat, best], output=("n",), elem_type=TensorProto.INT64)
    answers = Classifier(path, skip_bad=True, logits=True)({"image": objects([*GREY, None])})
    assert list(answers) == ["class", "label", "error"]
    assert answers["class"].tolist() == [2, 0, 3, -1]
    assert answers["label"].tolist() == ["2", "0", "3", ""]


def test_a_batch_of_one_size(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [FLAT], batch=2)
    for count in range(4):
        answers = Classifier(path, logits=True)({"image": GREY[:count]})
        np.testing.assert_allclose(answers["logits"], GREY[:count].reshape(-1, 4) / 255, rtol=1e-6)


def test_other_channels(tmp_path: Path) -> None:
    how = Preprocessing(4, 2, 2, (0.0,) * 4, (1.0,) * 4)
    options: dict[str, Any] = {"channels": 4, "output": ("n", 16), "how": how}
    path = save(tmp_path / "m.onnx", [FLAT], **options)
    pixels = np.arange(32, dtype=np.uint8).reshape(2, 2, 2, 4)
    found = Classifier(path, logits=True)({"image": pixels})["logits"]
    np.testing.assert_allclose(found, pixels.transpose(0, 3, 1, 2).reshape(2, 16) / 255, rtol=1e-6)


def test_the_kind_of_scores(tmp_path: Path) -> None:
    """That of the first batch, unless it is said; who contradicts it is told so."""
    path = save(tmp_path / "m.onnx", [FLAT])
    certain, other = {"image": GREY[1:2]}, {"image": GREY[:1]}
    classifier = Classifier(path)
    assert classifier(certain)["probability"].tolist() == [1]
    with pytest.raises(ModelError, match='say what they are, such as kind="logits"'):
        classifier(other)
    found = Classifier(path, kind="logits")(certain)["probability"]
    np.testing.assert_allclose(found, [np.e / (np.e + 3)])
    found = Classifier(path, kind="independent probabilities")(other)["probability"]
    np.testing.assert_allclose(found, [0.4], rtol=1e-6)


def test_names_of_classes_may_hold_anything(tmp_path: Path) -> None:
    names = ("</script>", "x" * 10_000, "\ud800", "\u202e'\"\0")
    path = save(tmp_path / "m.onnx", [FLAT])
    model = onnx.load(path)
    props = {prop.key: prop.value for prop in model.metadata_props}
    helper.set_model_props(model, props | {"ai.addernet.labels": json.dumps(names)})
    onnx.save(model, path)
    answers = Classifier(path)(
        {
            "image": np.stack([np.diag([9, 0]), np.fliplr(np.diag([9, 0])), *GREY[[0, 2]]]).astype(
                np.uint8
            )
        }
    )
    labels = answers["label"].tolist()
    assert labels == [names[0], names[1], "\\ud800", names[3]]
    assert "".join(labels).encode()


def test_models_that_do_not_do(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [FLAT], how=None)
    with pytest.raises(ModelError, match="does not say how images are preprocessed"):
        Classifier(path)
    with pytest.raises(ModelError, match=r"no\.onnx"):
        Classifier(tmp_path / "no.onnx")
    with pytest.raises(ModelError):
        Classifier(b"no model")


def test_without_ray() -> None:
    code = """
import sys
sys.modules["ray"] = None
from adder_onnx.errors import MissingDependencyError
try:
    import adder_onnx.ray
except MissingDependencyError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == 'Ray is not installed: pip install "adder-onnx[ray]"\n'


# In Ray


def gathered(dataset: Any) -> dict[str, NDArray[Any]]:
    """All columns in the order of the images' names."""
    rows = sorted(dataset.take_all(), key=lambda row: str(row["path"]))
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


@pytest.mark.usefixtures("ray_here")
def test_a_pipeline(truth: NDArray[np.float64], tmp_path: Path) -> None:
    """From files to Parquet that others can read, with the model in the object store."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    files = ray.data.read_binary_files([str(file) for file in FILES], include_paths=True)
    answers = files.map_batches(
        Classifier,
        fn_constructor_kwargs={"model": ray.put(MODEL.read_bytes())},
        batch_size=7,
        concurrency=1,
        num_cpus=1,
    )
    answers.write_parquet(str(tmp_path / "answers"))
    written = sorted((tmp_path / "answers").iterdir())
    schemas = {str(parquet.read_schema(file).remove_metadata()) for file in written}
    assert len(schemas) == 1
    table = pyarrow.concat_tables([parquet.read_table(file) for file in written])
    table = table.sort_by("path")
    assert table.column_names == ["path", *COLUMNS]
    assert [str(table.schema.field(n).type) for n in COLUMNS[:3]] == ["int64", "string", "double"]
    found = {name: np.array(table[name].to_pylist()) for name in COLUMNS}
    assert_is(truth, found)


@pytest.mark.usefixtures("ray_here")
def test_images_of_ray_and_of_hugging_face(
    truth: NDArray[np.float64], encoded: list[bytes], tmp_path: Path
) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    names = [str(file) for file in FILES]
    structs = [{"bytes": d, "path": n} for d, n in zip(encoded, names, strict=True)]
    table = pyarrow.table({"image": structs, "label": list(range(len(FILES))), "path": names})
    parquet.write_table(table, tmp_path / "images.parquet")
    for dataset, others in (
        (ray.data.read_images(names, include_paths=True), []),
        (ray.data.read_parquet(str(tmp_path / "images.parquet")), ["label"]),
    ):
        options = {"model": str(MODEL), "prefix": "p_", "threads": 1}
        answers = dataset.map_batches(
            Classifier, fn_constructor_kwargs=options, batch_size=16, concurrency=1, num_cpus=1
        )
        found = gathered(answers)
        assert set(found) == {"path", *others, *(f"p_{name}" for name in COLUMNS)}
        assert_is(truth, {name: found[f"p_{name}"] for name in COLUMNS})


@pytest.mark.usefixtures("ray_here")
def test_images_of_several_sizes_and_bad_ones() -> None:
    """A column of arrays of several sizes; an actor has the threads that Ray gave it."""

    class Spied(Classifier):
        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            found = super().__call__(batch)
            return found | {"threads": np.full(len(found["class"]), self._threads)}

    items = [{"image": np.zeros((8, 8 + i % 2), np.uint8), "path": i} for i in range(6)]
    options = {"model": MODEL.read_bytes(), "skip_bad": True}
    found = gathered(
        ray.data.from_items(items).map_batches(
            Spied, fn_constructor_kwargs=options, batch_size=4, concurrency=1, num_cpus=2
        )
    )
    assert [bool(error) for error in found["error"]] == [False, True] * 3
    assert (found["class"] == -1).tolist() == [False, True] * 3
    assert set(found["threads"]) == {2}


@pytest.mark.usefixtures("ray_here")
def test_an_error_of_an_image_is_one_of_ours() -> None:
    items = [{"bytes": b"no image", "path": "a.png"}]
    answers = ray.data.from_items(items).map_batches(
        Classifier, fn_constructor_kwargs={"model": str(MODEL)}, concurrency=1, num_cpus=1
    )
    with pytest.raises(Exception, match=r"row 0 of the batch \(a\.png\): the data is not an"):
        answers.take_all()


@pytest.mark.usefixtures("ray_here")
def test_a_reference_to_something_else() -> None:
    with pytest.raises(InputError, match="the model is a reference to str; expected the bytes"):
        Classifier(ray.put("resnet20.onnx"))


def test_real_images(shared: Path, resnet20: Path, tmp_path: Path) -> None:
    """CIFAR-10's, by the real ResNet-20: float64 PyTorch's classes, but for a draw."""
    records = np.fromfile(shared / "cifar10" / "test_batch.bin", np.uint8).reshape(-1, 3073)
    pixels = records[:32, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    logits = np.load(shared / "models" / "resnet20_addernet_cifar10_logits.npz")["logits"]
    answers = Classifier(resnet20)({"img": pixels, "label_": records[:32, 0]})
    assert answers["class"].tolist() == logits.argmax(axis=1).tolist()
    powers = np.exp(logits)
    np.testing.assert_allclose(
        answers["probability"], (powers / powers.sum(axis=1, keepdims=True)).max(axis=1), atol=1e-3
    )
