"""Which arrays of an ``.npz`` file are images, and which are their labels."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from adder_onnx.errors import DataError
from adder_onnx.evaluation.splits import choose_split, split_called

__all__ = ["Choice", "choose_arrays", "listed"]

_SHOWN = 8
_LONGEST = 60

_LABELS = "labels"
_IMAGE_NAMES = frozenset({"x", "image", "images", "img", "imgs", "data", "input", "inputs"})
_LABEL_NAMES = frozenset({"y", "label", _LABELS, "target", "targets"})
_CLASS_NAMES = frozenset({"classnames", "labelnames", "targetnames", "classes", "categories"})
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_XY = re.compile(r"^([xy])(?=t|v)", re.IGNORECASE)  # as in xtrain


@dataclass(frozen=True)
class Choice:
    """Names of arrays.

    Attributes:
        inputs: one for each of the model's inputs.
        labels: that of the labels, if there are any.
        classes: that of the names of the classes, if there are any.
        split: which the inputs and labels are, or None where the file has no splits.
        other: those that are of no use.
    """

    inputs: tuple[str, ...]
    labels: str | None
    classes: str | None
    split: str | None
    other: tuple[str, ...]


def choose_arrays(path: Path, names: Collection[str], inputs: Sequence[str], split: str) -> Choice:
    """Tells arrays by their names.

    1. Arrays that are called like all of the model's inputs are these.
    2. For a model with one input, the array is called ``x``, ``images``, ``data`` or ``input``, and
       it may be one of each split: ``x_train``, ``train_images``, ``X_test``, ….
    3. If there is none of these names, it is the only array that is not called like labels.

    Labels are called ``labels``, ``y`` or ``targets``, likewise with the split, and the names of
    the classes ``class_names``, ``label_names``, ``target_names``, ``classes`` or ``categories``.

    Args:
        path: of the file, for messages.
        names: of all arrays.
        inputs: names of the model's inputs.
        split: which split to choose, one of `SPLITS`.

    Raises:
        DataError: no array, or more than one, fits; the split is not there.
    """
    roles = {name: _role(name) for name in names}
    images: dict[str | None, list[str]] = defaultdict(list)
    labels: dict[str | None, list[str]] = defaultdict(list)
    for name, (role, own) in roles.items():
        if role == "images":
            images[own].append(name)
        elif role == "labels":
            labels[own].append(name)
    chosen: str | None = None
    if inputs and all(name in names for name in inputs):
        found = tuple(inputs)
    elif len(inputs) <= 1 and (splits := [own for own in images if own is not None]):
        chosen = choose_split(path, splits, split)
        found = _single(path, names, images[chosen], inputs)
    else:
        unlabelled = [name for name, (role, _) in roles.items() if role in ("images", "")]
        others = [name for name in names if name != _LABELS]
        found = _single(path, names, images[None] or unlabelled or others, inputs)
    if chosen is None and split != "auto":
        raise DataError(f"{path} has no splits: leave out --split {split}")
    own_labels = [name for name in labels[chosen] if name not in found]
    if _LABELS in own_labels:
        own_labels = [_LABELS]
    if len(own_labels) > 1:
        raise DataError(f"{path} holds {' and '.join(own_labels[:_SHOWN])}; which are the labels?")
    label = own_labels[0] if own_labels else None
    classes = [name for name, (role, _) in roles.items() if role == "classes" and name not in found]
    used = {*found, label, *classes[:1]}
    of_splits = {name for name, (_, own) in roles.items() if chosen is not None and own is not None}
    return Choice(
        found,
        label,
        classes[0] if classes else None,
        chosen,
        tuple(name for name in names if name not in used | of_splits),
    )


def listed(names: Sequence[str]) -> str:
    """A list of names for a message, of a few and how many more there are."""
    shown = ", ".join(
        name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…" for name in names[:_SHOWN]
    )
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _single(
    path: Path, names: Collection[str], found: Sequence[str], inputs: Sequence[str]
) -> tuple[str, ...]:
    if len(found) == 1 and len(inputs) <= 1:
        return tuple(found)
    data = [name for name in names if name != _LABELS]
    raise DataError(
        f"{path} holds {listed(data) or 'no arrays'}; expected one array for each input of the "
        f"model ({', '.join(inputs)})" + (", or a single one" if len(inputs) <= 1 else "")
    )


def _role(name: str) -> tuple[str, str | None]:
    """``images``, ``labels``, ``classes`` or nothing, and the split that a name says."""
    words = re.split(r"[\W_]+", _XY.sub(r"\1_", _HUMP.sub("_", name)).casefold())
    splits = {split for word in words if (split := split_called(word))}
    rest = "".join(word for word in words if not split_called(word))
    split = splits.pop() if len(splits) == 1 else None
    for role, known in (
        ("images", _IMAGE_NAMES),
        ("labels", _LABEL_NAMES),
        ("classes", _CLASS_NAMES),
    ):
        if rest in known:
            return role, split
    return "images" if split and not rest else "", split
