"""examples/service, started as its README says, and asked by clients that behave and others."""

from __future__ import annotations

import asyncio
import importlib
import io
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import adder_onnx
from tests.conftest import ROOT

httpx = pytest.importorskip("httpx")
for _package in ("fastapi", "prometheus_client", "uvicorn"):
    pytest.importorskip(_package)

MODEL = ROOT / "examples" / "digits" / "resnet8_digits.onnx"
DIGITS = ROOT / "examples" / "digits" / "test"
SERVICE = ROOT / "examples" / "service"
LIMITS = ("--max-batch", "4", "--queue", "12", "--max-bytes", "3000000", "--max-pixels", "1000000")


def _wait_for(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Its result, from a thread of its own: the one of the tests may have a loop that runs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


@dataclass
class Running:
    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def counters(self) -> dict[str, float]:
        lines = self.get("/metrics").text.splitlines()
        return {name: float(v) for name, v in (n.rsplit(" ", 1) for n in lines if n[0] != "#")}

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, trust_env=False, timeout=30)

    def post(self, content: bytes) -> httpx.Response:
        return httpx.post(f"{self.url}/classify", content=content, trust_env=False, timeout=30)

    def half(self, size: int) -> socket.socket:
        """A connection with the head of a request, which is accepted, and the first byte of it."""
        before = self.counters()["adder_requests_in_progress"]
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
        connection.sendall(head.encode() + b"\x89")
        while self.counters()["adder_requests_in_progress"] == before:
            time.sleep(0.01)
        return connection


@contextmanager
def _started(*options: str) -> Iterator[Running]:
    command = [sys.executable, str(SERVICE / "service.py"), str(MODEL), "--port", "0", *options]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            found = re.search(r"running on http://127\.0\.0\.1:(\d+)", line)
            if found:
                break
        else:
            pytest.fail("the service did not start")
        yield Running(process, int(found[1]))
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with _started(*LIMITS, "--timeout", "2") as running:
        yield running


@pytest.fixture(scope="module")
def images() -> list[tuple[bytes, str]]:
    """Files of all classes, and the label of each in a run of its own, by plain NumPy."""
    session = adder_onnx.InferenceSession(MODEL, threads=1)
    found = []
    for file in sorted(DIGITS.glob("*/*.png"))[::9]:
        pixels = np.asarray(Image.open(file), np.float32) / 255
        x = ((pixels - 0.3054) / 0.376).astype(np.float32)[None, None]
        (logits,) = session.run(None, {"input": x})
        found.append((file.read_bytes(), str(logits.argmax())))
    return found


def _module(name: str) -> Any:
    """One of the service's, which imports its neighbours."""
    sys.path.insert(0, str(SERVICE))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SERVICE))


