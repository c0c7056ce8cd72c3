"""Compiling the kernels' sources with NVRTC: options and names; to machine code without a GPU."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from adder_onnx.errors import MissingDependencyError

__all__ = [
    "MIN_ARCHITECTURE",
    "CompilerError",
    "check_compiler",
    "compile_cubin",
    "compile_target",
    "compiler_options",
    "compiler_version",
    "source",
    "source_folder",
]

MIN_ARCHITECTURE = 75
"""The lowest compute capability that kernels are compiled for, times ten."""

_FAMILY = (120, 121)
_FIRST_WITH_MAXIMA_OF_BYTES = (13, 2)
"""NVRTC's version: there were families before, but not the instruction that code for one is for."""

_INSTALL = 'pip install "adder-onnx[cuda13]" (or [cuda12])'


class CompilerError(RuntimeError):
    """Sources do not compile; the message is NVRTC's log."""


def source_folder() -> Path:
    """The folder of the CUDA sources, which include each other by paths from there."""
    return Path(str(resources.files("adder_onnx.kernels.cuda"))) / "sources"


@functools.cache
def source() -> str:
    """The translation unit that all kernels are instantiated from."""
    return (source_folder() / "kernels.cu").read_text()


@functools.cache
def _digest() -> str:
    files = sorted(source_folder().rglob("*.cu*"))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]


@functools.cache
def _header_folder() -> str:
    """The folder of CUDA's own headers, such as cuda_fp16.h."""
    from cuda import pathfinder

    folder: str | None = pathfinder.find_nvidia_header_directory("cudart")
    if folder is None:
        raise MissingDependencyError(
            f"CUDA's headers (cuda_fp16.h), which its kernels are compiled with, are missing: "
            f"{_INSTALL}, or set CUDA_PATH to a CUDA toolkit"
        )
    return folder


def compiler_options() -> tuple[str, ...]:
    """NVRTC's options for the kernels.

    CuPy's cache of compiled kernels does not look into included files, so that a digest of them is
    among the options.
    """
    return (
        "-std=c++17",
        f"-I{source_folder()}",
        f"-I{_header_folder()}",
        f"-DADDER_ONNX_SOURCES={_digest()}",
    )


def compiler_version() -> str:
    """NVRTC's version, for example 13.2.

    Raises:
        MissingDependencyError: CuPy or NVRTC is not installed.
    """
    try:
        major, minor = _library().getVersion()
    except (ImportError, OSError, RuntimeError) as error:
        raise MissingDependencyError(
            f"NVRTC, the compiler of CUDA kernels, cannot be loaded "
            f"({' '.join(str(error).split())}): {_INSTALL}"
        ) from error
    return f"{major}.{minor}"


def compile_target(architecture: int) -> str:
    """What kernels are compiled for: ``sm_90``, or where that makes a difference, a family.

    Code for the family of compute capability 12 has an instruction for the maxima of four bytes,
    which code for 12.0 alone has not.

    Args:
        architecture: a compute capability times ten.

    Raises:
        MissingDependencyError: CuPy or NVRTC, whose version matters, is not installed.
    """
    if architecture not in _FAMILY:
        return f"sm_{architecture}"
    major, minor = compiler_version().split(".")
    has_maxima = (int(major), int(minor)) >= _FIRST_WITH_MAXIMA_OF_BYTES
    return f"sm_{architecture}f" if has_maxima else f"sm_{architecture}"


def check_compiler() -> None:
    """Checks that kernels can be compiled.

    Raises:
        MissingDependencyError: CuPy, NVRTC or CUDA's headers are not installed.
    """
    compiler_version()
    compiler_options()


def _library() -> Any:
    """CuPy's binding of NVRTC."""
    from cupy_backends.cuda.libs import nvrtc

    return nvrtc


def compile_cubin(
    expressions: Sequence[str], architecture: int, unit: str | None = None
) -> tuple[bytes, dict[str, str]]:
    """Compiles kernels to machine code, as CuPy does on a GPU; needs none.

    Args:
        expressions: the kernels' C++ names.
        architecture: a compute capability times ten, for example 90.
        unit: the text of the translation unit; that of all kernels if None.

    Returns:
        The ELF image, and for each expression the name of its function in it.

    Raises:
        MissingDependencyError: CuPy, NVRTC or CUDA's headers are not installed.
        CompilerError: the sources do not compile.
    """
    check_compiler()
    library = _library()
    # As CuPy does: -ftz=true, and functions without __host__ or __device__ are for the device.
    options = (
        *compiler_options(),
        f"-arch={compile_target(architecture)}",
        "-ftz=true",
        "--device-as-default-execution-space",
    )
    program = library.createProgram(unit or source(), "kernels.cu", (), ())
    try:
        for expression in expressions:
            library.addNameExpression(program, expression)
        try:
            library.compileProgram(program, options)
        except library.NVRTCError as error:
            raise CompilerError(library.getProgramLog(program)) from error
        names = {e: str(library.getLoweredName(program, e)) for e in expressions}
        # CuPy's binding drops the last byte, without which the image is not complete.
        return bytes(library.getCUBIN(program)) + b"\0", names
    finally:
        library.destroyProgram(program)
