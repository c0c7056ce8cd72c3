"""What adder-run says of a run."""

from __future__ import annotations

import argparse
import logging
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from adder_onnx.cli._command import one_line, print_lines, write_json
from adder_onnx.cli._run_answers import counts_as_json, per_class_lines, write_answers
from adder_onnx.evaluation import Accuracy, Dataset
from adder_onnx.evaluation.environment import cpu_name, file_sha256, gpu_name, versions
from adder_onnx.evaluation.mistakes import WorstMistakes
from adder_onnx.evaluation.network import Network
from adder_onnx.evaluation.outputs import Classified
from adder_onnx.evaluation.predictions import Answer, Predictions
from adder_onnx.metadata import Preprocessing
from adder_onnx.runtime import InferenceSession

__all__ = ["Listed", "ModelClasses", "Outcome", "Written", "describe_run", "report"]

_logger = logging.getLogger(__name__)


@runtime_checkable
class Listed(Protocol):
    """Answers for each image, to be printed; see `Predictions`."""

    def __len__(self) -> int: ...

    def name(self, row: int) -> str: ...

    def answers(self, row: int, k: int) -> list[Answer]: ...


@runtime_checkable
class Written(Protocol):
    """Answers that are to be a file; see `NpzOutput`."""

    def write(self) -> None: ...


@dataclass(frozen=True)
class ModelClasses:
    """Where the model says what class an image is of.

    Attributes:
        output: which one says it; None if none does, or its classes are not those of the data.
        why_none: the reason for that.
    """

    output: Classified | None
    why_none: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What a run has found, for reports.

    Attributes:
        dataset: what was run over.
        classes: where the model says them.
        accuracy: counts and time.
        collected: what the model says of each image, where that is asked for.
        mistakes: the worst of them, where they are asked for.
        how: how images become the model's input, if the model says so.
        result: what is written as JSON.
    """

    dataset: Dataset
    classes: ModelClasses
    accuracy: Accuracy
    collected: Predictions | Listed | Written | None
    mistakes: WorstMistakes | None
    how: Preprocessing | None
    result: dict[str, Any]


def describe_run(
    options: argparse.Namespace,
    session: InferenceSession,
    model: Network,
    dataset: Dataset,
    accuracy: Accuracy,
    batch_size: int,
    model_seconds: float | None = None,
) -> dict[str, Any]:
    """What a run was made with, and how fast it was, as in the JSON.

    Args:
        options: of the command.
        session: the model.
        model: the same, as it was run.
        dataset: what it was run over.
        accuracy: counts and time.
        batch_size: images in a call of the model.
        model_seconds: spent in the model, where that is not ``model.seconds``.
    """
    return {
        "model": str(options.model),
        "architecture": model.metadata.architecture,
        "model_sha256": file_sha256(options.model),
        "checkpoint_sha256": model.metadata.checkpoint_sha256,
        "dataset": str(options.data),
        "data": dataset.description,
        "split": dataset.split,
        "class_matching": dataset.matching and asdict(dataset.matching),
        "device": session.device,
        "cpu": cpu_name(),
        "gpu": gpu_name(session.device),
        "threads": session.threads,
        "precision": model.precision,
        "arithmetic": session.arithmetic,
        "versions": versions(session.device),
        "images": accuracy.images,
        "skipped": accuracy.skipped,
        "batch_size": batch_size,
        "seconds": accuracy.seconds,
        "images_per_second": accuracy.images / accuracy.seconds,
        "inference_images_per_second": accuracy.images / (model_seconds or model.seconds or 1),
    }


def report(options: argparse.Namespace, outcome: Outcome) -> None:
    """Prints the result, or writes it as JSON, and what was collected, as the options say."""
    accuracy, collected, result = outcome.accuracy, outcome.collected, outcome.result
    rows = {
        "model": f"{options.model} ({result['architecture'] or 'unnamed'}, {result['precision']})",
        "data": f"{options.data} ({outcome.dataset.description})",
        "device": f"{result['device']}, {result['gpu'] or str(result['threads']) + ' threads'}",
    }
    matching = outcome.dataset.matching
    if matching is not None:
        rows["classes"] = f"{'a guess: ' if matching.guess else ''}{matching.how}"
    for places, hits in (("1", accuracy.top1), ("5", accuracy.top5)):
        if hits is not None:
            percent = 100 * hits / accuracy.images
            result |= {f"top{places}": percent, f"top{places}_correct": hits}
            rows[f"top-{places}"] = f"{percent:6.2f} %  ({hits} of {accuracy.images})"
    rows |= _report_classes(outcome)
    if accuracy.skipped:
        rows["skipped"] = f"{accuracy.skipped} images that cannot be read"
    if result["images_per_second"]:  # not of a run that was resumed at its end
        rows["speed"] = (
            f"{result['images_per_second']:.0f} images/s, decoding included; "
            f"{result['inference_images_per_second']:.0f} images/s in the model"
        )
    lines = [f"{name:<8}{text}" for name, text in rows.items()]
    if options.output is not None:
        if isinstance(collected, Predictions):
            collected.write_csv(options.output, options.topk)
        elif isinstance(collected, Written):
            collected.write()
        result["output"] = str(options.output)
        lines.append(f"{'output':<8}{options.output}")
    elif isinstance(collected, Listed):
        if "answers" in rows and options.json != "-":
            _logger.warning("the answers are %s", rows["answers"])
        lines = _answers(options, outcome, collected)
    lines += _report_answers(options, outcome)
    if options.json:
        write_json(options.json, result)
    if options.json != "-":
        print_lines(lines)


def _report_classes(outcome: Outcome) -> dict[str, str]:
    """Rows that say where the model says classes, where that is not plain; all of it in JSON."""
    output, result = outcome.classes.output, outcome.result
    result["classified_output"] = None if output is None else output.name
    result["output_kind"] = outcome.accuracy.kind
    if output is None:
        result["no_accuracy"] = outcome.classes.why_none
        return {"top-1": one_line(f"none: {outcome.classes.why_none}")}
    if output.others:
        result["outputs_passed_over"] = list(output.others)
        others = " or ".join(output.others)
        return {"answers": one_line(f"from the output {output.name}, not {others}")}
    return {}


def _report_answers(options: argparse.Namespace, outcome: Outcome) -> list[str]:
    """Writes what is asked for of right and wrong answers; lines that say so. All of it in JSON."""
    confusion, names = outcome.accuracy.confusion, outcome.dataset.classes
    if confusion is None:
        return []
    written = write_answers(
        options, outcome.dataset, outcome.accuracy, outcome.mistakes, outcome.how
    )
    outcome.result.update(written | counts_as_json(confusion, names))
    lines = [f"{'output':<8}{path}" for path in written.values()]
    return [*lines, "", *per_class_lines(confusion, names)] if options.per_class else lines


def _answers(options: argparse.Namespace, outcome: Outcome, predictions: Listed) -> list[str]:
    """Lines with the best answer for each image, or with the k best ones for a single image."""
    if outcome.dataset.single:
        answers = predictions.answers(0, options.topk)
        outcome.result["predictions"] = [answer.as_json() for answer in answers]
        return [str(answer) for answer in answers]
    named = [(predictions.name(i), predictions.answers(i, 1)[0]) for i in range(len(predictions))]
    outcome.result["predictions"] = [{"name": name} | answer.as_json() for name, answer in named]
    return [f"{answer}  {' '.join(name.splitlines())}" for name, answer in named]
