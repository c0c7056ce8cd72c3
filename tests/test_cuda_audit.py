"""The CUDA kernels' machine code, and whether the audit of it notices what is wrong."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from adder_onnx.errors import MissingDependencyError
from adder_onnx.kernels.cuda import audit
from adder_onnx.kernels.cuda.audit import Row, audit_function, main
from adder_onnx.kernels.cuda.bound import LOOPS, loop_source
from adder_onnx.kernels.cuda.compiler import nvrtc, sass
from adder_onnx.kernels.cuda.compiler.occupancy import resident_blocks
from adder_onnx.kernels.cuda.launch.selection import kernels_on, select_distances
from adder_onnx.kernels.cuda.launch.variants import (
    ALL_INTEGER_TILES,
    GEMM_TILES,
    INTEGER_GEMM_TILES,
    KERNELS,
    direct,
    gemm,
    integer_gemm,
)
from adder_onnx.kernels.cuda.promises import Promise

pytest.importorskip("cupy", reason="CuPy, whose NVRTC compiles the kernels, is not installed")
try:
    sass.find_nvdisasm()
except MissingDependencyError as error:
    pytest.skip(str(error), allow_module_level=True)

GEMM = gemm("float32", GEMM_TILES[0])


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Of an architecture with asynchronous copies; .ci/run audits others."""
    return audit.audit([90])


@pytest.fixture(scope="module")
def code() -> tuple[str, str]:
    """What nvdisasm prints of one kernel, and its function's name."""
    cubin, names = nvrtc.compile_cubin([GEMM.expression], 90)
    return sass.disassemble(cubin), names[GEMM.expression]


def judge(text: str, name: str) -> Row:
    return audit_function(sass.parse(text)[name], GEMM, 90)


def test_all_kernels_keep_within_their_bounds(rows: list[Row]) -> None:
    assert [(r.kernel, r.architecture) for r in rows] == [
        (kernel.expression, 90) for kernel in kernels_on("sm_90")
    ]
    assert not [row for row in rows if row.problems]
    assert not any(row.local_accesses or row.stack_bytes for row in rows)
    assert all(16 <= row.registers <= 168 for row in rows)


def test_inner_loops_are_those_with_the_taps(rows: list[Row]) -> None:
    """Between the floor and the bounds that are promised."""
    for row in rows:
        if row.kernel.startswith("adder_conv_gemm"):
            assert row.slots_per_tap is not None
            is_half, is_vector = "__half" in row.kernel, "true" in row.kernel
            assert row.loop_taps == (2048 if is_half else 1024)
            bound = (1.3 if is_half else 2.3) if is_vector else (1.5 if is_half else 2.6)
            assert (1 if is_half else 2) < row.slots_per_tap <= bound
        elif row.kernel.startswith("input_gradient<"):
            assert row.slots_per_tap is not None
            assert row.loop_taps == 512
            assert 2 < row.slots_per_tap <= 2.75
        elif row.kernel.startswith("integer_gemm"):
            assert row.slots_per_tap is not None
            bound = 0.53 if "false" in row.kernel else 0.36 if "16, 2" in row.kernel else 0.33
            assert 0.25 < row.slots_per_tap <= bound
        else:
            assert row.slots_per_tap is None


@pytest.mark.parametrize(
    ("architecture", "distances", "floor", "bound"),
    [(75, "Fused", 0.25, 0.33), (103, "Fused", 0.25, 0.33), (120, "Doubled", 0.5, 0.605)],
)
def test_integers_on_other_architectures(
    architecture: int, distances: str, floor: float, bound: float
) -> None:
    kernels = [integer_gemm(tile, distances) for tile in INTEGER_GEMM_TILES[:2]]
    assert set(kernels) < set(kernels_on(nvrtc.compile_target(architecture)))
    for row in audit.audit([architecture], kernels):
        assert not row.problems
        assert row.slots_per_tap is not None
        assert floor < row.slots_per_tap <= bound == row.slot_bound


