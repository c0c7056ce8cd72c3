"""A contact sheet of a model's worst mistakes, as what a page is drawn from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from adder_onnx.errors import DataError
from adder_onnx.evaluation.dataset import Dataset
from adder_onnx.evaluation.mistakes.thumbnails import Thumbnail, make_thumbnail
from adder_onnx.evaluation.mistakes.worst import Mistake, WorstMistakes
from adder_onnx.evaluation.shown_names import ClassNames
from adder_onnx.metadata import Preprocessing
from adder_onnx.text import shorten

__all__ = ["MOST_SHOWN", "contact_sheet"]

_logger = logging.getLogger(__name__)

MOST_SHOWN = 100
"""Images on a page, which has less than a few megabytes then."""

_NAME_CELLS = 200


def contact_sheet(
    model: str,
    dataset: Dataset,
    mistakes: WorstMistakes,
    *,
    images: int,
    names: Sequence[str] | None,
    how: Preprocessing | None,
    folder: str,
) -> dict[str, Any]:
    """What there is to show, as JSON has it. The images are read anew.

    Args:
        model: what the model is called.
        dataset: what it was run over.
        mistakes: the worst of it.
        images: how many it was run over.
        names: of all classes, if they have any.
        how: how images become the model's input, if that is known.
        folder: where the images are, which their names begin or end with and need not say.
    """
    called = ClassNames(names)
    return {
        "model": shorten(model, _NAME_CELLS),
        "data": shorten(dataset.description, _NAME_CELLS),
        "images": images,
        "wrong": mistakes.count,
        "mistakes": [_entry(m, dataset, called, how, folder) for m in mistakes.worst()],
    }


def _entry(
    mistake: Mistake, dataset: Dataset, called: ClassNames, how: Preprocessing | None, folder: str
) -> dict[str, Any]:
    name = dataset.name_of(mistake.image).removeprefix(f"{folder}/").removesuffix(f" of {folder}")
    picture = _thumbnail(dataset, mistake.image, how)
    return {
        "name": shorten(name, _NAME_CELLS),
        "label": shorten(called[mistake.label], _NAME_CELLS),
        "answer": shorten(called[mistake.answer], _NAME_CELLS),
        "confidence": mistake.confidence,
        "labelConfidence": mistake.label_confidence,
        "picture": picture and asdict(picture),
    }


def _thumbnail(dataset: Dataset, image: int, how: Preprocessing | None) -> Thumbnail | None:
    try:
        return make_thumbnail(dataset.load(image), how)
    except DataError as error:  # it could be read before
        _logger.warning("an image is not shown: %s", error)
        return None
