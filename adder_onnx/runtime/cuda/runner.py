"""Running a plan on a GPU."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from adder_onnx.graph.plan import OnnxruntimeStep, Plan
from adder_onnx.runtime.arrays import Kind, is_on_gpu, to_numpy, to_same_kind
from adder_onnx.runtime.chain import ChainMemory
from adder_onnx.runtime.cuda.chain import CudaChain
from adder_onnx.runtime.cuda.gpu import Gpu
from adder_onnx.runtime.cuda.onnxruntime_binding import (
    BoundExecutor,
    HostExecutor,
    to_gpu,
    to_host,
)
from adder_onnx.runtime.onnxruntime_step import CPU_PROVIDER, CUDA_PROVIDER
from adder_onnx.runtime.parts import Executor, constants_of, last_uses, parts_of
from adder_onnx.runtime.times import Recorder

__all__ = ["MAX_CONTEXTS", "CudaRunner", "provider_options"]

MAX_CONTEXTS = 4
"""Runs at the same time; more of them wait for one to end."""

_DEFAULTS = {
    "use_tf32": "0",  # on by default in onnxruntime; it costs three digits
    "cudnn_conv_algo_search": "HEURISTIC",  # instead of a search for every new shape
}

_logger = logging.getLogger(__name__)


def provider_options(given: Mapping[str, Any], number: int, stream: int) -> dict[str, str]:
    """Options of onnxruntime's CUDAExecutionProvider.

    Args:
        given: by the user; they win.
        number: of the GPU.
        stream: address of the stream that kernels and onnxruntime share.
    """
    return {
        **_DEFAULTS,
        **{name: str(value) for name, value in given.items()},
        "device_id": str(number),
        "user_compute_stream": str(stream),
    }


@dataclass(frozen=True)
class _Context:
    """What a run has for itself: a stream, and the executors that are bound to it."""

    stream: Any
    executors: list[Executor]


class CudaRunner:
    """Executes a plan's parts one after the other on a stream of each run's own.

    Chains run in our kernels. Sub-models run in onnxruntime on the same stream where it has CUDA,
    else on the CPU, which is logged. May be used from several threads at once.

    Args:
        plan: what to execute.
        gpu: where.
        options: ``onnxruntime.SessionOptions``.
        given: the user's options for the CUDAExecutionProvider; None where onnxruntime has none.
    """

    def __init__(self, plan: Plan, gpu: Gpu, options: Any, given: Mapping[str, Any] | None) -> None:
        self._gpu = gpu
        self.device = gpu.name
        self._options = options
        self._provider_options = given
        self._parts = parts_of(plan.steps)
        self._declared = {value.name for value in plan.outputs}
        self._constants = constants_of(plan)
        if given is None and any(isinstance(part, OnnxruntimeStep) for part in self._parts):
            _logger.warning(
                "standard nodes run on the CPU, since the onnxruntime that is installed has no "
                "%s: install onnxruntime-gpu instead of onnxruntime",
                CUDA_PROVIDER,
            )
        stream = gpu.new_stream()
        with gpu.using(stream):
            self._chains = [
                None if isinstance(part, OnnxruntimeStep) else CudaChain(part, gpu)
                for part in self._parts
            ]
        gpu.synchronize(stream)  # weights are packed, for other streams too
        self._contexts = _Pool(self._new_context)
        first = self._new_context()
        self._contexts.give_back(first)
        self._release = last_uses(first.executors, self._declared)

    def adopt(self, value: Any) -> Any:
        """An input as an array that a run takes: the GPU's where it lies there, else NumPy's.

        Raises:
            ValueError: it is on another GPU.
            BufferError, RuntimeError, TypeError: it cannot be exchanged.
        """
        if not is_on_gpu(value):
            return to_numpy(value)
        with self._gpu.using(self._gpu.callers_stream([value])):
            return self._gpu.adopt(value)

    def run(
        self,
        feed: dict[str, Any],
        names: Sequence[str],
        kind: Kind,
        recorder: Recorder | None = None,
    ) -> list[Any]:
        """The outputs ``names`` as new arrays of ``kind``, for inputs that `adopt` gave.

        With a recorder each part and each kernel is waited for.

        Raises:
            InputError: shapes do not fit, or onnxruntime fails on these inputs.
            DeviceError: the GPU's memory does not suffice.
        """
        gpu = self._gpu
        caller = gpu.callers_stream(feed.values())
        with self._contexts.borrow() as context:
            gpu.wait(context.stream, caller)
            with gpu.using(context.stream):
                values = self._execute(context, {**feed, **self._constants}, recorder)
                if kind in (Kind.NUMPY, Kind.TORCH_CPU):
                    results = [self._copy_to_host(values[name]) for name in names]
                    return [to_same_kind(result, kind) for result in results]
            return [self._copy_out(context, caller, values[name], kind) for name in names]

    def memory(self) -> list[ChainMemory]:
        """The planned memory of each chain, for the input shapes that were run."""
        return [memory for chain in self._chains if chain for memory in chain.memory()]

    def _execute(
        self, context: _Context, values: dict[str, Any], recorder: Recorder | None
    ) -> dict[str, Any]:
        for executor, release in zip(context.executors, self._release, strict=True):
            start = 0.0 if recorder is None else recorder.now()
            if isinstance(executor, CudaChain):
                for name in executor.inputs:
                    values[name] = to_gpu(self._gpu, values[name])
            if recorder is None:
                results = executor.run(values)
            else:
                seconds: list[float] = []
                results = executor.run(values, seconds)
                self._gpu.finish()
                recorder.add(start, seconds)
            values.update(zip(executor.outputs, results, strict=True))
            for name in release:
                del values[name]
        return values

    def _copy_to_host(self, value: Any) -> Any:
        on_gpu = self._gpu.owns(value)
        return self._gpu.download(value) if on_gpu else _copy(value)

    def _copy_out(self, context: _Context, caller: Any, value: Any, kind: Kind) -> Any:
        """A result in memory that the caller's stream owns, ready when that stream comes to it."""
        gpu = self._gpu
        if not hasattr(value, "dtype") or value.dtype.kind in "OSU":
            return _copy(to_host(gpu, value))
        with gpu.using(caller):
            result = gpu.empty(value.shape, value.dtype)
        gpu.wait(context.stream, caller)
        with gpu.using(context.stream):
            gpu.copy(to_gpu(gpu, value), result)
        gpu.wait(caller, context.stream)
        return gpu.to_torch(result) if kind is Kind.TORCH_CUDA else result

    def _new_context(self) -> _Context:
        stream = self._gpu.new_stream()
        executors: list[Executor] = []
        for part, chain in zip(self._parts, self._chains, strict=True):
            if chain is not None:
                executors.append(chain)
                continue
            assert isinstance(part, OnnxruntimeStep)
            if self._provider_options is None:
                executors.append(HostExecutor(part, self._options, self._gpu))
                continue
            kind, number = self._gpu.ort_device
            providers: list[Any] = [CPU_PROVIDER]
            if kind == "cuda":
                address = self._gpu.stream_address(stream)
                chosen = provider_options(self._provider_options, number, address)
                providers.insert(0, (CUDA_PROVIDER, chosen))
            executors.append(
                BoundExecutor(part, self._options, providers, self._gpu, self._declared)
            )
        return _Context(stream, executors)


class _Pool:
    """At most `MAX_CONTEXTS` contexts, made when they are needed, lent to one run at a time."""

    def __init__(self, make: Callable[[], _Context]) -> None:
        self._make = make
        self._free: queue.LifoQueue[_Context] = queue.LifoQueue()
        self._room = threading.Semaphore(MAX_CONTEXTS)

    def give_back(self, context: _Context) -> None:
        self._free.put(context)

    @contextmanager
    def borrow(self) -> Iterator[_Context]:
        with self._room:
            try:
                context = self._free.get_nowait()
            except queue.Empty:
                context = self._make()
            try:
                yield context
            finally:
                self.give_back(context)


def _copy(value: Any) -> Any:
    return value.copy() if hasattr(value, "copy") else value