def test_how_differences_are_added_up_by_architecture() -> None:
    """One instruction for four taps where there is one; else what takes least."""
    assert {select_distances(f"sm_{a}") for a in (75, 80, 86, 89, 90, 100, 103)} == {"Fused"}
    assert select_distances("sm_120") == "Dotted"
    assert select_distances("sm_120f") == "Doubled"
    for target in ("sm_90", "sm_120", "sm_120f"):
        found = [k.expression for k in kernels_on(target) if "integer_gemm" in k.expression]
        assert len(found) == len(ALL_INTEGER_TILES)
        assert all(f"<{select_distances(target)}," in name for name in found)
        assert len(kernels_on(target)) == len(KERNELS) - 2 * len(found)


def test_the_code_as_it_is_passes(code: tuple[str, str]) -> None:
    assert not judge(*code).problems


def test_a_spill_is_noticed(code: tuple[str, str]) -> None:
    text, name = code
    spilled = re.sub(r"LDS\.128", "LDL.128", text, count=1)
    assert judge(spilled, name).problems == ("local memory is used",)
    assert judge(spilled, name).local_accesses == 1
    frame = re.sub(
        rf"(EIATTR_FRAME_SIZE(?:(?!EIATTR).)*?{name}\)\s+/\*\w+\*/\s+\.word\s+0x)00000000",
        r"\g<1>00000040",
        text,
        count=1,
        flags=re.DOTALL,
    )
    assert frame != text
    assert judge(frame, name).stack_bytes == 64
    assert judge(frame, name).problems == ("local memory is used",)


