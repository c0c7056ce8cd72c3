"""What an actor does: it runs pieces, with one session for all of them."""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx import __version__
from adder_onnx.errors import AdderError, DataError, ModelError
from adder_onnx.evaluation.inference import Inputs, infer_each, to_input
from adder_onnx.evaluation.network import Network
from adder_onnx.evaluation.outputs import Classified
from adder_onnx.evaluation.probabilities import Kind, KindOfScores
from adder_onnx.metadata import Preprocessing
from adder_onnx.ray.answers import answer_columns
from adder_onnx.ray.evaluation.counts import AnswerCounts
from adder_onnx.ray.evaluation.output import write_part
from adder_onnx.ray.evaluation.pieces import Piece, Sample
from adder_onnx.ray.evaluation.read_ahead import read_ahead
from adder_onnx.ray.evaluation.results import PieceResult

if TYPE_CHECKING:
    from pyarrow import Table

__all__ = ["MOST_ATTEMPTS", "Answering", "PieceRunner", "Work", "load_image"]

_logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 5
"""How often a piece is begun: what ends its actor each time is in the piece."""


@dataclass(frozen=True)
class Answering:
    """What is kept of each image.

    Attributes:
        kind: what the scores are.
        topk: how many of the best classes.
        logits: whether all scores are kept, too.
        names: of the model's classes, or None.
        matched: whether labels are the model's numbers of classes already.
        folder: path or URI of what they are written to; None where they are given back.
    """

    kind: Kind
    topk: int
    logits: bool
    names: tuple[str, ...] | None
    matched: bool
    folder: str | None


@dataclass(frozen=True)
class Work:
    """How pieces are run, on whatever machine.

    Attributes:
        classified: the output that says the classes.
        batch_size: images in a call of the model.
        threads: for inference, and as many that decode.
        device: ``cpu`` or ``cuda``.
        arithmetic: of adder nodes in float32.
        timeout: seconds that a call of the model may take, or None.
        skip_bad: whether images that cannot be read are left out.
        answering: what is kept of each image; None where nothing is.
        version: of adder-onnx, which is the same on all machines.
    """

    classified: Classified
    batch_size: int
    threads: int
    device: str
    arithmetic: str
    timeout: float | None
    skip_bad: bool
    answering: Answering | None
    version: str = __version__


class PieceRunner:
    """Runs the pieces that it is given, in ``Dataset.map_batches``.

    Args:
        model: a reference to the serialized model in the object store.
        work: how pieces are run.
        attempts: the actor that counts how often each piece was begun.
    """

    def __init__(self, model: Any, work: Work, attempts: Any) -> None:
        self._model = model
        self._work = work
        self._attempts = attempts
        self._network: Network | None = None

    def __call__(self, batch: Table) -> Table:
        """What is found, ``result``, for each ``piece`` with its ``number``; all are pickled."""
        import pyarrow as pa

        results = [
            pickle.dumps(self._run_safely(number, pickle.loads(piece)))
            for number, piece in zip(
                *(batch[c].to_pylist() for c in ("number", "piece")), strict=True
            )
        ]
        return pa.table({"result": pa.array(results, pa.large_binary())})

    def _run_safely(self, number: int, piece: Piece) -> PieceResult:
        """Runs a piece; what a user can mend is a result, too, as no other run would mend it."""
        import ray

        where = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
        me = ray.get_runtime_context().get_actor_id() or ""
        attempt = ray.get(self._attempts.begin.remote(number))
        blank = PieceResult(number, attempt=attempt, actor=f"{where}, {me[:8]}")
        if attempt > MOST_ATTEMPTS:
            message = f"{piece.describe()} ended each of {MOST_ATTEMPTS} actors that ran them"
            return replace(blank, error=("AdderError", f"{message}: see Ray's logs for why"))
        try:
            if self._network is None:
                self._network = self._load()
            return _run(self._network, self._work, piece, blank)
        except DataError as error:
            return replace(blank, error=("DataError", str(error)))
        except AdderError as error:
            return replace(blank, error=(type(error).__name__, f"{error} (on the node {where})"))
        except Exception as error:  # Ray would give all of its traceback, and say less
            _logger.exception("%s", piece.describe())
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            message = f"cannot run {piece.describe()} on the node {where}: {why}"
            return replace(blank, error=("AdderError", f"{message} (Ray's logs show where)"))

    def _load(self) -> Network:
        import ray

        from adder_onnx.runtime import InferenceSession

        work = self._work
        if work.version != __version__:
            raise AdderError(
                f"adder-onnx {__version__} is installed here, and {work.version} where the command "
                "runs: install the same on all nodes"
            )
        session = InferenceSession(
            ray.get(self._model),
            device=work.device,
            threads=work.threads,
            arithmetic=work.arithmetic,
        )
        return Network(session, [work.classified.name], timeout=work.timeout)


