"""The operator set ``ai.addernet``: schemas, function bodies, reference implementations.

`DOMAIN` and `VERSION` name it in a model's opset imports; bodies can be written in `MIN_OPSET` of
the standard operators, or later ones. Importing this registers the schemas with ``onnx.defs``.
"""

from adder_onnx.ops.bodies import MIN_OPSET, function_bodies, has_levels, write_out_levels
from adder_onnx.ops.conv_attributes import ConvAttributes
from adder_onnx.ops.doc_strings import describe_model, describe_nodes
from adder_onnx.ops.domain import DOMAIN, VERSION
from adder_onnx.ops.schema import register_schemas

__all__ = [
    "DOMAIN",
    "MIN_OPSET",
    "VERSION",
    "ConvAttributes",
    "describe_model",
    "describe_nodes",
    "function_bodies",
    "has_levels",
    "register_schemas",
    "write_out_levels",
]

register_schemas()
