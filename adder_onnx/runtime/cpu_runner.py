"""Running a plan on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

from adder_onnx.graph.plan import OnnxruntimeStep, Plan
from adder_onnx.runtime.arrays import Caller, Kind, kind_of, to_numpy, to_same_kind
from adder_onnx.runtime.chain import ChainMemory
from adder_onnx.runtime.interruption.run_control import RunControl
from adder_onnx.runtime.native_step import NativeExecutor
from adder_onnx.runtime.onnxruntime_step import OnnxruntimeExecutor
from adder_onnx.runtime.parts import constants_of, last_uses, parts_of
from adder_onnx.runtime.times import Recorder

__all__ = ["CpuRunner"]


class CpuRunner:
    """Executes a plan's parts one after the other; may be used from several threads at once.

    Args:
        plan: what to execute.
        options: ``onnxruntime.SessionOptions``.
        threads: that the kernels may use.
        arithmetic: of float32 kernels, ``fast`` or ``exact``.
    """

    device = "cpu"

    def __init__(self, plan: Plan, options: Any, threads: int, arithmetic: str) -> None:
        parts = parts_of(plan.steps)
        # onnxruntime's first: the memory that it takes while it makes sessions, and gives back, is
        # then there for the packed weights.
        sessions = {
            i: OnnxruntimeExecutor(part, options)
            for i, part in enumerate(parts)
            if isinstance(part, OnnxruntimeStep)
        }
        self._executors: list[OnnxruntimeExecutor | NativeExecutor] = [
            sessions[i]
            if isinstance(part, OnnxruntimeStep)
            else NativeExecutor(part, threads, arithmetic)
            for i, part in enumerate(parts)
        ]
        self._release = last_uses(self._executors, {value.name for value in plan.outputs})
        self._constants = constants_of(plan)

    def adopt(self, value: Any) -> Any:
        """An input as an array that a run takes; see `to_numpy` for what it raises."""
        return to_numpy(value)

    def caller(self, values: Collection[Any]) -> Caller:
        """Who hands in these inputs."""
        return Caller(kind_of(values))

    def run(
        self,
        feed: dict[str, Any],
        names: Sequence[str],
        caller: Caller,
        control: RunControl,
        recorder: Recorder | None = None,
    ) -> list[Any]:
        """The outputs ``names`` as new arrays of the caller's kind, for inputs that `adopt` gave.

        Raises:
            InputError: shapes do not fit, or onnxruntime fails on these inputs.
            RunTerminatedError: ``control`` ends the run.
            RunTimeoutError: its time is up.
        """
        return control.call(partial(self._run, feed, names, caller.kind, control, recorder))

    def _run(
        self,
        feed: dict[str, Any],
        names: Sequence[str],
        kind: Kind,
        control: RunControl,
        recorder: Recorder | None,
    ) -> list[Any]:
        values = {**feed, **self._constants}
        for executor, release in zip(self._executors, self._release, strict=True):
            control.check()
            if recorder is None:
                results = executor.run(values, control)
            else:
                start, seconds = recorder.now(), list[float]()
                results = executor.run(values, control, seconds)
                recorder.add(start, seconds)
            values.update(zip(executor.outputs, results, strict=True))
            for name in release:
                del values[name]
        kept = (*feed, *self._constants)
        found = [copy.copy(values[name]) if name in kept else values[name] for name in names]
        return [to_same_kind(value, kind) for value in found]

    def close(self) -> None:
        """Nothing needs to be ended in order: all goes with the last reference."""

    def memory(self) -> list[ChainMemory]:
        """The planned memory of each chain, for the input shapes that were run."""
        return [
            memory
            for executor in self._executors
            if isinstance(executor, NativeExecutor)
            for memory in executor.memory()
        ]
