"""Executing standard nodes in onnxruntime on a GPU, and on the CPU beside one."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from adder_onnx.errors import AdderError, DeviceError, ModelError
from adder_onnx.graph.plan import OnnxruntimeStep
from adder_onnx.runtime.cuda.errors import onnxruntime_failure
from adder_onnx.runtime.cuda.gpu import Gpu
from adder_onnx.runtime.interruption.run_control import RunControl
from adder_onnx.runtime.onnxruntime_library import import_onnxruntime
from adder_onnx.runtime.onnxruntime_step import (
    CPU_PROVIDER,
    CUDA_PROVIDER,
    OnnxruntimeExecutor,
    failure,
    make_session,
)

__all__ = [
    "BoundExecutor",
    "HostExecutor",
    "load_libraries",
    "provider_options",
    "standard_executor",
    "to_gpu",
    "to_host",
]

_logger = logging.getLogger(__name__)

_BINDABLE = frozenset(
    np.dtype(name)
    for name in (
        *("float16", "float32", "float64", "bool"),
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    )
)
"""What IOBinding knows by its NumPy type."""


_DEFAULTS = {
    "use_tf32": "0",  # on by default in onnxruntime; it costs three digits
    "cudnn_conv_algo_search": "HEURISTIC",  # instead of a search for every new shape
    "arena_extend_strategy": "kSameAsRequested",  # instead of twice as much each time
}


def load_libraries() -> None:
    """Loads the CUDA libraries that onnxruntime-gpu needs from where their packages lie."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # it prints, and standard output is for results
        import_onnxruntime().preload_dlls(directory="")
    if said.getvalue():
        _logger.warning("onnxruntime: %s", " ".join(said.getvalue().split()))


def to_host(gpu: Gpu, value: Any) -> Any:
    """A value in the CPU's memory."""
    return gpu.download(value) if gpu.owns(value) else value


def to_gpu(gpu: Gpu, value: Any) -> Any:
    """A tensor as an array of the GPU, in C order."""
    return gpu.contiguous(value) if gpu.owns(value) else gpu.upload(np.ascontiguousarray(value))


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


class HostExecutor:
    """A sub-model in an onnxruntime session on the CPU, between chains on a GPU."""

    def __init__(self, step: OnnxruntimeStep, session_options: Any, gpu: Gpu) -> None:
        self._executor = OnnxruntimeExecutor(step, session_options)
        self._gpu = gpu
        self.inputs, self.outputs = step.inputs, step.outputs

    def run(
        self, values: Mapping[str, Any], control: RunControl, seconds: list[float] | None = None
    ) -> list[Any]:
        """The outputs, in the CPU's memory; inputs are fetched from the GPU where they are there.

        Raises:
            InputError: onnxruntime fails on these inputs.
            RunTerminatedError: ``control`` ends the run.
            RunTimeoutError: its time is up.
        """
        feeds = {name: to_host(self._gpu, values[name]) for name in self.inputs}
        return control.call(lambda: self._executor.run(feeds, control))


