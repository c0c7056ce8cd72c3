"""`InferenceSession`, which mirrors onnxruntime's."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from adder_onnx.errors import InputError
from adder_onnx.graph.loading import load_graph, read_model
from adder_onnx.graph.plan import ChainStep, Plan, make_plan
from adder_onnx.graph.sizes import require_memory
from adder_onnx.kernels.cpu import ARITHMETICS
from adder_onnx.runtime.arrays import kind_of
from adder_onnx.runtime.chain import ChainMemory
from adder_onnx.runtime.closed_runner import ClosedRunner
from adder_onnx.runtime.cpu_runner import CpuRunner
from adder_onnx.runtime.cuda.cupy_gpu import CupyGpu
from adder_onnx.runtime.cuda.onnxruntime_binding import load_libraries
from adder_onnx.runtime.cuda.runner import CudaRunner
from adder_onnx.runtime.devices import DeviceChoice, has_cuda_provider, resolve_device
from adder_onnx.runtime.onnxruntime_step import make_session_options
from adder_onnx.runtime.threads import resolve_threads
from adder_onnx.runtime.times import Recorder, RunTimes
from adder_onnx.runtime.type_inference import complete_types

__all__ = ["InferenceSession", "NodeArg"]


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
        path_or_bytes: an ONNX file, its serialized bytes, or a model that is read already.
        device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto``: the first GPU where one works, else the
            CPU.
        threads: how many threads a run may use on the CPU, ours and onnxruntime's; None for all
            cores that this process may use.
        fuse: whether batch normalisation, residual additions and activations are fused into the
            adder nodes before them.
        arithmetic: how the CPU kernels sum float32 and float16 distances: ``fast``, by maxima, or
            ``exact``, by the differences themselves; docs/precision.md has the bounds. Integer
            nodes and a GPU always are exact.
        session_options: ``onnxruntime.SessionOptions`` for the standard nodes.
        providers: accepted as onnxruntime does, with options for the CUDAExecutionProvider; decides
            the device where given.
        concurrency: how many runs at the same time are prepared for when the session is made. On a
            GPU each has a stream and onnxruntime's sessions of its own, which otherwise the first
            such runs wait for; four are the most at the same time, or ``concurrency`` where that is
            more. On the CPU any number of runs share one set, and nothing needs preparing.
        cuda_graphs: whether a GPU gets the launches of a chain as one CUDA graph, from the second
            run with the same shapes on: less work for the CPU, for memory that stays taken (see
            `memory`).

    Raises:
        InputError: an argument is not one of its choices.
        ModelError: the model cannot be read or executed, or takes more memory than is allowed.
        DeviceError: the device does not exist or cannot be used, or its memory does not suffice.
        MissingDependencyError: no onnxruntime is installed, or what a GPU needs is not.
    """

    def __init__(
        self,
        path_or_bytes: str | os.PathLike[str] | bytes | onnx.ModelProto,
        *,
        device: str = "cpu",
        threads: int | None = None,
        fuse: bool = True,
        arithmetic: str = "fast",
        session_options: Any = None,
        providers: Sequence[object] | None = None,
        concurrency: int = 1,
        cuda_graphs: bool = True,
    ) -> None:
        if concurrency < 1:
            raise InputError(f"concurrency is {concurrency}; expected at least 1")
        if arithmetic not in ARITHMETICS:
            raise InputError(
                f"arithmetic {arithmetic!r} is unknown; choose one of {', '.join(ARITHMETICS)}"
            )
        choice = resolve_device(device, providers)
        if threads is None and session_options is not None:
            threads = session_options.intra_op_num_threads or None
        self._threads = resolve_threads(threads)
        options = make_session_options(session_options, self._threads)
        model = read_model(path_or_bytes)
        self._metadata = {entry.key: entry.value for entry in model.metadata_props}
        graph = load_graph(model)
        complete_types(graph)
        require_memory(graph)
        plan = make_plan(graph, fuse=fuse)
        # The graph's nodes and values refer to each other: it stays until the garbage collector
        # comes, and its weights, which may be as large as all else, need not stay with it.
        for value in graph.graph.initializers.values():
            value.const_value = None
        del model
        self._runner: CpuRunner | CudaRunner | ClosedRunner
        if choice.number is None:
            self._runner = CpuRunner(plan, options, self._threads, arithmetic)
        else:
            self._runner = CudaRunner(
                plan,
                CupyGpu(choice.number),
                options,
                _cuda_options(choice),
                ahead=concurrency,
                graphs=cuda_graphs,
            )
        self._plan = plan.without_weights()
        self._arithmetic = arithmetic if self.device == "cpu" and _has_floats(plan) else "exact"
        self._inputs = [_node_arg(value) for value in self._plan.inputs]
        self._outputs = [_node_arg(value) for value in self._plan.outputs]

    @property
    def plan(self) -> Plan:
        """The steps that a run executes."""
        return self._plan

    @property
    def device(self) -> str:
        """Where the adder nodes run: ``cpu`` or ``cuda:N``."""
        return self._runner.device

    @property
    def threads(self) -> int:
        """How many threads a run may use."""
        return self._threads

    @property
    def arithmetic(self) -> str:
        """How float distances are summed, ``fast`` or ``exact``, which integers and a GPU are."""
        return self._arithmetic

    @property
    def metadata(self) -> dict[str, str]:
        """The model's ``metadata_props``."""
        return dict(self._metadata)

    def __enter__(self) -> InferenceSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees what the session holds, once runs under way are over; none begins any more.

        Without it the same happens when nothing refers to the session.
        """
        runner, self._runner = self._runner, ClosedRunner(self.device)
        runner.close()

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
            input_feed: an array for every input, by name: NumPy's, or any that speaks DLPack, such
                as torch's and, on a GPU, CuPy's.

        Returns:
            The outputs as new arrays: torch tensors where an input was one, in the memory where
            that lay; CuPy's arrays where an input lay on a GPU otherwise; else NumPy arrays. What
            lies on a GPU is ready for work on the caller's current stream, CuPy's or torch's.

        Raises:
            InputError: a name, type or shape does not fit the model, or the session is closed.
            DeviceError: a GPU's memory does not suffice, or it fails; or the caller's stream is
                being captured into a CUDA graph.
        """
        names = self._output_names(output_names)
        values = self.check(input_feed)
        return self._runner.run(values, names, kind_of(input_feed.values()))

    def profile(self, input_feed: Mapping[str, Any]) -> RunTimes:
        """Runs the model once and takes the time of each part and kernel.

        Args:
            input_feed: as for `run`.

        Returns:
            The times; parts are those of `adder_onnx.runtime.parts.parts_of` the plan's steps.

        Raises:
            InputError: a name, type or shape does not fit the model, or the session is closed.
            DeviceError: a GPU's memory does not suffice, or it fails; or the caller's stream is
                being captured into a CUDA graph.
        """
        recorder = Recorder()
        names = self._output_names(None)
        values = self.check(input_feed)
        self._runner.run(values, names, kind_of(input_feed.values()), recorder)
        return recorder.finish()

    def memory(self) -> list[ChainMemory]:
        """The planned peak memory of each chain, for the input shapes that were run."""
        return self._runner.memory()

    def _output_names(self, names: Sequence[str] | None) -> list[str]:
        known = [output.name for output in self._outputs]
        if not names:
            return known
        for name in set(names).difference(known):
            raise InputError(f"the model has no output {name!r}; its outputs are {known}")
        return list(names)

    def check(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """Looks at inputs as `run` does, without running the model.

        Args:
            feed: as for `run`.

        Returns:
            The inputs as arrays of the session's device, by name.

        Raises:
            InputError: a name, type or shape does not fit the model.
        """
        known = [value.name for value in self._inputs]
        for name in feed.keys() - set(known):
            raise InputError(f"the model has no input {name!r}; its inputs are {known}")
        values = {}
        for expected, proto in zip(self._inputs, self._plan.inputs, strict=True):
            if expected.name not in feed:
                raise InputError(f"input {expected.name!r} is missing; the inputs are {known}")
            value = feed[expected.name]
            if proto.type.HasField("tensor_type"):
                value = self._check_tensor(value, expected, proto.type.tensor_type)
            values[expected.name] = value
        return values

    def _check_tensor(self, value: Any, expected: NodeArg, declared: onnx.TypeProto.Tensor) -> Any:
        """The value as an array of the type and shape that an input has."""
        try:
            array = self._runner.adopt(value)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"input {expected.name!r} is not an array that {self.device} can take: {error}"
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


def _has_floats(plan: Plan) -> bool:
    """Whether a chain has an adder node of a floating-point type."""
    chains = [step for step in plan.steps if isinstance(step, ChainStep)]
    return any(node.type != "uint8" for chain in chains for node in chain.nodes)


def _cuda_options(choice: DeviceChoice) -> Mapping[str, Any] | None:
    """The user's options for onnxruntime's CUDAExecutionProvider; None where it has none."""
    if not has_cuda_provider():
        return None
    load_libraries()
    return choice.provider_options


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
