"""What a monitoring system is told, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastapi import Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

__all__ = ["Metrics"]


class Metrics:
    """The service's counters.

    Args:
        in_progress: how many requests are.
        most: images in a batch.
    """

    def __init__(self, in_progress: Callable[[], int], most: int) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "adder_requests",
            "Requests by status.",
            ["status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "adder_request_seconds", "From the head of a request to its answer.", registry=registry
        )
        sizes = [1 << i for i in range(most.bit_length())]
        self._images = Histogram(
            "adder_batch_images", "Images in a run of the model.", buckets=sizes, registry=registry
        )
        self._run = Histogram("adder_run_seconds", "A run of the model.", registry=registry)
        gauge = Gauge("adder_requests_in_progress", "Accepted, not answered.", registry=registry)
        gauge.set_function(in_progress)
        ProcessCollector(registry=registry)

    def answered(self, status: int, seconds: float) -> None:
        """Counts a request."""
        self._requests.labels(str(status)).inc()
        self._seconds.observe(seconds)

    @contextmanager
    def batch(self, images: int) -> Iterator[None]:
        """Counts a run of the model, and takes its time."""
        self._images.observe(images)
        with self._run.time():
            yield

    def response(self) -> Response:
        """All of them."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)
