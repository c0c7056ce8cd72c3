"""The page of adder-quantize: it shows the figures of the JSON, for any names and many nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adder_onnx.cli import _quantize_report
from adder_onnx.cli import quantize as command
from adder_onnx.pages.quantization import quantization_page
from tests.browser import WIDTHS
from tests.test_pages import HOSTILE

DIGITS = Path(__file__).parents[1] / "examples" / "digits"
MODEL, DATA = DIGITS / "resnet8_digits.onnx", DIGITS / "test"


def main(*arguments: Any) -> int:
    try:
        return command.main([str(a) for a in arguments])
    except SystemExit as error:
        return int(error.code or 0)


def made_up(names: list[str], *, sensitivity: bool = True) -> dict[str, Any]:
    """A result with a node of each name; every fifth is exact, every seventh has no signal."""

    def ratio(i: int) -> dict[str, Any]:
        if i % 5 == 1:
            return {"snr_db": None, "snr_kind": "exact"}
        if i % 7 == 2:
            return {"snr_db": None, "snr_kind": "no signal"}
        return {"snr_db": 40.0 - 0.7 * i, "snr_kind": "ratio"}

    nodes = [
        {
            "name": name,
            "bits": 2 + i % 7,
            "low": -0.25 * (i % 3),
            "high": 1.5 + 0.125 * (i % 20),
            "clamped": (i % 11) / 16,
            **ratio(i),
        }
        for i, name in enumerate(names)
    ]
    alone = [{"name": n, **ratio(i + 3), "changed": (i % 4) / 128} for i, n in enumerate(names)]
    return {
        "model": "float.onnx",
        "output": "integers.onnx",
        "bits": "auto",
        "calibration": "output",
        "samples": 1280,
        "max_loss": 0.5,
        "loss": {"percent": 0.4375, "images": 2320, "labelled": True},
        "bytes_before": 102_400_000,
        "bytes_after": 30_720_000,
        "nodes": nodes,
        "sensitivity": alone if sensitivity else [],
        "left": [f"left.{name}" for name in names[:3]],
    }


@pytest.fixture
def page(tmp_path: Path) -> Any:
    """Writes the page of a result."""

    def write(result: dict[str, Any]) -> Path:
        path = tmp_path / "page.html"
        path.write_text(quantization_page(result), encoding="utf-8")
        return path

    return write


def plot_of(opened: Any, label: str) -> Any:
    return opened.page.locator(".plot").and_(opened.page.get_by_label(label))


def bars(plot: Any) -> list[float]:
    """Widths of the bars, without outlines."""
    return plot.locator("g[aria-label=bar]:not([stroke-dasharray]) rect").evaluate_all(
        "all => all.map(rect => Number(rect.getAttribute('width')))"
    )


def rows_of(opened: Any, table: int = 0) -> list[list[str]]:
    return (
        opened.page.locator("table")
        .nth(table)
        .evaluate(
            "t => [...t.tBodies[0].rows].map(row => [...row.cells].map(cell => cell.textContent))"
        )
    )


def shown(node: dict[str, Any]) -> str:
    """A ratio as the command prints it."""
    return f"{node['snr_db']:.1f} dB" if node["snr_kind"] == "ratio" else node["snr_kind"]


def near(text: str, value: float) -> bool:
    return float(text.removesuffix(" %").removesuffix(" dB")) == pytest.approx(value, rel=1e-3)


def test_the_command_writes_it(browser: Any, tmp_path: Path, capsys: Any) -> None:
    """The figures of a real network are those of --json."""
    html, result = tmp_path / "page.html", tmp_path / "result.json"
    files = ("--html", html, "--json", result)
    assert main(MODEL, tmp_path / "q.onnx", "--data", DATA, "--sensitivity", *files) == 0
    assert capsys.readouterr().err == ""
    summary = json.loads(result.read_text())
    assert {node["snr_kind"] for node in summary["nodes"]} == {"ratio"}
    with browser.opened(html) as opened:
        opened.check()
        rows = rows_of(opened)
        assert len(rows) == len(summary["nodes"]) == 8
        alone = {entry["name"]: entry for entry in summary["sensitivity"]}
        for i, (row, node) in enumerate(zip(rows, summary["nodes"], strict=True)):
            assert row[:3] == [str(i + 1), node["name"], str(node["bits"])]
            assert near(row[3], node["low"])
            assert near(row[4], node["high"])
            assert row[5] == f"{100 * node['clamped']:.1f} %"
            assert row[6] == f"{node['snr_db']:.1f} dB"
            assert row[7] == f"{alone[node['name']]['snr_db']:.1f} dB"
            assert row[8] == f"{100 * alone[node['name']]['changed']:.1f} %"
        text = opened.page.locator("dl").inner_text()
        for number in (summary["bytes_before"], summary["bytes_after"]):
            assert f"{number:,}" in text
        assert plot_of(opened, "Bits of each node").count() == 0  # all have the same


def test_levels(browser: Any, tmp_path: Path, capsys: Any) -> None:
    """Of each node's input, which are few of the integers that its bits have."""
    path, result = tmp_path / "page.html", tmp_path / "result.json"
    assert main(MODEL, tmp_path / "x.onnx", "--data", DATA, "--samples", 16, "--levels", 5,
                "--json", result, "--html", path) == 0  # fmt: skip
    capsys.readouterr()
    nodes = json.loads(result.read_text())["nodes"]
    with browser.opened(path) as opened:
        opened.check()
        text = opened.page.locator("dl").inner_text()
        assert "levels of inputs\n5" in text
        assert "bits\n4" in text
        rows = rows_of(opened)
        assert [row[3] for row in rows] == [" ".join(map(str, n["levels"])) for n in nodes]


