"""A classifier behind Ray Serve, over HTTP and by handles; and what a replica does, by itself."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from adder_onnx.errors import DataError, InputError, ModelError
from adder_onnx.metadata import ModelMetadata, Preprocessing
from tests.conftest import ROOT
from tests.models import make_model, node

pytest.importorskip("ray.serve", reason="needs adder-onnx[ray]")

from ray import serve
from ray.serve.exceptions import BackPressureError

from adder_onnx.ray import Classifier, deployment
from adder_onnx.ray.serving import ImageService

httpx = pytest.importorskip("httpx")

DIGITS = ROOT / "examples" / "digits"
MODEL = DIGITS / "resnet8_digits.onnx"
FILES = sorted((DIGITS / "test").glob("*/*.png"))[::9]
DEFAULTS: dict[str, Any] = {
    "max_batch_size": 4,
    "batch_wait_timeout_s": 0.05,
    "threads": 1,
    "device": "cpu",
    "topk": 3,
    "kind": None,
    "max_bytes": 3_000_000,
    "max_pixels": 1_000_000,
}


def file_bytes(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def away(work: Callable[[], Any]) -> Any:
    """What it gives in a thread of its own, where Serve's handles may wait."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def played(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Its result, from a thread of its own: the one of the tests may have a loop that runs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


@pytest.fixture(scope="module")
def answers() -> list[list[dict[str, Any]]]:
    """The three best for each file, by the classifier, which other tests hold against others."""
    found = Classifier(MODEL, topk=3)({"bytes": [file.read_bytes() for file in FILES]})
    return [
        [
            {"class": c, "label": str(c), "probability": p}
            for c, p in zip(classes.tolist(), probabilities.tolist(), strict=True)
        ]
        for classes, probabilities in zip(found["classes"], found["probabilities"], strict=True)
    ]


# A replica by itself


@pytest.fixture
def no_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Serve's batches ask of Serve."""
    config = SimpleNamespace(max_ongoing_requests=8)
    context = SimpleNamespace(_deployment_config=config)
    monkeypatch.setattr(serve, "get_replica_context", lambda: context)


