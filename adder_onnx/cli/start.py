"""Where the commands start.

What a signal or a closed stream does is settled before the modules are imported, which takes most
of a second.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys

from adder_onnx.cli._imports import importing
from adder_onnx.cli._signals import ending_at_once, ignoring

__all__ = ["bench", "compile", "export", "inspect", "quantize", "run"]


def bench() -> int:
    """``adder-bench``; returns its exit status, as all of these do."""
    return _start("bench")


def compile() -> int:
    """``adder-compile``."""
    return _start("compile")


def export() -> int:
    """``adder-export``."""
    return _start("export")


def inspect() -> int:
    """``adder-inspect``."""
    return _start("inspect")


def quantize() -> int:
    """``adder-quantize``."""
    return _start("quantize")


def run() -> int:
    """``adder-run``."""
    return _start("run")


def _start(name: str) -> int:
    program = f"adder-{name}"
    ending_at_once(program)
    _open_closed_streams()
    try:
        with importing():
            command = importlib.import_module(f"adder_onnx.cli.{name}")
            gc.freeze()  # modules stay as long as the process
    except (ImportError, MemoryError, OSError) as error:
        print(
            f"{program}: error: cannot be loaded: {' '.join(str(error).split())}", file=sys.stderr
        )
        return 2
    try:
        status: int = command.main()
    finally:
        # What is left is the interpreter's own end, in which it gives signals their default back:
        # one of them would end a command that is done with another status, and without a word.
        ignoring()
    return status


def _open_closed_streams() -> None:
    """Opens those of the streams 0, 1 and 2 that are closed: no file that is opened may become one.

    Reading gives nothing, messages go nowhere, and writing a result fails.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is taken, which is this one.
            os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 (as long as the process)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
