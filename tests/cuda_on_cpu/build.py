"""Compiling CUDA sources with the host's compiler, into a library that runs them on the CPU.

A build takes a minute. It is kept in ``build/cuda_on_cpu``, under a digest of all that goes into
it, for other processes of the same test run and for later ones.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adder_onnx.kernels.cuda.launch.params import (
    CONV_ARGS,
    GRADIENT_ARGS,
    INTEGER_CONV_ARGS,
    LAYOUT_ARGS,
    PACK_ARGS,
)
from adder_onnx.kernels.cuda.launch.variants import Kernel

__all__ = ["SOURCES", "Program", "load"]

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]
SOURCES = _ROOT / "kernels" / "cuda" / "sources"
_BUILDS = _ROOT / "build" / "cuda_on_cpu"
_MAX_BUILDS = 8
_STRUCTURES = {
    id(CONV_ARGS): "ConvArgs",
    id(GRADIENT_ARGS): "GradientArgs",
    id(INTEGER_CONV_ARGS): "IntegerConvArgs",
    id(PACK_ARGS): "PackArgs",
    id(LAYOUT_ARGS): "LayoutArgs",
}


@dataclass(frozen=True)
class Program:
    """A translation unit with kernels, and which of their instances there are."""

    unit: Path
    kernels: tuple[Kernel, ...]


@functools.cache
def load(program: Program, *, async_copies: bool) -> Any:
    """A program's library, as for GPUs with or without asynchronous copies."""
    loaded = ctypes.CDLL(str(_built(program, async_copies=async_copies)))
    loaded.launch.argtypes = [
        *[ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint],
        *[ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int],
    ]
    loaded.add_array.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
    loaded.remove_array.argtypes = [ctypes.c_size_t]
    return loaded


def _built(program: Program, *, async_copies: bool) -> Path:
    table = "".join(f"KERNEL({_STRUCTURES[id(k.args)]}, {k.expression})\n" for k in program.kernels)
    command = [
        os.environ.get("CXX", "g++"),
        *["-std=c++17", "-O2", "-march=native", "-ffp-contract=off", "-fno-strict-aliasing"],
        *["-fPIC", "-shared", "-pthread", "-Wall", "-Wextra", "-Wno-unknown-pragmas"],
        "-U_FORTIFY_SOURCE",  # which takes a jump to another stack for an error
        *(f"-I{path}" for path in (SOURCES, _ROOT / "kernels" / "cpu", _HERE)),
        f'-DKERNEL_UNIT="{program.unit}"',
        *([] if async_copies else ["-DADDER_ONNX_NO_ASYNC"]),
        str(_HERE / "run.cpp"),
    ]
    folder = _BUILDS / _digest(table, *command)
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "kernels.so"
    with _locked(folder):
        if not library.exists():
            (folder / "table.inc").write_text(table)
            unfinished = folder / "unfinished.so"
            here = [f'-DKERNEL_TABLE="{folder / "table.inc"}"', "-o", str(unfinished)]
            subprocess.run([*command, *here], check=True)
            unfinished.rename(library)
        os.utime(folder)
    builds = sorted(_BUILDS.iterdir(), key=lambda build: build.stat().st_mtime)
    for old in builds[:-_MAX_BUILDS]:
        shutil.rmtree(old, ignore_errors=True)
    return library


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lets one process after the other look and build."""
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _digest(*texts: str) -> str:
    """Of what a build depends on: the processor, too, whose instructions it may use."""
    digest = hashlib.sha256("\0".join((*texts, _processor())).encode())
    for folder in (SOURCES, _ROOT / "kernels" / "cpu" / "layout", _HERE):
        for file in sorted(folder.rglob("*")):
            if file.suffix in (".cu", ".cuh", ".h", ".cpp"):
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return platform.processor()
    lines = information.read_text().splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))
