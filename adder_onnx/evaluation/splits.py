"""Choosing one of the splits that a data set comes in."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from adder_onnx.errors import DataError

__all__ = ["SPLITS", "choose_split"]

SPLITS = ("auto", "train", "val", "test")

_PREFERRED = ("test", "val", "train")


def choose_split(path: Path, available: Collection[str], wanted: str) -> str:
    """The split to take.

    Args:
        path: of the data set, for messages.
        available: the splits that are there, at least one.
        wanted: one of `SPLITS`; ``auto`` takes ``test``, else ``val``, else ``train``.

    Raises:
        DataError: the split is not there.
    """
    if wanted == "auto":
        return next(split for split in _PREFERRED if split in available)
    if wanted not in available:
        raise DataError(
            f"{path} has no {wanted} data, only {', '.join(sorted(available))}: choose another "
            "--split"
        )
    return wanted
