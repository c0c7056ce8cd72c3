"""Compiling kernels for CuPy's current device, and loading them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adder_onnx.kernels.cuda.compiler.cubin_cache import cached_cubin
from adder_onnx.kernels.cuda.compiler.nvrtc import compile_target, compiler_options

__all__ = ["load_kernels"]


def load_kernels(unit: str, expressions: Sequence[str]) -> dict[str, Any]:
    """What launches each kernel as CuPy's RawKernel does, all of one module.

    Args:
        unit: the text of the translation unit.
        expressions: the kernels' C++ names.

    Raises:
        cupy.cuda.compiler.CompileException, CompilerError: they do not compile.
    """
    import cupy

    architecture = int(cupy.cuda.Device().compute_capability)
    if compile_target(architecture) == f"sm_{architecture}":
        module = cupy.RawModule(
            code=unit, options=compiler_options(), name_expressions=tuple(expressions)
        )
        return {name: module.get_function(name) for name in expressions}
    # CuPy decides itself what it compiles for, and knows no families.
    folder = Path(cupy.cuda.compiler.get_cache_dir())
    cubin, names = cached_cubin(unit, expressions, architecture, folder)
    module = cupy.cuda.function.Module()
    module.load(cubin)
    return {name: module.get_function(names[name]) for name in expressions}
