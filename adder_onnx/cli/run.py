"""``adder-run``: a model's accuracy on a data set, or its answer for one image."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.cli._command import (
    make_parser,
    positive,
    progress_bar,
    run_command,
    write_json,
)
from adder_onnx.errors import ModelError
from adder_onnx.evaluation import FORMATS, SPLITS, Dataset, evaluate, open_dataset
from adder_onnx.evaluation.accuracy import Model, load_input
from adder_onnx.metadata import ModelMetadata, Preprocessing
from adder_onnx.runtime import InferenceSession
from adder_onnx.runtime.threads import available_cores

__all__ = ["main"]

_FLOATS = ("tensor(float16)", "tensor(float)", "tensor(double)")

_EXAMPLES = """\
  adder-run resnet20.onnx --data cifar-10-batches-bin
  adder-run resnet50.onnx --data imagenet/val --batch-size 64 --json result.json
  adder-run resnet50.onnx --data cat.jpg --topk 3
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = make_parser(
        "adder-run",
        "Runs an exported AdderNet over a data set and reports its accuracy, or prints its answer "
        "for one image.",
        _EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL.onnx", type=Path)
    parser.add_argument(
        "--data",
        metavar="PATH",
        type=Path,
        required=True,
        help="CIFAR-10 batches (binary or Python), a folder with one folder of images per class, "
        "or an image",
    )
    parser.add_argument("--format", choices=FORMATS, default="auto", help="of the data (auto)")
    parser.add_argument("--split", choices=SPLITS, default="auto", help="of the data (auto)")
    parser.add_argument(
        "--limit", metavar="N", type=positive, help="only N images, evenly spaced over the set"
    )
    parser.add_argument("--device", default="auto", help="cpu or auto (auto)")
    parser.add_argument("--batch-size", metavar="N", type=positive, default=128, help="(128)")
    parser.add_argument(
        "--threads", metavar="N", type=positive, help="for inference (all available cores)"
    )
    parser.add_argument(
        "--workers", metavar="N", type=positive, help="that decode images (all available cores)"
    )
    parser.add_argument(
        "--topk", metavar="K", type=positive, default=5, help="answers for one image (5)"
    )
    return run_command(parser, _run, argv)


def _run(options: argparse.Namespace) -> None:
    session = InferenceSession(options.model, device=options.device, threads=options.threads)
    metadata = ModelMetadata.from_props(session.metadata)
    model, classes = _classifier(session)
    if metadata.labels is not None and len(metadata.labels) != classes:
        raise ModelError(
            f"the model has {classes} classes, but its metadata {len(metadata.labels)} labels"
        )
    preprocessing = _preprocessing(session, metadata)
    dataset = open_dataset(options.data, options.format, options.split)
    result: dict[str, Any] = {
        "model": str(options.model),
        "architecture": metadata.architecture,
        "dataset": str(options.data),
        "data": dataset.description,
        "device": session.device,
        "threads": session.threads,
        "precision": "float32",
    }
    if dataset.labels is None:
        _report_image(options, model, dataset, preprocessing, metadata, result)
    else:
        dataset = dataset.with_model_classes(classes, metadata.labels)
        if options.limit:
            dataset = dataset.limit(options.limit)
        _report_accuracy(options, model, dataset, preprocessing, result)


def _report_image(
    options: argparse.Namespace,
    model: Model,
    dataset: Dataset,
    preprocessing: Preprocessing,
    metadata: ModelMetadata,
    result: dict[str, Any],
) -> None:
    image = load_input(dataset, 0, preprocessing)
    logits = model(image[None])[0].astype(np.float64)
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    best = np.argsort(-logits, kind="stable")[: options.topk]
    result["predictions"] = [
        {
            "class": int(c),
            "label": metadata.labels[c] if metadata.labels else str(c),
            "probability": float(probabilities[c]),
        }
        for c in best
    ]
    if options.json:
        write_json(options.json, result)
    if options.json != "-":
        for answer in result["predictions"]:
            print(f"{100 * answer['probability']:6.2f} %  {answer['label']}")


def _report_accuracy(
    options: argparse.Namespace,
    model: Model,
    dataset: Dataset,
    preprocessing: Preprocessing,
    result: dict[str, Any],
) -> None:
    with progress_bar("images", dataset.images) as advance:
        accuracy = evaluate(
            model,
            dataset,
            preprocessing,
            batch_size=options.batch_size,
            workers=options.workers or available_cores(),
            progress=advance,
        )
    n = accuracy.images
    result |= {
        "images": n,
        "top1": 100 * accuracy.top1 / n,
        "top5": 100 * accuracy.top5 / n,
        "top1_correct": accuracy.top1,
        "top5_correct": accuracy.top5,
        "batch_size": options.batch_size,
        "seconds": accuracy.seconds,
        "images_per_second": n / accuracy.seconds,
    }
    if options.json:
        write_json(options.json, result)
    if options.json != "-":
        rows = {
            "model": f"{options.model} ({result['architecture'] or 'unnamed'}, float32)",
            "data": f"{options.data} ({dataset.description})",
            "device": f"{result['device']}, {result['threads']} threads",
            "top-1": f"{result['top1']:6.2f} %  ({accuracy.top1} of {n})",
            "top-5": f"{result['top5']:6.2f} %  ({accuracy.top5} of {n})",
            "speed": f"{result['images_per_second']:.0f} images/s, decoding included",
        }
        for name, text in rows.items():
            print(f"{name:<8}{text}")


def _classifier(session: InferenceSession) -> tuple[Model, int]:
    """The model as a function from images to logits, and its number of classes."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type != "tensor(float)":
        raise ModelError(
            "adder-run needs a model with one float input (N, C, H, W); this one has "
            + ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)
        )
    name, logits = inputs[0].name, outputs[0]
    classes = logits.shape[-1] if len(logits.shape) == 2 else None
    if not isinstance(classes, int) or logits.type not in _FLOATS:
        raise ModelError(
            "adder-run needs a model whose first output is float (N, classes); this one's is "
            f"{logits.name} {logits.type} {logits.shape}"
        )

    def classify(batch: NDArray[np.float32]) -> NDArray[Any]:
        result: NDArray[Any] = session.run([logits.name], {name: batch})[0]
        if not np.isfinite(result).all():
            raise ModelError(f"the model's output {logits.name} holds values that are not finite")
        return result

    return classify, classes


def _preprocessing(session: InferenceSession, metadata: ModelMetadata) -> Preprocessing:
    how = metadata.preprocessing
    if how is None:
        raise ModelError(
            "the model does not say how images are preprocessed (metadata "
            "ai.addernet.preprocessing); export it with adder-export"
        )
    shape = session.get_inputs()[0].shape[1:]
    for size, expected in zip((how.channels, how.height, how.width), shape, strict=True):
        if isinstance(expected, int) and size != expected:
            raise ModelError(
                f"the model takes images of {shape}, but its metadata preprocess them to "
                f"{[how.channels, how.height, how.width]}"
            )
    return how


if __name__ == "__main__":
    sys.exit(main())
