"""Inputs and outputs in memory that the caller names, as onnxruntime's ``IOBinding``."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from adder_onnx.errors import InputError
from adder_onnx.runtime.onnxruntime_library import make_ort_value

if TYPE_CHECKING:
    from adder_onnx.runtime.session import InferenceSession

__all__ = ["IOBinding"]


class IOBinding:
    """What a run takes and where its results go; made by `InferenceSession.io_binding`.

    All is in the CPU's memory. Inputs are used where they lie, and must stay until the run is over;
    results are copied to where they are bound.
    """

    def __init__(self, session: InferenceSession) -> None:
        self._session = session
        self._inputs: dict[str, Any] = {}
        self._outputs: dict[str, tuple[NDArray[Any] | None, Any]] = {}
        self._results: list[Any] = []

    def bind_cpu_input(self, name: str, arr_on_cpu: Any) -> None:
        """Binds an input to an array.

        Args:
            name: of the input.
            arr_on_cpu: whatever `InferenceSession.run` takes.

        Raises:
            InputError: the model has no such input.
        """
        self._check_name(name, [value.name for value in self._session.get_inputs()], "input")
        self._inputs[name] = arr_on_cpu

    def bind_input(
        self,
        name: str,
        device_type: str,
        device_id: int,
        element_type: Any,
        shape: Sequence[int],
        buffer_ptr: int,
    ) -> None:
        """Binds an input to memory.

        Args:
            name: of the input.
            device_type: where the memory is, which must be ``cpu``.
            device_id: is ignored.
            element_type: NumPy's, or onnx's number of one.
            shape: of the array that lies there, which is contiguous.
            buffer_ptr: its address.

        Raises:
            InputError: the model has no such input, or the memory cannot be bound.
        """
        self.bind_cpu_input(name, _memory(device_type, element_type, shape, buffer_ptr))

    def bind_ortvalue_input(self, name: str, ortvalue: Any) -> None:
        """Binds an input to an ``OrtValue``.

        Args:
            name: of the input.
            ortvalue: its value.

        Raises:
            InputError: the model has no such input.
        """
        self.bind_cpu_input(name, ortvalue)

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: Any = None,
        shape: Sequence[int] | None = None,
        buffer_ptr: int | None = None,
    ) -> None:
        """Asks for an output: as a new array, or in memory whose type and shape are given.

        Args:
            name: of the output.
            device_type: where it is wanted, which must be ``cpu``.
            device_id: is ignored.
            element_type: as for `bind_input`; needed with ``buffer_ptr``.
            shape: of the result; needed with ``buffer_ptr``.
            buffer_ptr: the address of memory for it; None for a new array.

        Raises:
            InputError: the model has no such output, or the memory cannot be bound.
        """
        self._check_name(name, [value.name for value in self._session.get_outputs()], "output")
        if buffer_ptr is None:
            _check_device(device_type)
            self._outputs[name] = (None, None)
            return
        if element_type is None or shape is None:
            raise InputError("an output bound to memory needs element_type and shape")
        self._outputs[name] = (_memory(device_type, element_type, shape, buffer_ptr), None)

    def bind_ortvalue_output(self, name: str, ortvalue: Any) -> None:
        """Binds an output to an ``OrtValue``, a tensor of numbers.

        Args:
            name: of the output.
            ortvalue: into which results are copied; of the type and shape that they have.

        Raises:
            InputError: the model has no such output, or the value is no such tensor on the CPU.
        """
        self._check_name(name, [value.name for value in self._session.get_outputs()], "output")
        memory = _memory(
            ortvalue.device_name(), ortvalue.element_type(), ortvalue.shape(), ortvalue.data_ptr()
        )
        self._outputs[name] = (memory, ortvalue)

    def is_of(self, session: InferenceSession) -> bool:
        """Whether it is this session's."""
        return self._session is session

    def run(self, run_options: Any) -> None:
        """One run of the session; for `InferenceSession.run_with_iobinding`.

        Raises:
            InputError: no output is bound, inputs do not fit the model, or results their memory.
        """
        if not self._outputs:
            raise InputError("no output is bound: call bind_output for those that are wanted")
        self._results = self._session.run(list(self._outputs), self._inputs, run_options)
        for result, (name, (memory, _)) in zip(self._results, self._outputs.items(), strict=True):
            if memory is None:
                continue
            if result.shape != memory.shape or result.dtype != memory.dtype:
                raise InputError(
                    f"output {name!r} is {result.dtype} {list(result.shape)}, and bound to memory "
                    f"of {memory.dtype} {list(memory.shape)}"
                )
            memory[...] = result

    def get_outputs(self) -> list[Any]:
        """The results of the last run as ``OrtValue``, in the order in which they were bound."""
        outputs = [(name, value) for name, (_, value) in self._outputs.items()]
        return [
            make_ort_value(name, result) if value is None else value
            for (name, value), result in zip(outputs, self._results, strict=False)
        ]

    def copy_outputs_to_cpu(self) -> list[Any]:
        """The results of the last run, in the order in which they were bound."""
        return list(self._results)

    def synchronize_inputs(self) -> None:
        """Nothing needs to be waited for."""

    def synchronize_outputs(self) -> None:
        """Nothing needs to be waited for: a run ends when its results are there."""

    def clear_binding_inputs(self) -> None:
        """Forgets all inputs."""
        self._inputs.clear()

    def clear_binding_outputs(self) -> None:
        """Forgets all outputs and their results."""
        self._outputs.clear()
        self._results = []

    def _check_name(self, name: str, known: list[str], what: str) -> None:
        if name not in known:
            raise InputError(f"the model has no {what} {name!r}; its {what}s are {known}")


def _check_device(device: str) -> None:
    if not isinstance(device, str) or device.lower() != "cpu":
        raise InputError(
            f"memory of {device!r} cannot be bound, only that of 'cpu': give `run` arrays of a GPU "
            "by DLPack"
        )


def _memory(device: str, element_type: Any, shape: Sequence[int], address: int) -> NDArray[Any]:
    """Memory as an array."""
    _check_device(device)
    try:
        dtype = (
            onnx.helper.tensor_dtype_to_np_dtype(element_type)
            if isinstance(element_type, int)
            else np.dtype(element_type)
        )
        size = dtype.itemsize * int(np.prod([int(n) for n in shape], dtype=object))
        memory = (ctypes.c_char * size).from_address(int(address))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"memory of type {element_type!r} and shape {shape!r} cannot be bound: {error}"
        ) from error
    if dtype.hasobject or dtype.kind in "SU":
        raise InputError(f"memory of type {dtype} cannot be bound, only that of numbers")
    array: NDArray[Any] = np.ndarray(tuple(shape), dtype, memoryview(memory))
    return array
