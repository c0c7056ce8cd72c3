"""Classifies images over HTTP, those of several requests in one run of the model.

    python service.py MODEL.onnx
    curl --data-binary @image.png http://127.0.0.1:8000/classify

README.md beside this file says what it answers, and what bounds it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import math
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import uvicorn
from batching import Batcher
from classifier import Classifier
from fastapi import FastAPI, Request, Response
from metrics import Metrics
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect

from adder_onnx.errors import AdderError, DataError

_logger = logging.getLogger("uvicorn.error")

_MOST_CONNECTIONS = 1000


class _RefusedError(Exception):
    """A request that gets a status and one line."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Service:
    """Requests from their bodies to their answers.

    Args:
        classifier: what answers them.
        options: of the command line.
    """

    def __init__(self, classifier: Classifier, options: argparse.Namespace) -> None:
        self._classifier = classifier
        self._options = options
        self._accepted = self._answered = self._in_progress = 0
        self._decoders = ThreadPoolExecutor(os.cpu_count(), "decoders")
        most = classifier.batch_size or options.max_batch
        self._batcher: Batcher[NDArray[np.float32], dict[str, Any]]
        self._batcher = Batcher(self._run, most, options.max_wait / 1000)
        self.metrics = Metrics(lambda: self._in_progress, most)

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """From before the first request until all that were accepted have an answer."""
        batches = asyncio.create_task(self._batcher.serve())
        yield
        batches.cancel()
        self._decoders.shutdown()
        _logger.info("%d requests accepted, %d answered", self._accepted, self._answered)

    async def classify(self, request: Request) -> Response:
        """The answer for an image in a request's body."""
        start = time.perf_counter()
        status, answer = await self._respond(request)
        self.metrics.answered(status, time.perf_counter() - start)
        headers = {"Retry-After": "1"} if status == 503 else None
        return Response(json.dumps(answer), status, headers, "application/json")

    async def _respond(self, request: Request) -> tuple[int, dict[str, Any]]:
        if self._in_progress >= self._options.queue:
            return 503, {"error": f"{self._in_progress} requests are in progress: try later"}
        self._accepted += 1
        self._in_progress += 1
        try:
            status, answer = await self._answer(request)
        finally:
            self._in_progress -= 1
        self._answered += 1
        return status, answer

    async def _answer(self, request: Request) -> tuple[int, dict[str, Any]]:
        seconds = self._options.timeout
        status, why = 408, f"the body has not come within {seconds:g} s"
        try:
            body = await asyncio.wait_for(self._read(request), seconds)
            status, why = 504, f"there is no answer within {seconds:g} s"
            return 200, await asyncio.wait_for(self._classify(body), seconds)
        except (asyncio.TimeoutError, TimeoutError):
            return status, {"error": why}
        except _RefusedError as error:
            return error.status, {"error": str(error)}
        except DataError as error:
            return 400, {"error": str(error)}
        except ClientDisconnect:
            return 499, {"error": "the client has gone"}
        except Exception:
            _logger.exception("a request failed")
            return 500, {"error": "the service failed: its log says more"}

    async def _classify(self, body: bytes) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        image = await loop.run_in_executor(self._decoders, self._classifier.prepare, body)
        return await self._batcher(image)

    async def _read(self, request: Request) -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._options.max_bytes:
                raise _RefusedError(413, f"the body has more than {self._options.max_bytes} bytes")
        if not body:
            raise _RefusedError(400, "the body is empty: send the bytes of a PNG or JPEG file")
        return bytes(body)

    def _run(self, images: Sequence[NDArray[np.float32]]) -> list[dict[str, Any]]:
        with self.metrics.batch(len(images)):
            return self._classifier.classify(images)


def make_app(service: Service) -> FastAPI:
    """The paths that there are."""
    app = FastAPI(lifespan=service.lifespan, openapi_url=None)
    app.add_api_route("/classify", service.classify, methods=["POST"])

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> Response:
        return service.metrics.response()

    return app


def main() -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status."""
    options = _parse()
    try:
        classifier = Classifier(
            options.model,
            threads=options.threads,
            timeout=options.timeout,
            most_pixels=options.max_pixels,
        )
        classifier.warm_up(options.max_batch)
    except AdderError as error:
        print(f"service: {error}", file=sys.stderr)
        return 2
    config = uvicorn.Config(
        make_app(Service(classifier, options)),
        host=options.host,
        port=options.port,
        access_log=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=math.ceil(2 * options.timeout) + 1,
    )
    # uvicorn answers what it has accepted, then raises the signal once more, which would end the
    # process by it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    uvicorn.Server(config).run()
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("model", metavar="MODEL.onnx")
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=8000, help="0 for one that is free")
    add("--threads", type=_positive, help="of a run of the model; all cores if not given")
    add("--max-batch", metavar="N", type=_positive, default=32, help="images in a run")
    add("--max-wait", metavar="MS", type=float, default=2, help="for which a run waits for more")
    add("--queue", metavar="N", type=_positive, default=256, help="requests in progress")
    add(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=10,
        help="for a body, and for an answer to it",
    )
    add("--max-bytes", metavar="N", type=_positive, default=10_000_000, help="of a body")
    add("--max-pixels", metavar="N", type=_positive, default=25_000_000, help="of an image")
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


if __name__ == "__main__":
    sys.exit(main())
