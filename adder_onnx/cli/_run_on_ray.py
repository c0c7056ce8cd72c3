"""``adder-run --engine ray``: the options, and the run on many actors."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from adder_onnx.cli._command import positive
from adder_onnx.cli._progress import phases, progress_bar, progress_of_unknown
from adder_onnx.cli._run_answers import check_has_answers
from adder_onnx.cli._run_batch import choose_batch_size
from adder_onnx.cli._run_report import ModelClasses, Outcome, describe_run, report
from adder_onnx.errors import InputError
from adder_onnx.evaluation.environment import file_sha256
from adder_onnx.evaluation.formats import RAY_FORMATS
from adder_onnx.evaluation.network import Network
from adder_onnx.evaluation.outputs import Classified, choose_output
from adder_onnx.evaluation.predictions import Answer
from adder_onnx.graph.reading import read_model
from adder_onnx.metadata import ModelMetadata
from adder_onnx.runtime import InferenceSession

__all__ = ["ENGINES", "add_ray_options", "check_engine", "run_on_ray"]

_logger = logging.getLogger(__name__)

ENGINES = ("local", "ray")

_COLUMNS = ("image", "label", "name")
_OWN = ("address", "actors", "cpus_per_actor", "gpus_per_actor", "resume", "logits")
_OTHERS = {
    "threads": "--cpus-per-actor says how many threads an actor has",
    "workers": "--cpus-per-actor says how many threads of an actor decode",
    "mistakes": "--output has all answers",
}


def add_ray_options(parser: argparse.ArgumentParser) -> None:
    """Adds --engine and what belongs to Ray."""
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="local",
        help="ray runs on the machines of a cluster, and reads Parquet and tar files, too, on any "
        "of pyarrow's file systems (local)",
    )
    ray = parser.add_argument_group("with --engine ray")
    ray.add_argument(
        "--address",
        metavar="ADDRESS",
        help="of a cluster: auto, HOST:PORT or ray://HOST:PORT (none: Ray is started here)",
    )
    ray.add_argument(
        "--actors", metavar="N", type=positive, help="processes that run the model (all that fit)"
    )
    ray.add_argument(
        "--cpus-per-actor", metavar="K", type=positive, help="threads of each (4, or all there are)"
    )
    ray.add_argument(
        "--gpus-per-actor", metavar="G", type=positive, help="GPUs of each (none: the CPU is used)"
    )
    ray.add_argument(
        "--resume", action="store_true", help="go on with a run of --output that was broken off"
    )
    ray.add_argument(
        "--logits", action="store_true", help="write all scores of each image to --output, too"
    )
    for column in _COLUMNS:
        ray.add_argument(
            f"--{column}-column",
            metavar="NAME",
            help=f"of Parquet files: the {column} of each image",
        )


def check_engine(options: argparse.Namespace) -> None:
    """Finds out before the work whether options belong to the engine.

    Raises:
        InputError: one belongs to another engine, or lacks another option.
        MissingDependencyError: Ray is not installed.
    """
    if options.engine == "local":
        if options.format in RAY_FORMATS:
            raise InputError(f"--format {options.format} needs --engine ray")
        for name in (*_OWN, *(f"{column}_column" for column in _COLUMNS)):
            if getattr(options, name):
                raise InputError(f"--{name.replace('_', '-')} needs --engine ray")
        for name in ("data", "output"):
            if isinstance(getattr(options, name), str):
                raise InputError(f"--{name} {getattr(options, name)}: URIs need --engine ray")
        return
    for name, instead in _OTHERS.items():
        if getattr(options, name) is not None:
            raise InputError(f"--{name} is not for --engine ray: {instead}")
    if options.device != "auto" and (options.device == "cpu") == bool(options.gpus_per_actor):
        raise InputError(
            f"--device {options.device}: with --engine ray, --gpus-per-actor says what is used"
        )
    if options.output is None and (options.resume or options.logits):
        raise InputError(f"--{'resume' if options.resume else 'logits'} needs --output")
    if options.output is not None and str(options.output).endswith((".csv", ".npz")):
        raise InputError(
            f"--output {options.output}: --engine ray writes a folder of Parquet files: give it a "
            "name such as answers.parquet"
        )
    import adder_onnx.ray  # noqa: F401 (says what to install)


class _Written:
    """Answers that are files already, of which the folder gets its name in the end."""

    def __init__(self, folder: Any, run: dict[str, Any], results: Any) -> None:
        self._folder, self._run, self._results = folder, run, results

    def write(self) -> None:
        self._folder.commit(self._run, self._results)


@dataclass(frozen=True)
class _Listed:
    """Answers that came back, of images without classes."""

    rows: Sequence[dict[str, Any]]
    labels: Sequence[str] | None

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, row: int) -> str:
        return str(self.rows[row]["name"])

    def answers(self, row: int, k: int) -> list[Answer]:
        found = self.rows[row]
        numbers = found["classes"][:k]
        probabilities = found.get("probabilities") or [None] * len(numbers)
        return [
            Answer(number, self.labels[number] if self.labels else str(number), probability)
            for number, probability in zip(numbers, probabilities[:k], strict=True)
        ]


def run_on_ray(options: argparse.Namespace) -> None:
    """Runs a model over a data set on Ray, and reports as adder-run does.

    Raises:
        AdderError: something that was given is wrong, on this machine or another.
    """
    from adder_onnx.ray.evaluation.cluster import connected, plan_pool, ray_versions
    from adder_onnx.ray.evaluation.data import Asked, of_dataset, open_data
    from adder_onnx.ray.evaluation.evaluation import (
        choose_images,
        evaluate_pieces,
        images_of_a_piece,
        judge,
    )
    from adder_onnx.ray.evaluation.output import AnswerFolder
    from adder_onnx.ray.evaluation.pieces import fingerprint
    from adder_onnx.ray.evaluation.scores import kind_of_first
    from adder_onnx.ray.evaluation.worker import Answering, Work

    with phases("loading the model") as begin:
        model = _read_model(options)
        session = InferenceSession(model, device="cpu", arithmetic=options.arithmetic)
        metadata = ModelMetadata.from_props(session.metadata)
        classified = choose_output(session, metadata.labels)
        network = Network(session, [classified.name], timeout=options.timeout)
        network.check_takes_images()
        network.preprocessing()
        folder = None
        if options.output is not None:
            folder = AnswerFolder(str(options.output))
            folder.check_free(resume=options.resume)
        begin("reading the data")
        asked = Asked(
            str(options.data),
            options.format,
            options.split,
            options.labels_csv,
            {column: getattr(options, f"{column}_column") for column in _COLUMNS},
        )
        data = open_data(asked)
        names = metadata.labels
        if data.dataset.files:
            matched = data.dataset.with_model_classes(classified.classes, names, options.class_map)
            data = of_dataset(matched)
            names = names or matched.classes
        chosen = choose_images(data, options.skip, options.limit, first=options.first)

    batch_size = choose_batch_size(options, network)
    with ExitStack() as stack:
        with phases("starting Ray" if options.address is None else "reaching Ray"):
            stack.enter_context(
                connected(options.address, verbose=options.verbose, model_bytes=len(model))
            )
            pool = plan_pool(options.actors, options.cpus_per_actor, options.gpus_per_actor)
        images = data.images if chosen is None else len(chosen)
        size = folder and folder.piece_images()
        size = size or images_of_a_piece(images, batch_size, pool.actors)
        pieces = data.pieces(size, chosen)
        labelled = _labelled(pieces)
        if not labelled:
            check_has_answers(options, replace(data.dataset, labels=None), classified, None)
        answering = None
        if folder is not None or not labelled:
            answering = Answering(
                kind=kind_of_first(network, classified, pieces, batch_size),
                topk=options.topk,
                logits=options.logits,
                names=None if names is None else tuple(names),
                matched=data.dataset.files,
                folder=None if folder is None else folder.incomplete.shown,
            )
        work = Work(
            classified=classified,
            batch_size=batch_size,
            threads=pool.cpus,
            device="cuda" if pool.gpus else "cpu",
            arithmetic=options.arithmetic,
            timeout=options.timeout,
            skip_bad=options.skip_bad,
            answering=answering,
        )
        run = _describe(options, classified, fingerprint(pieces), size, answering)
        done = {} if folder is None else folder.begin(run)
        total = sum(piece.images or 0 for piece in pieces)
        with ExitStack() as shown:
            if images is None:
                advance = _counting(shown.enter_context(progress_of_unknown("images", 0)))
            else:
                advance = shown.enter_context(progress_bar("images", total))
            evaluated = evaluate_pieces(model, pieces, work, pool, done, advance)
    dataset, accuracy = judge(evaluated, data, classified, metadata.labels, options.class_map)
    if accuracy.skipped:
        _logger.warning(
            "skipped %d of %d images", accuracy.skipped, accuracy.images + accuracy.skipped
        )
    collected: Any = None
    if folder is not None:
        said = {"model": str(options.model), "data": str(options.data), "labels": names}
        collected = _Written(folder, run | said, evaluated.results)
    elif answering is not None:
        collected = _Listed(_rows(evaluated.results.values()), metadata.labels)
    now = [evaluated.results[number] for number in evaluated.run]
    seconds = sum(result.model_seconds for result in now) / pool.actors
    result = describe_run(options, session, network, dataset, accuracy, batch_size, seconds or None)
    images_now = sum(one.images for one in now)
    result |= {
        "device": work.device,
        "threads": pool.cpus,
        "engine": "ray",
        "versions": result["versions"] | ray_versions(),
        "actors": evaluated.actors(),
        "pieces": len(pieces),
        "pieces_done_before": len(done),
        "pieces_repeated": sum(one.attempt - 1 for one in now),
        "images_per_second": images_now / accuracy.seconds if now else 0.0,
        "inference_images_per_second": images_now / seconds if seconds else 0.0,
    }
    classes = ModelClasses(classified)
    how = metadata.preprocessing
    report(options, Outcome(dataset, classes, accuracy, collected, None, how, result))


def _read_model(options: argparse.Namespace) -> bytes:
    """The model in one piece, with what is in other files."""
    return bytes(read_model(options.model).SerializeToString())


def _labelled(pieces: Sequence[Any]) -> bool:
    """Whether images have classes, by the first of them."""
    samples = (sample for piece in pieces for sample in piece.samples())
    return next((sample.label is not None for sample in samples), False)


def _describe(
    options: argparse.Namespace, classified: Classified, images: str, size: int, answering: Any
) -> dict[str, Any]:
    """All that answers and their order depend on, by which a run is resumed."""
    return {
        "model_sha256": file_sha256(options.model),
        "data_sha256": images,
        "piece_images": size,
        "classified_output": classified.name,
        "output_kind": answering and answering.kind,
        "arithmetic": options.arithmetic,
        "topk": options.topk,
        "logits": options.logits,
        "skip_bad": options.skip_bad,
    }


def _counting(show: Callable[[int, int, str], None]) -> Callable[[int], None]:
    """Adds up what is done, for a bar whose end is not known."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        show(done, 0, "images")

    return advance


def _rows(results: Iterable[Any]) -> list[dict[str, Any]]:
    import pyarrow as pa

    tables = [pa.ipc.open_stream(result.answers).read_all() for result in results]
    return [row for table in tables for row in table.to_pylist()]