def test_bars_are_as_long_as_the_figures(browser: Any, page: Any) -> None:
    result = made_up([f"layer{i}.conv" for i in range(12)])
    nodes = result["nodes"]
    with browser.opened(page(result)) as opened:
        opened.check()
        lengths = {
            "Range of each node's input": [n["high"] - n["low"] for n in nodes],
            "Share of each node's weights that are clamped": [n["clamped"] for n in nodes],
            "Bits of each node": [n["bits"] for n in nodes],
            "Signal-to-noise ratio of each node's output, in decibels": [
                n["snr_db"] for n in nodes if n["snr_kind"] == "ratio"
            ],
        }
        for label, expected in lengths.items():
            found = bars(plot_of(opened, label))
            factor = max(found) / max(expected)
            assert found == pytest.approx([factor * value for value in expected], abs=0.6), label
        order = sorted(
            result["sensitivity"],
            key=lambda n: {"exact": 1e9, "no signal": -1e9}.get(n["snr_kind"], n["snr_db"]),
        )
        plot = plot_of(opened, "Signal-to-noise ratio of the output with each node quantized alone")
        assert "No node alone" not in opened.page.locator("main").inner_text()
        names = plot.locator("g.names text").evaluate_all(
            "all => all.map(text => text.firstChild.data)"
        )
        assert names == [entry["name"] for entry in order]


def test_exact_and_no_signal_look_different(browser: Any, page: Any) -> None:
    result = made_up(["noisy", "exact", "mute", "noisy too"], sensitivity=False)
    result["nodes"][3] |= {"snr_db": None, "snr_kind": "unknown", "low": None}
    with browser.opened(page(result)) as opened:
        opened.check()
        plot = plot_of(opened, "Signal-to-noise ratio of each node's output")
        assert plot.locator("g.texts text").all_text_contents() == [
            "40.0 dB",
            "exact",
            "no signal",
            "unknown",
        ]
        assert len(bars(plot)) == 1
        assert plot.locator("[stroke-dasharray] rect").count() == 1
        assert [row[6] for row in rows_of(opened)] == [shown(node) for node in result["nodes"]]
        heading = opened.page.get_by_role("button", name="SNR of its output")
        heading.click()
        assert [row[1] for row in rows_of(opened)] == ["exact", "noisy", "mute", "noisy too"]
        heading.press("Enter")
        assert [row[1] for row in rows_of(opened)] == ["mute", "noisy", "exact", "noisy too"]


