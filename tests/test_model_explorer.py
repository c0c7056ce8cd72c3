"""Node data for Model Explorer: its values, its ids, and how the package itself reads them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import pytest
from onnx import TensorProto, helper

from adder_onnx.cli import inspect
from adder_onnx.inspection.inputs import random_feed
from adder_onnx.inspection.model_explorer import COUNTS, TIMES, node_data
from adder_onnx.inspection.profile import Profile, Times, profile
from adder_onnx.inspection.report import Report, inspect_model
from adder_onnx.ops import DOMAIN, VERSION
from adder_onnx.runtime import InferenceSession
from tests.inlined import WRITTEN_OUT
from tests.models import adder_conv, make_model, node

HOSTILE = ("</script><b>", "__proto__", "[value] X", "\u202ename\x1b[2J", "a/b//c", "n" * 10_000)
PADDED: dict[str, Any] = {**WRITTEN_OUT, "pads": [1, 1, 1, 1]}
TAPS = 3 * 3 * 20 * 20 * 6 * 6
"""Of an adder node in these models."""


def layers(names: Sequence[str]) -> onnx.ModelProto:
    """A chain of layers of 20 filters with these names; an empty one is none."""
    nodes = [adder_conv(f"V{i}", "W", f"V{i + 1}", **PADDED) for i in range(len(names))]
    for each, name in zip(nodes, names, strict=True):
        each.name = name
    w = {"W": np.random.default_rng(0).standard_normal((20, 20, 3, 3)).astype(np.float32)}
    sizes = [1, 20, 6, 6]
    return make_model(nodes, {"V0": sizes}, {f"V{len(names)}": sizes}, w)


def function(
    name: str, nodes: Sequence[onnx.NodeProto], domain: str, *uses: str
) -> onnx.FunctionProto:
    opsets = [helper.make_opsetid(d, v) for d, v in (("", 18), (DOMAIN, VERSION))]
    opsets += [helper.make_opsetid(d, 1) for d in uses]
    return helper.make_function(domain, name, ["X", "W"], ["Y"], list(nodes), opsets)


def calls() -> onnx.ModelProto:
    """Two calls of a function with two layers, and one of a function that calls this one twice."""
    inner = function(
        "Two",
        [
            helper.make_node("AdderConv", ["X", "W"], ["A"], domain=DOMAIN, **PADDED),
            helper.make_node("Relu", ["A"], ["B"]),
            helper.make_node("AdderConv", ["B", "W"], ["Y"], domain=DOMAIN, **PADDED),
        ],
        "local",
    )
    outer = function(
        "Four",
        [
            helper.make_node("Two", ["X", "W"], ["A"], "twice", domain="local"),
            helper.make_node("Two", ["A", "W"], ["Y"], "twice", domain="local"),
        ],
        "other",
        "local",
    )
    nodes = [
        helper.make_node("Two", ["X", "W"], ["A"], domain="local"),
        helper.make_node("Relu", ["A"], ["B"], "relu"),
        helper.make_node("Two", ["B", "W"], ["C"], "second", domain="local"),
        helper.make_node("Four", ["C", "W"], ["Y"], "third", domain="other"),
    ]
    w = {"W": np.ones((20, 20, 3, 3), np.float32)}
    sizes = [1, 20, 6, 6]
    return make_model(nodes, {"X": sizes}, {"Y": sizes}, w, functions=[inner, outer])


def branches() -> onnx.ModelProto:
    """Nodes without names before, in and behind an If."""
    value = helper.make_tensor_value_info("Z", TensorProto.FLOAT, [1, 20, 6, 6])
    relu, neg = (helper.make_node(op, ["A"], ["Z"]) for op in ("Relu", "Neg"))
    graphs = {
        f"{name}_branch": helper.make_graph([one], name, [], [value])
        for name, one in (("then", relu), ("else", neg))
    }
    nodes = [
        helper.make_node("AdderConv", ["X", "W"], ["A"], domain=DOMAIN, **PADDED),
        helper.make_node("ReduceSum", ["A"], ["S"], keepdims=0),
        helper.make_node("Cast", ["S"], ["B"], to=TensorProto.BOOL),
        helper.make_node("If", ["B"], ["I"], **graphs),
        helper.make_node("AdderConv", ["I", "W"], ["Y"], domain=DOMAIN, **PADDED),
    ]
    w = {"W": np.ones((20, 20, 3, 3), np.float32)}
    sizes = [1, 20, 6, 6]
    return make_model(nodes, {"X": sizes}, {"Y": sizes}, w)


def report_of(model: onnx.ModelProto) -> Report:
    return inspect_model(model.SerializeToString())


def values(data: dict[str, Any], graph: str = "test") -> dict[str, float]:
    return {name: result["value"] for name, result in data[graph]["results"].items()}


def profiled(report: Report, runs: int = 3) -> Profile:
    session = InferenceSession(report.model, device="cpu", threads=1)
    return profile(session, report, random_feed(session.get_inputs()), runs)


def test_counts_are_those_of_the_report() -> None:
    model = make_model(
        [
            node("Conv", ["X", "K"], "S"),
            adder_conv("S", "W", "A", **PADDED),
            node("Relu", ["A"], "B"),
            node("Flatten", ["B"], "Y"),
        ],
        {"X": [2, 3, 6, 6]},
        {"Y": [2, 720]},
        {"K": np.ones((20, 3, 1, 1), np.float32), "W": np.ones((20, 20, 3, 3), np.float32)},
    )
    report = report_of(model)
    found = node_data(report)
    assert tuple(found) == COUNTS
    assert values(found["taps"]) == {"n_A": 2 * TAPS}
    elements = 2 * 20 * 6 * 6
    assert values(found["operations"]) == {
        "n_S": 2 * 3 * elements,
        "n_A": 2 * 2 * TAPS,
        "n_B": elements,
    }
    assert values(found["bytes"]) == {
        "n_S": 4 * (2 * 3 * 6 * 6 + elements + 60),
        "n_A": 4 * (2 * elements + 3600),
        "n_B": 8 * elements,
        "n_Y": 8 * elements,
    }
    steps = {n.name: n.step for n in report.nodes}
    assert values(found["step"]) == steps
    colors = {name: r["bgColor"] for name, r in found["step"]["test"]["results"].items()}
    assert colors["n_S"] == colors["n_Y"] != colors["n_A"] == colors["n_B"]
    assert [stop["stop"] for stop in found["taps"]["test"]["gradient"]] == [0, 0.5, 1]


def test_times_are_those_of_the_profile() -> None:
    report = report_of(layers(["a", "b"]))
    measured = profiled(report)
    found = node_data(report, measured)
    assert tuple(found) == (*TIMES, *COUNTS)
    nodes = measured.nodes
    for metric, of in (
        ("time", lambda name: 1e6 * nodes[name].times.median),
        ("share", lambda name: 100 * nodes[name].share),
        ("bound", lambda name: 100 * (nodes[name].share_of_bound or 0)),
    ):
        assert values(found[metric]) == pytest.approx({n: of(n) for n in "ab"}, rel=1e-3)


def test_a_sub_model_of_one_node_has_its_time() -> None:
    model = make_model(
        [
            node("Sin", ["X"], "A"),
            adder_conv("A", "W", "B"),
            node("Cos", ["B"], "C"),
            node("Sin", ["C"], "Y"),
        ],
        {"X": [1, 2, 5, 5]},
        {"Y": [1, 2, 5, 5]},
        {"W": np.ones((2, 2, 1, 1), np.float32)},
    )
    report = report_of(model)
    measured = profiled(report)
    times = values(node_data(report, measured)["time"])
    assert times.keys() == {"n_A", "n_B"}
    assert times["n_A"] == pytest.approx(1e6 * measured.steps[0].times.median, rel=1e-3)


def test_calls_of_functions_have_what_was_inlined() -> None:
    report = report_of(calls())
    found = node_data(report, profiled(report))
    taps = found["taps"]
    assert values(taps) == {"node": 2 * TAPS, "second": 2 * TAPS, "third": 4 * TAPS}
    assert values(taps, "[function]other::Four") == {"twice": 2 * TAPS, "twice_1": 2 * TAPS}
    assert values(taps, "[function]local::Two") == {"node": 4 * TAPS, "node_2": 4 * TAPS}
    assert values(found["operations"])["relu"] == 720
    times = found["time"]
    total = sum(values(times).values())
    assert sum(values(times, "[function]local::Two").values()) == pytest.approx(total, rel=2e-3)
    bounds = values(found["bound"], "[function]local::Two")
    assert all(bound > 0 for bound in bounds.values())
    assert values(found["step"])["third"] == next(
        i for i, step in enumerate(report.steps) if step.kind == "chain"
    )


def test_a_share_of_the_bound_is_weighted_by_time() -> None:
    report = report_of(calls())
    measured = profiled(report, runs=1)
    names = [n.name for n in report.nodes if n.is_adder]
    known = zip(names, ((1e-3, 0.2), (3e-3, 0.6), *[(1e-3, 1.0)] * (len(names) - 2)), strict=True)
    nodes = {
        name: replace(measured.nodes[name], times=Times(time, 0, 0), share_of_bound=bound)
        for name, (time, bound) in known
    }
    found = node_data(report, replace(measured, nodes=nodes))
    assert values(found["bound"])["node"] == pytest.approx(50)
    assert values(found["time"])["node"] == pytest.approx(4000)


def test_a_step_is_shown_where_there_is_one_only() -> None:
    body = function(
        "Mixed",
        [
            helper.make_node("Sin", ["X"], ["A"], "sin"),
            helper.make_node("AdderConv", ["A", "W"], ["Y"], "adder", domain=DOMAIN, **PADDED),
        ],
        "local",
    )
    call = helper.make_node("Mixed", ["X", "W"], ["Y"], "call", domain="local")
    w = {"W": np.ones((20, 20, 3, 3), np.float32)}
    sizes = [1, 20, 6, 6]
    model = make_model([call], {"X": sizes}, {"Y": sizes}, w, functions=[body])
    step = node_data(report_of(model))["step"]
    assert values(step) == {}
    assert values(step, "[function]local::Mixed") == {"sin": 0, "adder": 2}


def test_names_that_are_missing_or_not_unique() -> None:
    model = layers(["", "a", "a", "", "node"])
    for metric in ("taps", "step"):
        found = values(node_data(report_of(model))[metric])
        assert list(found) == ["node", "a", "a_1", "node_1", "node_2"]
    assert values(node_data(report_of(branches()))["taps"]) == {"node": TAPS, "node_4": TAPS}


def test_a_written_out_body_has_its_value_at_the_loop() -> None:
    model = layers(["a", "b"])
    inlined = onnx.inliner.inline_local_functions(model)
    loops = [n for n in inlined.graph.node if n.op_type == "Loop"]
    for loop, name in zip(loops, ("first", "second"), strict=True):
        loop.name = name
    assert values(node_data(report_of(inlined))["taps"]) == {"first": TAPS, "second": TAPS}


def test_marks_of_a_stranger_mean_nothing() -> None:
    model = layers(["a", "b"])
    for i, each in enumerate(model.graph.node):
        each.metadata_props.add(key=f"ai.addernet.origin.{7 * i}", value="99")
    report = report_of(model)
    assert values(node_data(report)["taps"]) == {"a": TAPS, "b": TAPS}
    assert not any(n.metadata_props for n in report.model.graph.node)


def test_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "m.onnx", tmp_path / "out.json"
    onnx.save(layers(HOSTILE), path)
    options = [str(path), "--device", "cpu", "--model-explorer", str(out)]
    assert inspect.main(options) == 0
    beside = {f"out.{key}.json" for key in ("operations", "bytes", "step")}
    assert {p.name for p in tmp_path.iterdir()} == {"m.onnx", "out.json"} | beside
    assert values(json.loads(out.read_text())) == dict.fromkeys(HOSTILE, TAPS)
    assert inspect.main([*options, "--profile", "--runs", "1"]) == 0
    beside |= {f"out.{key}.json" for key in ("share", "bound", "taps")}
    assert {p.name for p in tmp_path.iterdir()} == {"m.onnx", "out.json"} | beside
    assert json.loads(out.read_text())["test"]["name"] == "time in µs"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("nowhere/o.json", "no folder"),
        (".", "it is a folder"),
        (f"{'n' * 246}.json", "too long"),
        ("m.onnx", "would replace"),
        ("/", "it is a folder"),
    ],
)
def test_places_that_cannot_be_written(
    place: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(layers(["a"]), path)
    assert inspect.main([str(path), "--model-explorer", str(tmp_path / place)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert why in err
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(
    ("model", "taps"),
    [
        (layers(["", "a", "a", "", "node"]), 5),
        (layers(HOSTILE), len(HOSTILE)),
        (onnx.inliner.inline_local_functions(layers(["a", "b"])), 2),
        (calls(), 8),
        (branches(), 2),
    ],
    ids=["names", "hostile", "written out", "functions", "branches"],
)
def test_the_package_reads_it(model: onnx.ModelProto, taps: int, tmp_path: Path) -> None:
    reason = "Model Explorer is not installed; .ci/check-package does"
    adapter = pytest.importorskip("model_explorer_onnx.main", reason=reason)
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    options = ["--device", "cpu", "--threads", "1", "--profile", "--runs", "2"]
    assert inspect.main([str(path), *options, "--model-explorer", str(tmp_path / "o.json")]) == 0
    graphs = {g.id: g for g in adapter.ONNXAdapter().convert(str(path), {})["graphs"]}
    files = sorted(tmp_path.glob("o*.json"))
    assert len(files) == len((*TIMES, *COUNTS))
    for file in files:
        data = read_by_the_package(file)
        for graph, found in data.graphsData.items():
            ids = {n.id for n in graphs[graph].nodes}
            assert found.results.keys() <= ids, file
            assert all(math.isfinite(result.value) for result in found.results.values())
    found = read_by_the_package(tmp_path / "o.taps.json").graphsData["test"].results
    assert sum(result.value for result in found.values()) == taps * TAPS
    nodes = {n.id: n for n in graphs["test"].nodes}
    adder_nodes = {id_ for id_, n in nodes.items() if n.label == f"{DOMAIN}::AdderConv"}
    assert adder_nodes <= found.keys()
    for id_ in adder_nodes:
        assert found[id_].value == taps_of(nodes[id_])


def read_by_the_package(path: Path) -> Any:
    """A file as the package's own classes; an unknown field or another type is an error."""
    dacite = pytest.importorskip("dacite")
    builder = pytest.importorskip("model_explorer.node_data_builder")
    text = json.loads(path.read_text())
    data = dacite.from_dict(builder.ModelNodeData, {"graphsData": text}, dacite.Config(strict=True))
    written = json.loads(data.to_json_string())
    for graph, found in text.items():
        assert found.items() <= written[graph].items()
    return data


def taps_of(graph_node: Any) -> int:
    """Those of an adder node, from the shapes that the adapter shows."""
    shapes = [
        [int(size) for size in re.findall(r"\d+", attr.value.partition("[")[2])]
        for metadata in (*graph_node.outputsMetadata, *graph_node.inputsMetadata)
        for attr in metadata.attrs
        if attr.key == "tensor_shape"
    ]
    y, _, w = shapes
    return math.prod(y) * math.prod(w[1:])
