"""What a model file says about itself, beyond its graph, in ``metadata_props``.

| key | value |
| --- | --- |
| ``ai.addernet.architecture`` | name of the architecture, for example ``resnet20`` |
| ``ai.addernet.preprocessing`` | JSON object, see `Preprocessing` |
| ``ai.addernet.labels`` | JSON array of strings, one per class |
| ``ai.addernet.checkpoint_sha256`` | SHA-256 of the checkpoint file, hexadecimal |

Each may be missing.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from adder_onnx.errors import ModelError

__all__ = ["CIFAR10", "CIFAR10_LABELS", "IMAGENET", "ModelMetadata", "Preprocessing"]

_LARGEST_SIZE = 1_000_000
_LARGEST_VALUE = 1e12
_PREFIX = "ai.addernet."


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the model's input, in this order.

    Attributes:
        channels: 1 (grey) or 3 (RGB), to which images are converted, or another number, which
            images must have.
        height: of the input, in pixels.
        width: of the input, in pixels.
        resize: length to which the shorter side is scaled, or None to leave the image as it is.
        crop: whether a window of (height, width) is then cut from the centre; without it an image
            must have exactly that size.
        mean: one value per channel, subtracted from values scaled to [0, 1].
        std: one value per channel, by which they are then divided.
    """

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None
    crop: bool = False

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ModelError(f"{self.channels} channels; images have at least 1")
        sizes = [self.height, self.width, *(() if self.resize is None else (self.resize,))]
        if min(sizes) < 1 or max(sizes) > _LARGEST_SIZE:
            raise ModelError(f"sizes of images must be from 1 pixel to {_LARGEST_SIZE}")
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ModelError(
                f"{len(self.mean)} means and {len(self.std)} standard deviations for "
                f"{self.channels} channels; expected one each per channel"
            )
        if not all(abs(value) <= _LARGEST_VALUE for value in (*self.mean, *self.std)):
            raise ModelError(
                f"means {list(self.mean)} and standard deviations {list(self.std)} must be finite "
                f"and at most {_LARGEST_VALUE:g}"
            )
        if min(self.std) < 1 / _LARGEST_VALUE:
            raise ModelError(
                f"standard deviations {list(self.std)} must be positive, at least "
                f"{1 / _LARGEST_VALUE:g}"
            )


CIFAR10 = Preprocessing(3, 32, 32, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
"""That of the evaluation script of the paper's reference implementation."""

IMAGENET = Preprocessing(
    3, 224, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), resize=256, crop=True
)
"""That of the same script."""

CIFAR10_LABELS = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
"""CIFAR-10's classes in the order of their numbers."""


@dataclass(frozen=True)
class ModelMetadata:
    """The metadata of a model; None for what it does not say.

    Attributes:
        architecture: its name, for example ``resnet20``.
        preprocessing: how an image becomes the model's input.
        labels: one per class, in the order of the classes.
        checkpoint_sha256: of the file that the model was exported from, hexadecimal.
    """

    architecture: str | None = None
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] | None = None
    checkpoint_sha256: str | None = None

    def to_props(self) -> dict[str, str]:
        """The entries of ``metadata_props``."""
        props: dict[str, str] = {}
        if self.architecture is not None:
            props["architecture"] = self.architecture
        if self.preprocessing is not None:
            props["preprocessing"] = json.dumps(asdict(self.preprocessing))
        if self.labels is not None:
            props["labels"] = json.dumps(self.labels, ensure_ascii=False)
        if self.checkpoint_sha256 is not None:
            props["checkpoint_sha256"] = self.checkpoint_sha256
        return {_PREFIX + key: value for key, value in props.items()}

    @classmethod
    def from_props(cls, props: Mapping[str, str]) -> ModelMetadata:
        """Reads ``metadata_props``; entries that are not ours are ignored.

        Raises:
            ModelError: an entry of ours cannot be understood.
        """
        preprocessing = _json(props, "preprocessing")
        labels = _json(props, "labels")
        try:
            return cls(
                architecture=props.get(_PREFIX + "architecture"),
                preprocessing=None if preprocessing is None else _preprocessing(preprocessing),
                labels=None if labels is None else _labels(labels),
                checkpoint_sha256=props.get(_PREFIX + "checkpoint_sha256"),
            )
        except (TypeError, ValueError, KeyError, OverflowError, RecursionError) as error:
            raise ModelError(f"the model's metadata cannot be understood: {error}") from error


def _json(props: Mapping[str, str], key: str) -> Any:
    text = props.get(_PREFIX + key)
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"the model's metadata {_PREFIX + key} is not JSON: {error}") from error


def _preprocessing(values: Any) -> Preprocessing:
    if not isinstance(values, dict):
        raise TypeError(f"{_PREFIX}preprocessing is not a JSON object")
    fields: dict[str, Any] = dict(values)
    for name in ("channels", "height", "width", "resize"):
        if fields.get(name) is not None:
            fields[name] = operator.index(fields[name])
    for name in ("mean", "std"):
        if name in fields:
            fields[name] = tuple(float(value) for value in fields[name])
    if not isinstance(fields.get("crop", False), bool):
        raise TypeError(f"crop is {fields['crop']!r}; expected true or false")
    return Preprocessing(**fields)


def _labels(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TypeError(f"{_PREFIX}labels is not a JSON array")
    return tuple(str(value) for value in values)