def test_what_the_compiler_spills_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where eight blocks are to be resident instead of three, a thread has 64 registers."""
    folder = tmp_path / "sources"
    shutil.copytree(nvrtc.source_folder(), folder)
    header = folder / "float" / "gemm.cuh"
    promise = "384 / Tile<Scalar, kPixels, kFilters>::kThreads"
    assert header.read_text().count(promise) == 1
    header.write_text(header.read_text().replace(promise, "8"))
    monkeypatch.setattr(nvrtc, "source_folder", lambda: folder)
    (row,) = audit.audit([90], [GEMM])
    assert row.registers <= 64
    assert row.local_accesses > 0
    assert row.stack_bytes > 0
    assert "local memory is used" in row.problems


def test_a_slow_loop_is_noticed(code: tuple[str, str]) -> None:
    text, name = code
    line = next(line for line in text.splitlines(keepends=True) if " LDS.128 " in line)
    slow = text.replace(line, line * 120, 1)
    assert judge(slow, name).problems == ("more than 2.3 slots per tap",)


def test_too_many_registers_are_noticed(code: tuple[str, str]) -> None:
    text, name = code
    many = re.sub(
        rf"(EIATTR_REGCOUNT(?:(?!EIATTR).)*?{name}\)\s+/\*\w+\*/\s+\.word\s+0x)[0-9a-f]+",
        r"\g<1>000000b0",
        text,
        count=1,
        flags=re.DOTALL,
    )
    assert judge(many, name).problems == (
        "more than 168 registers",
        "less than 3 blocks are resident",
    )


def test_too_much_shared_memory_is_noticed(code: tuple[str, str]) -> None:
    text, name = code
    stages, pixels, flag = 2 * (64 + 64) * 16 * 4, 64 * 8, 1
    assert 0 <= judge(text, name).shared_bytes - (stages + pixels + flag) < 16
    much = re.sub(rf"(\.nv\.shared\.{name}:\n\s*\.zero\s+)\d+", r"\g<1>80000", text)
    assert judge(much, name).problems == ("less than 3 blocks are resident",)
    assert judge(much, name).resident_blocks == 2


def lines_of(text: str, pattern: str) -> list[int]:
    return [i for i, line in enumerate(text.splitlines()) if re.search(pattern, line)]


def moved(text: str, line: int, before: int) -> str:
    """With a line in another place."""
    lines = text.splitlines()
    lines.insert(before, lines[line])
    del lines[line if line < before else line + 1]
    return "\n".join(lines) + "\n"


def test_copies_that_begin_late_are_noticed(code: tuple[str, str]) -> None:
    text, name = code
    assert 500 < (judge(text, name).ahead or 0) <= 1024
    additions, barriers = lines_of(text, r" FADD\b"), lines_of(text, r" BAR\.SYNC")
    barrier = next(b for b in barriers if sum(b - 1100 < i < b for i in additions) > 900)
    copy = [i for i in lines_of(text, r" LDGSTS\b") if i < barrier][-1]
    late = moved(text, copy, barrier - 200)
    assert judge(late, name).problems == ("loads begin less than 220 instructions ahead",)
    none = re.sub(r" LDGSTS\S*", " NOP", text)
    assert judge(none, name).problems == ("no load into shared memory is found",)


def test_values_that_are_stored_as_soon_as_they_are_loaded_are_noticed() -> None:
    """Where there are no asynchronous copies, and loads wait in registers."""
    cubin, names = nvrtc.compile_cubin([GEMM.expression], 75)
    text, name = sass.disassemble(cubin), names[GEMM.expression]
    assert not audit_function(sass.parse(text)[name], GEMM, 75).problems
    store = lines_of(text, r" STS\.128")[-1]
    register = re.findall(r"\bR\d+\b", text.splitlines()[store])[-1]
    load = [i for i in lines_of(text, rf" LDG\S* {register},") if i < store][-1]
    late = moved(text, load, store)
    assert audit_function(sass.parse(late)[name], GEMM, 75).problems == (
        "loads begin less than 220 instructions ahead",
    )


def test_a_long_epilogue_is_noticed(code: tuple[str, str]) -> None:
    text, name = code
    body = text[text.index(f".text.{name},") :].split("\t.section\t.text.")[0]
    store = body.splitlines()[lines_of(body, r" STG\.E\.128")[-1]] + "\n"
    assert judge(text.replace(store, store * 40, 1), name).problems == (
        "more than 300 instructions in the epilogue",
    )
    idle = re.sub(r"STG\S*", "NOP", store)
    assert not judge(text.replace(store, store + idle * 40, 1), name).problems


def test_instructions_around_the_inner_loop_are_shared_by_its_turns() -> None:
    lines = ["FADD"] * 10
    inner = [".L_x_1:", *lines, "BRA `(.L_x_1)"]
    code = [".L_x_0:", "MOV", *inner, "MOV", "MOV", "BRA `(.L_x_0)", "EXIT"]
    text = '\t.section\t.text.f,"ax",@progbits\n' + "".join(
        f"{line}\n" if line.endswith(":") else f"        /*0000*/  {line} ;\n" for line in code
    )
    text += "\t//----- nvinfo : EIATTR_REGCOUNT\n        /*0004*/ \t.word\tindex@(f)\n"
    function = sass.parse(text + "        /*0008*/ \t.word\t0x00000028\n")["f"]
    promise = Promise(("FADD",), 10, 10, 2.0, 384, turns=2)
    (found,) = [loop for loop in function.loops if loop.start == 1]
    assert audit._inner_loop(function, promise) is found
    assert audit._slots(function, found, promise) == (11 + 4 / 2) / 10
    assert audit._slots(function, found, replace(promise, turns=None)) == 11 / 10
    assert audit._epilogue(function, loops=0) == 1
    assert audit._epilogue(function, loops=1) == len(function.instructions)


@pytest.mark.parametrize(
    ("architecture", "threads", "registers", "shared", "expected"),
    [
        (90, 128, 168, 0, 3),  # registers: 168 x 32 in units of 256, by four partitions
        (90, 64, 168, 0, 6),
        (86, 128, 40, 0, 12),  # threads
        (80, 32, 32, 0, 32),  # blocks
        (75, 32, 32, 0, 16),
        (75, 128, 40, 21_760, 3),  # shared memory, all of 64 KiB
        (75, 128, 40, 21_761, 2),
        (86, 128, 40, 33_024, 3),  # a KiB of each block is the system's
        (86, 128, 40, 33_025, 2),
        (999, 128, 40, 0, None),
    ],
)
def test_resident_blocks(
    architecture: int, threads: int, registers: int, shared: int, expected: int | None
) -> None:
    assert resident_blocks(architecture, threads, registers, shared) == expected


def test_a_missing_loop_is_noticed(code: tuple[str, str]) -> None:
    text, name = code
    unrolled = re.sub(r"(@!?U?P\d+ BRA|BRA\.U)(.*`\(\.L_x_)\d+", r"\1\g<2>999", text)
    assert judge(unrolled, name).problems == ("no inner loop with its taps is found",)
    idle = text.replace(" FADD", " MOV")
    assert judge(idle, name).problems == ("no inner loop with its taps is found",)


def test_branches_of_newer_architectures_are_loops_too() -> None:
    text = """\
