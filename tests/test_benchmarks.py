"""What of the benchmarks can be tested without the hardware that they measure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch.nn import functional

from benchmarks import training
from benchmarks.cuda import table
from benchmarks.cuda.__main__ import file_name
from benchmarks.cuda.layers import best_layouts, layer_row
from benchmarks.cuda.timing import summary, take_turns
from benchmarks.documents import END, begin_of
from benchmarks.environment import result_path
from benchmarks.networks import adder_layers
from benchmarks.race import __main__ as race
from benchmarks.race import table as race_table
from benchmarks.race.contenders import has_more_than
from benchmarks.shapes import Layer

ROOT = Path(__file__).resolve().parents[1]


def test_layers_of_the_networks() -> None:
    """The counts that the design gives for an image."""
    for name, nodes, taps in (("resnet20", 20, 40_370_176), ("resnet50", 52, 3_969_122_304)):
        layers = adder_layers(name)
        assert sum(layer.count for layer in layers) == nodes
        assert sum(layer.taps * layer.count for layer in layers) == taps
        assert len(set(map(str, layers))) == len(layers)


class FakeTimer:
    """Calls take the seconds that they return."""

    def __init__(self) -> None:
        self.order: list[str] = []

    def seconds(self, call: Callable[[], Any], times: int) -> float:
        name, seconds = call()
        self.order.append(f"{name} {times}")
        return float(seconds * times)


def test_contenders_take_turns_over_the_same_time() -> None:
    timer = FakeTimer()
    contenders = {"slow": lambda: ("slow", 1e-2), "fast": lambda: ("fast", 1e-4)}
    found = take_turns(contenders, timer, rounds=3, least=2e-3)
    assert timer.order[-6:] == ["slow 1", "fast 20"] * 3
    assert {name: len(values) for name, values in found.items()} == {"slow": 3, "fast": 3}
    assert found["fast"] == pytest.approx([1e-4] * 3)


def made_up_result() -> dict[str, Any]:
    layer = Layer(64, 64, 56, 3, 1, 3)
    seconds = {
        "float32": [0.004, 0.002, 0.003],
        "float16": [0.0015],
        "naive": [0.03],
        "cdist": [0.3],
        "conv float32": [0.002],
        "conv float32, channels last": [0.001],
        "conv tf32": [0.0005],
        "conv tf32, channels last": [0.0006],
        "conv float16": [0.0003],
        "conv float16, channels last": [0.0002],
    }
    rates = {"float32": 10e12, "float16": 20e12}
    row = layer_row("resnet50", layer, 64, best_layouts(seconds), rates)
    network = {
        "network": "resnet50",
        "batch": 64,
        "standard_nodes": "CPU",
        "seconds": {"adder float32": summary([0.02]), "conv float16": summary([0.01])},
    }
    return {
        "benchmark": "cuda",
        "device": "A GPU",
        "driver_and_clocks": "1.2, 3 MHz, 4 MHz",
        "commit": "0123456789abcdef",
        "date": "2026-01-02",
        "bound": rates,
        "layers": [row],
        "networks": [network],
    }


def test_a_layers_row() -> None:
    (row,) = made_up_result()["layers"]
    taps = 56 * 56 * 64 * 64 * 9 * 64
    assert row["taps"] == taps
    assert row["seconds"]["float32"]["median"] == 0.003
    assert row["seconds"]["conv float32"]["median"] == 0.001
    assert row["seconds"]["conv tf32"]["median"] == 0.0005
    assert row["share_of_bound"]["float32"] == pytest.approx(taps / 0.003 / 10e12)
    assert row["times_faster_than"]["cdist"] == pytest.approx(100)


def test_the_table(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    document, begin = tmp_path / "docs" / "gpu.md", begin_of(table.COMMAND)
    document.write_text(f"before\n{begin}old\n{END}after\n")
    assert table.main(["--check"], tmp_path) == 1
    assert table.main([], tmp_path) == 0
    assert document.read_text() == (f"before\n{begin}\nNot yet measured.\n\n{END}after\n")
    assert table.main(["--check"], tmp_path) == 0
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "a-gpu.json").write_text(json.dumps(made_up_result()))
    (results / "race.json").write_text("{}")
    assert table.main(["--check"], tmp_path) == 1
    assert table.main([], tmp_path) == 0
    text = document.read_text()
    taps = 56 * 56 * 64 * 64 * 9 * 64
    assert f"| {taps / 0.003 / 1e12:.2f} | {taps / 0.0015 / 1e12:.2f} |" in text
    share = f"{100 * taps / 0.003 / 10e12:.0f} % / {100 * taps / 0.0015 / 20e12:.0f} %"
    assert f"| {taps / 0.0002 / 1e12:.2f} | {share} |" in text
    (sums,) = (line for line in text.splitlines() if line.startswith("| resnet50, batch 64 | 9"))
    assert sums.startswith("| resnet50, batch 64 | 9.00 | 4.50 | – | 90.0 |")  # of three layers
    assert "| resnet50, batch 64 | CPU | 3200 | 6400 |" in text
    assert "**A GPU**, driver 1.2, commit 0123456789ab, 2026-01-02" in text


def test_the_docs_are_up_to_date() -> None:
    assert table.main(["--check"]) == 0
    assert race_table.main(["--check"]) == 0


def race_row(network: str, batch: int, threads: int, contender: str, rate: float) -> dict[str, Any]:
    seconds = batch / rate
    return {
        "network": network,
        "batch": batch,
        "threads": threads,
        "contender": contender,
        "seconds": {"median": seconds, "p10": seconds / 2, "p90": seconds * 2},
        "images_per_second": rate,
    }


def race_result(isa: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "benchmark": "race",
        "cpu": "A CPU",
        "isa": isa,
        "cores": 2,
        "versions": {"openvino": "1.2"},
        "commit": "0123456789abcdef",
        "date": "2026-01-02",
        "rows": rows,
    }


def test_the_summary_of_the_race() -> None:
    rows = [
        race_row("resnet20", 128, 2, "adder-onnx, uint8", 7000.4),
        race_row("resnet20", 128, 1, "adder-onnx, uint8", 3.0),
        race_row("resnet20", 16, 2, "adder-onnx, uint8", 4.0),
        race_row("resnet20", 128, 2, "torch.cdist", 37.84),
        race_row("resnet50", 8, 2, "torch.cdist", 0.4567),
    ]
    others = [race_row("resnet50", 8, 2, "adder-onnx, uint8", 50.04)]
    results = [race_result("avx512", rows), race_result("avx2", others)]
    lines = race_table.summary(results, {}).splitlines()
    assert lines[0] == (
        "| images/s, 2 threads "
        "| A CPU, avx512: ResNet-20, batch 128 | A CPU, avx512: ResNet-50, batch 8 "
        "| A CPU, avx2: ResNet-20, batch 128 | A CPU, avx2: ResNet-50, batch 8 |"
    )
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: |"
    assert "| **adder-onnx, uint8** | **7000** | **–** | **–** | **50** |" in lines
    assert "| torch.cdist | 37.8 | 0.457 | – | – |" in lines
    # Who took no part on any machine has no line.
    assert len(lines) == 2 + 2


def test_few_levels_are_named_with_what_they_lose() -> None:
    quantization = {
        race_table.TRAINED: {
            "images": 90,
            "float32": 80,
            "rows": [
                {"bits": 8, "right": 79},
                {"bits": 4, "levels": 8, "right": 75},
                {"bits": 4, "levels": 4, "right": 60},
            ],
        }
    }
    accuracy = race_table.accuracies(quantization)
    rows = [
        race_row("resnet20", 128, 2, "adder-onnx, 8 levels", 7.0),
        race_row("resnet20", 128, 2, "adder-onnx, 4 levels", 8.0),
        race_row("resnet20", 128, 2, "OpenVINO, int8 conv", 2.0),
    ]
    results = [race_result("avx2", rows)]
    eight, four = (
        f"adder-onnx, {n} levels (the trained ResNet-20 has {right} of 90 right, 80 in float32)"
        for n, right in ((8, 75), (4, 60))
    )
    short = race_table.summary(results, accuracy)
    assert f"| **{eight}** | **7** | **–** |" in short
    assert "4 levels" not in short
    text = race_table.table(results, accuracy)
    assert f"| images/s (10th to 90th percentile) | {eight} | {four} | OpenVINO, int8" in text
    assert "ours 3.50 / 4.00 × |" in text


def test_the_table_of_a_race_that_is_held_to_an_instruction_set() -> None:
    rows = [
        race_row("resnet20", 16, 2, "adder-onnx, uint8", 300.0),
        race_row("resnet20", 16, 2, "adder-onnx, float32", 50.0),
        race_row("resnet20", 16, 2, "OpenVINO, int8 conv", 100.0),
    ]
    for row in rows:
        row["free"] = {"images_per_second": 3 * row["images_per_second"]}
    text = race_table.table([race_result("avx512", rows) | {"held_to": "avx2"}], {})
    assert "**A CPU, avx512, held to avx2, 2 cores**; openvino 1.2; commit 0123456789ab" in text
    # Who took no part has no column.
    names = "adder-onnx, uint8 | adder-onnx, float32 | OpenVINO, int8 conv"
    assert f"| images/s (10th to 90th percentile) | {names} |" in text
    assert (
        "| resnet20, batch 16, 2 threads | **300 (150 … 600), free 900** "
        "| **50 (25 … 100), free 150** "
        "| 100 (50 … 200), free 300<br>ours 3.00 / 0.50 × |"
    ) in text


class FakeWorker:
    """Takes a second for an image, half of that where nothing holds it."""

    made: ClassVar[list[FakeWorker]] = []

    def __init__(
        self, name: str, network: str, batch: int, threads: int, variables: dict[str, str]
    ) -> None:
        self.name, self.variables, self.is_held = name, variables, bool(variables)
        self.seconds: list[float] = []
        self.peak_bytes, self.works, self.process = 7, True, self
        self.made.append(self)

    def turn(self, seconds: float) -> None:
        self.seconds.append(1.0 if self.is_held else 0.5)

    def stop(self) -> None:
        """It has no process."""


@pytest.mark.parametrize("kind", ["free", "nothing to hold", "held"])
def test_who_takes_part_in_a_race(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    FakeWorker.made = []
    monkeypatch.setattr(race, "Worker", FakeWorker)
    monkeypatch.setattr(race, "PAUSE", 0)
    isa = None if kind == "free" else "avx2"
    rows = race.race("resnet20", 1, 2, race.Rules(True, isa, kind == "held"))
    names = list(race.CONTENDERS)
    if kind != "free":
        names = [name for name in names if name not in race.SLOW]
    if kind == "held":
        names = [name for name in names if name.startswith(("adder-onnx", "OpenVINO"))]
    assert [row["contender"] for row in rows] == names
    for row in rows:
        assert row["images_per_second"] == (1 if kind == "held" else 2)
        assert ("free" in row) == (kind == "held")
    assert [worker.variables for worker in FakeWorker.made if worker.variables] == (
        [{"ADDER_ONNX_CPU_ISA": "avx2"}] * 4 + [{"ONEDNN_MAX_CPU_ISA": "AVX2"}] * 2
        if kind == "held"
        else []
    )
    if kind == "held":
        assert len(FakeWorker.made) == 2 * len(names)
        assert {row["free"]["images_per_second"] for row in rows} == {2}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx avx2 fma", False),
        ("fpu avx2 avx512f avx512_vnni", True),
        ("fpu avx2 avx_vnni", True),
        ("fpu avx2 avx10_1", True),
    ],
)
def test_what_a_machine_has_beyond_avx2(tmp_path: Path, flags: str, expected: bool) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nmodel name\t: avx512 of a name\nflags\t\t: {flags}\n\n")
    assert has_more_than("avx2", file) is expected


def test_the_file_of_a_race_that_is_held_to_an_instruction_set() -> None:
    result = race_result("avx512", [])
    assert result_path(result).name == "race-a-cpu-avx512.json"
    assert result_path(result | {"held_to": "avx2"}).name == "race-a-cpu-avx512-held-to-avx2.json"


def test_the_table_of_training() -> None:
    result = {
        "cpu": "A CPU",
        "isa": "avx2",
        "batch": 128,
        "threads": 2,
        "versions": {"torch": "2.0"},
        "commit": "0123456789abcdef",
        "date": "2026-01-02",
        "seconds": {"AdderConv2d": [0.9, 0.5, 0.25], "reference": [40.0, 60.0, 50.0]},
        "peak_bytes": {"AdderConv2d": 400e6, "reference": 5000e6},
    }
    *_, row = training.table([result]).splitlines()
    assert row.endswith("| 0.5 s, 400 MB | 50 s, 5,000 MB | 0.010 × | 0.080 × |")
    assert "A CPU, avx2; torch 2.0; commit 0123456789ab, 2026-01-02" in row


def test_the_table_of_training_on_a_gpu(tmp_path: Path) -> None:
    result = {
        "benchmark": "training",
        "cpu": "A CPU",
        "isa": "avx2",
        "device": "A GPU 80GB",
        "driver_and_clocks": "580.1, 1980 MHz, 1980 MHz",
        "batch": 128,
        "threads": 2,
        "versions": {"torch": "2.0"},
        "commit": "0123456789abcdef",
        "date": "2026-01-02",
        "seconds": {"AdderConv2d": [0.004, 0.008, 0.005], "reference": [0.2, 0.25, 0.3]},
        "peak_bytes": {"AdderConv2d": 400e6, "reference": 5000e6},
    }
    assert result_path(result).name == "training-a-gpu-80gb.json"
    (tmp_path / "docs").mkdir()
    for device, document in training.DOCUMENTS.items():
        begin = begin_of(training.COMMANDS[device])
        (tmp_path / document).write_text(f"before\n{begin}old\n{END}after\n")
    assert training.update_tables(tmp_path, check=False) == 0
    assert "Not yet measured" in (tmp_path / "docs" / "gpu.md").read_text()
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "training-a-gpu.json").write_text(json.dumps(result))
    assert training.update_tables(tmp_path, check=True) == 1
    assert training.update_tables(tmp_path, check=False) == 0
    assert training.update_tables(tmp_path, check=True) == 0
    assert "Not yet measured" in (tmp_path / "docs" / "benchmarks.md").read_text()
    (row,) = (r for r in (tmp_path / "docs" / "gpu.md").read_text().splitlines() if "0.005" in r)
    assert row.endswith("| 0.005 s, 400 MB | 0.25 s, 5,000 MB | 0.020 × | 0.080 × |")
    assert "| ResNet-20, batch 128; A GPU 80GB, driver 580.1; torch 2.0; commit" in row


def test_names_of_results() -> None:
    assert file_name("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3.json"


def test_both_ways_of_training_have_the_same_gradients() -> None:
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = []
    for contender in training.CONTENDERS:
        network = training.make_network(contender)
        functional.cross_entropy(network(x), torch.tensor([3, 7, 1, 3])).backward()
        found.append([p.grad for p in network.parameters()])
    for ours, theirs in zip(*found, strict=True):
        assert ours is not None
        assert theirs is not None
        assert (ours - theirs).norm() <= 1e-2 * theirs.norm() + 1e-6
