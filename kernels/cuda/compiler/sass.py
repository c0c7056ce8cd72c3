"""Machine code of CUDA kernels as nvdisasm shows it, parsed into functions, loops and resources."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from adder_onnx.errors import AdderError, MissingDependencyError

__all__ = ["Function", "Instruction", "Loop", "disassemble", "find_nvdisasm", "parse"]

_PACKAGE = "nvidia-cuda-nvdisasm"

_ANY_SECTION = re.compile(r"^\s*\.section\s")
_SECTION = re.compile(r"^\s*\.section\s+\.text\.([^,\s]+)")
_LABEL = re.compile(r"^(\.L_x_\d+):")
_CODE = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+[^.\s]")
_INSTRUCTION = re.compile(
    r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(?P<opcode>[A-Z][A-Z0-9_.]*)\s*(?P<operands>.*?)\s*;"
)
_TARGET = re.compile(r"`\((\.L_x_\d+)\)")
_ATTRIBUTE = re.compile(r"EIATTR_(REGCOUNT|FRAME_SIZE|MIN_STACK_SIZE)")
_INDEX = re.compile(r"\.word\s+index@\((\S+)\)")
_SHARED_SECTION = re.compile(r"^\.nv\.shared\.(\S+):")
_ZEROS = re.compile(r"^\s*\.zero\s+(\d+)")
_WORD = re.compile(r"^\s*/\*[0-9a-f]+\*/\s+\.word\s+0x([0-9a-f]+)")


@dataclass(frozen=True)
class Instruction:
    """One instruction: its name with all suffixes, and what stands behind it."""

    opcode: str
    operands: str

    @property
    def mnemonic(self) -> str:
        """The name without suffixes: FADD of FADD.FTZ."""
        return self.opcode.partition(".")[0]


@dataclass(frozen=True)
class Loop:
    """Instructions from a label to the last branch back to it.

    Attributes:
        start: number of its first instruction in the function.
        instructions: in their order.
    """

    start: int
    instructions: tuple[Instruction, ...]

    @property
    def end(self) -> int:
        """Number of the instruction behind its last one."""
        return self.start + len(self.instructions)

    def count(self, *mnemonics: str) -> int:
        """How many instructions have one of these names, suffixes aside."""
        return sum(i.mnemonic in mnemonics for i in self.instructions)


@dataclass(frozen=True)
class Function:
    """A kernel's machine code.

    Attributes:
        name: as in the image.
        instructions: in their order.
        loops: of at least two instructions (a function ends in a branch to itself).
        registers: of each thread.
        stack_bytes: of local memory for each thread.
        shared_bytes: of its section of shared memory.
    """

    name: str
    instructions: tuple[Instruction, ...]
    loops: tuple[Loop, ...]
    registers: int
    stack_bytes: int
    shared_bytes: int = 0

    @property
    def local_accesses(self) -> int:
        """Loads and stores of local memory, where registers are spilled to."""
        return sum(i.mnemonic in ("LDL", "STL") for i in self.instructions)


def find_nvdisasm() -> Path:
    """The disassembler: of its package, in CUDA_PATH's ``bin``, or on PATH.

    The package comes first because it is as new as the NVRTC that is installed beside it.

    Raises:
        MissingDependencyError: there is none.
    """
    try:
        files = importlib.metadata.files(_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    candidates = [Path(str(file.locate())) for file in files if file.name.startswith("nvdisasm")]
    found: Path | str | None = next((path for path in candidates if path.is_file()), None)
    toolkit = os.environ.get("CUDA_PATH")
    if not found and toolkit:
        found = shutil.which("nvdisasm", path=str(Path(toolkit, "bin")))
    found = found or shutil.which("nvdisasm")
    if found is None:
        raise MissingDependencyError(
            f"nvdisasm, which shows machine code, is not installed: pip install {_PACKAGE}"
        )
    return Path(found)


def disassemble(cubin: bytes) -> str:
    """What nvdisasm prints of an image that NVRTC has made.

    Raises:
        MissingDependencyError: there is no nvdisasm.
        AdderError: it fails, for example because it is older than NVRTC.
    """
    tool = find_nvdisasm()
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([tool, file.name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise AdderError(
            f"{tool} cannot read what NVRTC has compiled ({' '.join(done.stderr.split())}): "
            f"pip install {_PACKAGE}"
        )
    return done.stdout


def parse(text: str) -> dict[str, Function]:
    """The functions in what nvdisasm prints, by name.

    Raises:
        RuntimeError: there is none, one without its number of registers, or a line of code that is
            not understood.
    """
    code: dict[str, list[str]] = {}
    resources: dict[tuple[str, str], int] = {}
    current: list[str] | None = None
    attribute = function = shared = ""
    for line in text.splitlines():
        if match := _SECTION.match(line):
            current = code.setdefault(match[1], [])
        elif _ANY_SECTION.match(line):
            current = None
        elif match := _SHARED_SECTION.match(line):
            shared = match[1]
        elif shared and (match := _ZEROS.match(line)):
            resources["SHARED", shared] = int(match[1])
            shared = ""
        elif match := _ATTRIBUTE.search(line):
            attribute, function = match[1], ""
        elif match := _INDEX.search(line):
            function = match[1]
        elif attribute and function and (match := _WORD.match(line)):
            resources[attribute, function] = int(match[1], 16)
            attribute = ""
        if current is not None:
            current.append(line)
    if not code:
        raise RuntimeError("nvdisasm shows no function")
    return {name: _function(name, lines, resources) for name, lines in code.items()}


def _function(name: str, lines: list[str], resources: dict[tuple[str, str], int]) -> Function:
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in lines:
        if match := _LABEL.match(line):
            labels[match[1]] = len(instructions)
        elif match := _INSTRUCTION.match(line):
            instructions.append(Instruction(match["opcode"], match["operands"]))
        elif _CODE.match(line):
            raise RuntimeError(f"nvdisasm shows in {name} what is no instruction: {line.strip()}")
    ends: dict[int, int] = {}
    for i, instruction in enumerate(instructions):
        target = _TARGET.search(instruction.operands)
        if instruction.mnemonic == "BRA" and target and target[1] in labels:
            start = labels[target[1]]
            if start < i:
                ends[start] = i
    loops = tuple(Loop(start, tuple(instructions[start : end + 1])) for start, end in ends.items())
    registers = resources.get(("REGCOUNT", name))
    if not instructions or registers is None:
        raise RuntimeError(f"nvdisasm shows no code or no registers of {name}")
    stack = max(
        resources.get((attribute, name), 0) for attribute in ("FRAME_SIZE", "MIN_STACK_SIZE")
    )
    shared = resources.get(("SHARED", name), 0)
    return Function(name, tuple(instructions), loops, registers, stack, shared)