@pytest.mark.usefixtures("no_serve")
def test_images_share_runs_and_bad_ones_spoil_none(
    answers: list[list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = ImageService(MODEL.read_bytes(), **DEFAULTS)
    sizes = []
    scores = service._model.scores
    monkeypatch.setattr(service._model, "scores", lambda x: (sizes.append(len(x)), scores(x))[1])
    data = [file.read_bytes() for file in FILES]
    data[5:5] = [b"no image"]
    data[2:2] = [file_bytes(Image.new("L", (9, 8)))]

    async def play() -> list[Any]:
        requests = [service.classify(one) for one in data]
        return await asyncio.gather(*requests, return_exceptions=True)

    found = played(play())
    bad = [found.pop(2), found.pop(5)]
    assert [type(error) for error in bad] == [DataError] * 2
    assert found == answers
    assert sum(sizes) == len(FILES)
    assert 1 < max(sizes) <= 4


@pytest.mark.usefixtures("no_serve")
def test_a_run_that_fails_is_no_other_batch_s(monkeypatch: pytest.MonkeyPatch) -> None:
    service = ImageService(MODEL.read_bytes(), **DEFAULTS)
    good = FILES[0].read_bytes()
    scores = service._model.scores

    def fail(images: Any) -> Any:
        raise ModelError("it fails")

    async def play() -> list[Any]:
        monkeypatch.setattr(service._model, "scores", fail)
        requests = [service.classify(good) for _ in range(2)]
        failed = await asyncio.gather(*requests, return_exceptions=True)
        with pytest.raises(ModelError, match="it fails"):
            await service.check_health()
        monkeypatch.setattr(service._model, "scores", scores)
        await service.check_health()
        return [*failed, await service.classify(good)]

    *failed, answer = played(play())
    assert [str(error) for error in failed] == ["it fails"] * 2
    assert answer[0]["class"] == 0


@pytest.mark.usefixtures("no_serve")
def test_health_is_checked_after_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not beside it; a run that never ends is found by the time that Serve waits."""
    service = ImageService(MODEL.read_bytes(), **DEFAULTS)
    scores, end, begun = service._model.scores, threading.Event(), []

    def wait(images: Any) -> Any:
        begun.append(images)
        end.wait()
        return scores(images)

    monkeypatch.setattr(service._model, "scores", wait)

    async def play() -> None:
        request = asyncio.ensure_future(service.classify(FILES[0].read_bytes()))
        health = asyncio.ensure_future(service.check_health())
        try:
            done, _ = await asyncio.wait([request, health], timeout=0.2)
            assert (len(done), len(begun)) == (0, 1)
        finally:
            end.set()
        await asyncio.gather(request, health)

    played(play())


def small_model(path: Path, *, batch: int | str = "n", numbers: bool = False) -> Path:
    """Scores for each of 4 pixels, or the number of the brightest."""
    nodes = [node("Reshape", ["x", "shape"], "s" if numbers else "y")]
    nodes += [node("ArgMax", ["s"], "y", axis=1, keepdims=0)] if numbers else []
    output = [batch] if numbers else [batch, 4]
    model = make_model(nodes, {"x": [batch, 1, 2, 2]}, {"y": output}, {"shape": np.array([-1, 4])})
    if numbers:
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    how = Preprocessing(1, 2, 2, (0.0,), (1.0,))
    helper.set_model_props(
        model,
        ModelMetadata(preprocessing=how).to_props()
        | {"ai.addernet.labels": json.dumps(["</script>", "\ud800", "\u202e", "d"])},
    )
    onnx.save(model, path)
    return path


def grey(*pixels: int) -> bytes:
    return file_bytes(Image.fromarray(np.array(pixels, np.uint8).reshape(2, 2)))


@pytest.mark.usefixtures("no_serve")
def test_class_numbers(tmp_path: Path) -> None:
    data = small_model(tmp_path / "m.onnx", numbers=True).read_bytes()
    service = ImageService(data, **DEFAULTS)
    assert played(service.classify(grey(0, 9, 0, 0))) == [{"class": 1, "label": "\\ud800"}]


@pytest.mark.usefixtures("no_serve")
def test_a_batch_of_one_size_and_the_kind_of_scores(tmp_path: Path) -> None:
    """Each image's own scores tell, whatever came before."""
    data = small_model(tmp_path / "m.onnx", batch=2).read_bytes()
    service = ImageService(data, **DEFAULTS)
    images = [grey(255, 0, 0, 0), grey(51, 0, 0, 0), grey(0, 0, 0, 255)]

    async def play() -> list[Any]:
        return await asyncio.gather(*[service.classify(image) for image in images])

    found = [(one[0]["class"], one[0]["probability"]) for one in played(play())]
    e = np.exp(np.float32(0.2))
    np.testing.assert_allclose(found, [(0, 1), (0, e / (e + 3)), (3, 1)], rtol=1e-6)
    given = ImageService(data, **DEFAULTS | {"kind": "logits"})
    assert played(given.classify(images[0]))[0]["probability"] < 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"topk": 0}, "topk is 0; expected a number, at least 1"),
        ({"max_batch_size": 0}, "max_batch_size is 0; expected"),
        ({"max_bytes": "many"}, "max_bytes is 'many'; expected"),
        ({"max_pixels": True}, "max_pixels is True; expected"),
        ({"threads": 0}, "threads is 0; expected"),
        ({"kind": "class numbers"}, "the model gives scores"),
    ],
)
def test_arguments_that_cannot_be(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        deployment(MODEL, **arguments)


def test_models_that_cannot_be_served(tmp_path: Path) -> None:
    """It is known before anything is started."""
    (tmp_path / "no.onnx").write_text("no model")
    for model in (tmp_path / "no.onnx", tmp_path / "none.onnx", tmp_path, b"no model"):
        with pytest.raises(ModelError) as error:
            deployment(model)
        assert len(str(error.value).splitlines()) == 1


# In Serve


@pytest.fixture(scope="module")
def url(ray_here: None) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(
        http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": "ERROR"}
    )
    serve.run(
        deployment(
            MODEL,
            max_batch_size=4,
            max_ongoing_requests=4,
            max_queued_requests=5,
            topk=3,
            max_bytes=3_000_000,
            max_pixels=1_000_000,
            ray_actor_options={"num_cpus": 1},
            health_check_period_s=1,
        )
    )
    yield f"http://127.0.0.1:{port}/"
    serve.shutdown()


def post(url: str, data: bytes) -> httpx.Response:
    return httpx.post(url, content=data, trust_env=False, timeout=60)


def test_answers_over_http(url: str, answers: list[list[dict[str, Any]]]) -> None:
    with ThreadPoolExecutor(4) as clients:
        found = list(clients.map(lambda file: post(url, file.read_bytes()), FILES))
    assert {response.status_code for response in found} == {200}
    assert {response.headers["content-type"] for response in found} == {"application/json"}
    assert [response.json() for response in found] == [{"predictions": one} for one in answers]


def test_answers_by_a_handle(url: str, answers: list[list[dict[str, Any]]]) -> None:
    handle = serve.get_app_handle("default")

    def ask(data: Any) -> Any:
        return away(lambda: handle.classify.remote(data).result(timeout_s=60))

    assert ask(FILES[7].read_bytes()) == answers[7]
    for data, message in (
        (b"no", "not an image"),
        (bytes(3_000_001), "more than 3000000 bytes"),
        ("a.png", "the image is str; expected a file's bytes"),
    ):
        with pytest.raises(DataError, match=message):
            ask(data)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "the body is empty"),
        (b"no image at all", 400, "not an image that Pillow can read"),
        (file_bytes(Image.new("L", (8, 8)), "BMP"), 400, "not an image that Pillow can read"),
        (file_bytes(Image.new("L", (9, 8))), 400, "9 x 8 pixels; the model takes 8 x 8"),
        (file_bytes(Image.new("1", (1001, 1000))), 400, "1001 x 1000 pixels, more than 1000000"),
        (bytes(3_000_001), 413, "more than 3000000 bytes"),
    ],
    ids=["empty", "text", "bmp", "size", "pixels", "large"],
)
def test_bad_requests(url: str, body: bytes, status: int, message: str) -> None:
    response = post(url, body)
    assert response.status_code == status
    assert message in response.json()["error"]


def test_other_methods(url: str) -> None:
    response = httpx.get(url, trust_env=False, timeout=60)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


def test_a_full_queue(url: str) -> None:
    """What is too much is refused at once; all others get the answer."""

    async def play() -> list[int]:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            data = FILES[0].read_bytes()
            found = await asyncio.gather(*[client.post(url, content=data) for _ in range(60)])
        return [response.status_code for response in found]

    statuses = played(play())
    assert set(statuses) == {200, 503}
    handle = serve.get_app_handle("default")

    def ask() -> int:
        refused = 0
        for answer in [handle.classify.remote(FILES[0].read_bytes()) for _ in range(60)]:
            try:
                assert answer.result(timeout_s=60)[0]["class"] == 0
            except BackPressureError:
                refused += 1
        return refused

    assert 0 < away(ask) < 60
    assert post(url, FILES[0].read_bytes()).status_code == 200
