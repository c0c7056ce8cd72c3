"""Pieces that do harm, or wait: for tests of what ends the processes that run them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adder_onnx.ray.evaluation.pieces import Piece, Sample

__all__ = ["Deadly", "Raising", "Waiting", "wait_for"]

_SECONDS = 60
_AMID = 5
"""The image before which something happens."""


def wait_for(path: Path) -> None:
    """Until there is such a file.

    Raises:
        TimeoutError: there is none for a minute.
    """
    end = time.monotonic() + _SECONDS
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"{path} does not come")
        time.sleep(0.02)


@dataclass(frozen=True)
class _Piece:
    inner: Piece

    @property
    def images(self) -> int | None:
        return self.inner.images

    def describe(self) -> str:
        return self.inner.describe()


@dataclass(frozen=True)
class Deadly(_Piece):
    """Images in the midst of which the process dies, unless a file says that it has.

    Attributes:
        mark: the file; None where it dies each time.
    """

    mark: str | None = None

    def samples(self) -> Iterator[Sample]:
        for i, sample in enumerate(self.inner.samples()):
            if i == _AMID and not (self.mark and Path(self.mark).exists()):
                if self.mark:
                    Path(self.mark).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield sample


@dataclass(frozen=True)
class Raising(_Piece):
    """Images behind which an error is that nobody has thought of."""

    def samples(self) -> Iterator[Sample]:
        yield from self.inner.samples()
        raise ZeroDivisionError("nobody has\nthought of this")


@dataclass(frozen=True)
class Waiting(_Piece):
    """Images in the midst of which it is waited for a file.

    Attributes:
        begun: a folder, in which a file called as the node says that this has begun.
        go: the file.
    """

    begun: str
    go: str

    def samples(self) -> Iterator[Sample]:
        import ray

        for i, sample in enumerate(self.inner.samples()):
            if i == _AMID:
                Path(self.begun, ray.get_runtime_context().get_node_id()).touch()
                wait_for(Path(self.go))
            yield sample
