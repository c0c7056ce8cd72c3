#!/usr/bin/env python3
"""An audit of the NEON kernels' machine code, without an ARM processor.

``.ci/audit_arm.py FOLDER`` reads the objects of the kernels in a build folder with
aarch64-linux-gnu-objdump and prints a row for each inner loop: its instructions by the taps that
they make, whatever the instructions do (arithmetic, loads, broadcasts, the loop's own), and how
many of them access the stack. The exit status is 1 where there are more than promised or a loop is
not found, and 2 where an object cannot be read.

Two instructions for each register are the floor, a difference or maximum and its addition. A
register is 16 taps in uint8, whether dot products or pairwise sums add them up, and 4 in float32:
0.125 and 0.5 instructions for each tap.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_OBJECTS = "CMakeFiles/adder_onnx_kernels.dir/kernels/cpu"
_FUNCTION = re.compile(r"[0-9a-f]+ <(.*)>:$")
_INSTRUCTION = re.compile(r"\s+([0-9a-f]+):\s+(\S+)\s*(.*)$")
_BRANCH = re.compile(r"(?:b|b\..*|cbn?z|tbn?z)$")
_STACK = re.compile(r"\[(?:sp|x29)\b")


@dataclass(frozen=True)
class Promise:
    """What is promised of a function.

    Each of its instructions ``work`` makes ``taps`` taps, and a turn of its inner loop makes
    ``tile`` taps, those of a whole tile, at least once.
    """

    source: str
    function: str
    work: re.Pattern[str]
    taps: int
    tile: int
    bound: float


@dataclass(frozen=True)
class Instruction:
    address: int
    text: str
    target: int | None  # of a branch


def promises() -> list[Promise]:
    """One for each tile's inner loop, and for each loop that its rate is measured with."""
    additions = re.compile(r"fadd\s+v\d+\.4s")
    differences = re.compile(r"uabd\s+v\d+\.16b")
    found = []
    for form in ("(adder_onnx::Form)0", "(adder_onnx::Form)1"):
        for function in (f"run_tile<{form}, 6, 2>", f"inner_loop<{form}>"):
            found.append(Promise("float32/neon", function, additions, 4, 6 * 16, 0.6))
    for source, pixels in (("neon", 6), ("neon_dotprod", 5)):
        for function in (f"run_tile<{pixels}, 2>", "inner_loop"):
            found.append(
                Promise(f"uint8/{source}", function, differences, 16, pixels * 8 * 8, 0.155)
            )
    lookups = re.compile(r"tbl\s+v\d+\.16b")
    for source, bound in (("neon", 0.105), ("neon_tables", 0.115)):
        for function in ("run_tile<3, 6>", "inner_loop"):
            found.append(
                Promise(f"uint8/lookup/{source}", function, lookups, 32, 3 * 6 * 32, bound)
            )
    return found


def parse(text: str) -> dict[str, list[Instruction]]:
    """The instructions of each function, of what objdump -d -C prints."""
    functions: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in text.splitlines():
        if head := _FUNCTION.match(line):
            current = functions.setdefault(head[1], [])
        elif match := _INSTRUCTION.match(line):
            address, mnemonic, operands = match.groups()
            target = re.search(r"([0-9a-f]+) <", operands) if _BRANCH.match(mnemonic) else None
            current.append(
                Instruction(
                    int(address, 16),
                    f"{mnemonic} {operands}",
                    int(target[1], 16) if target else None,
                )
            )
    return functions


def inner_loops(function: list[Instruction]) -> Iterator[list[Instruction]]:
    """Those without a branch but the one at their end, back to their beginning."""
    begin = 0
    for end, instruction in enumerate(function):
        if instruction.target is None:
            continue
        loop = [i for i in function[begin : end + 1] if i.address >= instruction.target]
        if loop and loop[0].address == instruction.target:
            yield loop
        begin = end + 1


def audit(promise: Promise, functions: dict[str, list[Instruction]]) -> tuple[str, list[str]]:
    """A row of the table, and what is wrong."""
    name = f"{promise.source} {promise.function}"
    loops = [
        loop
        for function, instructions in functions.items()
        if f"::{promise.function}(" in function
        for loop in inner_loops(instructions)
        if _taps(promise, loop) >= promise.tile
    ]
    if not loops:
        return f"{name:50}      –", [f"{name}: no inner loop is found"]
    problems = []
    worst = max(loops, key=lambda loop: len(loop) / _taps(promise, loop))
    rate = len(worst) / _taps(promise, worst)
    spills = max(sum(bool(_STACK.search(i.text)) for i in loop) for loop in loops)
    if rate > promise.bound:
        problems.append(f"{name}: {rate:.4f} instructions for each tap, more than {promise.bound}")
    if spills:
        problems.append(f"{name}: {spills} accesses to the stack")
    return f"{name:50} {rate:6.4f} {promise.bound:6} {spills:6}", problems


def _taps(promise: Promise, loop: list[Instruction]) -> int:
    return promise.taps * sum(bool(promise.work.match(i.text)) for i in loop)


def disassemble(path: Path) -> str:
    return subprocess.run(
        ["aarch64-linux-gnu-objdump", "-d", "-C", "--no-show-raw-insn", path],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def main(folder: str) -> int:
    """Prints the table; returns the exit status."""
    problems = []
    print(f"{'inner loop':50} {'a tap':>6} {'bound':>6} {'stack':>6}")
    for promise in promises():
        try:
            text = disassemble(Path(folder) / _OBJECTS / f"{promise.source}.cpp.o")
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{promise.source}: {getattr(error, 'stderr', None) or error}", file=sys.stderr)
            return 2
        row, wrong = audit(promise, parse(text))
        print(row)
        problems += wrong
    print("\n".join(problems), end="\n" if problems else "")
    return int(bool(problems))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: audit_arm.py BUILD_FOLDER")
    sys.exit(main(sys.argv[1]))
