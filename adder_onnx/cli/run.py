"""``adder-run``: a model's accuracy on a data set, or its answers for images without labels."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from numpy.typing import NDArray

from adder_onnx.cli._command import (
    add_arithmetic_option,
    file_path,
    make_parser,
    non_negative,
    path_or_uri,
    positive,
    run_command,
    seconds,
)
from adder_onnx.cli._progress import phases, progress_bar
from adder_onnx.cli._run_answers import (
    add_answer_options,
    check_answer_options,
    check_has_answers,
)
from adder_onnx.cli._run_batch import BATCH_SIZE, choose_batch_size
from adder_onnx.cli._run_on_ray import add_ray_options, check_engine, run_on_ray
from adder_onnx.cli._run_report import ModelClasses, Outcome, describe_run, report
from adder_onnx.errors import AdderError, DataError, InputError, ModelError
from adder_onnx.evaluation import FORMATS, SPLITS, Accuracy, Dataset, evaluate, open_dataset
from adder_onnx.evaluation.formats import RAY_FORMATS
from adder_onnx.evaluation.inference import Outputs
from adder_onnx.evaluation.mistakes import MOST_SHOWN, WorstMistakes
from adder_onnx.evaluation.network import Network
from adder_onnx.evaluation.npz_output import NpzOutput, array_names
from adder_onnx.evaluation.outputs import choose_output
from adder_onnx.evaluation.predictions import Predictions, check_output
from adder_onnx.metadata import ModelMetadata
from adder_onnx.runtime import InferenceSession
from adder_onnx.runtime.threads import MAX_THREADS, available_cores

__all__ = ["main"]

_logger = logging.getLogger(__name__)

_EXAMPLES = """\
  adder-run resnet20.onnx --data cifar-10-python.tar.gz
  adder-run resnet50.onnx --data imagenet --split val --batch-size 64 --json result.json
  adder-run resnet50.onnx --data cat.jpg --topk 3 --device cuda
  adder-run resnet20.onnx --data cifar10 --confusion matrix.svg --mistakes worst.html
  adder-run resnet50.onnx --data photos --skip-bad --output answers.csv
  adder-run detector.onnx --data photos --output boxes.npz
  adder-run resnet20.onnx --data train --labels-csv trainLabels.csv --class-map classes.csv
  adder-run resnet50.onnx --data s3://bucket/photos --engine ray --address auto --output answers
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = make_parser(
        "adder-run",
        "Runs an exported AdderNet over a data set and reports its accuracy, or prints its answers "
        "for images without labels.",
        _EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL.onnx", type=file_path)
    parser.add_argument(
        "--data",
        metavar="PATH",
        type=path_or_uri,
        required=True,
        help="CIFAR-10 or CIFAR-100 (binary or Python batches, or their .tar.gz), MNIST's files, "
        "the folder above these, a folder with one folder of images per class, or above train, val "
        "or test with those, ImageNet's val with its ground truth beside, a folder of images, an "
        "image, or an .npz file: an array per input of the model, or images, perhaps of each "
        "split (uint8 is preprocessed, float is not), and perhaps labels; with --engine ray, "
        "folders of images, Parquet and tar files, also by a URI such as s3://bucket/folder",
    )
    formats = (*FORMATS, *RAY_FORMATS)
    parser.add_argument("--format", choices=formats, default="auto", help="of the data (auto)")
    parser.add_argument(
        "--split", choices=SPLITS, default="auto", help="of the data (test or val, if there is one)"
    )
    parser.add_argument(
        "--labels-csv",
        metavar="FILE",
        type=file_path,
        help="the labels of a folder of images: an image and its class in each line (found beside "
        "ImageNet's images)",
    )
    parser.add_argument(
        "--class-map",
        metavar="FILE",
        type=file_path,
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
        help=f"images in a run ({BATCH_SIZE}, or what the model is fixed to)",
    )
    parser.add_argument(
        "--threads", metavar="N", type=positive, help="for inference (all available cores)"
    )
    add_arithmetic_option(parser)
    parser.add_argument(
        "--workers", metavar="N", type=positive, help="that decode images (all available cores)"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        help="end with an error when a run of the model, which is one batch, takes longer (no "
        "limit)",
    )
    parser.add_argument(
        "--topk", metavar="K", type=positive, default=5, help="answers for an image (5)"
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=path_or_uri,
        help="write what the model says of each image: .csv has names, classes and probabilities; "
        ".npz has all outputs of a model of any kind, a classifier's scores as logits and others "
        "by their names, and labels where there are any; with --engine ray, a folder of Parquet "
        "files, or its URI",
    )
    add_answer_options(parser)
    add_ray_options(parser)
    return run_command(parser, _run, argv)


def _run(options: argparse.Namespace) -> None:
    _check_options(options)
    if options.engine == "ray":
        run_on_ray(options)
        return
    with phases("loading the model") as begin:
        session = InferenceSession(
            options.model,
            device=options.device,
            threads=options.threads,
            arithmetic=options.arithmetic,
        )
        metadata = ModelMetadata.from_props(session.metadata)
        classes = _find_classes(options, session, metadata.labels)
        needed = None if classes.output is None or _to_npz(options) else [classes.output.name]
        model = Network(session, needed, timeout=options.timeout)
        begin("reading the data")
        dataset, classes = _dataset(options, session, model, classes)
    check_has_answers(options, dataset, classes.output, classes.why_none)
    mistakes = _mistakes(options, dataset, classes)
    batch_size = choose_batch_size(options, model)
    with _collector(options, session, model, dataset, classes) as collected:
        try:
            accuracy = _evaluate(
                options, model, dataset, batch_size, classes, [collected, mistakes]
            )
        except InputError as error:  # it names the input, but not where the array comes from
            raise DataError(f"{options.data}: {error}") from error
        if accuracy.skipped:
            _logger.warning("skipped %d of %d images", accuracy.skipped, dataset.images)
        result = describe_run(options, session, model, dataset, accuracy, batch_size)
        how = model.metadata.preprocessing
        report(options, Outcome(dataset, classes, accuracy, collected, mistakes, how, result))


def _check_options(options: argparse.Namespace) -> None:
    if options.workers is not None and options.workers > MAX_THREADS:
        raise InputError(f"--workers {options.workers}: expected at most {MAX_THREADS}")
    if options.first and options.limit is None:
        raise AdderError("--first says which images --limit takes: give --limit N, too")
    check_engine(options)
    if options.output is not None and options.engine == "local":
        check_output(options.output)
    check_answer_options(options)


def _to_npz(options: argparse.Namespace) -> bool:
    return options.output is not None and options.output.suffix == ".npz"


def _find_classes(
    options: argparse.Namespace, session: InferenceSession, labels: Sequence[str] | None
) -> ModelClasses:
    try:
        return ModelClasses(choose_output(session, labels))
    except ModelError as error:
        if not _to_npz(options):
            raise ModelError(f"{error}; --output FILE.npz writes all outputs") from error
        return ModelClasses(None, str(error))


def _dataset(
    options: argparse.Namespace, session: InferenceSession, model: Network, classes: ModelClasses
) -> tuple[Dataset, ModelClasses]:
    """The images to run over, their labels in the model's numbering if it says classes."""
    how, inputs = model.metadata.preprocessing, session.get_inputs()
    dataset = open_dataset(
        options.data, options.format, options.split, inputs, how, options.labels_csv
    )
    if not dataset.arrays:
        model.check_takes_images()
    if classes.output is not None:
        labels = model.metadata.labels
        try:
            dataset = dataset.with_model_classes(classes.output.classes, labels, options.class_map)
        except DataError as error:
            # An output (N, features) looks like one of classes, unless there are labels for them.
            given = labels is not None or options.class_map is not None
            if given or not _to_npz(options):
                raise
            classes = ModelClasses(None, str(error))
    dataset = dataset.skip(options.skip)
    if options.limit is not None:
        dataset = dataset.first(options.limit) if options.first else dataset.limit(options.limit)
    return dataset, classes


def _collector(
    options: argparse.Namespace,
    session: InferenceSession,
    model: Network,
    dataset: Dataset,
    classes: ModelClasses,
) -> AbstractContextManager[NpzOutput | Predictions | None]:
    """What collects the model's answers for each image, where they are asked for."""
    if _to_npz(options):
        names = array_names(session, classes.output, labels=dataset.labels is not None)
        return NpzOutput(options.output, names, dataset)
    if classes.output is None or (options.output is None and dataset.labels is not None):
        return nullcontext()
    return nullcontext(Predictions(dataset, classes.output, model.metadata.labels))


def _mistakes(
    options: argparse.Namespace, dataset: Dataset, classes: ModelClasses
) -> WorstMistakes | None:
    if options.mistakes is None or dataset.labels is None or classes.output is None:
        return None
    return WorstMistakes(dataset.labels, classes.output, MOST_SHOWN)


def _evaluate(
    options: argparse.Namespace,
    model: Network,
    dataset: Dataset,
    batch_size: int,
    classes: ModelClasses,
    collectors: Sequence[NpzOutput | Predictions | WorstMistakes | None],
) -> Accuracy:
    def collect(numbers: NDArray[np.int64], outputs: Outputs) -> None:
        for collector in collectors:
            if collector is not None:
                collector.add(numbers, outputs)

    with progress_bar("images", dataset.images) as advance:
        return evaluate(
            model,
            dataset,
            model.preprocessing(),
            classes.output,
            batch_size=batch_size,
            workers=options.workers or available_cores(),
            pad=model.batch_size is not None,
            skip_bad=options.skip_bad,
            progress=advance,
            collect=collect,
        )


if __name__ == "__main__":
    sys.exit(main())
