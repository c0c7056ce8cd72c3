"""Names for an exported graph that come from the PyTorch modules.

1. A node is named after the module that owns the first parameter which it alone holds
   (``layer1.0.conv1``; the exporter merges equal parameters of different modules); without one,
   after the module that called it: alone if that module has no children (``layer1.0.relu``), else
   followed by the operator (``layer1.0.Add``).
2. Where a name is taken, by a node of another operator, the operator is added
   (``layer1.0.conv1.Add``); where it is taken still, a number (``layer1.0.relu_1``). Nodes that
   hold a parameter come first.
3. A node's output is named after the node, with ``_output`` behind it. Names of the graph's inputs,
   outputs and parameters stay.
"""

from __future__ import annotations

import ast

import onnx_ir as ir
from torch import nn

__all__ = ["name_after_modules"]

_SCOPES = "pkg.torch.onnx.name_scopes"


def name_after_modules(graph: ir.Graph, model: nn.Module) -> None:
    """Renames nodes and values of a graph that ``torch.onnx.export`` made of ``model``."""
    modules = dict(model.named_modules())
    taken: dict[str, str] = {}  # operator by name
    owners = {node: _owner(node, modules) for node in graph}
    for node in sorted(owners, key=lambda node: not owners[node]):
        base = owners[node] or _caller(node, modules)
        if taken.get(base, node.op_type) != node.op_type:
            base = f"{base}.{node.op_type}"
        name, number = base, 0
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken[name] = node.op_type
        node.name = name
        for i, value in enumerate(node.outputs):
            if not value.is_graph_output():
                value.name = f"{name}_output" if i == 0 else f"{name}_output_{i}"


def _owner(node: ir.Node, modules: dict[str, nn.Module]) -> str:
    """The module that owns the first parameter which a node alone holds; else empty."""
    for value in node.inputs:
        if value is None or not value.is_initializer() or not value.name:
            continue
        if all(use.node is node for use in value.uses()):
            owner = value.name.rpartition(".")[0]
            if owner in modules and owner:
                return owner
    return ""


def _caller(node: ir.Node, modules: dict[str, nn.Module]) -> str:
    """A name after the module that called a node."""
    scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    # The last scope is the operator's own, those before it are modules.
    caller = next((s for s in reversed(scopes[:-1]) if s in modules), "")
    if caller and not any(modules[caller].children()):
        return str(caller)
    return f"{caller}.{node.op_type}" if caller else node.op_type