def test_what_auto_lost(browser: Any, page: Any) -> None:
    result = made_up(["a", "b", "c"], sensitivity=False)
    with browser.opened(page(result)) as opened:
        text = opened.page.locator("dl").first.inner_text()
        assert "auto: 2, 3, 4" in text
        assert "accuracy lost on 2,320 images\n0.44 %, at most 0.5 % allowed" in text
        assert "bits on average\n3.00" in text
        assert rows_of(opened, 1) == [["left.a"], ["left.b"], ["left.c"]]
    result["loss"]["labelled"] = False
    with browser.opened(page(result)) as opened:
        assert "answers changed on 2,320" in opened.page.locator("dl").first.inner_text()


@pytest.mark.parametrize(("width", "dark"), zip(WIDTHS, (True, False), strict=True))
@pytest.mark.parametrize("count", [0, 1, 5, 150])
def test_any_names_and_any_number_of_nodes(
    browser: Any, page: Any, width: int, dark: bool, count: int
) -> None:
    names = [f"{HOSTILE[i % len(HOSTILE)]}.{i}" for i in range(count)]
    result = made_up(names)
    for key in ("model", "output", "calibration"):
        result[key] = HOSTILE[0]
    with browser.opened(page(result), width=width, dark=dark) as opened:
        opened.check()
        assert opened.page.title() == f"{HOSTILE[0]}: quantized"
        # The data, and the scripts of the page: d3, plot, base, plots, quantization.
        assert opened.page.locator("script").count() == 6
        plots = opened.page.locator(".plot")
        # One of bits where they differ, and one of answers where some change.
        assert plots.count() == {0: 0, 1: 4}.get(count, 6)
        for i in range(plots.count()):
            assert plots.nth(i).locator("g.names text").count() == count
        assert opened.page.locator("table").first.locator("tbody tr").count() == count


def test_the_pointer_shows_the_name_and_the_figures(browser: Any, page: Any) -> None:
    name = "a.very.long.name" * 5
    with browser.opened(page(made_up([name, "b"])), width=390) as opened:
        opened.settle()
        plot = plot_of(opened, "Range of each node's input")
        first = plot.locator("g[aria-label=bar] rect").first
        first.hover()
        tip = plot.locator("g[aria-label=tip]").text_content()
        assert "…" in tip
        assert "0 … 1.5" in tip
        box = plot.locator("g[aria-label=tip]").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        assert plot.locator("g.names text title").first.text_content() == name
        assert opened.complaints == []


def test_plots_follow_the_window(browser: Any, page: Any) -> None:
    with browser.opened(page(made_up(["a", "b"]))) as opened:
        opened.settle()
        opened.page.set_viewport_size({"width": 390, "height": 800})
        opened.check()
        opened.page.set_viewport_size({"width": 700, "height": 800})
        opened.check()
        svg = plot_of(opened, "Range of each node's input").locator("svg")
        assert svg.get_attribute("width") == str(700 - 2 * 16)


def test_what_it_cannot_replace(tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "q.onnx"
    for path in (MODEL, output, tmp_path / "no" / "page.html", tmp_path):
        assert main(MODEL, output, "--data", DATA, "--html", path) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        assert str(path) in message
        assert not output.exists()


def test_ratios_and_what_they_are() -> None:
    found = [
        _quantize_report._ratio(value) for value in (float("inf"), float("-inf"), 3.5, float("nan"))
    ]
    assert [ratio["snr_kind"] for ratio in found] == ["exact", "no signal", "ratio", "unknown"]
    plain = _quantize_report.without_infinity(found)
    assert [ratio["snr_db"] for ratio in plain] == [None, None, 3.5, None]