class BoundExecutor:
    """A sub-model in an onnxruntime session on a GPU, its tensors bound where they are.

    Sub-models that take or give anything but numeric tensors, and runs with empty tensors, go
    through the CPU's memory.

    Args:
        step: the sub-model.
        session_options: ``onnxruntime.SessionOptions``.
        providers: onnxruntime's providers with their options.
        gpu: where its tensors are.
        declared: outputs whose shapes are the model's word, not inferred; they may be wrong.

    Raises:
        DeviceError: onnxruntime leaves out a provider, because a library that it needs is missing;
            or the GPU's memory does not suffice.
    """

    def __init__(
        self,
        step: OnnxruntimeStep,
        session_options: Any,
        providers: Sequence[Any],
        gpu: Gpu,
        declared: Collection[str],
    ) -> None:
        self._gpu = gpu
        self.inputs, self.outputs = step.inputs, step.outputs
        try:
            self._session = make_session(step, session_options, providers)
        except ModelError as error:
            raise onnxruntime_failure(error.__cause__, gpu.name) or error from error.__cause__
        for provider in providers:
            name = provider[0] if isinstance(provider, tuple) else provider
            if name not in self._session.get_providers():
                raise DeviceError(
                    f"onnxruntime cannot use its {name}, since a library that it needs does not "
                    'load (CUDA, cuDNN): pip install "adder-onnx[cuda13]" (or [cuda12])'
                )
        graph = step.model.graph
        self._types = [_numpy_type(value) for value in graph.output]
        self._bindable = all(
            _numpy_type(value) in _BINDABLE for value in (*graph.input, *graph.output)
        )
        self._dims = {value.name: _dims(value) for value in (*graph.input, *graph.output)}
        self._dims.update(dict.fromkeys(set(self.outputs) & set(declared)))

    def run(
        self, values: Mapping[str, Any], control: RunControl, seconds: list[float] | None = None
    ) -> list[Any]:
        """The outputs, in the order of `outputs`, numeric ones as arrays of the GPU.

        Raises:
            InputError: onnxruntime fails on these inputs.
            RunTerminatedError: ``control`` ends the run.
            RunTimeoutError: its time is up.
            DeviceError: the GPU fails, or its memory does not suffice.
        """
        if not self._bindable or any(0 in values[name].shape for name in self.inputs):
            feeds = {name: to_host(self._gpu, values[name]) for name in self.inputs}
            return list(
                self._call(
                    control, lambda: self._session.run(list(self.outputs), feeds, control.options)
                )
            )
        arrays = {name: to_gpu(self._gpu, values[name]) for name in self.inputs}
        binding = self._session.io_binding()
        for name, array in arrays.items():
            self._bind(binding.bind_input, name, array)
        sizes = self._sizes(arrays)
        results: list[Any] = [
            self._preallocated(name, dtype, sizes)
            for name, dtype in zip(self.outputs, self._types, strict=True)
        ]
        for name, result in zip(self.outputs, results, strict=True):
            if result is None:
                binding.bind_output(name, *self._gpu.ort_device)
            else:
                self._bind(binding.bind_output, name, result)
        # All is on one stream: whoever needs a result waits for that.
        options = control.new_options()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._call(control, lambda: self._session.run_with_iobinding(binding, options))
        for i, (value, dtype) in enumerate(zip(binding.get_outputs(), self._types, strict=True)):
            if results[i] is None:
                results[i] = self._adopt(value, dtype)
        return results

    def _call(self, control: RunControl, work: Callable[[], Any]) -> Any:
        """What a call of onnxruntime gives; nobody leaves while it uses the stream."""
        try:
            return control.call(work, leaves=False)
        except AdderError:
            raise
        except Exception as error:
            control.check()
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> AdderError:
        found = onnxruntime_failure(error, self._gpu.name)
        if found is None:
            # Where the device is lost, that is why, whatever onnxruntime says.
            self._gpu.finish()
        return found or failure(error)

    def _bind(self, bind: Any, name: str, array: Any) -> None:
        bind(
            name,
            *self._gpu.ort_device,
            array.dtype.type,
            list(array.shape),
            self._gpu.pointer(array),
        )

    def _sizes(self, arrays: Mapping[str, Any]) -> dict[str, int]:
        """The sizes that symbolic dimensions of the inputs have."""
        return {
            dim: size
            for name, array in arrays.items()
            for dim, size in zip(self._dims[name] or (), array.shape, strict=False)
            if isinstance(dim, str)
        }

    def _preallocated(self, name: str, dtype: np.dtype[Any], sizes: Mapping[str, int]) -> Any:
        """Memory of the pool for an output whose shape is known before the run, else None."""
        shape = [
            sizes.get(dim) if isinstance(dim, str) else dim for dim in self._dims[name] or (None,)
        ]
        if None in shape or 0 in shape:
            return None
        return self._gpu.empty(shape, dtype)  # type: ignore[arg-type]

    def _adopt(self, value: Any, dtype: np.dtype[Any]) -> Any:
        """An output that onnxruntime has taken the memory for."""
        shape = tuple(value.shape())
        if 0 in shape:
            return self._gpu.empty(shape, dtype)
        return self._gpu.wrap(value.data_ptr(), shape, dtype, value)


def standard_executor(
    step: OnnxruntimeStep,
    session_options: Any,
    given: Mapping[str, Any] | None,
    gpu: Gpu,
    stream: Any,
    declared: Collection[str],
) -> BoundExecutor | HostExecutor:
    """A sub-model on a stream of a GPU, or on the CPU where onnxruntime has no CUDA.

    Args:
        step: the sub-model.
        session_options: ``onnxruntime.SessionOptions``.
        given: the user's options for the CUDAExecutionProvider; None where onnxruntime has none.
        gpu: where.
        stream: which outlives the executor.
        declared: as `BoundExecutor` takes it.

    Raises:
        DeviceError: as `BoundExecutor` raises it.
    """
    if given is None:
        return HostExecutor(step, session_options, gpu)
    kind, number = gpu.ort_device
    providers: list[Any] = [CPU_PROVIDER]
    if kind == "cuda":
        options = provider_options(given, number, gpu.stream_address(stream))
        providers.insert(0, (CUDA_PROVIDER, options))
    return BoundExecutor(step, session_options, providers, gpu, declared)


def _numpy_type(value: onnx.ValueInfoProto) -> np.dtype[Any]:
    """The type of a tensor; that of Python objects for anything else."""
    if not value.type.HasField("tensor_type"):
        return np.dtype(object)
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def _dims(value: onnx.ValueInfoProto) -> list[int | str | None] | None:
    """Sizes, names or None of a tensor's dimensions; None where its rank is not known."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [
        dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None)
        for dim in tensor.shape.dim
    ]