\t.section\t.text.f,"ax",@progbits
.L_x_0:
        /*0000*/                   FADD R0, R0, |R1| ;
        /*0010*/                   BRA.U !UP0, `(.L_x_0) ;
.L_x_1:
        /*0020*/                   BRA `(.L_x_1);
\t//----- nvinfo : EIATTR_REGCOUNT
        /*0004*/ \t.word\tindex@(f)
        /*0008*/ \t.word\t0x00000028
"""
    function = sass.parse(text)["f"]
    assert function.registers == 40
    assert [[i.opcode for i in loop.instructions] for loop in function.loops] == [["FADD", "BRA.U"]]


def test_partials_are_seen_before_their_block_is_counted(code: tuple[str, str]) -> None:
    """A fence on each side of the counter, and a barrier between: the stand-in cannot see it."""
    text, name = code
    found = [i.mnemonic for i in sass.parse(text)[name].instructions]
    (count,) = [i for i, mnemonic in enumerate(found) if mnemonic in ("ATOMG", "ATOM", "RED")]
    before, after = found[:count], found[count:]
    stores = [i for i, mnemonic in enumerate(before) if mnemonic == "STG"]
    assert [m for m in before[stores[-1] :] if m in ("MEMBAR", "BAR")] == ["MEMBAR", "BAR"]
    assert [m for m in after if m in ("MEMBAR", "BAR")] == ["BAR", "MEMBAR"]


def test_an_empty_disassembly_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "disassemble", lambda _: "\t.headerflags\n")
    with pytest.raises(RuntimeError, match="shows no function"):
        audit.audit([90], [GEMM])
    monkeypatch.setattr(audit, "disassemble", lambda _: '\t.section\t.text.f,"ax",@progbits\n')
    with pytest.raises(RuntimeError, match="no code or no registers of f"):
        audit.audit([90], [GEMM])


def test_a_line_of_code_that_is_not_understood_is_an_error(code: tuple[str, str]) -> None:
    text, name = code
    odd = re.sub(r"\bLDS\.128", "ldl.128", text, count=1)
    with pytest.raises(RuntimeError, match=f"{name} what is no instruction: .*ldl"):
        sass.parse(odd)


def test_a_kernel_that_is_missing_is_an_error(
    code: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "disassemble", lambda _: code[0])
    with pytest.raises(RuntimeError, match="does not show adder_conv_direct<float>"):
        audit.audit([90], [direct("float32")])


def test_the_command(
    code: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text, name = code
    row = judge(text, name)
    monkeypatch.setattr(audit, "audit", lambda _: [row])
    file = tmp_path / "audit.json"
    assert main(["--arch", "90", "--json", str(file)]) == 0
    out = capsys.readouterr().out
    assert f"{row.slots_per_tap:.3f}" in out
    assert max(map(len, out.splitlines())) <= 100
    result = json.loads(file.read_text())
    assert set(result) == {"schema", "nvrtc", "passed", "rows"}
    assert (result["schema"], result["passed"]) == (1, True)
    assert result["rows"][0]["slots_per_tap"] == row.slots_per_tap
    keys = re.findall(r'"(\w+)":', str(audit.__doc__).partition('"rows"')[2])
    assert sorted(result["rows"][0]) == sorted(keys)

    spilled = judge(re.sub(r"LDS\.128", "LDL.128", text, count=1), name)
    monkeypatch.setattr(audit, "audit", lambda _: [row, spilled])
    assert main(["--json", "-"]) == 1
    assert json.loads(capsys.readouterr().out)["passed"] is False


@pytest.mark.parametrize(
    ("pattern", "replacement", "problem"),
    [
        (r"LDS\.128", "LDL.128", "local memory is used"),
        (r"(?m)^(.* FADD\b.*\n)", r"\1\1", "more than 2.3 slots per tap"),
        (r" FADD", " MOV", "no inner loop with its taps is found"),
    ],
)
def test_the_command_reports_problems(
    pattern: str,
    replacement: str,
    problem: str,
    code: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text, name = code
    row = judge(re.sub(pattern, replacement, text), name)
    monkeypatch.setattr(audit, "audit", lambda _: [row])
    assert main(["--arch", "90"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("bad")
    assert lines[2] == f"{GEMM.expression} on sm_90: {problem}"


def test_the_table_of_all_kernels_is_narrow(rows: list[Row]) -> None:
    table = audit._table(rows).splitlines()
    assert len(table) == 1 + len(rows)
    assert max(map(len, table)) <= 130
    assert all(line.endswith("ok") for line in table[1:])


@pytest.mark.parametrize("given", ["70", "x", "", "90,", "80 90"])
def test_unknown_architectures(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--arch", given]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "expected compute capabilities times ten" in err


def test_no_disassembler(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(_: str) -> None:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "files", missing)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(audit, "compile_cubin", lambda *_: (b"", {}))
    assert main([]) == 2
    assert "pip install nvidia-cuda-nvdisasm" in capsys.readouterr().err


def test_the_disassembler_of_a_toolkit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is found, and where it is too old, the command says so."""
    tool = tmp_path / "bin" / "nvdisasm"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'nvdisasm fatal: unknown ABI' >&2\nexit 255\n")
    tool.chmod(0o755)
    monkeypatch.setattr(importlib.metadata, "files", lambda _: None)
    monkeypatch.setenv("CUDA_PATH", str(tmp_path))
    assert sass.find_nvdisasm() == tool
    monkeypatch.setattr(audit, "compile_cubin", lambda *_: (b"", {}))
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert f"{tool} cannot read what NVRTC has compiled (nvdisasm fatal: unknown ABI)" in err


