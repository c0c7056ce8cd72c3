"""Attributes that libraries divide by, or add up, without looking at them.

Sizes, strides, dilations, groups and the like are at least 1, and all of them and pads less than
2**31. Split has as many outputs as it says.
"""

from __future__ import annotations

import onnx_ir as ir

from adder_onnx.errors import ModelError

__all__ = ["check_attributes"]

_POSITIVE = frozenset(
    (
        *("blocksize", "dilations", "group", "kernel_shape", "kv_num_heads", "num_groups"),
        *("num_heads", "num_outputs", "strides"),
    )
)
_PADS = frozenset(("output_padding", "pads"))
_LARGEST = 2**31 - 1


def check_attributes(model: ir.Model) -> None:
    """Checks the attributes of all nodes.

    Raises:
        ModelError: one is out of range; the message names its node.
    """
    for node in model.graph.all_nodes():
        for name, attribute in node.attributes.items():
            if name in _POSITIVE:
                _check(node, attribute, 1)
            elif name in _PADS:
                _check(node, attribute, -_LARGEST)
            if (node.op_type, name) == ("Split", "num_outputs"):
                _check_outputs(node, attribute)


def _check(node: ir.Node, attribute: ir.Attr, least: int) -> None:
    if attribute.type == ir.AttributeType.INT:
        numbers = [attribute.as_int()]
    elif attribute.type == ir.AttributeType.INTS:
        numbers = list(attribute.as_ints())
    else:
        return  # the schema says whether that may be
    if any(not least <= number <= _LARGEST for number in numbers):
        raise _error(node, attribute, numbers, f"{least} to {_LARGEST}")


def _check_outputs(node: ir.Node, attribute: ir.Attr) -> None:
    if attribute.value != len(node.outputs):
        raise _error(
            node, attribute, attribute.value, f"the number of outputs, {len(node.outputs)}"
        )


def _error(node: ir.Node, attribute: ir.Attr, found: object, expected: str) -> ModelError:
    name = node.name or (node.outputs[0].name if node.outputs else "")
    where = f"node {name!r} ({node.op_type}): attribute {attribute.name}"
    return ModelError(f"{where} is {found}; expected {expected}")
