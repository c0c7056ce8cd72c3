"""The tests of image folders again, with each folder read by its URI, too: nothing may differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from adder_onnx.cli import run
from adder_onnx.evaluation import open_dataset
from adder_onnx.evaluation.listed_image_folder import read_listed_folder
from tests import (
    test_evaluation_image_layouts,
    test_evaluation_images,
    test_evaluation_label_table,
    test_imagenet_layouts,
)
from tests.listed_folders import REASON, object_store, observed, open_both_ways
from tests.test_evaluation_image_layouts import *  # noqa: F403
from tests.test_evaluation_images import *  # noqa: F403
from tests.test_evaluation_label_table import *  # noqa: F403
from tests.test_imagenet_layouts import *  # noqa: F403

pytest.importorskip("pyarrow", reason=REASON)

del test_a_folder_that_may_not_be_read  # noqa: F821 (it changes Path)


@pytest.fixture(autouse=True)
def _both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (
        test_evaluation_image_layouts,
        test_evaluation_images,
        test_evaluation_label_table,
        run,
    ):
        monkeypatch.setattr(module, "open_dataset", open_both_ways)


@pytest.mark.parametrize("folders", [True, False])
@pytest.mark.parametrize("layout", test_imagenet_layouts._LAYOUTS)
def test_a_store_without_folders(
    layout: str, folders: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which a listing has files only; labels that lie above the folder are found there."""
    data = test_imagenet_layouts._LAYOUTS[layout](tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    below = tmp_path.relative_to("/")
    objects = {str(path.relative_to("/")): path.read_bytes() for path in files}
    object_store(monkeypatch, objects, folders=folders)
    uri = f"store://bucket/{below / data.relative_to(tmp_path)}"
    listed = observed(lambda: read_listed_folder(uri), "store://bucket")
    assert listed == observed(lambda: open_dataset(data))
    assert listed.images


def test_a_folder_that_is_a_whole_bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    test_evaluation_images._save(path)
    image = path.read_bytes()
    object_store(monkeypatch, {"cat/a.png": image, "dog/": b"", "dog/x/b.png": image})
    for uri in ("store://bucket", "store://bucket/", "store://bucket//"):
        dataset = read_listed_folder(uri)
        assert dataset.classes == ("cat", "dog")
        names = [dataset.name_of(i) for i in range(2)]
        assert names == ["store://bucket/cat/a.png", "store://bucket/dog/x/b.png"]
        assert dataset.load(1) == dataset.load(0) == open_dataset(path).load(0)
