"""Running pieces on a pool of actors."""

from __future__ import annotations

import pickle
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any, cast

from adder_onnx import errors
from adder_onnx.errors import AdderError
from adder_onnx.ray.evaluation.cluster import Pool
from adder_onnx.ray.evaluation.pieces import Piece
from adder_onnx.ray.evaluation.results import PieceResult
from adder_onnx.ray.evaluation.worker import PieceRunner, Work

if TYPE_CHECKING:
    from pyarrow import Table

__all__ = ["run_pieces"]

_WAITING = 2
"""Pieces that an actor has at a time: one is run, and the next is there when it is done."""


def run_pieces(
    model: bytes, pieces: Mapping[int, Piece], work: Work, pool: Pool
) -> Generator[PieceResult, None, None]:
    """Runs pieces, each by one actor; where that dies, the piece is run again by another one.

    Args:
        model: serialized; it goes to each node once.
        pieces: by number.
        work: how they are run.
        pool: by which actors.

    Yields:
        What is found, in the order in which they are done.

    Raises:
        AdderError: a piece cannot be run, or its actor died each time; or Ray could not go on.
    """
    import pyarrow as pa
    import ray

    if not pieces:
        return
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    attempts = _attempts()
    tables = [
        pa.table({"number": [number], "piece": pa.array([pickle.dumps(piece)], pa.large_binary())})
        for number, piece in pieces.items()
    ]
    # Blocks that are there need no tasks for reading, which would wait for a CPU that actors have.
    found = ray.data.from_arrow(tables).map_batches(
        PieceRunner,
        fn_constructor_args=(ray.put(model), work, attempts),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            size=min(pool.actors, len(pieces)), max_tasks_in_flight_per_actor=_WAITING
        ),
        num_cpus=pool.cpus,
        num_gpus=pool.gpus or None,
    )
    try:
        for batch in found.iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=0
        ):
            for result in cast("Table", batch)["result"].to_pylist():
                yield _checked(pickle.loads(result))
    except ray.exceptions.RayError as error:
        raise AdderError(f"Ray could not go on: {_first_line(error)}") from error


def _checked(result: PieceResult) -> PieceResult:
    if result.error is not None:
        kind, message = result.error
        raise getattr(errors, kind, AdderError)(message)
    return result


def _first_line(error: Exception) -> str:
    """What a user has to know of an error whose text is a traceback of another process."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[-1] if lines else cause}"


def _attempts() -> Any:
    """An actor, beside the one who asks, that counts how often each piece was begun."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    # Where its node is lost, another one counts anew.
    lasting = {"max_restarts": -1, "max_task_retries": -1}
    return ray.remote(_Attempts).options(num_cpus=0, scheduling_strategy=here, **lasting).remote()


class _Attempts:
    def __init__(self) -> None:
        self._count: dict[int, int] = {}

    def begin(self, number: int) -> int:
        """Which attempt at a piece this is."""
        self._count[number] = self._count.get(number, 0) + 1
        return self._count[number]
