"""The attributes of ONNX ``Conv``, which the operators of our domain share, and their geometry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adder_onnx.errors import ModelError

__all__ = ["AUTO_PAD_MODES", "ConvAttributes"]

AUTO_PAD_MODES = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")


@dataclass(frozen=True)
class ConvAttributes:
    """Strides, pads, dilations and groups of a two-dimensional convolution.

    The meaning is that of ONNX ``Conv`` (opset 11).

    Attributes:
        strides: (vertical, horizontal), each at least 1.
        pads: (top, left, bottom, right), each at least 0; ignored unless ``auto_pad`` is NOTSET.
        dilations: (vertical, horizontal), each at least 1.
        group: number of groups, at least 1.
        auto_pad: one of ``AUTO_PAD_MODES``.
    """

    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    group: int = 1
    auto_pad: str = "NOTSET"

    def __post_init__(self) -> None:
        for name, length, least in (("strides", 2, 1), ("pads", 4, 0), ("dilations", 2, 1)):
            values = getattr(self, name)
            if len(values) != length or min(values) < least:
                raise ModelError(
                    f"attribute {name} is {list(values)}; expected {length} integers of at least "
                    f"{least} (AdderConv is two-dimensional)"
                )
        if self.group < 1:
            raise ModelError(f"attribute group is {self.group}; expected at least 1")
        if self.auto_pad not in AUTO_PAD_MODES:
            raise ModelError(
                f"attribute auto_pad is {self.auto_pad!r}; expected one of {AUTO_PAD_MODES}"
            )

    @classmethod
    def from_mapping(cls, attributes: Mapping[str, Any]) -> ConvAttributes:
        """Reads plain Python values by attribute name; a missing one takes its default.

        ``kernel_shape`` may be among them and is left to `check_weight`.
        """
        known: dict[str, Any] = {}
        for name in ("strides", "pads", "dilations"):
            if name in attributes:
                known[name] = tuple(int(v) for v in attributes[name])
        if "group" in attributes:
            known["group"] = int(attributes["group"])
        if "auto_pad" in attributes:
            mode = attributes["auto_pad"]
            known["auto_pad"] = mode.decode() if isinstance(mode, bytes) else mode
        return cls(**known)

    def check_weight(
        self,
        weight_shape: Sequence[int],
        channels: int | None = None,
        kernel_shape: Sequence[int] | None = None,
    ) -> None:
        """Checks a weight against the number of channels and the attributes.

        Args:
            weight_shape: (M, C/group, kH, kW).
            channels: C, where it is known.
            kernel_shape: (kH, kW), where an attribute says it.

        Raises:
            ModelError: the shapes contradict each other.
        """
        shape = list(weight_shape)
        if len(shape) != 4:
            raise ModelError(f"weight has shape {shape}; expected (M, C/group, kH, kW)")
        if shape[0] % self.group:
            raise ModelError(f"{shape[0]} filters cannot be divided into {self.group} groups")
        if channels is not None and shape[1] * self.group != channels:
            raise ModelError(
                f"weight of shape {shape} with group={self.group} takes "
                f"{shape[1] * self.group} input channels, but the input has {channels}"
            )
        if kernel_shape is not None and list(kernel_shape) != shape[2:]:
            raise ModelError(f"kernel_shape is {list(kernel_shape)}, but the weight is {shape}")
        if min(shape[1:]) < 1:
            raise ModelError(f"weight of shape {shape} has no taps")

    def resolve_pads(
        self, input_size: Sequence[int], kernel_size: Sequence[int]
    ) -> tuple[int, int, int, int]:
        """What ``pads`` are, or become by ``auto_pad``.

        Args:
            input_size: (height, width) of the image.
            kernel_size: (height, width) of the kernel.

        Returns:
            Pads (top, left, bottom, right).
        """
        if self.auto_pad == "NOTSET":
            return self.pads
        if self.auto_pad == "VALID":
            return (0, 0, 0, 0)
        begin, end = [], []
        for axis in range(2):
            size, stride = input_size[axis], self.strides[axis]
            span = (kernel_size[axis] - 1) * self.dilations[axis] + 1
            total = max((-(-size // stride) - 1) * stride + span - size, 0)
            smaller = total // 2
            first = smaller if self.auto_pad == "SAME_UPPER" else total - smaller
            begin.append(first)
            end.append(total - first)
        return (begin[0], begin[1], end[0], end[1])

    def keeps_size(self, axis: int, kernel: int) -> bool:
        """Whether the output is as large as the input along an axis, for any input.

        Args:
            axis: 0 for height, 1 for width.
            kernel: the kernel's size along it.

        Returns:
            True where it is.
        """
        if self.strides[axis] != 1:
            return False
        if self.auto_pad == "NOTSET":
            total = self.pads[axis] + self.pads[axis + 2]
            return total == (kernel - 1) * self.dilations[axis]
        return self.auto_pad.startswith("SAME") or kernel == 1

    def output_size(self, input_size: Sequence[int], kernel_size: Sequence[int]) -> tuple[int, int]:
        """The size of the output.

        Args:
            input_size: (height, width) of the image.
            kernel_size: (height, width) of the kernel.

        Returns:
            (height, width).

        Raises:
            ModelError: the dilated kernel is larger than the padded image.
        """
        pads = self.resolve_pads(input_size, kernel_size)
        out = []
        for axis, name in enumerate(("height", "width")):
            span = (kernel_size[axis] - 1) * self.dilations[axis] + 1
            padded = input_size[axis] + pads[axis] + pads[axis + 2]
            if span > padded:
                raise ModelError(
                    f"the kernel spans {span} pixels in {name} (kernel {kernel_size[axis]}, "
                    f"dilation {self.dilations[axis]}), more than the padded image's {padded}"
                )
            out.append((padded - span) // self.strides[axis] + 1)
        return (out[0], out[1])
