"""A stand-in for a GPU: kernels run on the CPU, in memory between guard zones."""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.kernels.cuda.device import Grid
from adder_onnx.kernels.cuda.params import CONV_ARGS, LAYOUT_ARGS, PACK_ARGS
from adder_onnx.kernels.cuda.variants import KERNELS, Kernel

__all__ = ["CpuDevice"]

_HERE = Path(__file__).parent
_KERNELS = _HERE.parents[1] / "kernels"
_STRUCTURES = {id(CONV_ARGS): "ConvArgs", id(PACK_ARGS): "PackArgs", id(LAYOUT_ARGS): "LayoutArgs"}
_GUARD = 4096
_POISON = 0xFF
"""Byte that unwritten memory and the zones beside it are filled with: NaN in any float type."""


@functools.cache
def _library() -> Any:
    """The kernels' sources, compiled by the host's compiler."""
    folder = Path(tempfile.mkdtemp(prefix="adder_onnx_cuda_"))
    table, library = folder / "table.inc", folder / "kernels.so"
    table.write_text(
        "".join(f"KERNEL({_STRUCTURES[id(k.args)]}, {k.expression})\n" for k in KERNELS)
    )
    command = [
        os.environ.get("CXX", "g++"),
        *["-std=c++17", "-O2", "-march=native", "-ffp-contract=off", "-fno-strict-aliasing"],
        *["-fPIC", "-shared", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror"],
        *(f"-I{path}" for path in (_KERNELS / "cuda", _KERNELS / "cpu", _HERE)),
        f'-DKERNEL_TABLE="{table}"',
        str(_HERE / "run.cpp"),
        "-o",
        str(library),
    ]
    subprocess.run(command, check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.launch.argtypes = [
        *[ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint],
        *[ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int],
    ]
    loaded.add_array.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
    loaded.remove_array.argtypes = [ctypes.c_size_t]
    return loaded


class CpuDevice:
    """Implements `adder_onnx.kernels.cuda.device.Device` with NumPy arrays.

    Args:
        backwards: whether the threads of a block take turns from the last to the first.
    """

    def __init__(self, *, backwards: bool = False) -> None:
        self._backwards = backwards
        self._memory: list[weakref.ref[NDArray[np.uint8]]] = []
        self.launched: list[str] = []

    def empty(self, shape: Sequence[int], dtype: Any) -> NDArray[Any]:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = np.full(size + 2 * _GUARD + 64, _POISON, np.uint8)
        start = _GUARD + -(memory.ctypes.data + _GUARD) % 64
        self._memory.append(weakref.ref(memory))
        first = memory.ctypes.data + start
        _library().add_array(first, size)
        weakref.finalize(memory, _library().remove_array, first)
        return memory[start : start + size].view(dtype).reshape(shape)

    def upload(self, array: NDArray[Any]) -> NDArray[Any]:
        copy = self.empty(array.shape, array.dtype)
        copy[...] = array
        return copy

    def pointer(self, array: NDArray[Any]) -> int:
        return array.ctypes.data

    def launch(self, kernel: Kernel, grid: Grid, args: NDArray[np.void]) -> None:
        structure = args.tobytes()
        assert len(structure) == kernel.args.itemsize
        failed = _library().launch(
            kernel.expression.encode(),
            *grid,
            kernel.threads,
            structure,
            len(structure),
            self._backwards,
        )
        assert not failed, f"no kernel {kernel.expression} takes {len(structure)} bytes"
        self.launched.append(kernel.expression)

    def check_guards(self) -> None:
        """Fails where something was written beside an array that is still there."""
        for reference in self._memory:
            memory = reference()
            if memory is not None:
                assert (memory[:_GUARD] == _POISON).all()
                assert (memory[-_GUARD:] == _POISON).all()
