"""``adder-run``: a model's accuracy on a data set, or its answers for images without labels."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adder_onnx.cli._command import (
    add_arithmetic_option,
    make_parser,
    non_negative,
    positive,
    progress_bar,
    run_command,
    write_json,
)
from adder_onnx.errors import AdderError, DataError, InputError
from adder_onnx.evaluation import FORMATS, SPLITS, Accuracy, Dataset, evaluate, open_dataset
from adder_onnx.evaluation.classifier import Classifier
from adder_onnx.evaluation.environment import cpu_name, file_sha256, gpu_name, versions
from adder_onnx.evaluation.predictions import Answer, Predictions, check_output
from adder_onnx.runtime import InferenceSession
from adder_onnx.runtime.threads import available_cores

__all__ = ["main"]

_logger = logging.getLogger(__name__)

_BATCH_SIZE = 128

_EXAMPLES = """\
  adder-run resnet20.onnx --data cifar-10-python.tar.gz
  adder-run resnet50.onnx --data imagenet --split val --batch-size 64 --json result.json
  adder-run resnet50.onnx --data cat.jpg --topk 3 --device cuda
  adder-run resnet50.onnx --data photos --skip-bad --output answers.csv
  adder-run resnet20.onnx --data train --labels-csv trainLabels.csv --class-map classes.csv
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = make_parser(
        "adder-run",
        "Runs an exported AdderNet over a data set and reports its accuracy, or prints its answers "
        "for images without labels.",
        _EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL.onnx", type=Path)
    parser.add_argument(
        "--data",
        metavar="PATH",
        type=Path,
        required=True,
        help="CIFAR-10 or CIFAR-100 (binary or Python batches, or their .tar.gz), MNIST's files, "
        "the folder above these, a folder with one folder of images per class, or above train, val "
        "or test with those, ImageNet's val with its ground truth beside, a folder of images, an "
        "image, or an .npz file: an array per input of the model, or images, perhaps of each "
        "split (uint8 is preprocessed, float is not), and perhaps labels",
    )
    parser.add_argument("--format", choices=FORMATS, default="auto", help="of the data (auto)")
    parser.add_argument(
        "--split", choices=SPLITS, default="auto", help="of the data (test or val, if there is one)"
    )
    parser.add_argument(
        "--labels-csv",
        metavar="FILE",
        type=Path,
        help="the labels of a folder of images: an image and its class in each line (found beside "
        "ImageNet's images)",
    )
    parser.add_argument(
        "--class-map",
        metavar="FILE",
        type=Path,
        help="what the data's classes are in the model: a name and a number or label in each line, "
        "or the names in the model's order, or JSON (matched by name, or by number)",
    )
    parser.add_argument(
        "--limit", metavar="N", type=positive, help="only N images, evenly spaced over the set"
    )
    parser.add_argument("--first", action="store_true", help="--limit takes the first N instead")
    parser.add_argument(
        "--skip", metavar="N", type=non_negative, default=0, help="leave out the first N images"
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out and count images that cannot be read"
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="cpu, cuda, cuda:N, or auto: a GPU where one works, else the CPU (auto)",
    )
    parser.add_argument(
        "--batch-size",
        metavar="N",
        type=positive,
        help=f"images in a run ({_BATCH_SIZE}, or what the model is fixed to)",
    )
    parser.add_argument(
        "--threads", metavar="N", type=positive, help="for inference (all available cores)"
    )
    add_arithmetic_option(parser)
    parser.add_argument(
        "--workers", metavar="N", type=positive, help="that decode images (all available cores)"
    )
    parser.add_argument(
        "--topk", metavar="K", type=positive, default=5, help="answers for an image (5)"
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="write each image's answers: .csv has names, classes and probabilities, .npz logits",
    )
    return run_command(parser, _run, argv)


@dataclass(frozen=True)
class _Outcome:
    """What a run has found, for reports.

    Attributes:
        dataset: what was run over.
        accuracy: counts and time.
        predictions: of each image, where they are asked for.
        result: what is written as JSON.
    """

    dataset: Dataset
    accuracy: Accuracy
    predictions: Predictions | None
    result: dict[str, Any]


def _run(options: argparse.Namespace) -> None:
    _check_options(options)
    session = InferenceSession(
        options.model,
        device=options.device,
        threads=options.threads,
        arithmetic=options.arithmetic,
    )
    model = Classifier(session)
    dataset = _dataset(options, model, session)
    labels = model.metadata.labels
    predictions = None
    if options.output or dataset.labels is None:
        predictions = Predictions(dataset, model.classes, labels)
    batch_size = _batch_size(options, model)
    try:
        accuracy = _evaluate(options, model, dataset, batch_size, predictions)
    except InputError as error:  # it names the input, but not where the array comes from
        raise DataError(f"{options.data}: {error}") from error
    if accuracy.skipped:
        _logger.warning("skipped %d of %d images", accuracy.skipped, dataset.images)
    result: dict[str, Any] = {
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
        "inference_images_per_second": accuracy.images / model.seconds,
    }
    _report(options, _Outcome(dataset, accuracy, predictions, result))


def _check_options(options: argparse.Namespace) -> None:
    if options.first and options.limit is None:
        raise AdderError("--first says which images --limit takes: give --limit N, too")
    if options.output is not None:
        check_output(options.output)
        if options.output.exists() and options.output.resolve() == options.data.resolve():
            raise AdderError(f"--output {options.output} would replace the data: choose another")


def _dataset(options: argparse.Namespace, model: Classifier, session: InferenceSession) -> Dataset:
    """The images to run over, their labels in the model's numbering."""
    how, inputs = model.metadata.preprocessing, session.get_inputs()
    dataset = open_dataset(
        options.data, options.format, options.split, inputs, how, options.labels_csv
    )
    if not dataset.arrays:
        model.check_takes_images()
    dataset = dataset.with_model_classes(model.classes, model.metadata.labels, options.class_map)
    dataset = dataset.skip(options.skip)
    if options.limit is None:
        return dataset
    return dataset.first(options.limit) if options.first else dataset.limit(options.limit)


def _batch_size(options: argparse.Namespace, model: Classifier) -> int:
    fixed = model.batch_size
    if fixed is None:
        return int(options.batch_size or _BATCH_SIZE)
    if options.batch_size not in (None, fixed):
        _logger.warning("the model takes batches of %d only: --batch-size is ignored", fixed)
    return fixed


def _evaluate(
    options: argparse.Namespace,
    model: Classifier,
    dataset: Dataset,
    batch_size: int,
    predictions: Predictions | None,
) -> Accuracy:
    with progress_bar("images", dataset.images) as advance:
        return evaluate(
            model,
            dataset,
            model.preprocessing(),
            batch_size=batch_size,
            workers=options.workers or available_cores(),
            pad=model.batch_size is not None,
            skip_bad=options.skip_bad,
            progress=advance,
            collect=(lambda *_: None) if predictions is None else predictions.add,
        )


def _report(options: argparse.Namespace, outcome: _Outcome) -> None:
    accuracy, predictions, result = outcome.accuracy, outcome.predictions, outcome.result
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
    if accuracy.skipped:
        rows["skipped"] = f"{accuracy.skipped} images that cannot be read"
    rows["speed"] = (
        f"{result['images_per_second']:.0f} images/s, decoding included; "
        f"{result['inference_images_per_second']:.0f} images/s in the model"
    )
    lines = [f"{name:<8}{text}" for name, text in rows.items()]
    if options.output and predictions is not None:
        predictions.write(options.output, options.topk)
        result["output"] = str(options.output)
        lines.append(f"{'output':<8}{options.output}")
    elif predictions is not None:
        lines = _answers(options, outcome, predictions)
    if options.json:
        write_json(options.json, result)
    if options.json != "-":
        print(*lines, sep="\n")


def _answers(options: argparse.Namespace, outcome: _Outcome, predictions: Predictions) -> list[str]:
    """Lines with the best answer for each image, or with the k best ones for a single image."""
    if outcome.dataset.single:
        answers = predictions.answers(0, options.topk)
        outcome.result["predictions"] = [_as_json(answer) for answer in answers]
        return [_as_text(answer) for answer in answers]
    named = [(predictions.name(i), predictions.answers(i, 1)[0]) for i in range(len(predictions))]
    outcome.result["predictions"] = [{"name": name} | _as_json(answer) for name, answer in named]
    return [f"{_as_text(answer)}  {' '.join(name.splitlines())}" for name, answer in named]


def _as_json(answer: Answer) -> dict[str, Any]:
    return {
        "class": answer.number,
        "label": answer.label,
        "probability": answer.probability,
    }


def _as_text(answer: Answer) -> str:
    return f"{100 * answer.probability:6.2f} %  {answer.label}"


if __name__ == "__main__":
    sys.exit(main())
