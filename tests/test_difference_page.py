"""The page of adder-inspect --diff --html, in a browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from adder_onnx.cli import inspect
from adder_onnx.pages.difference import difference_page
from tests.browser import WIDTHS
from tests.models import make_model
from tests.test_pages import HOSTILE

OPS = ["Relu", "Abs", "Neg", "Exp", "Sigmoid", "Tanh", "Softplus", "Sin", "Cos", "Erf", "Floor"]


def chain(names: list[str], ops: list[str], folder: Path) -> Path:
    """A model with these names for nodes, values and metadata."""
    values = ["X", *names[:-1], "Y"]
    nodes = [
        helper.make_node(op, [values[i]], [values[i + 1]], f"node {names[i]}")
        for i, op in enumerate(ops)
    ]
    model = make_model(nodes, {"X": ["N", 1, 2, 2]}, {"Y": ["N", 1, 2, 2]})
    entry = model.metadata_props.add()
    entry.key, entry.value = names[0], ops[1]
    path = folder / f"{ops[1]}.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON of two models full of hostile names, of which several nodes differ."""
    folder = tmp_path_factory.mktemp("hostile")
    names = [text for text in HOSTILE if "\ud800" not in text][: len(OPS)]
    ops = OPS[: len(names)]
    paths = [chain(names, ops, folder), chain(names, [ops[0], "Sqrt", *ops[2:]], folder)]
    np.savez(folder / "data.npz", X=np.random.default_rng(0).random((3, 1, 2, 2), np.float32))
    result = folder / "result.json"
    options = ["--data", str(folder / "data.npz"), "--json", str(result), "--device", "cpu"]
    assert inspect.main([str(paths[0]), "--diff", str(paths[1]), *options]) == 0
    found: dict[str, Any] = json.loads(result.read_text())
    found["a"], found["b"] = HOSTILE[0], HOSTILE[9]
    found["data"]["dataset"] = HOSTILE[1]
    found["only_a"] = [{"name": t, "op": t, "fused_into": t} for t in HOSTILE]
    found["renamed"] = [{"a": t, "b": t, "matched_by": "shapes"} for t in HOSTILE]
    found["values"]["skipped"] = [{"a": t, "b": t, "why": t} for t in HOSTILE]
    source = {"value": HOSTILE[2], "node": HOSTILE[5], "is_constant": False}
    found["changed"][0]["feeds"] = [{"input": HOSTILE[6], "a": source, "b": None}]
    found["changed"][0]["attributes"] = [
        {"name": t, "a": t, "b": [1, 2], "note": t} for t in HOSTILE
    ]
    found["assumes"] = dict.fromkeys(HOSTILE, 1)
    return found


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
def test_hostile_names(browser, hostile, tmp_path, width, dark):  # type: ignore[no-untyped-def]
    path = tmp_path / "page.html"
    path.write_text(difference_page(hostile), encoding="utf-8")
    with browser.opened(path, width=width, dark=dark) as opened:
        opened.check()
        assert opened.page.title() != "run"
        assert opened.page.locator("script").count() == 6  # data, d3, plot, base and two of its own


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page(browser, tmp_path, width):  # type: ignore[no-untyped-def]
    """A chain with one operator replaced: what the page says is what the JSON says."""
    names = [f"value {i}" for i in range(6)]
    a, b = (chain(names, [OPS[0], op, *OPS[2:6]], tmp_path) for op in ("Abs", "Sqrt"))
    np.savez(tmp_path / "data.npz", X=np.random.default_rng(0).random((3, 1, 2, 2), np.float32))
    page, result = tmp_path / "page.html", tmp_path / "result.json"
    options = ["--data", str(tmp_path / "data.npz"), "--html", str(page), "--json", str(result)]
    assert inspect.main([str(a), "--diff", str(b), *options]) == 0
    found = json.loads(result.read_text())
    with browser.opened(page, width=width) as opened:
        opened.check()
        rows = opened.page.get_by_role("region", name="Values", exact=True).locator("tbody tr")
        assert rows.count() == len(found["values"]["values"]) == 6
        assert "identical" in rows.nth(0).inner_text()
        ratio = found["values"]["values"][1]["snr_db"]
        assert f"{ratio:.1f} dB" in rows.nth(1).inner_text()
        assert opened.page.locator("figure svg circle").count() == 6
        region = opened.page.get_by_role("region", name="Values", exact=True)
        region.get_by_role("button", name="SNR").press("Enter")
        assert "identical" in rows.nth(0).inner_text()
        region.get_by_role("button", name="SNR").press("Enter")
        least = min(v["snr_db"] for v in found["values"]["values"] if v["snr_db"] is not None)
        assert f"{least:.1f} dB" in rows.nth(0).inner_text()
        figures = opened.page.locator("dl.figures").inner_text()
        assert "nodes matched" in figures
        opened.page.locator("figure svg").hover()  # the tip has names of others, as text
        opened.check()


def test_a_page_without_data_and_without_differences(browser, tmp_path):  # type: ignore[no-untyped-def]
    model = chain([f"value {i}" for i in range(6)], OPS[:6], tmp_path)
    page = tmp_path / "page.html"
    assert inspect.main([str(model), "--diff", str(model), "--html", str(page)]) == 0
    with browser.opened(page) as opened:
        opened.check()
        assert opened.page.locator("h1").inner_text() == "No difference"
        titles = opened.page.locator("h2").all_inner_texts()
        assert titles == ["Cost", "Operators"]


def test_a_page_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = chain([f"value {i}" for i in range(6)], OPS[:6], tmp_path)
    status = inspect.main(
        [str(model), "--diff", str(model), "--html", str(tmp_path / "no" / "page.html")]
    )
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "there is no folder" in err
