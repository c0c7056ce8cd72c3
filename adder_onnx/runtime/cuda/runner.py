"""Running a plan on a GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from adder_onnx.graph.plan import OnnxruntimeStep, Plan
from adder_onnx.runtime.arrays import Caller, Kind, is_on_gpu, kind_of, to_numpy, to_same_kind
from adder_onnx.runtime.chain import ChainMemory
from adder_onnx.runtime.cuda.chain import CudaChain, needed_kernels
from adder_onnx.runtime.cuda.chain_executor import ChainExecutor
from adder_onnx.runtime.cuda.contexts import Context, ContextPool
from adder_onnx.runtime.cuda.errors import DeviceLostError, DeviceMemoryError
from adder_onnx.runtime.cuda.gpu import Gpu
from adder_onnx.runtime.cuda.onnxruntime_binding import standard_executor, to_gpu, to_host
from adder_onnx.runtime.interruption.run_control import RunControl
from adder_onnx.runtime.onnxruntime_step import CUDA_PROVIDER
from adder_onnx.runtime.parts import Executor, constants_of, last_uses, parts_of
from adder_onnx.runtime.times import Recorder

__all__ = ["CudaRunner"]

_logger = logging.getLogger(__name__)
T = TypeVar("T")


class CudaRunner:
    """Executes a plan's parts one after the other on a stream of each run's own.

    Chains run in our kernels. Sub-models run in onnxruntime on the same stream where it has CUDA,
    else on the CPU, which is logged. May be used from several threads at once.

    Args:
        plan: what to execute.
        gpu: where.
        options: ``onnxruntime.SessionOptions``.
        given: the user's options for the CUDAExecutionProvider; None where onnxruntime has none.
        ahead: runs at the same time that are prepared for now.
        graphs: whether the launches of chains are captured into CUDA graphs.

    Raises:
        DeviceError: the GPU fails, or its memory does not suffice.
    """

    def __init__(
        self,
        plan: Plan,
        gpu: Gpu,
        options: Any,
        given: Mapping[str, Any] | None,
        *,
        ahead: int,
        graphs: bool,
    ) -> None:
        self._gpu = gpu
        self.device = gpu.name
        self._constants = constants_of(plan)
        self._lost = ""  # why, once the device is
        parts = parts_of(plan.steps)
        declared = {value.name for value in plan.outputs}
        if given is None and any(isinstance(part, OnnxruntimeStep) for part in parts):
            _logger.warning(
                "standard nodes run on the CPU, since the onnxruntime that is installed has no "
                "%s: install onnxruntime-gpu instead of onnxruntime",
                CUDA_PROVIDER,
            )
        chain_steps = [part for part in parts if not isinstance(part, OnnxruntimeStep)]
        gpu.prepare(needed_kernels(chain_steps, gpu.target))
        self._stream = stream = gpu.new_stream()  # whose memory the weights are
        with gpu.using(stream):
            self._chains = _with_room(gpu, lambda: [CudaChain(s, gpu) for s in chain_steps])
        gpu.synchronize(stream)  # weights are packed, for other streams too
        chains = iter(self._chains)
        # Of the plan only what later contexts need is kept: the chains' weights are packed.
        kept = [part if isinstance(part, OnnxruntimeStep) else next(chains) for part in parts]

        def executors(stream: Any) -> list[Executor]:
            return [
                ChainExecutor(part, gpu, graphs=graphs)
                if isinstance(part, CudaChain)
                else standard_executor(part, options, given, gpu, stream, declared)
                for part in kept
            ]

        self._contexts = ContextPool(
            lambda: _with_room(gpu, lambda: Context(gpu, executors)), ahead
        )
        first, *_ = self._contexts.all()
        self._release = last_uses(first.executors, declared)

    def adopt(self, value: Any) -> Any:
        """An input as an array that a run takes: the GPU's where it lies there, else NumPy's.

        Raises:
            ValueError: it is on another GPU.
            BufferError, RuntimeError, TypeError: it cannot be exchanged.
            DeviceError: the GPU fails, or a CUDA graph is being captured on the caller's stream.
        """
        if not is_on_gpu(value):
            return to_numpy(value)
        with self._remembering(), self._gpu.using(self._gpu.callers_stream([value])):
            return self._gpu.adopt(value)

    def caller(self, values: Collection[Any]) -> Caller:
        """Who hands in these inputs, which are as they were before `adopt`.

        Raises:
            DeviceError: the GPU fails, or a CUDA graph is being captured on the caller's stream.
        """
        with self._remembering():
            return Caller(kind_of(values), self._gpu.callers_stream(values))

    def run(
        self,
        feed: dict[str, Any],
        names: Sequence[str],
        caller: Caller,
        control: RunControl,
        recorder: Recorder | None = None,
    ) -> list[Any]:
        """The outputs ``names`` as new arrays of the caller's kind, for inputs that `adopt` gave.

        Where the GPU's memory does not suffice, what of it is unused is freed, and the run begins
        again. With a recorder, each part and each kernel is waited for.

        Raises:
            InputError: shapes do not fit, onnxruntime fails on these inputs, or the runner is
                closed.
            DeviceError: the GPU fails, or its memory does not suffice.
            RunTerminatedError: ``control`` ends the run.
            RunTimeoutError: its time is up.
        """
        gpu = self._gpu
        with self._remembering(), self._contexts.borrow() as context:

            def execute() -> list[Any]:
                gpu.wait(context.stream, caller.stream)
                with gpu.using(context.stream):
                    values = {**feed, **self._constants}
                    values = self._execute(context, values, control, recorder)
                    if caller.kind in (Kind.NUMPY, Kind.TORCH_CPU):
                        results = [self._copy_to_host(values[name]) for name in names]
                        return [to_same_kind(result, caller.kind) for result in results]
                return [self._copy_out(context, caller, values[name]) for name in names]

            return execute() if recorder else _with_room(gpu, execute, context)

    def memory(self) -> list[ChainMemory]:
        """The planned memory of each chain, for the input shapes that were run."""
        contexts = self._contexts.all()
        found = []
        for chain in self._chains:
            executors = [
                executor
                for context in contexts
                for executor in context.executors
                if isinstance(executor, ChainExecutor) and executor.chain is chain
            ]
            for shapes, by_name, peak in chain.planned():
                arenas = sum(executor.arenas(shapes) for executor in executors)
                found.append(ChainMemory(by_name, peak, arenas))
        return found

    def close(self) -> None:
        """Frees what it has on the GPU, as soon as runs under way are over; no other begins."""
        self._contexts.close()
        self._chains.clear()
        self._gpu.free_unused(self._stream)

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        """Says at once that the device is lost once it is: any run would fail somewhere."""
        if self._lost:
            raise DeviceLostError(f"this session cannot be used any more: {self._lost}")
        try:
            yield
        except DeviceLostError as error:
            self._lost = str(error)
            raise

    def _execute(
        self,
        context: Context,
        values: dict[str, Any],
        control: RunControl,
        recorder: Recorder | None,
    ) -> dict[str, Any]:
        for executor, release in zip(context.executors, self._release, strict=True):
            control.check()
            start = 0.0 if recorder is None else recorder.now()
            if isinstance(executor, ChainExecutor):
                for name in executor.inputs:
                    values[name] = to_gpu(self._gpu, values[name])
            if recorder is None:
                results = executor.run(values, control)
            else:
                seconds: list[float] = []
                results = executor.run(values, control, seconds)
                self._gpu.finish()
                recorder.add(start, seconds)
            values.update(zip(executor.outputs, results, strict=True))
            for name in release:
                del values[name]
        return values

    def _copy_to_host(self, value: Any) -> Any:
        on_gpu = self._gpu.owns(value)
        return self._gpu.download(value) if on_gpu else _copy(value)

    def _copy_out(self, context: Context, caller: Caller, value: Any) -> Any:
        """A result in memory that the caller's stream owns, ready when that stream comes to it."""
        gpu = self._gpu
        if not hasattr(value, "dtype") or value.dtype.kind in "OSU":
            return _copy(to_host(gpu, value))
        with gpu.using(caller.stream):
            result = gpu.empty(value.shape, value.dtype)
        gpu.wait(context.stream, caller.stream)
        with gpu.using(context.stream):
            gpu.copy(to_gpu(gpu, value), result)
        gpu.wait(caller.stream, context.stream)
        if caller.kind is not Kind.TORCH_CUDA:
            return result
        with gpu.using(caller.stream):  # both libraries are on it, and none waits for the other
            return gpu.to_torch(result)


def _with_room(gpu: Gpu, work: Callable[[], T], context: Context | None = None) -> T:
    """What ``work`` gives; where memory does not suffice, unused one is freed, and it tries again.

    onnxruntime and CuPy each keep freed memory for themselves, so that one may lack what the other
    does not need.
    """
    try:
        return work()
    except DeviceMemoryError as error:
        _logger.info("unused memory is freed, and the work begins again: %s", error)
    # Only here the failed attempt's arrays are gone.
    if context:
        with gpu.using(context.stream):
            for executor in context.executors:
                if isinstance(executor, ChainExecutor):
                    executor.forget_graphs()
    gpu.free_unused()
    return work()


def _copy(value: Any) -> Any:
    return value.copy() if hasattr(value, "copy") else value