def test_sources_that_do_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "source", lambda: "this is no C++")
    with pytest.raises(RuntimeError, match="error"):
        nvrtc.compile_cubin(["f<float>"], 90)


@pytest.mark.parametrize(
    ("name", "architecture", "instructions"),
    [
        ("float32", 90, ("FADD",)),
        ("float16", 90, ("HADD2", "HFMA2")),
        ("Fused", 90, ("VABSDIFF4", "IADD3", "VIADD")),
        ("Dotted", 90, ("VABSDIFF4", "IDP", "IADD3", "VIADD")),
        ("Doubled", 120, ("VIMNMX", "IDP", "IADD", "IADD3", "VIADD")),
    ],
)
def test_the_bound_is_that_of_taps_alone(
    name: str, architecture: int, instructions: tuple[str, ...]
) -> None:
    """The bare loop's machine code has no more than the additions that it is said to have."""
    loop = LOOPS[name]
    cubin, names = nvrtc.compile_cubin([loop.expression], architecture, loop_source())
    function = sass.parse(sass.disassemble(cubin))[names[loop.expression]]
    (turn,) = [found for found in function.loops if len(found.instructions) > 100]
    additions = turn.count(*instructions)
    assert additions == pytest.approx(256 * loop.word_instructions * loop.extra, abs=2)
    assert len(turn.instructions) < 1.03 * additions
    assert function.local_accesses == 0
