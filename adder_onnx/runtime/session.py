"""`InferenceSession`, which mirrors onnxruntime's."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray

from adder_onnx.errors import InputError
from adder_onnx.graph.loading import load_graph, read_model
from adder_onnx.graph.plan import ChainStep, ConversionStep, OnnxruntimeStep, Plan, Step, make_plan
from adder_onnx.runtime.arrays import to_numpy, to_same_kind
from adder_onnx.runtime.devices import resolve_device
from adder_onnx.runtime.native_step import NativeExecutor, NativeMemory
from adder_onnx.runtime.onnxruntime_step import OnnxruntimeExecutor, make_session_options
from adder_onnx.runtime.threads import resolve_threads
from adder_onnx.runtime.type_inference import complete_types

__all__ = ["InferenceSession", "NodeArg"]

_Executor = OnnxruntimeExecutor | NativeExecutor


@dataclass(frozen=True)
class NodeArg:
    """An input or output of a model, described as onnxruntime does.

    Attributes:
        name: its name.
        type: for example ``tensor(float)``.
        shape: for each dimension its size, the name of a symbolic one, or None.
    """

    name: str
    type: str
    shape: list[int | str | None]


class InferenceSession:
    """A model ready to run.

    Args:
        path_or_bytes: an ONNX file, or its serialized bytes.
        device: ``cpu`` or ``auto``.
        threads: how many threads a run may use, ours and onnxruntime's; None for all cores that
            this process may use.
        fuse: whether batch normalisation, residual additions and activations are fused into the
            adder nodes before them.
        session_options: ``onnxruntime.SessionOptions`` for the standard nodes.
        providers: accepted as onnxruntime does; decides the device where given.

    Raises:
        ModelError: the model cannot be read or executed.
        DeviceError: the device is not supported.
        MissingDependencyError: no onnxruntime is installed.
    """

    def __init__(
        self,
        path_or_bytes: str | os.PathLike[str] | bytes,
        *,
        device: str = "cpu",
        threads: int | None = None,
        fuse: bool = True,
        session_options: Any = None,
        providers: Sequence[object] | None = None,
    ) -> None:
        self._device = resolve_device(device, providers)
        if threads is None and session_options is not None:
            threads = session_options.intra_op_num_threads or None
        self._threads = resolve_threads(threads)
        options = make_session_options(session_options, self._threads)
        model = read_model(path_or_bytes)
        self._metadata = {entry.key: entry.value for entry in model.metadata_props}
        graph = load_graph(model)
        complete_types(graph)
        self._plan = make_plan(graph, fuse=fuse)
        self._constants = {
            name: onnx.numpy_helper.to_array(tensor)
            for name, tensor in self._plan.constants.items()
        }
        self._executors = _make_executors(self._plan.steps, options, self._threads)
        self._release = _last_uses(self._executors, {value.name for value in self._plan.outputs})
        self._inputs = [_node_arg(value) for value in self._plan.inputs]
        self._outputs = [_node_arg(value) for value in self._plan.outputs]

    @property
    def plan(self) -> Plan:
        """The steps that a run executes."""
        return self._plan

    @property
    def device(self) -> str:
        """Where the adder nodes run."""
        return self._device

    @property
    def threads(self) -> int:
        """How many threads a run may use."""
        return self._threads

    @property
    def metadata(self) -> dict[str, str]:
        """The model's ``metadata_props``."""
        return dict(self._metadata)

    def get_inputs(self) -> list[NodeArg]:
        """The model's inputs."""
        return list(self._inputs)

    def get_outputs(self) -> list[NodeArg]:
        """The model's outputs."""
        return list(self._outputs)

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any]) -> list[Any]:
        """Runs the model; may be called from several threads at once.

        Args:
            output_names: which outputs to return, in this order; None for all.
            input_feed: an array for every input, by name: NumPy's, or any in the CPU's memory that
                speaks DLPack, such as a torch tensor.

        Returns:
            The outputs as new arrays: torch tensors where an input was one, else NumPy arrays.

        Raises:
            InputError: a name, type or shape does not fit the model.
        """
        names = self._output_names(output_names)
        values = self._check_feed(input_feed)
        values.update(self._constants)
        for executor, release in zip(self._executors, self._release, strict=True):
            values.update(zip(executor.outputs, executor.run(values), strict=True))
            for name in release:
                del values[name]
        kept = (*input_feed, *self._constants)
        results = [copy.copy(values[name]) if name in kept else values[name] for name in names]
        return [to_same_kind(result, input_feed.values()) for result in results]

    def memory(self) -> list[NativeMemory]:
        """The planned peak memory of each chain, for the input shapes that were run."""
        return [
            memory
            for executor in self._executors
            if isinstance(executor, NativeExecutor)
            for memory in executor.memory()
        ]

    def _output_names(self, names: Sequence[str] | None) -> list[str]:
        known = [output.name for output in self._outputs]
        if not names:
            return known
        for name in names:
            if name not in known:
                raise InputError(f"the model has no output {name!r}; its outputs are {known}")
        return list(names)

    def _check_feed(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        known = [value.name for value in self._inputs]
        for name in feed:
            if name not in known:
                raise InputError(f"the model has no input {name!r}; its inputs are {known}")
        values = {}
        for expected, proto in zip(self._inputs, self._plan.inputs, strict=True):
            if expected.name not in feed:
                raise InputError(f"input {expected.name!r} is missing; the inputs are {known}")
            value = feed[expected.name]
            if proto.type.HasField("tensor_type"):
                value = _check_tensor(value, expected, proto.type.tensor_type)
            values[expected.name] = value
        return values


def _check_tensor(value: Any, expected: NodeArg, declared: onnx.TypeProto.Tensor) -> NDArray[Any]:
    """The value as an array of the type and shape that an input has."""
    try:
        array = to_numpy(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"input {expected.name!r} is not an array in the CPU's memory: {error}"
        ) from error
    dtype = onnx.helper.tensor_dtype_to_np_dtype(declared.elem_type)
    is_text = declared.elem_type == onnx.TensorProto.STRING and array.dtype.kind in "OSU"
    if array.dtype != dtype and not is_text:
        raise InputError(
            f"input {expected.name!r} has type {array.dtype}; expected {expected.type} ({dtype})"
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


def _make_executors(steps: Sequence[Step], options: Any, threads: int) -> list[_Executor]:
    """One executor for each sub-model, and for each chain with the conversions around it."""
    executors: list[_Executor] = []
    native: list[Step] = []
    for step in (*steps, None):
        enters = isinstance(step, ConversionStep) and step.to_kernels
        if any(isinstance(s, ChainStep) for s in native) and (
            enters or step is None or isinstance(step, OnnxruntimeStep)
        ):
            executors.append(NativeExecutor(native, threads))
            native = []
        if isinstance(step, OnnxruntimeStep):
            executors.append(OnnxruntimeExecutor(step, options))
        elif step is not None:
            native.append(step)
    return executors


def _last_uses(executors: Sequence[_Executor], outputs: set[str]) -> list[list[str]]:
    """For each executor the values that nobody needs after it."""
    last: dict[str, int] = {}
    for i, executor in enumerate(executors):
        last.update(dict.fromkeys((*executor.inputs, *executor.outputs), i))
    release: list[list[str]] = [[] for _ in executors]
    for name, i in last.items():
        if name not in outputs:
            release[i].append(name)
    return release


def _node_arg(value: onnx.ValueInfoProto) -> NodeArg:
    dims = value.type.tensor_type.shape.dim
    return NodeArg(value.name, _type_name(value.type), [_dimension(d) for d in dims])


def _dimension(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    # onnx's shape inference makes up names for what it does not know.
    return None if dim.dim_param.startswith("unk__") else (dim.dim_param or None)


def _type_name(proto: onnx.TypeProto) -> str:
    """A type as onnxruntime writes it."""
    if proto.HasField("sequence_type"):
        return f"seq({_type_name(proto.sequence_type.elem_type)})"
    if proto.HasField("optional_type"):
        return f"optional({_type_name(proto.optional_type.elem_type)})"
    return f"tensor({onnx.TensorProto.DataType.Name(proto.tensor_type.elem_type).lower()})"
