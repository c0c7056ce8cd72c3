"""Executing standard nodes in onnxruntime."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import AdderError, InputError, ModelError
from adder_onnx.graph.plan import OnnxruntimeStep
from adder_onnx.runtime.imagewise import is_imagewise, with_any_batch
from adder_onnx.runtime.interruption.process_end import guarded, in_main_thread
from adder_onnx.runtime.interruption.run_control import RunControl
from adder_onnx.runtime.onnxruntime_library import import_onnxruntime
from adder_onnx.runtime.threads import require_threads

__all__ = [
    "CPU_PROVIDER",
    "CUDA_PROVIDER",
    "OnnxruntimeExecutor",
    "failure",
    "make_session",
    "make_session_options",
    "one_line",
]

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"

_LARGE_BYTES = 4 << 20
"""Inputs from this size on are run in slices of a batch: below, it would not save much memory."""

_MOST_CHARACTERS = 1_000
"""Of a message."""

_SLICE_BYTES = 1 << 20
"""What the inputs of a slice may take, if it has an image for each thread."""

_profiling_lock = threading.Lock()
"""Of options that are not theirs for a moment: other sessions may be made with the same ones."""


def make_session_options(given: Any, threads: int) -> Any:
    """Options for sub-models: those given, or ours, with the number of threads set in them."""
    ort = import_onnxruntime()
    if given is None:
        options = ort.SessionOptions()
        # Errors are raised, so that nothing needs to be printed beside them.
        options.log_severity_level = 4
        # Its idle workers would spin on the cores that our kernels use next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Planned from the second run on, memory would be taken twice, and is no faster.
        options.enable_mem_pattern = False
    else:
        options = given
    options.intra_op_num_threads = threads
    return options


def make_session(step: OnnxruntimeStep, session_options: Any, providers: Sequence[Any]) -> Any:
    """An onnxruntime session of a sub-model.

    Raises:
        ModelError: onnxruntime refuses it.
        InputError: there are not as many threads as the options say.
    """
    ort = import_onnxruntime()

    require_threads(max(session_options.intra_op_num_threads, 1))

    def make() -> Any:
        # A session profiles all that it executes, sub-models among it, itself.
        with _without_profiling(session_options):
            return ort.InferenceSession(
                step.model.SerializeToString(),
                session_options,
                providers=list(providers),
                enable_fallback=0,
            )

    # On a GPU it belongs to the stream of the caller, who must not go before it is through.
    control = RunControl(apart=in_main_thread() and list(providers) == [CPU_PROVIDER])
    try:
        return guarded(partial(control.call, make), control)
    except AdderError:
        raise
    except Exception as error:  # onnxruntime's errors have no common base but Exception
        raise ModelError(f"onnxruntime refuses a part of the model: {one_line(error)}") from error


@contextmanager
def _without_profiling(options: Any) -> Iterator[None]:
    if not options.enable_profiling:
        yield
        return
    with _profiling_lock:
        options.enable_profiling = False
        try:
            yield
        finally:
            options.enable_profiling = True


def failure(error: Exception) -> InputError:
    """What to raise where a run fails in onnxruntime."""
    return InputError(f"onnxruntime failed on this input: {one_line(error)}")


class OnnxruntimeExecutor:
    """One sub-model in an onnxruntime session on the CPU.

    Where it treats images one by one, it runs on a few of a large batch at a time.
    """

    def __init__(self, step: OnnxruntimeStep, session_options: Any) -> None:
        self.inputs = step.inputs
        self.outputs = step.outputs
        self._is_imagewise = is_imagewise(step.model)
        if self._is_imagewise:
            step = dataclasses.replace(step, model=with_any_batch(step.model))
        self._session = make_session(step, session_options, [CPU_PROVIDER])
        self._least_images = session_options.intra_op_num_threads

    def run(
        self,
        values: Mapping[str, NDArray[Any]],
        control: RunControl,
        seconds: list[float] | None = None,
    ) -> list[NDArray[Any]]:
        """The outputs, in the order of `outputs`, for the inputs in ``values``.

        Raises:
            InputError: onnxruntime fails on these inputs.
            RunTerminatedError: the run was ended.
        """
        feeds = {name: values[name] for name in self.inputs}
        try:
            if self._is_imagewise:
                return self._run_slices(feeds, control.options)
            return self._run(feeds, control.options)
        except Exception as error:
            control.check()
            raise failure(error) from error

    def _run(self, feeds: Mapping[str, NDArray[Any]], options: Any) -> list[NDArray[Any]]:
        results: list[NDArray[Any]] = self._session.run(list(self.outputs), feeds, options)
        return results

    def _run_slices(self, feeds: Mapping[str, NDArray[Any]], options: Any) -> list[NDArray[Any]]:
        batch = min(array.shape[0] for array in feeds.values())
        size = sum(array.nbytes for array in feeds.values())
        images = max(self._least_images, batch * _SLICE_BYTES // max(size, 1))
        if (
            size < _LARGE_BYTES
            or images >= batch
            or any(array.shape[0] != batch for array in feeds.values())
        ):
            return self._run(feeds, options)
        first = self._run({name: array[:images] for name, array in feeds.items()}, options)
        results = [np.empty((batch, *array.shape[1:]), array.dtype) for array in first]
        for result, array in zip(results, first, strict=True):
            result[:images] = array
        binding = self._session.io_binding()
        for start in range(images, batch, images):
            stop = min(start + images, batch)
            for name, array in feeds.items():
                binding.bind_cpu_input(name, np.ascontiguousarray(array[start:stop]))
            for name, result in zip(self.outputs, results, strict=True):
                part = result[start:stop]
                binding.bind_output(name, "cpu", 0, part.dtype.type, part.shape, part.ctypes.data)
            self._session.run_with_iobinding(binding, options)
        return results


def one_line(error: Exception) -> str:
    """An error of onnxruntime on one line, and not the whole of one that lists all nodes."""
    text = " ".join(str(error).split())
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]} …"
