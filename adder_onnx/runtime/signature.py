"""The inputs and outputs of a model, and whether a call fits them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import onnx

from adder_onnx.errors import AdderError, InputError
from adder_onnx.graph.plan import Plan
from adder_onnx.runtime.description import NodeArg, describe_value

__all__ = ["Signature"]


class Signature:
    """What a model takes and gives.

    Args:
        plan: of the model.
        device: the name of the session's device, for messages.

    Attributes:
        inputs: in the model's order.
        outputs: in the model's order.
    """

    def __init__(self, plan: Plan, device: str) -> None:
        self.inputs = [describe_value(value) for value in plan.inputs]
        self.outputs = [describe_value(value) for value in plan.outputs]
        self._types = [value.type for value in plan.inputs]
        self._device = device

    def output_names(self, names: Iterable[str] | None) -> list[str]:
        """The names of outputs that are asked for, all where none are.

        Raises:
            InputError: the model has no such output, or these are no names.
        """
        known = [output.name for output in self.outputs]
        if names is None:
            return known
        if isinstance(names, (str, bytes)) or not isinstance(names, Iterable):
            raise InputError(
                f"output_names is {_what(names)}; expected a list of names, or None for all: "
                f"{known}"
            )
        chosen = list(names)
        for name in chosen:
            if name not in known:
                raise InputError(f"the model has no output {name!r}; its outputs are {known}")
        return chosen or known

    def arrays(self, feed: Mapping[str, Any], adopt: Callable[[Any], Any]) -> dict[str, Any]:
        """The inputs of a call as arrays of the session's device, by name.

        Args:
            feed: what the caller gave.
            adopt: makes an array of the device of a value; raises where it cannot.

        Raises:
            InputError: a name, type or shape does not fit the model.
        """
        known = [value.name for value in self.inputs]
        if not isinstance(feed, Mapping):
            raise InputError(
                f"input_feed is {_what(feed)}; expected a dict with an array for each of the "
                f"inputs {known}"
            )
        for name in feed.keys() - set(known):
            raise InputError(f"the model has no input {name!r}; its inputs are {known}")
        values = {}
        for expected, type_ in zip(self.inputs, self._types, strict=True):
            if expected.name not in feed:
                raise InputError(f"input {expected.name!r} is missing; the inputs are {known}")
            value = feed[expected.name]
            if type_.HasField("tensor_type"):
                value = self._array(value, expected, type_.tensor_type, adopt)
            values[expected.name] = value
        return values

    def _array(
        self,
        value: Any,
        expected: NodeArg,
        declared: onnx.TypeProto.Tensor,
        adopt: Callable[[Any], Any],
    ) -> Any:
        """The value as an array of the type and shape that an input has."""
        if value is None:
            raise InputError(f"input {expected.name!r} is None; expected {expected.type}")
        try:
            array = adopt(value)
        except AdderError:  # the session is closed, or a GPU fails
            raise
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"input {expected.name!r} is not an array that {self._device} can take: {error}"
            ) from error
        dtype = onnx.helper.tensor_dtype_to_np_dtype(declared.elem_type)
        is_text = declared.elem_type == onnx.TensorProto.STRING and array.dtype.kind in "OSU"
        if array.dtype != dtype and not is_text:
            raise InputError(
                f"input {expected.name!r} has type {array.dtype}; "
                f"expected {expected.type} ({dtype})"
            )
        fits = not declared.HasField("shape") or (
            len(array.shape) == len(expected.shape)
            and all(
                not isinstance(e, int) or e == size
                for e, size in zip(expected.shape, array.shape, strict=True)
            )
        )
        if not fits:
            raise InputError(
                f"input {expected.name!r} has shape {list(array.shape)}; expected {expected.shape}"
            )
        return array


def _what(value: object) -> str:
    return f"of type {type(value).__name__}"
