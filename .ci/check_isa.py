"""Only objects that are chosen at run time may have instructions beyond those of every x86-64.

    python .ci/check_isa.py FOLDER

looks at all objects under a folder in which adder-onnx was built. In objects of the levels avx2 and
avx512 anything may be, up to the level, but they may define nothing that another object might be
given in the place of its own: an inline function of a header, which the linker takes from any
object that has it, would be one.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LEVEL = re.compile(r"kernels/cpu/(?:float32|uint8|uint8/lookup)/(avx2|avx512)(?:_vbmi)?\.cpp\.o$")
# What GCC makes of a function with target_clones, of which the loader chooses one.
CLONE = re.compile(r"\.(?:avx2|avx512f)(?:\.\d+)?(?:\.cold)?$")
TABLE = re.compile(r"adder_onnx::k(?:Float32|Uint8|Lookup)Avx(?:2|2Packed|512(?:Vbmi)?)$")
FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
INSTRUCTION = re.compile(r"^ *[0-9a-f]+:\t((?:[0-9a-f]{2} )+) *\t(.+)$")
SEGMENTS_AND_SIZES = {0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF2, 0xF3}
VEX, EVEX = {0xC4, 0xC5}, 0x62
SSE3 = re.compile(r"^(?:addsub|hadd|hsub)p[sd]|^(?:movddup|movs[hl]dup|lddqu|fisttp|popcnt|lzcnt)")


def output(*command: str) -> list[str]:
    """Lines that a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def level_of(code: bytes, text: str) -> str:
    """What executes an instruction: ``baseline``, ``sse``, ``avx2`` or ``avx512``."""
    start = 0
    while start < len(code) - 1 and code[start] in SEGMENTS_AND_SIZES:
        start += 1
    if code[start] == EVEX:
        return "avx512"
    if code[start] in VEX:
        return "avx512" if re.match(r"k[a-z]+[bwdq] ", text) else "avx2"
    if 0x40 <= code[start] < 0x50:  # REX
        start += 1
    if code[start : start + 2] in (b"\x0f\x38", b"\x0f\x3a") or SSE3.match(text):
        return "sse"
    return "baseline"


def instructions(path: Path) -> Iterator[tuple[str, str, str]]:
    """Function, level and text of each instruction of an object."""
    function = ""
    for line in output("objdump", "--disassemble", "--wide", str(path)):
        if match := FUNCTION.match(line):
            function = match[1]
        elif match := INSTRUCTION.match(line):
            yield function, level_of(bytes.fromhex(match[1]), match[2]), match[2]


def defects(path: Path) -> Iterator[str]:
    """What is wrong with an object, one line each."""
    match = LEVEL.search(path.as_posix())
    level = match[1] if match else "baseline"
    allowed = {
        "baseline": {"baseline"},
        "avx2": {"baseline", "sse", "avx2"},
        "avx512": {"baseline", "sse", "avx2", "avx512"},
    }[level]
    seen = set()
    for function, of, text in instructions(path):
        seen.add(of)
        if of not in allowed and not CLONE.search(function):
            yield f"{path}: {function} has an instruction of {of}: {text}"
    if level != "baseline":
        if level not in seen:
            yield f"{path}: has no instruction of {level}"
        for line in output("nm", "--demangle", "--defined-only", str(path)):
            kind, name = line[17], line[19:]
            if kind in "WVuTi" or (kind in "DRB" and not TABLE.match(name)):
                yield f"{path}: defines {name}, which other objects might be given"


def main(folder: Path) -> int:
    objects = sorted(folder.rglob("*.o"))
    levels = {match[1] for path in objects if (match := LEVEL.search(path.as_posix()))}
    if levels != {"avx2", "avx512"}:
        print(f"{folder} has no objects of the kernels of AVX2 and AVX-512", file=sys.stderr)
        return 1
    found = [line for path in objects for line in defects(path)]
    for line in found[:20]:
        print(line, file=sys.stderr)
    print(f"{len(objects)} objects, {len(found)} instructions or symbols that must not be there")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
