"""``python -m benchmarks.cuda.sweep``, its GPU replaced, and what is made of its result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from adder_onnx.kernels.cuda.launch.cost import COSTS, Costs
from adder_onnx.kernels.cuda.launch.device import Grid
from adder_onnx.kernels.cuda.launch.variants import (
    FEW_PIXELS,
    GEMM_TILES,
    INTEGER_FEW_PIXELS,
    Kernel,
    gemm,
    integer_gemm,
)
from benchmarks.cuda import costs, sweep
from benchmarks.cuda.__main__ import RESULTS
from benchmarks.shapes import Layer
from tests.cuda_on_cpu.device import CpuDevice
from tests.test_benchmark_check import CheckedMachine

CASES = [("resnet20", Layer(16, 16, 6, 3, 1), 2), ("other", Layer(64, 64, 7, 3, 2), 1)]


@pytest.fixture
def machine() -> CheckedMachine:
    return CheckedMachine()


def run(machine: CheckedMachine, monkeypatch: pytest.MonkeyPatch, path: Path) -> int:
    monkeypatch.setattr(sweep, "check_cuda", lambda number: None)
    monkeypatch.setattr(sweep, "environment", lambda: {"device": "a GPU", "multiprocessors": 8})
    monkeypatch.setattr(sweep, "CudaMachine", lambda: machine)
    monkeypatch.setattr(sweep, "layers", lambda: CASES)
    return sweep.main(["--json", str(path)])


def test_every_grid_is_timed(
    machine: CheckedMachine,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(machine, monkeypatch, tmp_path / "sweep.json") == 0
    result = json.loads((tmp_path / "sweep.json").read_text())
    assert result["benchmark"] == "cuda sweep"
    rows = result["rows"]
    assert [(row["network"], row["type"]) for row in rows] == [
        (network, type_) for network, *_ in CASES for type_ in ("float32", "float16", "uint8")
    ]
    by_type = {row["type"]: row for row in rows if row["network"] == "other"}
    found = [(g["pixels"], g["filters"], g["splits"]) for g in by_type["uint8"]["grids"]]
    tried = sorted(splits for splits in sweep.SPLITS if splits <= 9)  # turns
    assert found == [(pixels, 64, splits) for pixels in (128, 64) for splits in tried]
    assert all(grid["seconds"] == 1e-2 and grid["cycles"] > 0 for grid in by_type["uint8"]["grids"])
    device = machine.device
    for kernel in (
        *(
            gemm(type_, tile)
            for type_ in ("float32", "float16")
            for tile in (GEMM_TILES[0], FEW_PIXELS)
        ),
        integer_gemm(INTEGER_FEW_PIXELS, "Fused"),
    ):
        assert kernel.expression in device.launched
    device.check_guards()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(rows) + 1
    assert lines[0].startswith("16 x 6 -> 16, 3x3          2 float32 selected 256x16 / ")


@pytest.mark.parametrize(
    ("expression", "field", "change"),
    [
        ("adder_conv_gemm<float,", "pad_left", 1),
        ("adder_conv_gemm<__half,", "kernel_w", -1),
        ("integer_gemm", "weight_words", -4),
    ],
)
def test_a_wrong_grid_is_found(
    machine: CheckedMachine,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    expression: str,
    field: str,
    change: int,
) -> None:
    launch = CpuDevice.launch

    def broken(self: CpuDevice, kernel: Kernel, grid: Grid, args: NDArray[np.void]) -> None:
        if kernel.expression.startswith(expression):
            args = args.copy()
            args[field] += change
        launch(self, kernel, grid, args)

    monkeypatch.setattr(CpuDevice, "launch", broken)
    assert run(machine, monkeypatch, tmp_path / "sweep.json") == 1
    assert "gives another result" in capsys.readouterr().err


def test_layers_of_equal_work_are_there_once() -> None:
    found = list(sweep.layers())
    different = {(a.channels, a.filters, a.kernel, a.out, batch) for _, a, batch in found}
    assert len(different) == len(found)
    assert {batch for network, _, batch in found if network == "resnet20"} == {1, 128}


def rows_by(true: Costs, launch: float, noise: Callable[[], float]) -> list[dict[str, Any]]:
    """What a sweep finds where times are those that costs predict."""
    rows = []
    for blocks in (1, 3, 8, 13, 40, 150, 395):
        for turns in (1, 5, 18, 72):
            grids = [
                {"threads": threads, "turn": 1, "blocks": blocks, "splits": splits}
                for threads in (128, 64)
                for splits in (1, 2, 4, 8)
                if splits <= turns
            ]
            for grid in grids:
                cycles = costs.predicted(true, grid, turns, 132)
                grid["seconds"] = (launch + cycles / 2e9) * noise()
            rows.append({"type": "float32", "turns": turns, "grids": grids})
    return rows


def test_costs_are_found_again() -> None:
    true = Costs(4000, 1000, 0.7, 2000, 600)
    rng = np.random.default_rng(0)
    rows = rows_by(true, 4e-6, lambda: float(np.exp(0.01 * rng.standard_normal())))
    found, launch = costs.fit(rows, COSTS["float32"], 2e9, 132)
    assert costs.error(rows, found, launch, 2e9, 132) < 0.02
    assert found.latency == pytest.approx(true.latency, rel=0.1)
    assert found.work == pytest.approx(true.work, rel=0.1)
    assert max(costs.losses(rows, found, 132)) < 1.05
    assert max(costs.losses(rows, Costs(1, 1, 1, 1, 1e9), 132)) > 1.2


@pytest.mark.parametrize("type_", COSTS)
def test_the_costs_in_use_select_what_was_fast(type_: str) -> None:
    """On an H100."""
    sweep = json.loads((RESULTS / "cuda-sweep-nvidia-h100-80gb-hbm3.json").read_text())
    rows = [row for row in sweep["rows"] if row["type"] == type_]
    lost = costs.losses(rows, COSTS[type_], sweep["multiprocessors"])
    assert np.mean(lost) < 1.02
    assert max(lost) < 1.2


def test_the_command_of_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_by(COSTS["float32"], 3e-6, lambda: 1.0)
    rows = [row | {"type": type_} for type_ in COSTS for row in rows[::5]]
    file = tmp_path / "sweep.json"
    file.write_text(json.dumps({"rows": rows, "sm_clock": 2e9, "multiprocessors": 132}))
    assert costs.main([str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[::4]] == list(COSTS)
    assert "selected by those in use: 1.000 of the fastest's time" in lines[3]
