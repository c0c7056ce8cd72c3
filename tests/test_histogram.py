"""Histograms of latencies: their bins, and what the terminal shows of them."""

from __future__ import annotations

import bisect
import contextlib
import io
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adder_onnx.cli import bench
from adder_onnx.cli._histogram import has_blocks, histogram_lines
from adder_onnx.inspection.histogram import FEWEST_BINS, MOST_BINS, Histogram

MODEL = Path(__file__).parents[1] / "examples" / "digits" / "resnet8_digits.onnx"


def random_times(kind: str, count: int) -> list[float]:
    rng = np.random.default_rng(count)
    return {
        "even": rng.uniform(1, 2, count),
        "skewed": rng.lognormal(0, 1, count),
        "two humps": np.where(rng.random(count) < 0.7, 0.2, 5.0) + rng.normal(0, 0.01, count),
        "equal": np.full(count, 0.125),
        "nearly equal": 0.125 + np.spacing(0.125) * rng.integers(0, 3, count),
        "few slow ones": np.where(rng.random(count) < 0.001, 1e4, 1) * rng.uniform(1, 1.1, count),
        "half equal": np.where(rng.random(count) < 0.8, 1, rng.uniform(1, 3, count)),
    }[kind].tolist()


KINDS = ["even", "skewed", "two humps", "equal", "nearly equal", "few slow ones", "half equal"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 10, 199, 201, 1000, 20_000])
def test_every_value_is_where_it_belongs(kind: str, count: int) -> None:
    times = random_times(kind, count)
    found = Histogram.of(times)
    assert FEWEST_BINS <= len(found.counts) <= MOST_BINS
    widths = np.diff(found.edges)
    assert widths == pytest.approx([widths[0]] * len(widths))
    assert widths[0] > 0
    ordered = sorted(times)
    last = ordered[min(-(-(count - 1) * 995 // 1000), count - 1)]  # of 200 values, the greatest
    if kind not in ("equal", "nearly equal"):
        assert (found.edges[0], found.edges[-1]) == (min(times), last) or last == min(times)
    assert found.greatest == max(times)
    assert found.beyond == sum(time > last for time in times)
    assert found.beyond <= 0.005 * count
    expected = [0] * len(found.counts)
    for time in times:
        if time <= last:
            expected[min(bisect.bisect_right(found.edges, time), len(expected)) - 1] += 1
    assert list(found.counts) == expected


def test_the_width_of_bins_is_that_of_freedman_and_diaconis() -> None:
    times = random_times("even", 1000)
    low, _, high = statistics.quantiles(times, n=4, method="inclusive")
    found = Histogram.of(times)
    wanted = 2 * (high - low) / 1000 ** (1 / 3)
    number = (found.edges[-1] - found.edges[0]) / wanted
    assert FEWEST_BINS <= number <= MOST_BINS  # or this tells nothing
    assert len(found.counts) == -(-number // 1)


def histogram(counts: list[int], beyond: int = 0) -> Histogram:
    edges = tuple(1 + i / len(counts) for i in range(len(counts) + 1))
    return Histogram(edges, tuple(counts), beyond, 9.0 if beyond else 2.0)


def test_bars_of_blocks() -> None:
    found = histogram([0, 1, 100, 200, 400] * 8, beyond=200)
    marks = {"50": 1.5, "99": 1.99, "90": 1.98}
    lines = histogram_lines(found, marks, rows=2, blocks=True)
    assert lines == [
        "      " + "    █" * 8,
        "      " + " ▁▄██" * 8 + " ██",
        "1 ms └" + "─" * 20 + "50" + "─" * 16 + "99┘ 2 ms",
    ]


@pytest.mark.parametrize(("second", "has_room"), [(22, False), (23, True), (18, False), (17, True)])
def test_marks_do_not_touch(second: int, has_room: bool) -> None:
    marks = {"50": 1 + 20.5 / 40, "99": 1 + (second + 0.5) / 40}
    axis = histogram_lines(histogram([1] * 40), marks, rows=1, blocks=True)[-1]
    assert axis.index("50") == 6 + 20
    assert ("99" in axis) is has_room


def test_bars_of_ascii() -> None:
    found = histogram([0, 1, 30, 60] * 5)
    lines = histogram_lines(found, {"50": 1.0}, rows=1, blocks=False)
    assert lines == [
        "      " + "  ..::##" * 5,
        "1 ms +50" + "-" * 38 + "+ 2 ms",
    ]
    assert all(line.isascii() for line in lines)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 3])
def test_bars_of_anything(kind: str, rows: int) -> None:
    for count in (1, 10, 1000):
        times = random_times(kind, count)
        found = Histogram.of(times)
        marks = dict(zip(("50", "99", "90"), np.percentile(times, (50, 99, 90)), strict=True))
        lines = histogram_lines(found, marks, rows=rows, blocks=True)
        assert len(lines) == rows + 1
        assert all(len(line) <= 79 for line in lines)
        assert "50" in lines[-1]
        assert "█" in lines[0]


@pytest.mark.parametrize(
    ("encoding", "blocks"),
    [("utf-8", True), ("cp437", False), ("ascii", False), ("latin-1", False), (None, False)],
)
def test_encodings(encoding: str | None, blocks: bool) -> None:
    assert has_blocks(encoding) is blocks
    assert not has_blocks("no-such-encoding")


class Terminal(io.TextIOWrapper):
    """A standard output of some encoding that says that it is a terminal."""

    def __init__(self, encoding: str, is_terminal: bool = True) -> None:
        super().__init__(io.BytesIO(), encoding)
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined]


def run(terminal: Terminal, *arguments: Any) -> list[str]:
    words = ["--seconds", "0.01", "--device", "cpu", *map(str, arguments)]
    with contextlib.redirect_stdout(terminal):
        assert bench.main([str(MODEL), *words]) == 0
    return terminal.text().splitlines()


@pytest.mark.parametrize(("encoding", "full"), [("utf-8", "█"), ("ascii", "#")])
def test_a_terminal_gets_histograms(encoding: str, full: str) -> None:
    lines = run(Terminal(encoding), "--batch-size", "1,4")
    assert len(lines) == 3 + 2 * 6  # a table; an empty line, a title, three rows and an axis
    for i, batch in enumerate((1, 4)):
        own = lines[3 + 6 * i :][:6]
        assert own[0] == ""
        assert f"{MODEL}, cpu, threads " in own[1]
        assert f", batch {batch}: " in own[1]
        assert full in own[2]
        assert own[5].endswith(" ms")


def test_histograms_are_lower_where_there_are_many() -> None:
    lines = run(Terminal("utf-8"), "--batch-size", "1,2,3,4,5")
    assert len(lines) == 6 + 5 * 4


def test_what_is_piped_stays_as_it_is() -> None:
    assert len(run(Terminal("utf-8", is_terminal=False))) == 2


def test_the_json_has_what_is_shown(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    run(Terminal("utf-8"), "--json", result)
    (found,) = json.loads(result.read_text())["results"]
    bins = found["histogram"]
    assert sum(bins["counts"]) + bins["beyond"] == found["runs"]
    assert len(bins["edges_ms"]) == len(bins["counts"]) + 1
    assert bins["edges_ms"][0] <= found["median_ms"] <= found["p99_ms"] <= bins["longest_ms"]


def test_only_json_goes_to_standard_output() -> None:
    lines = run(Terminal("utf-8"), "--json", "-")
    assert json.loads("\n".join(lines))["schema"] == 1
