"""Compiled kernels on disk, for targets that CuPy cannot compile for and so does not keep."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from adder_onnx.files import write_atomically
from adder_onnx.kernels.cuda.compiler.nvrtc import (
    compile_cubin,
    compile_target,
    compiler_options,
    compiler_version,
)

__all__ = ["cached_cubin"]


def cached_cubin(
    unit: str, expressions: Sequence[str], architecture: int, folder: Path
) -> tuple[bytes, dict[str, str]]:
    """As `compile_cubin`, or what it gave when it was last asked for the same.

    Args:
        unit: the text of the translation unit.
        expressions: the kernels' C++ names.
        architecture: a compute capability times ten.
        folder: where results are kept; made where it is not there.

    Raises:
        MissingDependencyError: CuPy, NVRTC or CUDA's headers are not installed.
        CompilerError: the sources do not compile.
    """
    # The options have a digest of all included sources.
    question = (compile_target(architecture), compiler_version(), compiler_options(), unit)
    digest = hashlib.sha256(repr((*question, *expressions)).encode()).hexdigest()
    file = folder / f"adder_onnx_{digest}.cubin"
    if file.is_file():
        header, _, cubin = file.read_bytes().partition(b"\n")
        return cubin, json.loads(header)
    cubin, names = compile_cubin(expressions, architecture, unit)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(names).encode() + b"\n" + cubin)
    return cubin, names
