"""The page of adder-bench: it shows the figures of the JSON, for any models and settings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adder_onnx.cli import bench
from adder_onnx.inspection.histogram import Histogram
from adder_onnx.pages.latency import latency_page
from tests.browser import WIDTHS
from tests.test_pages import HOSTILE

MODEL = Path(__file__).parents[1] / "examples" / "digits" / "resnet8_digits.onnx"
KINDS = ["onnxruntime", "conversion", "chain", "conversion", "onnxruntime"]


def measurement(model: str, i: int = 0, steps: int = 5, **more: Any) -> dict[str, Any]:
    """A made-up result; that of a few runs has nothing beyond its bins."""
    rng = np.random.default_rng(i)
    times = rng.lognormal(i - 2, 0.3, 150 if i % 3 == 1 else 2000)
    bins = Histogram.of(times)
    median, p90, p99 = (float(value) for value in np.percentile(times, (50, 90, 99)))
    return {
        "model": model,
        "device": "cpu",
        "threads": 2,
        "arithmetic": "fast",
        "batch_size": 1,
        "runs": len(times),
        "median_ms": median,
        "p90_ms": p90,
        "p99_ms": p99,
        "histogram": {
            "edges_ms": bins.edges,
            "counts": bins.counts,
            "beyond": bins.beyond,
            "longest_ms": bins.greatest,
        },
        "images_per_second": 1e6 / (1 + i) ** 3,
        "steps": [{"kind": KINDS[k % 5], "median_ms": 0.25 * (1 + k % 4)} for k in range(steps)],
        "runtime_overhead_ms": 0.5 - i,
        **more,
    }


def made_up(results: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schema": 1,
        "cpu": "A CPU",
        "gpus": {"cuda:0": "A GPU"},
        "versions": {"adder_onnx": "1.2.3", "numpy": "4.5.6"},
        "results": results,
    }


@pytest.fixture
def page(tmp_path: Path) -> Any:
    """Writes the page of results."""

    def write(results: list[dict[str, Any]]) -> Path:
        path = tmp_path / "page.html"
        path.write_text(latency_page(made_up(results)), encoding="utf-8")
        return path

    return write


def plot_of(opened: Any, label: str) -> Any:
    return opened.page.locator(".plot").and_(opened.page.get_by_label(label, exact=True))


def boxes(plot: Any) -> list[dict[str, float]]:
    """Bars with their places, and whether they have a colour of their own."""
    return plot.locator("g[aria-label=bar] rect, g[aria-label=rect] rect").evaluate_all(
        "all => all.map(rect => ({x: rect.x.baseVal.value, width: rect.width.baseVal.value, "
        "height: rect.height.baseVal.value, fill: rect.getAttribute('fill')}))"
    )


def test_the_command_writes_it(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The figures of real runs are those of --json."""
    html, found = tmp_path / "page.html", tmp_path / "result.json"
    monkeypatch.chdir(tmp_path)
    for name in ("one.onnx", "two.onnx"):
        shutil.copy(MODEL, name)
    arguments = ["--batch-size", "1,4", "--threads", "1,2", "--seconds", "0.05", "--device", "cpu"]
    files = ["--html", str(html), "--json", str(found)]
    assert bench.main(["one.onnx", "two.onnx", *arguments, *files]) == 0
    assert capsys.readouterr().err == ""
    result = json.loads(found.read_text())
    with browser.opened(html) as opened:
        opened.check()
        rows = opened.page.locator("table").evaluate(
            "t => [...t.tBodies[0].rows].map(row => [...row.cells].map(cell => cell.textContent))"
        )
        assert len(rows) == len(result["results"]) == 8
        for row, own in zip(rows, result["results"], strict=True):
            model, device, threads, batch, arithmetic, runs, *times, rate = row
            assert (model, device, arithmetic) == (own["model"], "cpu", "fast")
            assert (int(threads), int(batch)) == (own["threads"], own["batch_size"])
            assert runs == f"{own['runs']:,}"
            keys = ("median_ms", "p90_ms", "p99_ms")
            assert [float(t) for t in times] == pytest.approx([own[k] for k in keys], rel=1e-3)
            assert float(rate.replace(",", "")) == pytest.approx(
                own["images_per_second"], rel=1e-3, abs=0.5
            )
        assert opened.page.locator("figure").count() == 8
        for what in (result["cpu"], *result["versions"].values()):
            assert what in opened.page.locator("dl").inner_text()


