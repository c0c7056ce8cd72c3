"""``adder-quantize``: from a float model to integer adder nodes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import EncodeError
from numpy.typing import NDArray

from adder_onnx.cli._command import (
    check_outputs,
    file_path,
    make_parser,
    non_negative,
    percent,
    positive,
    print_lines,
    run_command,
    write_json,
)
from adder_onnx.cli._held_out import HeldOut
from adder_onnx.cli._progress import phases, progress_of_unknown
from adder_onnx.cli._quantize_report import Loss, lines_of, summarize, without_infinity
from adder_onnx.errors import DataError, InputError, ModelError
from adder_onnx.evaluation import FORMATS, SPLITS, Dataset, open_dataset
from adder_onnx.evaluation.inference import load_inputs
from adder_onnx.evaluation.network import Network
from adder_onnx.evaluation.outputs import choose_output
from adder_onnx.files import write_atomically
from adder_onnx.graph.loading import read_model
from adder_onnx.pages.quantization import quantization_page
from adder_onnx.quantization import Quantized, quantize
from adder_onnx.quantization.quantize import DEFAULT_BITS, DEFAULT_BITS_OF_LEVELS
from adder_onnx.quantization.ranges import CALIBRATIONS
from adder_onnx.quantization.standard import quantize_standard_nodes
from adder_onnx.quantization.widths import quantize_within
from adder_onnx.runtime import InferenceSession

__all__ = ["main"]

_BATCH_SIZE = 16

_EXAMPLES = """\
  adder-quantize resnet20.onnx resnet20_int8.onnx --data cifar-10-python.tar.gz
  adder-quantize resnet20.onnx resnet20_int4.onnx --data cifar-10-batches-py --bits 4
  adder-quantize resnet20.onnx resnet20_8_levels.onnx --data cifar-10-batches-py --levels 8
  adder-quantize resnet20.onnx resnet20_auto.onnx --data train --bits auto --validate val
  adder-quantize resnet50.onnx resnet50_int8.onnx --data imagenet --split train --samples 256
  adder-quantize resnet20.onnx resnet20_int4.onnx --data val --bits 4 --sensitivity --html page.html
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = make_parser(
        "adder-quantize",
        "Turns the adder nodes of a float model into integer ones, by ranges found on images.",
        _EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL.onnx", type=file_path)
    parser.add_argument("output", metavar="OUTPUT.onnx", type=file_path)
    parser.add_argument(
        "--data", metavar="PATH", type=file_path, required=True, help="images, as for adder-run"
    )
    parser.add_argument(
        "--bits",
        metavar="N",
        type=_bits,
        help="2 to 8 (8; 4 with --levels), or auto: for each node the fewest that keep the loss "
        "within --max-loss",
    )
    parser.add_argument(
        "--levels",
        metavar="N",
        type=int,
        help="so few of the integers of --bits for each node's input, 2 to 16, while weights have "
        "all; 8 and fewer let lookups take the place of differences (all)",
    )
    parser.add_argument(
        "--max-loss",
        metavar="P",
        type=percent,
        default=0.5,
        help="for --bits auto: accuracy that may be lost, in percent of the images (0.5)",
    )
    parser.add_argument(
        "--validate",
        metavar="PATH",
        type=file_path,
        help="images with labels that the loss is measured on (those of --data that ranges are not "
        "found on); without labels, answers that change are counted",
    )
    parser.add_argument(
        "--samples", metavar="N", type=positive, default=128, help="images that are used (128)"
    )
    parser.add_argument(
        "--seed", metavar="N", type=non_negative, default=0, help="of their choice (0)"
    )
    parser.add_argument("--first", action="store_true", help="take the first images instead")
    parser.add_argument(
        "--skip", metavar="N", type=non_negative, default=0, help="leave out the first N images"
    )
    parser.add_argument(
        "--calibration",
        choices=CALIBRATIONS,
        default="output",
        help="how ranges are chosen (output)",
    )
    parser.add_argument(
        "--percentile",
        metavar="P",
        type=percent,
        default=99.9,
        help="for percentile (99.9)",
    )
    parser.add_argument(
        "--exclude",
        metavar="NODE",
        action="append",
        default=[],
        help="an adder node that stays float; may be repeated",
    )
    parser.add_argument(
        "--standard-nodes",
        action="store_true",
        help="quantize Conv, Gemm and MatMul, too, to 8 bits by onnxruntime's tool, as QDQ nodes",
    )
    parser.add_argument(
        "--sensitivity",
        action="store_true",
        help="quantize each node alone, too, and report what that does to the output",
    )
    parser.add_argument(
        "--html",
        metavar="FILE",
        type=file_path,
        help="write a page that shows what is found: ranges, bits, and what each node loses",
    )
    parser.add_argument("--format", choices=FORMATS, default="auto", help="of the data (auto)")
    parser.add_argument(
        "--split", choices=SPLITS, default="auto", help="of the data (test or val, if there is one)"
    )
    parser.add_argument("--threads", metavar="N", type=positive, help="(all available cores)")
    return run_command(parser, _run, argv)


def _run(options: argparse.Namespace) -> None:
    check_outputs(
        options,
        {"the output": options.output, "--html": options.html},
        {"the float model": options.model, "the data": options.data, "data": options.validate},
    )
    if options.bits is None:
        options.bits = DEFAULT_BITS if options.levels is None else DEFAULT_BITS_OF_LEVELS
    if options.bits == "auto" and options.levels is not None:
        raise InputError("--levels is of one width: give --bits a number, or leave it out")
    with phases("loading the model") as begin:
        proto = read_model(options.model)
        session = InferenceSession(options.model, threads=options.threads)
        model = Network(session)
        begin("reading the data")
        everything = _open(options, options.data, model, session).skip(options.skip)
    numbers = _chosen(options, everything)
    dataset = everything.select(numbers)
    if options.bits == "auto":
        result, loss = _quantize_within(options, proto, session, model, everything, numbers)
    else:
        loss = None
        result = _quantize(options, proto, dataset, model)
    final = result.model
    with phases("standard nodes") as begin:
        if options.standard_nodes:
            final = quantize_standard_nodes(final, _feeds(dataset, model))
        begin("writing the model")
        try:
            data = final.SerializeToString()
        except (EncodeError, ValueError) as error:
            raise ModelError(
                f"{options.output} would have 2 GiB or more, which protobuf cannot write"
            ) from error
        write_atomically(options.output, data)
    summary = summarize(options, result, len(data), dataset.images, loss)
    if options.json:
        write_json(options.json, without_infinity(summary))
    if options.html is not None:
        write_atomically(options.html, quantization_page(without_infinity(summary)).encode())
    if options.json != "-":
        print_lines(lines_of(summary))


def _bits(text: str) -> int | str:
    return text if text == "auto" else int(text)


def _quantize(
    options: argparse.Namespace, proto: onnx.ModelProto, dataset: Dataset, model: Network
) -> Quantized:
    guess = -(-dataset.images // _BATCH_SIZE)
    with progress_of_unknown("calibration", guess) as progress:
        return quantize(
            proto,
            _feeds(dataset, model),
            bits=options.bits,
            levels=options.levels,
            calibration=options.calibration,
            percentile=options.percentile,
            exclude=options.exclude,
            sensitivity=options.sensitivity,
            seed=options.seed,
            threads=options.threads,
            progress=lambda done, total: progress(done, total, "calibration"),
            alone=lambda done, total: progress(done, total, "nodes alone"),
        )


def _quantize_within(
    options: argparse.Namespace,
    proto: onnx.ModelProto,
    session: InferenceSession,
    model: Network,
    everything: Dataset,
    numbers: NDArray[np.int64],
) -> tuple[Quantized, Loss]:
    """Widths by what is lost on images that ranges are not found on."""
    if options.calibration != "output":
        raise InputError(f"--bits auto needs --calibration output, not {options.calibration}")
    if options.sensitivity:
        raise InputError("--sensitivity is of one width: give --bits a number, or leave it out")
    classified = choose_output(session, model.metadata.labels)
    if options.validate is None:
        others = np.setdiff1d(np.arange(everything.images), numbers)
        if not len(others):
            raise DataError(
                f"{options.data}: ranges are found on all {everything.images} images, so that none "
                "is left to see what is lost: give --validate PATH, or fewer --samples"
            )
        held_out = everything.select(others)
    else:
        with phases("reading the data"):
            held_out = _open(options, options.validate, model, session)
    held_out = held_out.with_model_classes(classified.classes, model.metadata.labels)
    with phases("running the float model"):
        judge = HeldOut(session, held_out, classified, _BATCH_SIZE, options.threads)
    dataset = everything.select(numbers)
    with progress_of_unknown("widths", 9) as progress:
        found = quantize_within(
            proto,
            lambda: _feeds(dataset, model),
            judge.loss,
            options.max_loss,
            exclude=options.exclude,
            seed=options.seed,
            threads=options.threads,
            progress=lambda done, total: progress(done, total, "widths"),
            alone=lambda done, total: progress(done, total, "nodes alone"),
        )
    return found.quantized, Loss(found.loss, held_out.images, judge.labelled)


def _open(
    options: argparse.Namespace, path: Path, model: Network, session: InferenceSession
) -> Dataset:
    how, inputs = model.metadata.preprocessing, session.get_inputs()
    dataset = open_dataset(path, options.format, options.split, inputs, how)
    if not dataset.arrays:
        model.check_takes_images()
    return dataset


def _chosen(options: argparse.Namespace, dataset: Dataset) -> NDArray[np.int64]:
    """Numbers of the images that ranges are found on."""
    if options.first:
        return np.arange(min(options.samples, dataset.images))
    return _drawn(dataset, options.samples, options.seed)


def _drawn(dataset: Dataset, count: int, seed: int) -> NDArray[np.int64]:
    """Numbers of images drawn at random, as many of each class as there are, or nearly."""
    order = np.random.default_rng(seed).permutation(dataset.images)
    if dataset.labels is not None:
        labels = dataset.labels[order]
        # Each image's place among those of its class; the first of all classes come first.
        places = np.empty(len(order), np.int64)
        for label in np.unique(labels):
            own = labels == label
            places[own] = np.arange(own.sum())
        order = order[np.argsort(places, kind="stable")]
    chosen: NDArray[np.int64] = np.sort(order[:count]).astype(np.int64)
    return chosen


def _feeds(dataset: Dataset, model: Network) -> Iterator[dict[str, Any]]:
    size = model.batch_size or _BATCH_SIZE
    preprocessing = model.preprocessing()
    for start in range(0, dataset.images, size):
        samples = [
            load_inputs(dataset, i, preprocessing)
            for i in range(start, min(start + size, dataset.images))
        ]
        if model.batch_size is not None:
            samples += [samples[-1]] * (size - len(samples))
        yield model.feed([np.stack(values) for values in zip(*samples, strict=True)])


if __name__ == "__main__":
    sys.exit(main())
