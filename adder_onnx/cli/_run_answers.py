"""What adder-run shows of right and wrong answers: by class, as a matrix, the worst mistakes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.cells import cell_len, set_cell_size

from adder_onnx.cli._command import check_outputs, file_path
from adder_onnx.errors import AdderError, DataError, ModelError
from adder_onnx.evaluation import Accuracy, Dataset
from adder_onnx.evaluation.confusion import ClassAccuracy, Confusion, draw_confusion
from adder_onnx.evaluation.mistakes import MOST_SHOWN, WorstMistakes, contact_sheet
from adder_onnx.evaluation.outputs import Classified
from adder_onnx.evaluation.shown_names import ClassNames
from adder_onnx.files import write_atomically
from adder_onnx.metadata import Preprocessing
from adder_onnx.pages.mistakes import mistakes_page
from adder_onnx.text import shorten

__all__ = [
    "add_answer_options",
    "check_answer_options",
    "check_has_answers",
    "counts_as_json",
    "per_class_lines",
    "write_answers",
]

_SUFFIXES = {"confusion": ".svg", "mistakes": ".html"}
_NAME_CELLS = 40


def add_answer_options(parser: argparse.ArgumentParser) -> None:
    """Adds --per-class, --confusion and --mistakes."""
    parser.add_argument(
        "--per-class", action="store_true", help="print the accuracy of each class, worst first"
    )
    parser.add_argument(
        "--confusion",
        metavar="FILE.svg",
        type=file_path,
        help="draw which classes the model takes for which",
    )
    parser.add_argument(
        "--mistakes",
        metavar="FILE.html",
        type=file_path,
        help=f"write a page of the {MOST_SHOWN} images that the model is most sure of and wrong "
        "about",
    )


def check_answer_options(options: argparse.Namespace) -> None:
    """Finds out before the work whether the files can be written.

    Raises:
        AdderError: one has another suffix, would replace what is read or another one, or cannot be
            written.
    """
    for option, suffix in _SUFFIXES.items():
        path: Path | None = getattr(options, option)
        if path is None:
            continue
        if path.suffix != suffix:
            raise AdderError(f"cannot write {path}: --{option} takes a name that ends in {suffix}")
    # What Ray writes is no file, and URIs are not on this machine.
    files = _SUFFIXES if options.engine == "ray" else ("output", *_SUFFIXES)
    outputs = {f"--{option}": getattr(options, option) for option in files}
    inputs = {
        "the model": options.model,
        "the data": options.data if isinstance(options.data, Path) else None,
        "the table of labels": options.labels_csv,
        "the map of classes": options.class_map,
    }
    check_outputs(options, outputs, inputs)


def check_has_answers(
    options: argparse.Namespace, dataset: Dataset, classified: Classified | None, why: str | None
) -> None:
    """Finds out before the work whether answers can be right or wrong.

    Args:
        options: of the command.
        dataset: what the model is run over.
        classified: the output that says the classes.
        why: the reason where there is none.

    Raises:
        DataError: an option needs labels, and there are none.
        ModelError: it needs classes, and the model says none.
    """
    asked = [option for option in ("per_class", *_SUFFIXES) if getattr(options, option)]
    if not asked:
        return
    option = f"--{asked[0].replace('_', '-')}"
    if classified is None:
        raise ModelError(f"{option} needs a model that says what class an image is of: {why}")
    if dataset.labels is None:
        raise DataError(
            f"{option} needs labels, and {options.data} ({dataset.description}) has none: leave it "
            "out, or give labels by folders of images per class, --labels-csv FILE, or an array"
        )


def counts_as_json(confusion: Confusion, names: Sequence[str] | None) -> dict[str, Any]:
    """What the JSON says of right and wrong answers."""
    return {
        "per_class": [
            {
                "class": found.number,
                "label": str(found.number) if names is None else names[found.number],
                "images": found.images,
                "correct": found.correct,
                "top1": 100 * found.share,
                "answers": found.answers,
            }
            for found in confusion.per_class()
        ],
        "confusion": confusion.as_json(names),
    }


def per_class_lines(confusion: Confusion, names: Sequence[str] | None) -> list[str]:
    """A table of each class's accuracy, worst first, then that of which there are more images."""
    called = ClassNames(names)
    found = sorted(confusion.per_class(), key=lambda one: (one.share, -one.images, one.number))
    shown = [shorten(called[one.number], _NAME_CELLS) for one in found]
    width = max(map(cell_len, ["class", *shown]))
    lines = [f"{'top-1':>8}   right  images  {'class':<{width}}  taken for most often"]
    for one, name in zip(found, shown, strict=True):
        numbers = f"{100 * one.share:6.2f} %  {one.correct:6}  {one.images:6}"
        lines.append(f"{numbers}  {set_cell_size(name, width)}  {_taken_for(one, called)}".rstrip())
    return lines


def _taken_for(one: ClassAccuracy, called: ClassNames) -> str:
    if one.mistaken_for is None:
        return ""
    number, count = one.mistaken_for
    return f"{shorten(called[number], _NAME_CELLS)} ({count})"


def write_answers(
    options: argparse.Namespace,
    dataset: Dataset,
    accuracy: Accuracy,
    mistakes: WorstMistakes | None,
    how: Preprocessing | None,
) -> dict[str, str]:
    """Writes the files that are asked for, each whole or not at all.

    Returns:
        What the JSON says of them: a key and the path of each.

    Raises:
        AdderError: one cannot be written.
    """
    written = {}
    confusion, model = accuracy.confusion, options.model.name
    if options.confusion is not None and confusion is not None:
        share = 100 * confusion.correct / confusion.images
        picture = draw_confusion(
            confusion,
            dataset.classes,
            f"top-1 {share:.2f} %  ({confusion.correct} of {confusion.images})",
            f"{model} on {options.data} ({dataset.description})",
        )
        write_atomically(options.confusion, picture.encode())
        written["confusion_file"] = str(options.confusion)
    if options.mistakes is not None and mistakes is not None:
        sheet = contact_sheet(
            model,
            dataset,
            mistakes,
            images=accuracy.images,
            names=dataset.classes,
            how=how,
            folder=str(options.data),
        )
        write_atomically(options.mistakes, mistakes_page(sheet).encode())
        written["mistakes_file"] = str(options.mistakes)
    return written