def test_histograms_have_the_bins(browser: Any, page: Any) -> None:
    results = [measurement("m", i, batch_size=i + 1) for i in range(2)]
    assert [result["histogram"]["beyond"] > 0 for result in results] == [True, False]
    with browser.opened(page(results)) as opened:
        opened.check()
        for result in results:
            bins = result["histogram"]
            plot = plot_of(opened, f"Latencies of m, batch {result['batch_size']}, 2 threads")
            found = boxes(plot)
            beyond = [bins["beyond"]] if bins["beyond"] else []
            expected = [*bins["counts"], *beyond]
            drawn = [box["height"] + 1 for box in found]  # they stand a pixel apart
            factor = max(drawn) / max(expected)
            assert drawn == pytest.approx([max(1, n * factor) for n in expected], abs=0.6)
            assert [box["fill"] for box in found[len(bins["counts"]) :]] == (
                ["var(--focus)"] if beyond else []
            )
            # The marks are where the times are.
            first, last = found[0], found[len(bins["counts"]) - 1]
            low, high = bins["edges_ms"][0], bins["edges_ms"][-1]
            pixels = last["x"] + last["width"] - first["x"] + 1
            marks = plot.locator("g[aria-label=rule] line").evaluate_all(
                "all => all.filter(line => line.x1.baseVal.value === line.x2.baseVal.value)"
                ".map(line => line.x1.baseVal.value)"
            )
            keys = ("median_ms", "p90_ms", "p99_ms")
            wanted = [first["x"] - 0.5 + pixels * (result[k] - low) / (high - low) for k in keys]
            assert marks == pytest.approx(wanted, abs=1)
            texts = plot.locator("g.marks text").all_text_contents()
            assert [float(text.split()[1]) for text in texts] == pytest.approx(
                [result[k] for k in keys], rel=1e-3
            )
        captions = opened.page.locator("figcaption").all_inner_texts()
        beyond = results[0]["histogram"]["beyond"]
        assert captions[0].startswith(f"2,000 runs; the last bar has {beyond} beyond ")
        assert captions[1] == "150 runs."


def test_rates_of_all_models_have_one_scale(browser: Any, page: Any) -> None:
    results = [measurement(name, i) for i, name in enumerate(("one", "two"))]
    with browser.opened(page(results)) as opened:
        opened.check()
        widths = [
            boxes(plot_of(opened, f"Images per second of {name}"))[0]["width"]
            for name in ("one", "two")
        ]
        assert widths[1] / widths[0] == pytest.approx(1 / 8, abs=0.01)


def test_steps_are_in_order_and_fill_the_bar(browser: Any, page: Any) -> None:
    results = [measurement("m", 0), measurement("m", 1, batch_size=2)]  # with less than no rest
    with browser.opened(page(results)) as opened:
        opened.check()
        plot = plot_of(opened, "Where the time of m goes")
        found = [box for box in boxes(plot) if box["width"] > 0]
        colours = {
            "onnxruntime": "var(--standard)",
            "chain": "var(--kernels)",
            "conversion": "var(--conversion)",
        }
        kinds = [colours[kind] for kind in KINDS]
        assert [box["fill"] for box in found] == [*kinds, "var(--rest)", *kinds]
        times = [0.25, 0.5, 0.75, 1, 0.25, 0.5]
        for own, expected in ((found[:6], times), (found[6:], times[:5])):
            # What they are apart belongs to them.
            whole = sum(box["width"] + 1 for box in own)
            shares = [(box["width"] + 1) / whole for box in own]
            assert shares == pytest.approx([t / sum(expected) for t in expected], abs=0.003)
        assert plot.locator("g.texts text").all_text_contents() == ["3.25 ms", "2.75 ms"]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
def test_any_names(browser: Any, page: Any, width: int, dark: bool) -> None:
    results = [
        measurement(name, i % 4, device=device, threads=threads, steps=1 + 40 * (i % 2))
        for i, name in enumerate(HOSTILE)
        for device, threads in (("cpu", 1), ("cpu", 2), ("cuda:0", 2))
    ]
    with browser.opened(page(results), width=width, dark=dark) as opened:
        opened.check()
        assert opened.page.title().startswith(f"Latency of {HOSTILE[0]}, ")
        # The data, and the scripts of the page: d3, plot, base, plots, latency.
        assert opened.page.locator("script").count() == 6
        assert opened.page.locator("figure").count() == len(results)
        assert opened.page.locator("tbody tr").count() == len(results)
        names = opened.page.locator(".plot g.names").first.locator("text").all_text_contents()
        assert names[-1].endswith("cuda:0")
        opened.page.locator("figure .plot svg").first.hover()
        assert "runs" in opened.page.locator("figure g[aria-label=tip]").first.text_content()
        assert opened.complaints == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("time", [1e-4, 1e6])
def test_equal_times_of_any_size(browser: Any, page: Any, width: int, time: float) -> None:
    bins = Histogram.of([time] * 10)
    result = measurement("m", 1, runs=10, median_ms=time, p90_ms=time, p99_ms=time)
    result["histogram"] |= {"edges_ms": bins.edges, "counts": bins.counts, "longest_ms": time}
    with browser.opened(page([result]), width=width) as opened:
        opened.check()


def test_what_it_cannot_replace(tmp_path: Path, capsys: Any) -> None:
    before = MODEL.read_bytes()
    for path in (MODEL, tmp_path / "no" / "page.html", tmp_path):
        assert bench.main([str(MODEL), "--html", str(path)]) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        assert str(path) in message
    assert MODEL.read_bytes() == before
