"""The splits that a data set comes in: what they are called, and choosing one."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection

from adder_onnx.errors import DataError
from adder_onnx.evaluation.listed_folder import AnyPath

__all__ = ["HELD_OUT", "SPLITS", "choose_split", "split_called", "warn_of_training_data"]

SPLITS = ("auto", "train", "val", "test")

HELD_OUT = ("test", "val")
"""Those that a model was not trained on, the preferred one first."""

_CALLED = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_AROUND = re.compile(r"^(ilsvrc2012_img_)?(.+?)[ _-]?(set)?$")


def split_called(name: str) -> str | None:
    """The split that is called so, such as ``Train``, ``test_set`` or ``ILSVRC2012_img_val``."""
    match = _AROUND.match(name.casefold())
    return _CALLED.get(match[2]) if match else None


def choose_split(path: AnyPath | str, available: Collection[str], wanted: str) -> str:
    """The split to take.

    Args:
        path: of the data set, for messages.
        available: the splits that are there, at least one.
        wanted: one of `SPLITS`; ``auto`` takes ``test``, else ``val``, else ``train``.

    Raises:
        DataError: the split is not there.
    """
    if wanted == "auto":
        return next(split for split in (*HELD_OUT, "train") if split in available)
    if wanted not in available:
        raise DataError(
            f"{path} has no {wanted} data, only {', '.join(sorted(available))}: choose another "
            "--split"
        )
    return wanted


def warn_of_training_data(path: AnyPath | str, wanted: str, taken: str | None) -> None:
    """Warns where the training data are taken, and were not asked for."""
    if wanted == "auto" and taken == "train":
        logging.getLogger(__name__).warning(
            "%s has neither test nor validation data: taking the training data", path
        )
