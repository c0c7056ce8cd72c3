"""What a model's graph holds, what each node costs, and where it runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import onnx
import onnx_ir as ir

from adder_onnx.errors import InputError, ModelError
from adder_onnx.graph.loading import load_graph, read_model
from adder_onnx.graph.plan import ChainStep, ConversionStep, OnnxruntimeStep, Plan, Step, make_plan
from adder_onnx.inspection.cost import Cost, Operations, cost_of
from adder_onnx.inspection.describing import Integers, attributes_of, integers_of
from adder_onnx.inspection.dimensions import assume
from adder_onnx.inspection.origins import Origin, mark, origins_of, unmark
from adder_onnx.kernels.cpu import padded_channels
from adder_onnx.kernels.cuda.launch import layout
from adder_onnx.ops import DOMAIN
from adder_onnx.runtime.chain import Chain, Image, Passes, plan_passes, type_inside
from adder_onnx.runtime.parts import parts_of
from adder_onnx.runtime.threads import resolve_threads
from adder_onnx.runtime.type_inference import complete_types

__all__ = ["NodeReport", "Report", "StepReport", "ValueReport", "file_bytes", "inspect_model"]

Shape = tuple[int | str | None, ...]


@dataclass(frozen=True)
class ValueReport:
    """A value of the graph.

    Attributes:
        name: its name.
        type: ``float32``, ``int64``, …; empty where it is no tensor or not known.
        shape: sizes, names of symbolic dimensions, or None; None where the rank is not known.
        assumed_shape: the same with the assumed numbers.
    """

    name: str
    type: str
    shape: Shape | None
    assumed_shape: Shape | None


@dataclass(frozen=True)
class NodeReport:
    """A node of the graph.

    Attributes:
        name: its name.
        op: operator, with the domain before it where that is not ONNX's own.
        is_adder: whether it is an AdderConv or a QLinearAdderConv.
        inputs: names of what it takes, in order; empty for one that is left out.
        constants: those of its inputs that are constant.
        attributes: as JSON has them.
        integers: the integers of a QLinearAdderConv; None of any other node.
        outputs: what it gives.
        cost: what it costs with the assumed shapes.
        origins: the nodes of the file that it comes from.
        step: number of the plan's step that executes it.
        fused_into: name of the adder node, or MaxPool, that it became part of, or None.
    """

    name: str
    op: str
    is_adder: bool
    inputs: tuple[str, ...]
    constants: tuple[ValueReport, ...]
    attributes: dict[str, Any]
    integers: Integers | None
    outputs: tuple[ValueReport, ...]
    cost: Cost
    origins: tuple[Origin, ...]
    step: int
    fused_into: str | None


@dataclass(frozen=True)
class StepReport:
    """A step of the plan.

    Attributes:
        kind: ``onnxruntime``, ``conversion`` or ``chain``.
        device: where it runs, ``cpu`` or ``cuda``.
        inputs: names of the values it takes.
        outputs: names of the values it gives.
        nodes: names of the nodes that it executes, those fused into others left out.
        layout: of the tensors inside: ``NCHW``, ``NHWC``, or ``NCHW -> NHWC`` and back.
        type: of the tensors inside, where they have one.
        bytes: that a conversion reads and writes, or that a chain needs at its peak; None where
            shapes are not known.
    """

    kind: str
    device: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[str, ...]
    layout: str
    type: str
    bytes: int | None


@dataclass(frozen=True)
class Report:
    """What `inspect_model` finds.

    Attributes:
        inputs: of the model.
        outputs: of the model.
        assumes: numbers assumed for unknown dimensions.
        device: that the plan is for, ``cpu`` or ``cuda``.
        nodes: in the order of the graph.
        steps: of the plan.
        metadata: the model's ``metadata_props``.
        opset: version of the standard operators.
        file_bytes: size of the model, external data included.
        model: the model with the assumed dimensions.
    """

    inputs: tuple[ValueReport, ...]
    outputs: tuple[ValueReport, ...]
    assumes: dict[str, int]
    device: str
    nodes: tuple[NodeReport, ...]
    steps: tuple[StepReport, ...]
    metadata: dict[str, str]
    opset: int
    file_bytes: int
    model: onnx.ModelProto

    @property
    def totals(self) -> Operations:
        """The operations of all nodes that are counted."""
        counted = [node.cost.operations for node in self.nodes if node.cost.operations]
        return reduce(add, counted, Operations())

    @property
    def not_counted(self) -> list[NodeReport]:
        """Nodes whose operations are not counted."""
        return [node for node in self.nodes if node.cost.operations is None]

    @property
    def unknown(self) -> list[str]:
        """Names of dimensions that are left without a number, where they keep nodes uncounted."""
        return list(
            dict.fromkeys(
                dim
                for value in self.inputs
                for dim in value.assumed_shape or ()
                if isinstance(dim, str)
            )
        )


def inspect_model(
    source: str | os.PathLike[str] | bytes,
    *,
    batch_size: int = 1,
    dims: Mapping[str, int] | None = None,
    device: str = "cpu",
    threads: int | None = None,
    fuse: bool = True,
) -> Report:
    """Inspects a model; nothing is run.

    Args:
        source: an ONNX file or its bytes.
        batch_size: for the first dimension of each input, where that has no number.
        dims: numbers for other symbolic dimensions, by name.
        device: ``cpu`` or ``cuda``: what the plan is for.
        threads: that a run on the CPU may use, each with memory of its own; None for all cores.
        fuse: whether the plan fuses epilogues.

    Returns:
        What its graph holds, what each node costs, and which step of the plan executes it.

    Raises:
        ModelError: the model cannot be read or is not valid.
        InputError: a dimension is not one of the model's, or its number does not fit.
    """
    model = read_model(source)
    size = file_bytes(model)  # before the marks
    mark(model)
    symbolic = load_graph(model)
    assumed_model, assumed = assume(model, batch_size, dims or {})
    try:
        graph = load_graph(assumed_model)
    except ModelError as error:
        text = ", ".join(f"{name} = {number}" for name, number in assumed.items())
        raise InputError(f"the model does not fit {text}: {error}") from error
    complete_types(symbolic)
    complete_types(graph)
    if len(symbolic.graph) != len(graph.graph):
        symbolic = graph  # with fixed sizes, more inlined adder nodes may be recognised
    # All that is said about nodes is read before the plan changes the graph.
    described = [_describe(*pair) for pair in zip(symbolic.graph, graph.graph, strict=True)]
    shapes = _shapes(graph)
    inputs = tuple(map(_value, symbolic.graph.inputs, graph.graph.inputs))
    outputs = tuple(map(_value, symbolic.graph.outputs, graph.graph.outputs))
    plan = make_plan(graph, fuse=fuse)
    places = _places(plan)
    unmark(assumed_model)
    return Report(
        inputs=inputs,
        outputs=outputs,
        assumes=assumed,
        device=device,
        nodes=tuple(NodeReport(*node, *places[node.name]) for node in described),
        steps=tuple(_steps(plan, shapes, device, resolve_threads(threads))),
        metadata={entry.key: entry.value for entry in model.metadata_props},
        opset=symbolic.opset_imports.get("", 0),
        file_bytes=size,
        model=assumed_model,
    )


def file_bytes(model: onnx.ModelProto) -> int:
    """Bytes of a model, external data included."""
    # protobuf cannot tell a size of 2 GiB or more, of which the weights are all but a little.
    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    return int(model.ByteSize()) if weights < _LARGE else weights


class _Described(NamedTuple):
    """The part of a `NodeReport` that does not depend on the plan."""

    name: str
    op: str
    is_adder: bool
    inputs: tuple[str, ...]
    constants: tuple[ValueReport, ...]
    attributes: dict[str, Any]
    integers: Integers | None
    outputs: tuple[ValueReport, ...]
    cost: Cost
    origins: tuple[Origin, ...]


def _describe(symbolic: ir.Node, node: ir.Node) -> _Described:
    assert node.name
    domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}."
    constants = dict.fromkeys(v for v in node.inputs if v is not None and v.const_value is not None)
    return _Described(
        node.name,
        domain + node.op_type,
        node.domain == DOMAIN,
        tuple("" if value is None else value.name or "" for value in node.inputs),
        tuple(_value(value, value) for value in constants),
        attributes_of(node),
        integers_of(node),
        tuple(map(_value, symbolic.outputs, node.outputs)),
        cost_of(node),
        origins_of(node),
    )


def _value(symbolic: ir.Value, assumed: ir.Value) -> ValueReport:
    dtype = symbolic.dtype
    name = "" if dtype is None else dtype.name.lower()
    readable = {"float": "float32", "double": "float64"}.get(name, name)
    return ValueReport(symbolic.name or "", readable, _dims(symbolic), _dims(assumed))


def _dims(value: ir.Value) -> Shape | None:
    if value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else _symbol(dim) for dim in value.shape)


def _symbol(dim: ir.SymbolicDim) -> str | None:
    # onnx's shape inference makes up names for what it does not know.
    return None if dim.value is None or dim.value.startswith("unk__") else dim.value


def _shapes(model: ir.Model) -> dict[str, Shape | None]:
    values = [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]
    return {value.name or "": _dims(value) for value in values}


def _places(plan: Plan) -> dict[str, tuple[int, str | None]]:
    """For each node the step that executes it, and the adder node it was fused into."""
    places: dict[str, tuple[int, str | None]] = {}
    for i, step in enumerate(plan.steps):
        if isinstance(step, OnnxruntimeStep):
            places.update(dict.fromkeys(step.nodes, (i, None)))
        elif isinstance(step, ChainStep):
            for node in step.nodes:
                places[node.name] = (i, None)
                places.update(dict.fromkeys(node.fused, (i, node.name)))
        elif step.quantization is not None:
            places.update(dict.fromkeys(step.quantization.nodes, (i, None)))
    return places


def _steps(
    plan: Plan, shapes: Mapping[str, Shape | None], device: str, threads: int
) -> list[StepReport]:
    peaks = _peaks(plan, shapes, device, threads)
    reports = []
    for step in plan.steps:
        if isinstance(step, OnnxruntimeStep):
            report = StepReport(
                "onnxruntime", device, step.inputs, step.outputs, step.nodes, "NCHW", "", None
            )
        elif isinstance(step, ChainStep):
            types = {type_inside(node.type, device) for node in step.nodes}
            report = StepReport(
                "chain",
                device,
                (*step.inputs, *step.weights),
                step.outputs,
                tuple(node.name for node in step.nodes),
                "NHWC",
                ", ".join(sorted(types)),
                peaks[id(step)],
            )
        else:
            report = _conversion(step, shapes[step.value], device)
        reports.append(report)
    return reports


def _conversion(step: ConversionStep, shape: Shape | None, device: str) -> StepReport:
    inside = type_inside(step.type_inside, device)
    kind = "NCHW -> NHWC" if step.to_kernels else "NHWC -> NCHW"
    types = (step.type, inside) if step.to_kernels else (inside, step.type)
    image = _image(shape)
    size = None
    if image is not None:
        outside = image[0] * image[1] * image[2] * image[3] * _ITEM[step.type]
        size = outside + _nhwc_bytes(image, inside, device)
    names = (step.value, step.inside) if step.to_kernels else (step.inside, step.value)
    return StepReport(
        "conversion",
        device,
        names[:1],
        names[1:],
        () if step.quantization is None else step.quantization.nodes,
        kind,
        " -> ".join(dict.fromkeys(types)),
        size,
    )


_LARGE = 1 << 30
_ITEM = {"float32": 4, "float16": 2, "uint8": 1}


def _nhwc_bytes(image: Image, type_: str, device: str) -> int:
    if device != "cpu":
        return layout.nhwc_size(image, type_)
    batch, channels, height, width = image
    return batch * height * width * padded_channels(channels) * _ITEM[type_]


def _peaks(
    plan: Plan, shapes: Mapping[str, Shape | None], device: str, threads: int
) -> dict[int, int | None]:
    """The peak memory of each chain, by the identity of its step."""
    peaks: dict[int, int | None] = {}
    for part in parts_of(plan.steps):
        if isinstance(part, OnnxruntimeStep):
            continue
        (step,) = [s for s in part if isinstance(s, ChainStep)]
        peaks[id(step)] = _peak(part, shapes, device, threads)
    return peaks


def _peak(
    part: Sequence[Step], shapes: Mapping[str, Shape | None], device: str, threads: int
) -> int | None:
    chain = Chain(part)
    images = {
        name: _image(shapes[name])
        for name in (*(s.inside for s in chain.entries), *(n.y for n in chain.nodes))
    }
    if None in images.values():
        return None
    types = {step.inside: step.type_inside for step in chain.entries}
    types |= {node.y: node.type for node in chain.nodes}

    def words(name: str, image: Image) -> int:
        return _nhwc_bytes(image, type_inside(types[name], device), device) // 4

    batch = max(image[0] for image in images.values() if image is not None)
    passes = Passes(batch, max(batch, 1), 1)
    if device == "cpu":
        passes = plan_passes(images, words, threads)  # type: ignore[arg-type]
    _, peak = chain.place(
        images,  # type: ignore[arg-type]
        lambda name, image: words(name, passes.image_of_one(image)),
    )
    return 4 * peak * passes.at_once


def _image(shape: Shape | None) -> Image | None:
    if shape is None or len(shape) != 4 or not all(isinstance(dim, int) for dim in shape):
        return None
    return shape  # type: ignore[return-value]
