"""An audit of the kernels' machine code, without a GPU.

``python -m adder_onnx.kernels.cuda.audit [--arch 80,90] [--json FILE]`` compiles every kernel with
NVRTC, reads the code back with nvdisasm, and prints a row for each kernel and architecture. The
exit status is 0, 1 where a bound is passed, and 2 for bad input or missing tools.

Issue slots per tap are all instructions in the loops over taps, whatever they do (fetching,
barriers, folding of sums), by the taps that a thread adds up in them. Two are the floor in float32:
a subtraction and an addition, the absolute value being an operand's modifier. In float16 one
instruction does two taps, and one is the floor.

JSON, schema 1: ``{"schema": 1, "nvrtc": "13.2", "passed": true, "rows": [{"kernel":
"adder_conv_gemm<float, 64, 64, true>", "architecture": 90, "registers": 142, "register_bound": 168,
"stack_bytes": 0, "local_accesses": 0, "loop_instructions": 2362, "loop_taps": 1024,
"slots_per_tap": 2.307, "slot_bound": 2.4, "problems": []}]}``; what is about loops is null for
kernels that have no bound on them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from adder_onnx.errors import AdderError, InputError
from adder_onnx.files import write_atomically
from adder_onnx.kernels.cuda.compiler.nvrtc import (
    MIN_ARCHITECTURE,
    compile_cubin,
    compile_target,
    compiler_version,
)
from adder_onnx.kernels.cuda.compiler.sass import Function, Loop, disassemble, parse
from adder_onnx.kernels.cuda.launch.selection import kernels_on
from adder_onnx.kernels.cuda.launch.variants import Kernel
from adder_onnx.kernels.cuda.promises import Promise, promises

__all__ = ["Row", "audit", "audit_function", "main"]

_DEFAULT_ARCHITECTURES = "80,90"

_REGISTERS = 65536


@dataclass(frozen=True)
class Row:
    """What the audit finds of one kernel on one architecture; see the module's docstring."""

    kernel: str
    architecture: int
    registers: int
    register_bound: int
    stack_bytes: int
    local_accesses: int
    loop_instructions: int | None
    loop_taps: int | None
    slots_per_tap: float | None
    slot_bound: float | None
    problems: tuple[str, ...]


def audit(architectures: Sequence[int], kernels: Sequence[Kernel] | None = None) -> list[Row]:
    """Compiles and judges kernels for each architecture (compute capability times ten).

    Without ``kernels``, all those that layers may run in there.

    Raises:
        MissingDependencyError: a tool is not installed.
        AdderError: nvdisasm cannot read what NVRTC has compiled.
        RuntimeError: kernels do not compile, or what nvdisasm shows of them is not understood.
    """
    rows = []
    for architecture in architectures:
        chosen = kernels_on(compile_target(architecture)) if kernels is None else kernels
        cubin, names = compile_cubin([kernel.expression for kernel in chosen], architecture)
        functions = parse(disassemble(cubin))
        for kernel in chosen:
            function = functions.get(names[kernel.expression])
            if function is None:
                raise RuntimeError(f"nvdisasm does not show {kernel.expression}")
            rows.append(audit_function(function, kernel, architecture))
    return rows


def audit_function(function: Function, kernel: Kernel, architecture: int) -> Row:
    """Judges one kernel's machine code."""
    problems = []
    if function.local_accesses or function.stack_bytes:
        problems.append("local memory is used")
    promise = promises(architecture).get(kernel.expression)
    threads = promise.resident_threads if promise else kernel.threads
    bound = min(_REGISTERS // threads // 8 * 8, 255)
    if function.registers > bound:
        problems.append(f"more than {bound} registers")
    instructions = slots = None
    if promise:
        inner = _inner_loop(function, promise)
        if inner is None:
            problems.append("no inner loop with its taps is found")
        else:
            instructions = len(inner.instructions)
            slots = _slots(function, inner, promise)
            if slots > promise.slot_bound:
                problems.append(f"more than {promise.slot_bound} slots per tap")
    return Row(
        kernel.expression,
        architecture,
        function.registers,
        bound,
        function.stack_bytes,
        function.local_accesses,
        instructions,
        promise.taps if promise else None,
        slots,
        promise.slot_bound if promise else None,
        tuple(problems),
    )


def _inner_loop(function: Function, promise: Promise) -> Loop | None:
    """The smallest loop that adds up so many taps; None where there is none."""
    loops = [loop for loop in function.loops if loop.count(*promise.arithmetic) >= promise.least]
    return min(loops, key=lambda loop: len(loop.instructions), default=None)


def _slots(function: Function, inner: Loop, promise: Promise) -> float:
    """Issue slots per tap."""
    instructions = float(len(inner.instructions))
    if promise.turns is not None:
        around = [
            len(loop.instructions) - len(inner.instructions)
            for loop in function.loops
            if loop is not inner and loop.start <= inner.start and inner.end <= loop.end
        ]
        instructions += min(around, default=0) / promise.turns
    return instructions / promise.taps


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the audit; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m adder_onnx.kernels.cuda.audit",
        description="Audits the machine code of the CUDA kernels.",
    )
    parser.add_argument(
        "--arch",
        default=_DEFAULT_ARCHITECTURES,
        help=f"compute capabilities times ten, separated by commas ({_DEFAULT_ARCHITECTURES})",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write the result as JSON; - is standard output"
    )
    options = parser.parse_args(argv)
    try:
        rows = audit(_architectures(options.arch))
        if options.json:
            _write_json(options.json, rows)
    except AdderError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    if options.json != "-":
        print(_table(rows))
    return int(any(row.problems for row in rows))


def _architectures(text: str) -> list[int]:
    try:
        architectures = [int(part) for part in text.split(",")]
    except ValueError:
        architectures = []
    known = _known_architectures()
    for architecture in architectures or [0]:
        if architecture not in known:
            raise InputError(
                f"--arch {text}: expected compute capabilities times ten, separated by commas, "
                f"among {', '.join(map(str, known))}"
            )
    return architectures


def _known_architectures() -> list[int]:
    compiler_version()  # raises where there is no NVRTC
    from cupy_backends.cuda.libs import nvrtc

    return [a for a in nvrtc.getSupportedArchs() if a >= MIN_ARCHITECTURE]


def _write_json(destination: str, rows: Sequence[Row]) -> None:
    result = {
        "schema": 1,
        "nvrtc": compiler_version(),
        "passed": not any(row.problems for row in rows),
        "rows": [asdict(row) for row in rows],
    }
    text = json.dumps(result, indent=2) + "\n"
    if destination == "-":
        sys.stdout.write(text)
    else:
        write_atomically(Path(destination), text.encode())


def _table(rows: Sequence[Row]) -> str:
    width = max(len(row.kernel) for row in rows)
    lines = [f"{'kernel':{width}}   sm  regs  spills  stack  loop  taps  slots  bound  verdict"]
    for row in rows:
        slots = "" if row.slots_per_tap is None else f"{row.slots_per_tap:.3f}"
        lines.append(
            f"{row.kernel:{width}}  {row.architecture:3}  {row.registers:4}  "
            f"{row.local_accesses:6}  {row.stack_bytes:5}  {_cell(row.loop_instructions):>4}  "
            f"{_cell(row.loop_taps):>4}  {slots:>5}  {_cell(row.slot_bound):>5}  "
            f"{'bad' if row.problems else 'ok'}"
        )
    lines += [
        f"{row.kernel} on sm_{row.architecture}: {problem}"
        for row in rows
        for problem in row.problems
    ]
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "" if value is None else str(value)


if __name__ == "__main__":
    sys.exit(main())
