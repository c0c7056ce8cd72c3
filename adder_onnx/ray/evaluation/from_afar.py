"""Running pieces by a cluster that this machine is no part of, ``ray://HOST:PORT``.

Ray Data's own work has to be done in the cluster: an actor there does it, and is asked for one
result after the other.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from adder_onnx import errors
from adder_onnx.errors import AdderError
from adder_onnx.ray.evaluation.cluster import Pool
from adder_onnx.ray.evaluation.pieces import Piece
from adder_onnx.ray.evaluation.results import PieceResult
from adder_onnx.ray.evaluation.run import run_pieces
from adder_onnx.ray.evaluation.worker import Work

__all__ = ["is_afar", "run_from_afar"]


def is_afar() -> bool:
    """Whether Ray is connected to such a cluster."""
    from ray.util.client import ray as client

    return bool(client.is_connected())  # type: ignore[no-untyped-call]


def run_from_afar(
    model: bytes, pieces: Mapping[int, Piece], work: Work, pool: Pool
) -> Generator[PieceResult, None, None]:
    """As `run_pieces`, whose arguments, results and errors it has."""
    import ray

    driver: Any = ray.remote(_Driver).options(num_cpus=0).remote(model, dict(pieces), work, pool)
    try:
        while True:
            found = ray.get(driver.following.remote())
            if found is None:
                return
            if not isinstance(found, PieceResult):
                kind, message = found
                raise getattr(errors, kind, AdderError)(message)
            yield found
    except ray.exceptions.RayError as error:
        raise AdderError(f"the cluster cannot go on: {str(error).splitlines()[0]}") from error
    finally:
        ray.kill(driver)


class _Driver:
    def __init__(self, model: bytes, pieces: Mapping[int, Piece], work: Work, pool: Pool) -> None:
        self._results = run_pieces(model, pieces, work, pool)

    def following(self) -> PieceResult | tuple[str, str] | None:
        """The next result; the class and message of an error; None at the end."""
        try:
            return next(self._results, None)
        except AdderError as error:
            return type(error).__name__, str(error)
