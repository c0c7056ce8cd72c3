"""The compiled kernels of each GPU, shared by all sessions of a process."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from typing import Any

from adder_onnx.errors import DeviceError
from adder_onnx.kernels.cuda.compiler.modules import load_kernels
from adder_onnx.kernels.cuda.compiler.nvrtc import CompilerError, source
from adder_onnx.kernels.cuda.launch.variants import Kernel

__all__ = ["CompiledKernels", "kernels_of"]

_logger = logging.getLogger(__name__)
_kernels: dict[int, CompiledKernels] = {}
_lock = threading.Lock()


def kernels_of(number: int) -> CompiledKernels:
    """The kernels of a GPU, by its number."""
    with _lock:
        return _kernels.setdefault(number, CompiledKernels(number))


class CompiledKernels:
    """Kernels of one GPU by their C++ names; several threads may use it at once."""

    def __init__(self, number: int) -> None:
        self._name = f"cuda:{number}"
        self._functions: dict[str, Any] = {}
        self._lock = threading.Lock()

    def function(self, kernel: Kernel) -> Any:
        """What launches a kernel, as CuPy's RawKernel does; compiled now where it was not yet."""
        function = self._functions.get(kernel.expression)
        if function is None:
            self.prepare((kernel,))
            function = self._functions[kernel.expression]
        return function

    def prepare(self, kernels: Iterable[Kernel]) -> None:
        """Compiles kernels for CuPy's current device, those that are missing as one module.

        Raises:
            DeviceError: the compiler refuses them.
        """
        import cupy

        with self._lock:
            wanted = sorted({kernel.expression for kernel in kernels} - self._functions.keys())
            if not wanted:
                return
            start = time.perf_counter()
            names = ", ".join(wanted)
            _logger.info("compiling for %s, or taking from CuPy's cache: %s", self._name, names)
            try:
                found = load_kernels(source(), wanted)
            except (cupy.cuda.compiler.CompileException, CompilerError) as error:
                raise DeviceError(
                    f"the kernels {names} do not compile for {self._name} "
                    f"({' '.join(str(error).split())}): are CUDA's headers and NVRTC of one "
                    "version?"
                ) from error
            self._functions.update(found)
            _logger.info(
                "%d kernels are ready after %.1f s", len(found), time.perf_counter() - start
            )
