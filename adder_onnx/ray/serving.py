"""A model behind Ray Serve, which takes images one by one and runs it with several at once."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adder_onnx.errors import DataError, InputError
from adder_onnx.evaluation.images import decode_image
from adder_onnx.evaluation.predictions import Answer
from adder_onnx.evaluation.probabilities import Kind, KindOfScores
from adder_onnx.ray.answers import answer_columns
from adder_onnx.ray.image_model import ImageModel
from adder_onnx.ray.kinds import choose_kind
from adder_onnx.ray.workers import assigned_threads, read_model_bytes
from adder_onnx.runtime.threads import resolve_threads

__all__ = ["ImageService", "deployment"]

_logger = logging.getLogger("ray.serve")

_FORMATS = ("PNG", "JPEG")


def deployment(
    model: str | os.PathLike[str] | bytes,
    *,
    name: str = "adder-onnx",
    max_batch_size: int = 32,
    batch_wait_timeout_s: float = 0.005,
    max_ongoing_requests: int | None = None,
    max_queued_requests: int = 256,
    threads: int | None = None,
    device: str = "cpu",
    topk: int = 5,
    kind: Kind | None = None,
    max_bytes: int = 10_000_000,
    max_pixels: int = 25_000_000,
    **options: Any,
) -> serve.Application:
    """An application for Ray Serve: ``serve.run(adder_onnx.ray.deployment("resnet20.onnx"))``.

    A POST of the bytes of a PNG or JPEG file gets
    ``{"predictions": [{"class": 3, "label": "cat", "probability": 0.98}, …]}``, the best first,
    without probabilities where the model gives nothing but a class's number. A handle's
    ``classify.remote(data)`` gives the list. Anything else gets ``{"error": …}``, one line, with
    the status 400 for what is no such image or one that the model does not take, 405 for another
    method, 413 for too many bytes, 500 where the model fails; Serve itself answers 503 where too
    many requests wait. Of a handle what would be 400 and 413 is a DataError.

    Images that come at about the same time share a run, in which none changes another's answer; a
    bad one is refused before. A replica is healthy as long as the model can be run.

    Args:
        model: a path, or the bytes of a file. It is read and checked here; its bytes go with the
            application to Serve's controller, and from there to each replica.
        name: of the deployment.
        max_batch_size: images in a run, at most; as many as the model is fixed to, if it is.
        batch_wait_timeout_s: seconds that an image waits for others.
        max_ongoing_requests: that a replica has at once; None for two batches of them.
        max_queued_requests: that wait at each proxy or handle; -1 for any number.
        threads: of a run of the model, and as many that decode; None for as many as Ray gave CPUs
            to the replica, by ``ray_actor_options={"num_cpus": …}``.
        device: as `adder_onnx.InferenceSession` has it; with ``num_gpus``, ``cuda`` is the GPU that
            Ray gave the replica.
        topk: how many answers an image has.
        kind: what the model's scores are, as `Classifier` has it; where neither this nor the graph
            tells, each image's own scores do.
        max_bytes: of a request's body.
        max_pixels: of an image, looked at before it is decoded.
        **options: all others that ``serve.deployment`` takes: ``num_replicas``,
            ``autoscaling_config``, ``ray_actor_options`` and so on.

    Returns:
        The deployment, bound to its arguments.

    Raises:
        InputError: an argument is not one of its choices.
        ModelError: the model cannot be read or executed, or does not classify images.
    """
    numbers = {"max_batch_size": max_batch_size, "topk": topk, "max_bytes": max_bytes}
    for argument, number in (numbers | {"max_pixels": max_pixels}).items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InputError(f"{argument} is {number!r}; expected a number, at least 1")
    if threads is not None:
        resolve_threads(threads)
    data = read_model_bytes(model)
    checked = ImageModel(data, device="cpu", threads=1)
    choose_kind(kind, checked.kind)
    max_batch_size = checked.batch_size or max_batch_size
    deployed = serve.deployment(
        name=name,
        max_ongoing_requests=max_ongoing_requests or 2 * max_batch_size,
        max_queued_requests=max_queued_requests,
        **options,
    )(ImageService)
    return deployed.bind(
        data,
        max_batch_size=max_batch_size,
        batch_wait_timeout_s=batch_wait_timeout_s,
        threads=threads,
        device=device,
        topk=topk,
        kind=kind,
        max_bytes=max_bytes,
        max_pixels=max_pixels,
    )


class ImageService:
    """What a replica does; `deployment` says what the arguments are."""

    def __init__(
        self,
        model: bytes,
        *,
        max_batch_size: int,
        batch_wait_timeout_s: float,
        threads: int | None,
        device: str,
        topk: int,
        kind: Kind | None,
        max_bytes: int,
        max_pixels: int,
    ) -> None:
        threads = resolve_threads(assigned_threads() if threads is None else threads)
        self._model = ImageModel(model, device=device, threads=threads)
        self._kind = choose_kind(kind, self._model.kind)
        self._topk = topk
        self._max_bytes, self._max_pixels = max_bytes, max_pixels
        self._decoders = ThreadPoolExecutor(threads, "decoders")
        self._runner = ThreadPoolExecutor(1, "runs")
        self._in_batches = serve.batch(
            max_batch_size=max_batch_size,
            batch_wait_timeout_s=batch_wait_timeout_s,
        )(self._run)
        self._model.scores([self._model.blank()])

    async def classify(self, data: bytes) -> list[dict[str, Any]]:
        """The best answers for the bytes of an image file, best first.

        Raises:
            DataError: they are no such image, too many, or of one that the model does not take.
            ModelError: what the model gives is not what it says.
        """
        if not isinstance(data, bytes):
            raise DataError(f"the image is {type(data).__name__}; expected a file's bytes")
        if len(data) > self._max_bytes:
            raise DataError(self._too_many_bytes())
        loop = asyncio.get_running_loop()
        image = await loop.run_in_executor(self._decoders, self._prepare, data)
        row: NDArray[Any] = await self._in_batches(image)
        return self._answers(row)

    async def __call__(self, request: Request) -> Response:
        """The answer to an HTTP request."""
        if request.method != "POST":
            return _refused(405, "send the bytes of a PNG or JPEG file by POST", Allow="POST")
        data = await request.body()
        if len(data) > self._max_bytes:
            return _refused(413, self._too_many_bytes())
        if not data:
            return _refused(400, "the body is empty: send the bytes of a PNG or JPEG file")
        try:
            return JSONResponse({"predictions": await self.classify(data)})
        except DataError as error:
            return _refused(400, str(error))
        except Exception:
            _logger.exception("a request failed")
            return _refused(500, "the service failed: its log says more")

    async def check_health(self) -> None:
        """Runs the model, after the batch that it is at; Serve replaces a replica where it fails.

        Raises:
            AdderError: it cannot be run any more.
        """
        blank = partial(self._model.scores, [self._model.blank()])
        await asyncio.get_running_loop().run_in_executor(self._runner, blank)

    async def _run(self, images: Sequence[NDArray[np.float32]]) -> list[NDArray[Any]]:
        loop = asyncio.get_running_loop()
        return list(await loop.run_in_executor(self._runner, self._model.scores, images))

    def _prepare(self, data: bytes) -> NDArray[np.float32]:
        image = decode_image(data, formats=_FORMATS, most_pixels=self._max_pixels)
        return self._model.prepare(image)

    def _answers(self, row: NDArray[Any]) -> list[dict[str, Any]]:
        kinds = KindOfScores(self._kind)
        kinds.see(row[None])
        found = answer_columns(row[None], kinds.kind, self._topk)
        classes = found["classes"][0].tolist()
        probabilities = found["probabilities"][0].tolist() if "probabilities" in found else None
        return [
            Answer(c, self._model.label(c), probabilities and probabilities[i]).as_json()
            for i, c in enumerate(classes)
        ]

    def _too_many_bytes(self) -> str:
        return f"the body has more than {self._max_bytes} bytes"


def _refused(status: int, why: str, **headers: str) -> Response:
    return JSONResponse({"error": why}, status, headers)