def _file(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def _bomb(width: int, height: int) -> bytes:
    """A PNG that says it is large; what there is of it inflates to zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(1 << 20))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def test_answers_are_those_of_single_runs(
    service: Running, images: Sequence[tuple[bytes, str]]
) -> None:
    """200 requests from 8 clients; some were in one run, and none had more than it may."""
    before = service.counters()
    report = _wait_for(_module("load").load(service.url, images, clients=8, requests=200))
    assert (report.wrong, report.refused, len(report.latencies)) == ([], 0, 200)
    assert {label for _, label in images} == set("0123456789")
    after = service.counters()
    runs = {
        name: after[f"adder_batch_images_{name}"] - before[f"adder_batch_images_{name}"]
        for name in ("count", "sum", 'bucket{le="4.0"}')
    }
    assert runs["sum"] == 200
    assert runs["count"] == runs['bucket{le="4.0"}'] < 200
    assert after['adder_requests_total{status="200"}'] >= 200
    assert after["adder_requests_in_progress"] == 0


def test_an_answer(service: Running) -> None:
    response = service.post(min((DIGITS / "3").iterdir()).read_bytes())
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert answer.keys() == {"class", "label", "probabilities"}
    assert (answer["class"], answer["label"]) == (3, "3")
    assert len(answer["probabilities"]) == 10
    assert sum(answer["probabilities"]) == pytest.approx(1)
    assert max(answer["probabilities"]) == answer["probabilities"][3]


def test_wrong_answers_are_counted(service: Running, images: Sequence[tuple[bytes, str]]) -> None:
    """The load test itself finds what is wrong."""
    data, label = images[0]
    wrong = [(data, "another"), (b"no image", label), (data, label)]
    report = _wait_for(_module("load").load(service.url, wrong, clients=2, requests=6))
    assert (len(report.wrong), len(report.latencies)) == (4, 2)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "the body is empty"),
        (b"no image at all", 400, "not an image that Pillow can read"),
        (_file(Image.new("L", (8, 8)), "BMP"), 400, "not an image that Pillow can read"),
        (_file(Image.new("L", (8, 8)))[:45], 400, "cannot read the image"),
        (_file(Image.new("L", (9, 8))), 400, "9 x 8 pixels; the model takes 8 x 8"),
        (_bomb(1001, 1000), 400, "1001 x 1000 pixels, more than 1000000"),
        (_bomb(60_000, 60_000), 400, "cannot read the image: "),
        (bytes(3_000_001), 413, "more than 3000000 bytes"),
        (bytes(30_000_000), 413, "more than 3000000 bytes"),
    ],
    ids=["empty", "text", "bmp", "cut off", "size", "pixels", "bomb", "large", "larger"],
)
def test_bad_input(service: Running, body: bytes, status: int, message: str) -> None:
    response = service.post(body)
    assert response.status_code == status
    assert message in response.json()["error"]
    assert service.counters()["adder_requests_in_progress"] == 0


def test_other_paths(service: Running) -> None:
    assert service.get("/healthz").json() == {"status": "ok"}
    assert service.get("/classify").status_code == 405
    assert service.get("/docs").status_code == 404


def test_overload_and_clients_that_stop(service: Running) -> None:
    """As many as may be in progress; one more is refused, and those that stop lose their place."""
    data = _file(Image.new("L", (8, 8)))
    waiting = [service.half(len(data)) for _ in range(12)]
    refused = service.post(data)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert "try later" in refused.json()["error"]
    assert service.get("/healthz").status_code == 200
    assert service.counters()["adder_requests_in_progress"] == 12
    waiting.pop().close()
    waiting[0].sendall(data[1:])
    assert waiting[0].recv(100).startswith(b"HTTP/1.1 200 ")
    for connection in waiting[1:]:
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
    for connection in waiting:
        connection.close()
    counters = service.counters()
    assert counters["adder_requests_in_progress"] == 0
    assert counters['adder_requests_total{status="503"}'] == 1
    assert counters['adder_requests_total{status="499"}'] == 1
    assert counters['adder_requests_total{status="408"}'] == 10
    assert service.post(data).status_code == 200


def test_sigterm_under_load(images: Sequence[tuple[bytes, str]]) -> None:
    """What was accepted is answered: as many as the clients saw, and one whose body comes late."""
    answers: list[int] = []

    def client(running: Running) -> None:
        try:
            while True:
                answers.append(running.post(images[0][0]).status_code)
        except httpx.TransportError:
            return

    with _started() as running:
        late = running.half(len(images[0][0]))
        threads = [threading.Thread(target=client, args=[running]) for _ in range(8)]
        for thread in threads:
            thread.start()
        while len(answers) < 40:
            time.sleep(0.01)
        running.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        with pytest.raises(httpx.ConnectError):
            running.get("/healthz")
        late.sendall(images[0][0][1:])
        assert late.recv(100).startswith(b"HTTP/1.1 200 ")
        late.close()
        _, log = running.process.communicate(timeout=30)
        assert running.process.returncode == 0
    assert set(answers) == {200}
    count = len(answers) + 1
    assert f"{count} requests accepted, {count} answered" in log


def test_a_batch_that_fails_is_no_other_batch_s() -> None:
    """Its callers get the error; who has gone is not in the next one, which is made as ever."""
    batches: list[list[int]] = []

    def function(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        if 0 in items:
            raise ZeroDivisionError
        return [10 * item for item in items]

    async def play() -> list[Any]:
        batcher = _module("batching").Batcher(function, 3, wait=0.05)
        callers = [asyncio.create_task(batcher(item)) for item in (0, 1, 2, 3, 4, 5)]
        await asyncio.sleep(0)
        callers[4].cancel()
        serving = asyncio.create_task(batcher.serve())
        results = await asyncio.gather(*callers, return_exceptions=True)
        serving.cancel()
        return results

    results = _wait_for(play())
    assert batches == [[0, 1, 2], [3, 5]]
    assert [type(result) for result in results[:3]] == [ZeroDivisionError] * 3
    assert (results[3], results[5]) == (30, 50)
    assert isinstance(results[4], asyncio.CancelledError)


def test_a_run_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its requests get 504, and the next are answered."""
    module = _module("service")
    monkeypatch.setattr(sys, "argv", ["service.py", str(MODEL), "--timeout", "1"])
    classifier = _module("classifier").Classifier(MODEL)
    classify, slow = classifier.classify, threading.Event()

    def late(images: Sequence[Any]) -> Any:
        slow.wait()
        return classify(images)

    monkeypatch.setattr(classifier, "classify", late)

    async def play() -> list[int]:
        app = module.make_app(module.Service(classifier, module._parse()))
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x") as http,
        ):
            data = _file(Image.new("L", (8, 8)))
            first = await http.post("/classify", content=data)
            slow.set()
            second = await http.post("/classify", content=data)
        return [first.status_code, second.status_code]

    assert _wait_for(play()) == [504, 200]


def test_a_model_that_cannot_be_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no.onnx").write_text("no model")
    monkeypatch.setattr(sys, "argv", ["service.py", str(tmp_path / "no.onnx")])
    assert _module("service").main() == 2
    error = capsys.readouterr().err
    assert error.startswith("service: ")
    assert len(error.splitlines()) == 1
