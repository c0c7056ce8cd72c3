from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from adder_onnx.errors import DataError, ModelError
from adder_onnx.evaluation import Dataset, evaluate, infer
from adder_onnx.evaluation.inference import Outputs
from adder_onnx.evaluation.outputs import Classified
from adder_onnx.metadata import Preprocessing

_HOW = Preprocessing(1, 1, 1, (0.0,), (1.0,))
_LARGE = Preprocessing(3, 64, 64, (0.0,) * 3, (1.0,) * 3)


def _dataset(count: int, bad: tuple[int, ...] = ()) -> Dataset:
    """Images of one pixel, whose value is the image's number; some cannot be read."""

    def load(i: int) -> Image.Image:
        if i in bad:
            raise DataError(f"cannot read pixel {i}")
        return Image.new("L", (1, 1), i)

    labels = np.arange(count, dtype=np.int64) % 3
    return Dataset("pixels", None, count, load, lambda i: f"pixel {i}", labels)


def _numbers(batch: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.round(batch[:, 0, 0, 0] * 255).astype(np.int64)


def _echo(batch: NDArray[np.float32]) -> Outputs:
    """Each image's number as its only logit, and in a second output (N, 2, 3)."""
    logits = _numbers(batch)[:, None].astype(np.float32)
    return {"logits": logits, "maps": np.broadcast_to(logits[:, None], (len(batch), 2, 3))}


def _logits(count: int) -> Classified:
    return Classified("logits", count)


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 5, 16])
@pytest.mark.parametrize(
    "bad", [(), (0,), (9,), (8, 9), (0, 1, 2, 3, 4), (1, 4, 5, 9), (3,), tuple(range(9))]
)
def test_bad_images_are_left_out(bad: tuple[int, ...], batch_size: int, pad: bool) -> None:
    """Batches are filled up with the images after them, so that only the last may be smaller."""
    good = [i for i in range(10) if i not in bad]
    sizes: list[int] = []
    steps: list[int] = []

    def model(batch: NDArray[np.float32]) -> Outputs:
        sizes.append(len(batch))
        return _echo(batch)

    found = list(
        infer(
            model,
            _dataset(10, bad),
            _HOW,
            batch_size=batch_size,
            workers=2,
            pad=pad,
            skip_bad=True,
            progress=steps.append,
        )
    )
    assert [int(n) for numbers, _ in found for n in numbers] == good
    assert [int(v) for _, outputs in found for v in outputs["logits"][:, 0]] == good
    maps = np.concatenate([outputs["maps"] for _, outputs in found] or [np.empty((0, 2, 3))])
    assert np.array_equal(maps, np.array(good).reshape(-1, 1, 1) * np.ones((2, 3)))
    assert sum(steps) == 10
    whole, rest = divmod(len(good), batch_size)
    assert [len(numbers) for numbers, _ in found] == [batch_size] * whole + [rest] * (rest > 0)
    if pad:
        assert sizes == [batch_size] * len(found)
    else:
        assert sizes == [len(numbers) for numbers, _ in found]


def test_labels_stay_with_their_images_when_others_are_left_out() -> None:
    def model(batch: NDArray[np.float32]) -> Outputs:
        return {"logits": np.eye(7, dtype=np.float32)[_numbers(batch) % 3]}

    accuracy = evaluate(
        model, _dataset(20, (0, 4, 11)), _HOW, _logits(7), batch_size=3, workers=2, skip_bad=True
    )
    assert (accuracy.images, accuracy.skipped, accuracy.top1, accuracy.top5) == (17, 3, 17, 17)


def test_a_bad_image_is_an_error_where_it_is_not_to_be_skipped() -> None:
    with pytest.raises(DataError, match="cannot read pixel 4"):
        evaluate(_echo, _dataset(9, (4,)), _HOW, _logits(1), batch_size=2, workers=2)


def test_nothing_but_bad_images() -> None:
    dataset = _dataset(5, tuple(range(5)))
    with pytest.raises(DataError, match="none of the 5 images of pixels can be read"):
        evaluate(_echo, dataset, _HOW, _logits(1), batch_size=2, workers=2, skip_bad=True)


def test_skipping_hides_no_other_errors() -> None:
    with pytest.raises(ModelError, match="does not say how images are preprocessed"):
        evaluate(_echo, _dataset(5), None, _logits(1), batch_size=2, workers=2, skip_bad=True)

    def load(i: int) -> Image.Image:
        raise RuntimeError("a defect")

    dataset = Dataset("defects", None, 5, load, str)
    with pytest.raises(RuntimeError, match="a defect"):
        evaluate(_echo, dataset, _HOW, _logits(1), batch_size=2, workers=2, skip_bad=True)


def test_images_are_decoded_while_the_model_runs() -> None:
    """The model's first call waits until the images of the next batch are decoded."""
    decoded = [threading.Event() for _ in range(8)]

    def load(i: int) -> Image.Image:
        decoded[i].set()
        return Image.new("L", (1, 1), i)

    def model(batch: NDArray[np.float32]) -> Outputs:
        assert all(decoded[i].wait(30) for i in range(4, 8))
        return _echo(batch)

    dataset = Dataset("pixels", None, 8, load, str)
    assert len(list(infer(model, dataset, _HOW, batch_size=4, workers=2))) == 2


@pytest.mark.parametrize(("batch_size", "workers"), [(8, 2), (3, 5), (1, 1)])
def test_only_a_few_images_are_held_whatever_the_size_of_the_set(
    batch_size: int, workers: int
) -> None:
    count = 3000
    consumed = held = most = 0
    lock = threading.Lock()

    def load(i: int) -> tuple[NDArray[np.float32], ...]:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held - consumed)
        return (np.full((1, 1, 1), i, np.float32),)

    def model(batch: NDArray[np.float32]) -> Outputs:
        nonlocal consumed
        with lock:
            consumed += len(batch)
        return {"logits": batch[:, 0, 0]}

    dataset = Dataset("arrays", None, count, load, str)
    found = infer(model, dataset, None, batch_size=batch_size, workers=workers)
    assert [float(v) for _, outputs in found for v in outputs["logits"][:, 0]] == list(range(count))
    assert held == consumed == count
    assert most <= 2 * batch_size + workers


def test_memory_does_not_grow_with_the_set() -> None:
    """Inputs of 48 KiB: 2000 of them are 94 MiB."""

    def model(batch: NDArray[np.float32]) -> Outputs:
        return {"logits": batch.reshape(len(batch), -1)[:, :2]}

    def peak(count: int) -> int:
        image = Image.new("RGB", (64, 64))
        labels = np.zeros(count, np.int64)
        dataset = Dataset("large images", None, count, lambda i: image.copy(), str, labels)
        tracemalloc.start()
        accuracy = evaluate(model, dataset, _LARGE, _logits(2), batch_size=8, workers=2)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert accuracy.images == count
        return most

    assert peak(2000) < 8 << 20


@pytest.mark.parametrize("given", [0, 1, 3])
def test_fewer_threads_than_workers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, given: int
) -> None:
    """Images that no thread decodes are decoded where they are needed."""
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def start_few(thread: threading.Thread) -> None:
        if len(started) >= given:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_few)
    found = list(infer(_echo, _dataset(10, (3,)), _HOW, batch_size=4, workers=8, skip_bad=True))
    monkeypatch.undo()
    numbers = [i for batch, _ in found for i in batch]
    assert numbers == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    for batch, outputs in found:
        np.testing.assert_array_equal(outputs["logits"][:, 0], batch)
    assert "fewer threads than --workers says" in caplog.text