def _run(network: Network, work: Work, piece: Piece, blank: PieceResult) -> PieceResult:
    start, model_seconds = time.perf_counter(), network.seconds
    how, classified = network.preprocessing(), work.classified
    counts, kinds = AnswerCounts(), KindOfScores(classified.kind)
    tables, seen, labels = [], [], []

    def loads() -> Iterator[partial[Inputs]]:
        for sample in piece.samples():
            seen.append(sample.name)
            labels.append(sample.label)
            yield partial(load_image, sample, how)

    done = 0
    for numbers, outputs in infer_each(
        network,
        read_ahead(loads(), work.batch_size),
        images=piece.images,
        batch_size=work.batch_size,
        workers=work.threads,
        pad=network.batch_size is not None,
        skip_bad=work.skip_bad,
    ):
        scores = classified.rows(outputs)
        kinds.see(scores)
        its = [labels[i] for i in numbers]
        counts.add(its, scores)
        done += len(numbers)
        if work.answering is not None:
            tables.append(_answers([seen[i] for i in numbers], its, scores, work.answering))
    sum_to_one = kinds.kind == "probabilities"
    answering = work.answering
    if answering is not None and classified.kind is None and done:
        _check_kind(answering.kind, sum_to_one, classified.name, piece)
    result = replace(
        blank,
        images=done,
        skipped=len(seen) - done,
        labelled=counts.images,
        counts=counts,
        sum_to_one=sum_to_one or not done,
        seconds=time.perf_counter() - start,
        model_seconds=network.seconds - model_seconds,
    )
    return result if answering is None else _keep(tables, result, answering)


def load_image(sample: Sample, how: Preprocessing | None) -> Inputs:
    """The model's input for an image, (C, H, W).

    Raises:
        DataError: it cannot be read; the message names it.
        ModelError: the model does not say how images are preprocessed.
    """
    try:
        return (to_input(sample.open(), how),)
    except DataError as error:
        named = sample.name in str(error)
        raise DataError(str(error) if named else f"{sample.name}: {error}") from error


def _check_kind(kind: Kind, sum_to_one: bool, output: str, piece: Piece) -> None:
    if kind == "probabilities" and not sum_to_one:
        raise ModelError(
            f"the model's output {output} sums to 1 for the first images, as probabilities do, but "
            f"not for {piece.describe()}: what it means cannot be told; end the model with Softmax"
        )


def _answers(
    names: Sequence[str], labels: Sequence[Any], scores: NDArray[Any], answering: Answering
) -> Table:
    import pyarrow as pa

    columns = answer_columns(scores, answering.kind, answering.topk, logits=answering.logits)
    called = answering.names if answering.matched else None
    said = [None if one is None else _shown(str(called[one] if called else one)) for one in labels]
    table = {
        "name": pa.array(list(map(_shown, names)), pa.string()),
        "label": pa.array(said, pa.string()),
    }
    if answering.names is not None:
        best = np.array(list(map(_shown, answering.names)), dtype=object)[columns["classes"]]
        table["answers"] = pa.array(best.tolist(), pa.list_(pa.string()))
    return pa.table(table | {name: _lists(values) for name, values in columns.items()})


def _shown(name: str) -> str:
    """A name as Arrow takes it; those of files may not be Unicode."""
    return name.encode("utf-8", "backslashreplace").decode()


def _lists(values: NDArray[Any]) -> Any:
    import pyarrow as pa

    rows, width = values.shape
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.ListArray.from_arrays(pa.array(np.arange(rows + 1) * width, pa.int32()), flat)


def _keep(tables: Sequence[Table], result: PieceResult, answering: Answering) -> PieceResult:
    import pyarrow as pa

    table = pa.concat_tables(tables) if tables else _no_answers(answering)
    if answering.folder is not None:
        write_part(answering.folder, table, result)
        return result
    with pa.BufferOutputStream() as stream, pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return replace(result, answers=stream.getvalue().to_pybytes())


def _no_answers(answering: Answering) -> Table:
    scores = np.zeros(
        (0,) if answering.kind == "class numbers" else (0, answering.topk), np.float32
    )
    return _answers([], [], scores, answering)
