"""The audit of the NEON kernels' machine code: whether it counts right, and sees what is wrong."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).parent.parent / ".ci" / "audit_arm.py"


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    if not PATH.exists():
        pytest.skip(".ci is not part of a source distribution")
    spec = importlib.util.spec_from_file_location("audit_arm", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["audit_arm"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def code(
    body: list[str], name: str = "void adder_onnx::(anonymous namespace)::run_tile<2>(int)"
) -> str:
    """As objdump prints a function with a loop of these instructions, behind one other."""
    lines = ["0000000000000040 <" + name + ">:", "  40:\tmov\tx0, #0x1 \t// #1"]
    address = 0x44
    for text in [*body, "cmp\tx0, x1", "b.ne\t44 <" + name + "+0x4>  // b.any"]:
        lines.append(f"  {address:x}:\t{text}")
        address += 4
    return "\n".join([*lines, f"  {address:x}:\tret", ""])


STEP = [
    "ldr\tq0, [x2]",
    "ld1r\t{v1.2d}, [x3], #8",
    "uabd\tv2.16b, v0.16b, v1.16b",
    "uadalp\tv3.8h, v2.16b",
]


def judge(audit: ModuleType, text: str, *, bound: float = 1, tile: int = 16) -> list[str]:
    promise = audit.Promise(
        "uint8/neon", "run_tile<2>", re.compile(r"uabd\s+v\d+\.16b"), 16, tile, bound
    )
    problems: list[str] = audit.audit(promise, audit.parse(text))[1]
    return problems


def test_all_instructions_of_a_loop_are_counted(audit: ModuleType) -> None:
    assert not judge(audit, code(STEP), bound=6 / 16)
    assert judge(audit, code(STEP), bound=5.9 / 16) == [
        "uint8/neon run_tile<2>: 0.3750 instructions for each tap, more than 0.36875"
    ]
    assert not judge(audit, code(STEP + STEP[1:]), bound=9 / 32)
    assert judge(audit, code(STEP + STEP[1:]), bound=8.9 / 32)


@pytest.mark.parametrize("access", ["str\tq3, [sp, #16]", "ldp\tq3, q4, [x29, #32]"])
def test_spills_are_noticed(audit: ModuleType, access: str) -> None:
    assert judge(audit, code([*STEP, access])) == [
        "uint8/neon run_tile<2>: 1 accesses to the stack"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        code(STEP, "adder_onnx::(anonymous namespace)::run_tile<3>(int)"),
        code([text.replace("uabd", "usubl") for text in STEP]),
        code([text.replace("uabd\tv2.16b", "uabd\tv2.8b") for text in STEP]),
        code([*STEP, "b.eq\t58 <f+0x18>"]),  # one with a branch in it
        code(STEP).replace("b.ne\t44", "b.ne\t5c"),
    ],
)
def test_a_loop_that_is_not_found_is_an_error(audit: ModuleType, text: str) -> None:
    assert judge(audit, text) == ["uint8/neon run_tile<2>: no inner loop is found"]


def test_a_loop_of_less_than_a_tile_is_not_the_inner_one(audit: ModuleType) -> None:
    assert judge(audit, code(STEP), tile=17) == ["uint8/neon run_tile<2>: no inner loop is found"]


def test_objects_that_cannot_be_read_are_told(
    audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.main(str(tmp_path)) == 2
    assert "float32/neon" in capsys.readouterr().err
