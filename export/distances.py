"""Adder layers that were not recognised, found by what they compute."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from adder_onnx.errors import ExportError

__all__ = ["check_distances"]

_logger = logging.getLogger(__name__)

_CDIST = frozenset({"cdist", "_cdist_forward"})
_ABS = torch.ops.aten.abs.default
_ADDER_CONV = torch.ops.adder_onnx.adder_conv2d.default


def check_distances(program: ExportedProgram) -> None:
    """Says which layers compute distances without being an adder layer.

    ONNX has no ``cdist``. Absolute differences written out in standard operators are right, but
    slow; a layer that takes them and has filters (a parameter of four dimensions) is one that was
    not recognised.

    Raises:
        ExportError: a layer uses ``torch.cdist``; the message names its class.
    """
    filters = {
        name.rpartition(".")[0]
        for name in program.graph_signature.parameters
        if program.state_dict[name].dim() == 4
    }
    slow: dict[str, str] = {}
    calls = list(_calls(program))
    recognised = {path for path, _, node in calls if node.target == _ADDER_CONV}
    for path, kind, node in calls:
        if str(node.target).removeprefix("aten.").partition(".")[0] in _CDIST:
            raise ExportError(
                f"layer {path or 'of the model'!r} of class {kind} computes distances by "
                f"torch.cdist, which ONNX does not have: if it is an adder layer, say so by "
                f"--adder-class {kind}, else call adder_onnx.export.adder_conv2d in it"
            )
        if node.target == _ABS and path in filters - recognised:
            slow.setdefault(kind, path)
    for kind, path in slow.items():
        _logger.warning(
            "layer %r of class %s takes absolute differences in standard operators, which is slow: "
            "if it is an adder layer, say so by --adder-class %s",
            path,
            kind,
            kind,
        )


def _calls(program: ExportedProgram) -> Iterator[tuple[str, str, Node]]:
    """Each operation, with the path and the class of the module that it is in."""
    for node in program.graph.nodes:
        stack = node.meta.get("nn_module_stack")
        if node.op == "call_function" and stack:
            path, kind = list(stack.values())[-1]
            yield path, kind, node
