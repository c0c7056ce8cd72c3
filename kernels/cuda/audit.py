"""An audit of the kernels' machine code, without a GPU.

``python -m adder_onnx.kernels.cuda.audit [--arch 80,90] [--json FILE]`` compiles every kernel with
NVRTC, reads the code back with nvdisasm, and prints a row for each kernel and architecture. The
exit status is 0, 1 where a bound is passed, and 2 for bad input or missing tools.

Issue slots per tap are all instructions in the loops over taps, whatever they do (fetching,
barriers, folding of sums), by the taps that a thread adds up in them. Two are the floor in float32:
a subtraction and an addition, the absolute value being an operand's modifier. In float16 one
instruction does two taps, and one is the floor.

Besides, blocks must be resident on a multiprocessor as promised (compiler/occupancy.py), loads into
shared memory must begin well ahead of where they must have come, and the epilogue, which is what
follows the last loop, is bounded. What is promised of which kernel stands in promises.py.

JSON, schema 1: ``{"schema": 1, "nvrtc": "13.2", "passed": true, "rows": [{"kernel":
"adder_conv_gemm<float, 64, 64, true>", "architecture": 90, "registers": 150, "register_bound": 168,
"stack_bytes": 0, "local_accesses": 0, "shared_bytes": 16897, "resident_blocks": 3,
"resident_bound": 3, "loop_instructions": 2200, "loop_taps": 1024, "slots_per_tap": 2.229,
"slot_bound": 2.3, "ahead": 984, "ahead_bound": 250, "epilogue": 283, "epilogue_bound": 300,
"problems": []}]}``; what is not promised of a kernel is null, and so are the resident blocks of an
architecture whose limits are not known.
"""

from __future__ import annotations

import argparse
import json
import re
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
from adder_onnx.kernels.cuda.compiler.occupancy import resident_blocks
from adder_onnx.kernels.cuda.compiler.sass import Function, Loop, disassemble, parse
from adder_onnx.kernels.cuda.launch.selection import kernels_on
from adder_onnx.kernels.cuda.launch.variants import Kernel
from adder_onnx.kernels.cuda.promises import Promise, promises

__all__ = ["Row", "audit", "audit_function", "main"]

_DEFAULT_ARCHITECTURES = "80,90"

_REGISTERS = 65536
_REGISTER = re.compile(r"\bR\d+\b")


@dataclass(frozen=True)
class Row:
    """What the audit finds of one kernel on one architecture; see the module's docstring."""

    kernel: str
    architecture: int
    registers: int
    register_bound: int
    stack_bytes: int
    local_accesses: int
    shared_bytes: int
    resident_blocks: int | None
    resident_bound: int | None
    loop_instructions: int | None
    loop_taps: int | None
    slots_per_tap: float | None
    slot_bound: float | None
    ahead: int | None
    ahead_bound: int | None
    epilogue: int | None
    epilogue_bound: int | None
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
    # From sm_90 on the section of shared memory begins with what the system takes of it.
    shared = max(function.shared_bytes - (1024 if architecture >= 90 else 0), 0)
    resident = resident_blocks(architecture, kernel.threads, function.registers, shared)
    resident_bound = promise.resident_threads // kernel.threads if promise else None
    if resident is not None and resident_bound is not None and resident < resident_bound:
        problems.append(f"less than {resident_bound} blocks are resident")
    instructions = slots = ahead = epilogue = None
    if promise:
        inner = _inner_loop(function, promise)
        if inner is None:
            problems.append("no inner loop with its taps is found")
        else:
            instructions = len(inner.instructions)
            slots = _slots(function, inner, promise)
            if slots > promise.slot_bound:
                problems.append(f"more than {promise.slot_bound} slots per tap")
            if promise.ahead:
                ahead = _ahead(inner, promise.arithmetic)
                if ahead is None:
                    problems.append("no load into shared memory is found")
                elif ahead < promise.ahead:
                    problems.append(f"loads begin less than {promise.ahead} instructions ahead")
            if promise.epilogue is not None:
                epilogue = _epilogue(function, loops=promise.epilogue_loops)
                if epilogue > promise.epilogue:
                    problems.append(f"more than {promise.epilogue} instructions in the epilogue")
    return Row(
        kernel=kernel.expression,
        architecture=architecture,
        registers=function.registers,
        register_bound=bound,
        stack_bytes=function.stack_bytes,
        local_accesses=function.local_accesses,
        shared_bytes=shared,
        resident_blocks=resident,
        resident_bound=resident_bound,
        loop_instructions=instructions,
        loop_taps=promise.taps if promise else None,
        slots_per_tap=slots,
        slot_bound=promise.slot_bound if promise else None,
        ahead=ahead,
        ahead_bound=promise.ahead or None if promise else None,
        epilogue=epilogue,
        epilogue_bound=promise.epilogue if promise else None,
        problems=tuple(problems),
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


def _ahead(inner: Loop, arithmetic: tuple[str, ...]) -> int | None:
    """The least arithmetic between where a load into shared memory begins and must have come.

    An asynchronous copy must have come at the next barrier, a value in registers where it is
    stored. None where the loop has neither.
    """
    distances = []
    copies: list[int] = []  # what has been counted where they began
    loaded: dict[str, int] = {}  # the same of loads, by register
    count = 0
    for instruction in inner.instructions * 2:  # what begins in one turn may come in the next
        registers = _REGISTER.findall(instruction.operands)
        if instruction.mnemonic in arithmetic:
            count += 1
        elif instruction.mnemonic == "LDGSTS":
            copies.append(count)
        elif instruction.mnemonic == "LDG":
            loaded[registers[0]] = count
        elif instruction.mnemonic == "STS" and registers[-1] in loaded:
            distances.append(count - loaded.pop(registers[-1]))
        elif instruction.mnemonic == "BAR":
            distances += [count - begin for begin in copies]
            copies = []
    return min(distances, default=None)


def _epilogue(function: Function, *, loops: int) -> int:
    """Instructions behind the last loop, without those that do nothing and fill up a line.

    So many loops are its own, loops within loops aside.
    """
    ends = sorted(
        loop.end
        for loop in function.loops
        if not any(o.start <= loop.start and loop.end < o.end for o in function.loops)
    )
    end = ends[-1 - loops] if len(ends) > loops else 0
    return sum(i.mnemonic != "NOP" for i in function.instructions[end:])


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
    lines = [f"{'kernel':{width}}   sm  regs  blocks  slots  bound   end"]
    for row in rows:
        slots = "" if row.slots_per_tap is None else f"{row.slots_per_tap:.3f}"
        bound = "" if row.slot_bound is None else f"{row.slot_bound:g}"
        lines.append(
            f"{row.kernel:{width}}  {row.architecture:3}  {row.registers:4}  "
            f"{_cell(row.resident_blocks):>6}  {slots:>5}  {bound:>5}  {_cell(row.epilogue):>4}  "
            f"{'bad' if row.problems else 'ok'}"
        )
    lines += [
        f"{row.kernel} on sm_{row.architecture}: {problem}"
        for row in rows
        for problem in row.problems
    ]
    return "\n".join(lines)


def _cell(value: int | None) -> str:
    return "" if value is None else str(value)


if __name__ == "__main__":
    sys.exit(main())
