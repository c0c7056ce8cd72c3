"""`InferenceSession`, which mirrors onnxruntime's."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

import onnx

from adder_onnx.errors import InputError
from adder_onnx.graph.checks.sizes import require_memory
from adder_onnx.graph.loading import load_graph, read_model
from adder_onnx.graph.plan import ChainStep, Plan, make_plan
from adder_onnx.runtime.arguments import (
    check_choices,
    check_keywords,
    check_timeout,
    choose_options,
    join_providers,
    to_source,
)
from adder_onnx.runtime.arrays import Caller, Kind
from adder_onnx.runtime.chain import ChainMemory
from adder_onnx.runtime.closed_runner import ClosedRunner
from adder_onnx.runtime.cpu_runner import CpuRunner
from adder_onnx.runtime.cuda.cupy_gpu import CupyGpu
from adder_onnx.runtime.cuda.onnxruntime_binding import load_libraries
from adder_onnx.runtime.cuda.runner import CudaRunner
from adder_onnx.runtime.description import ModelMetadata, NodeArg, describe_model
from adder_onnx.runtime.devices import DeviceChoice, has_cuda_provider, resolve_device
from adder_onnx.runtime.interruption import workers
from adder_onnx.runtime.interruption.pace import Pace, may_be_endless
from adder_onnx.runtime.interruption.process_end import guarded
from adder_onnx.runtime.interruption.run_control import RunControl
from adder_onnx.runtime.io_binding import IOBinding
from adder_onnx.runtime.onnxruntime_library import make_ort_value
from adder_onnx.runtime.onnxruntime_step import (
    CPU_PROVIDER,
    CUDA_PROVIDER,
    make_session_options,
)
from adder_onnx.runtime.profiling import Profiler
from adder_onnx.runtime.signature import Signature
from adder_onnx.runtime.threads import resolve_threads
from adder_onnx.runtime.times import Recorder, RunTimes
from adder_onnx.runtime.type_inference import complete_types

__all__ = ["InferenceSession", "NodeArg"]


class InferenceSession:
    """A model ready to run.

    docs/embedding.md says what of onnxruntime's session there is, and what is different.

    Args:
        path_or_bytes: an ONNX file, its serialized bytes, or a model that is read already.
        sess_options: ``onnxruntime.SessionOptions`` for the standard nodes.
        providers: accepted as onnxruntime does, with options for the CUDAExecutionProvider; decides
            the device where given.
        provider_options: a dict for each of ``providers``, unless those have them.
        device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto``: the first GPU where one works, else the
            CPU.
        threads: how many threads a run may use on the CPU, ours and onnxruntime's; None for all
            cores that this process may use.
        fuse: whether batch normalisation, residual additions and activations are fused into the
            adder nodes before them.
        arithmetic: how the CPU kernels sum float32 and float16 distances: ``fast``, by maxima, or
            ``exact``, by the differences themselves; docs/precision.md has the bounds. Integer
            nodes and a GPU always are exact.
        session_options: another name of ``sess_options``.
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
        sess_options: Any = None,
        providers: Sequence[object] | None = None,
        provider_options: Sequence[Mapping[str, Any]] | None = None,
        *,
        device: str = "cpu",
        threads: int | None = None,
        fuse: bool = True,
        arithmetic: str = "fast",
        session_options: Any = None,
        concurrency: int = 1,
        cuda_graphs: bool = True,
        **unknown: Any,
    ) -> None:
        check_keywords(unknown)
        check_choices(device, arithmetic, concurrency)
        source = to_source(path_or_bytes)
        given = choose_options(sess_options, session_options)
        choice = self._choice = resolve_device(device, join_providers(providers, provider_options))
        if threads is None and given is not None:
            threads = given.intra_op_num_threads or None
        self._threads = resolve_threads(threads)
        options = self._options = make_session_options(given, self._threads)
        self._profiler = Profiler(options.profile_file_prefix) if options.enable_profiling else None
        model = read_model(source)
        self._description = describe_model(model)
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
        self._signature = Signature(self._plan, self.device)
        self._pace = Pace(endless=may_be_endless(plan))

    @property
    def plan(self) -> Plan:
        """The steps that a run executes, an `adder_onnx.runtime.Plan`."""
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
        return dict(self._description.custom_metadata_map)

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
        return list(self._signature.inputs)

    def get_outputs(self) -> list[NodeArg]:
        """The model's outputs."""
        return list(self._signature.outputs)

    def get_overridable_initializers(self) -> list[NodeArg]:
        """None: constants are the plan's, and cannot be given in a run."""
        return []

    def get_modelmeta(self) -> ModelMetadata:
        """What the model says of itself."""
        return self._description

    def get_session_options(self) -> Any:
        """The ``onnxruntime.SessionOptions`` of the standard nodes."""
        return self._options

    def get_providers(self) -> list[str]:
        """Onnxruntime's names of what executes standard nodes, the first one where it can."""
        on_gpu = self._choice.number is not None and has_cuda_provider()
        return [CUDA_PROVIDER, CPU_PROVIDER] if on_gpu else [CPU_PROVIDER]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """For each of `get_providers` the options that were given."""
        given = {name: str(value) for name, value in self._choice.provider_options.items()}
        if self._choice.number is not None:
            given["device_id"] = str(self._choice.number)
        return {name: given if name == CUDA_PROVIDER else {} for name in self.get_providers()}

    def set_providers(
        self,
        providers: Sequence[object] | None = None,
        provider_options: Sequence[Mapping[str, Any]] | None = None,
    ) -> NoReturn:
        """Raises InputError: a session stays where it was made."""
        raise InputError(
            f"a session stays on its device, here {self.device}: make a new one with providers="
        )

    def enable_fallback(self) -> None:
        """Does nothing: what fails is raised, on any device."""

    def disable_fallback(self) -> None:
        """Does nothing: what fails is raised, on any device."""

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        run_options: Any = None,
        *,
        timeout: float | None = None,
    ) -> list[Any]:
        """Runs the model; may be called from several threads at once.

        A signal, such as that of Ctrl-C, is taken within a second also in a long run, and what its
        handler raises ends the run.

        Args:
            output_names: which outputs to return, in this order; None for all.
            input_feed: an array for every input, by name: NumPy's, or any that speaks DLPack, such
                as torch's, ``onnxruntime.OrtValue`` and, on a GPU, CuPy's.
            run_options: ``onnxruntime.RunOptions``: for the standard nodes, and ``terminate``,
                which another thread may set, for the whole run.
            timeout: how many seconds the run may take.

        Returns:
            The outputs as new arrays: torch tensors where an input was one, in the memory where
            that lay; CuPy's arrays where an input lay on a GPU otherwise; else NumPy arrays. What
            lies on a GPU is ready for work on the caller's current stream, CuPy's or torch's.

        Raises:
            InputError: a name, type or shape does not fit the model, or the session is closed.
            DeviceError: a GPU's memory does not suffice, or it fails; or the caller's stream is
                being captured into a CUDA graph.
            RunTimeoutError: the run takes longer than ``timeout``.
            RunTerminatedError: ``run_options`` ends it.
        """
        names = self._signature.output_names(output_names)
        values = self.check(input_feed)
        caller = self._runner.caller(input_feed.values())
        return self._run(values, names, caller, run_options=run_options, timeout=timeout)

    def profile(self, input_feed: Mapping[str, Any], *, timeout: float | None = None) -> RunTimes:
        """Runs the model once and takes the time of each part and kernel.

        Args:
            input_feed: as for `run`.
            timeout: as for `run`.

        Returns:
            The times; parts are the plan's sub-models, and its chains with their conversions.

        Raises:
            InputError: a name, type or shape does not fit the model, or the session is closed.
            DeviceError: a GPU's memory does not suffice, or it fails; or the caller's stream is
                being captured into a CUDA graph.
            RunTimeoutError: the run takes longer than ``timeout``.
        """
        recorder = Recorder()
        names = self._signature.output_names(None)
        values = self.check(input_feed)
        caller = self._runner.caller(input_feed.values())
        self._run(values, names, caller, recorder, timeout=timeout)
        return recorder.finish()

    def run_async(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        callback: Callable[[list[Any], Any, str], None],
        user_data: Any = None,
        run_options: Any = None,
    ) -> None:
        """Runs the model in another thread, which then calls ``callback``.

        Args:
            output_names: as for `run`.
            input_feed: as for `run`; nothing of it may change before the end.
            callback: takes the results, ``user_data`` and an empty text, or no results and what
                went wrong.
            user_data: anything.
            run_options: as for `run`.

        Results that lie on a GPU are ready for work on the stream that is current here.

        Raises:
            InputError: a name, type or shape does not fit the model, or the session is closed.
            DeviceError: as `run`, where inputs are taken.
        """
        names = self._signature.output_names(output_names)
        values = self.check(input_feed)
        caller = self._runner.caller(input_feed.values())

        def run() -> None:
            try:
                results = self._run(values, names, caller, run_options=run_options)
            except Exception as error:  # in this thread nobody else would learn of it
                callback([], user_data, str(error) or type(error).__name__)
            else:
                callback(results, user_data, "")

        workers.begin(run)

    def run_with_ort_values(
        self,
        output_names: Sequence[str] | None,
        input_dict_ort_values: Mapping[str, Any],
        run_options: Any = None,
    ) -> list[Any]:
        """Runs the model as `run` does; results are ``onnxruntime.OrtValue``, on the CPU.

        Args:
            output_names: as for `run`.
            input_dict_ort_values: as for `run`; an ``OrtValue`` for every input, by name.
            run_options: as for `run`.

        Returns:
            The outputs, in the order of their names.

        Raises:
            InputError: as `run`, or an output is no tensor of numbers.
        """
        names = self._signature.output_names(output_names)
        values = self.check(input_dict_ort_values)
        caller = replace(self._runner.caller(input_dict_ort_values.values()), kind=Kind.NUMPY)
        results = self._run(values, names, caller, run_options=run_options)
        return [make_ort_value(name, value) for name, value in zip(names, results, strict=True)]

    def io_binding(self) -> IOBinding:
        """A binding of inputs and outputs to the CPU's memory."""
        return IOBinding(self)

    def run_with_iobinding(self, iobinding: IOBinding, run_options: Any = None) -> None:
        """Runs the model on what is bound.

        Args:
            iobinding: from `io_binding` of this session.
            run_options: as for `run`.

        Raises:
            InputError: as `run`, or the binding is another session's, or has no outputs.
        """
        if not isinstance(iobinding, IOBinding) or not iobinding.is_of(self):
            raise InputError("the binding is not one that io_binding of this session gave")
        iobinding.run(run_options)

    def get_profiling_start_time_ns(self) -> int:
        """When profiling began, as ``time.monotonic_ns`` counts; 0 where it is not enabled."""
        return 0 if self._profiler is None else self._profiler.start_ns

    def end_profiling(self) -> str:
        """Ends profiling, and writes a trace of all runs so far; the name of the file.

        Where ``sess_options`` do not have ``enable_profiling`` that is empty, and nothing is
        written. Perfetto and chrome://tracing open the file.

        Raises:
            AdderError: it cannot be written.
        """
        profiler, self._profiler = self._profiler, None
        return "" if profiler is None else profiler.write(self._plan.steps, self.device)

    def memory(self) -> list[ChainMemory]:
        """The planned peak memory of each chain, for the input shapes that were run."""
        return self._runner.memory()

    def check(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """Looks at inputs as `run` does, without running the model.

        Args:
            feed: as for `run`.

        Returns:
            The inputs as arrays of the session's device, by name.

        Raises:
            InputError: a name, type or shape does not fit the model.
        """
        return self._signature.arrays(feed, self._runner.adopt)

    def _run(
        self,
        values: dict[str, Any],
        names: list[str],
        caller: Caller,
        recorder: Recorder | None = None,
        run_options: Any = None,
        timeout: float | None = None,
    ) -> list[Any]:
        """The outputs for inputs that `check` gave, by the thread that is right for this run."""
        profiler = self._profiler
        if profiler is not None and recorder is None:
            recorder = Recorder()
        shapes = tuple(getattr(value, "shape", None) for value in values.values())
        apart = self._pace.must_be_apart(shapes)
        control = RunControl(run_options, check_timeout(timeout), apart=apart)
        work = partial(self._runner.run, values, names, caller, control, recorder)
        start = time.perf_counter()
        results = guarded(work, control)
        self._pace.add(shapes, time.perf_counter() - start)
        if profiler is not None and recorder is not None:
            profiler.add(recorder.finish())
        return results


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
