"""The page of adder-inspect, driven in a browser."""

import json
import time

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import adder_onnx
from adder_onnx.cli import inspect
from adder_onnx.export.exporter import export_model
from adder_onnx.inspection.inputs import random_feed
from adder_onnx.inspection.json_report import to_json
from adder_onnx.inspection.profile import profile
from adder_onnx.inspection.report import inspect_model
from adder_onnx.pages.network import network_page
from adder_onnx.quantization import quantize
from tests.browser import WIDTHS
from tests.conftest import ROOT
from tests.models import network
from tests.network_pages import check_network_page, panel, search
from tests.test_adder_networks import UNet
from tests.test_pages import HOSTILE


def _report(model, *, timed=True, **dims):
    report = inspect_model(model, dims=dims)
    found = None
    if timed:
        session = adder_onnx.InferenceSession(report.model)
        found = profile(session, report, random_feed(session.get_inputs()), 2)
    # As a program reads it.
    return json.loads(json.dumps(to_json("model.onnx", report, found)))


def test_resnet20(browser, resnet20, tmp_path):
    path = check_network_page(browser, _report(resnet20), tmp_path)
    assert path.stat().st_size < 1e6


def test_resnet20_of_8_bits(browser, resnet20, tmp_path):
    images = np.random.default_rng(0).standard_normal((8, 3, 32, 32)).astype(np.float32)
    model = quantize(onnx.load(resnet20), [{"input": images}], calibration="mse").model
    integers = next(node for node in model.graph.node if node.op_type == "QLinearAdderConv")
    integers.attribute.append(onnx.helper.make_attribute("levels", [0, 9, 200]))
    check_network_page(browser, _report(model.SerializeToString()), tmp_path)


def test_u_net(browser, tmp_path):
    """Several chains, and values that skip most of the graph."""
    torch.manual_seed(0)
    model = export_model(UNet().eval(), (3, 16, 16))
    check_network_page(browser, _report(model.SerializeToString()), tmp_path)


def test_without_times(browser, tmp_path):
    report = _report(network().SerializeToString(), timed=False, H=8, W=6)
    path = check_network_page(browser, report, tmp_path)
    with browser.opened(path) as opened:
        assert opened.page.get_by_text("How long nodes take is not known").is_visible()


@pytest.mark.parametrize("model", ["small", "digits"])
def test_the_drawing_has_all_boxes_and_edges(browser, tmp_path, model):
    """Counted from the report: what is fused stands in the box of its adder node."""
    digits = ROOT / "examples" / "digits" / "resnet8_digits.onnx"
    small = network().SerializeToString()
    dims = {"H": 8, "W": 6} if model == "small" else {}
    report = _report(small if model == "small" else digits, timed=False, **dims)
    conversions = [step for step in report["plan"] if step["kind"] == "conversion"]
    nodes = [node for node in report["nodes"] if node["fused_into"] is None]
    expected = len(nodes) + len(conversions) + len(report["inputs"]) + len(report["outputs"])
    path = tmp_path / "network.html"
    path.write_text(network_page(report), encoding="utf-8")
    with browser.opened(path, height=3000) as opened:  # all in sight
        opened.settle()
        opened.page.add_style_tag(content=".graph { height: 2900px !important }")
        opened.page.get_by_role("button", name="Top", exact=True).click()
        opened.settle()
        assert opened.page.locator("svg.box").count() == expected
        adders = report["totals"]["adder_nodes"]
        assert opened.page.locator("svg.box.adder").count() == adders
        assert opened.page.locator(".links path").count() == len(_edges(report))
        labels = opened.page.locator("svg.box").evaluate_all(
            "boxes => boxes.map((box) => box.getAttribute('aria-label'))"
        )
        for node in nodes:
            fused = [
                n["op"].split(".")[-1] for n in report["nodes"] if n["fused_into"] == node["name"]
            ]
            (label,) = [label for label in labels if label.startswith(f"{node['name']}, ")]
            assert not fused or label.endswith(f"+ {', '.join(fused)}")


def _edges(report):
    """Pairs of what feeds whom: values cross the border of a chain in a conversion only."""
    step_of = {node["name"]: node["step"] for node in report["nodes"]}
    host = {node["name"]: node["fused_into"] or node["name"] for node in report["nodes"]}
    chains = {step["step"] for step in report["plan"] if step["kind"] == "chain"}
    source = {value["name"]: (value["name"], False) for value in report["inputs"]}
    takers = [(value["name"], value["name"], False) for value in report["outputs"]]
    for node in report["nodes"]:
        inside = step_of[node["name"]] in chains
        source |= {value["name"]: (host[node["name"]], inside) for value in node["outputs"]}
        takers += [(name, host[node["name"]], inside) for name in node["inputs"]]
    pairs = set()
    for name, taker, inside in takers:
        if name not in source or source[name][0] == taker:
            continue
        giver, gives_inside = source[name]
        if inside != gives_inside:
            pairs.add((giver, f"conversion of {name}"))
            giver = f"conversion of {name}"
        pairs.add((giver, taker))
    return pairs


def test_search_tells_what_is_not_there(browser, tmp_path):
    report = _report(network().SerializeToString(), timed=False, H=8, W=6)
    path = tmp_path / "network.html"
    path.write_text(network_page(report), encoding="utf-8")
    with browser.opened(path) as opened:
        search(opened, "nowhere")
        assert opened.page.get_by_text("no such node").is_visible()
        search(opened, "adderconv")
        assert panel(opened)["title"] == next(n["name"] for n in report["nodes"] if n["is_adder"])


def test_hostile_names(browser, tmp_path):
    """Node names, value names, metadata, attributes' texts, the file's name: nothing runs."""
    names = [text for text in HOSTILE if text.isprintable() or "\u202e" in text]
    nodes, last = [], "x"
    for name in names:
        nodes.append(helper.make_node("Relu", [last], [f"{name} value"], name=name))
        last = f"{name} value"
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["<b>N</b>", 2])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {"ai.addernet.architecture": HOSTILE[0]})
    report = _report(model.SerializeToString(), timed=False)
    report["model"] = HOSTILE[0]
    path = tmp_path / "network.html"
    path.write_text(network_page(report), encoding="utf-8")
    for width in WIDTHS:
        with browser.opened(path, width=width) as opened:
            for name in names:
                search(opened, name)
                opened.check()
            assert opened.page.title().startswith(HOSTILE[0])
            opened.page.get_by_role("button", name="All", exact=True).click()
            opened.check()


def _long(nodes, skip):
    """A network of so many nodes; every so many of them add what came before."""
    made, values = [], ["x"]
    for i in range(nodes):
        adds = i > skip and i % skip == 0
        inputs = [values[-1], values[-skip]] if adds else [values[-1]]
        made.append(helper.make_node("Add" if adds else "Relu", inputs, [f"v{i}"], name=f"node{i}"))
        values.append(f"v{i}")
    graph = helper.make_graph(
        made,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info(values[-1], TensorProto.FLOAT, None)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_5000_nodes(browser, tmp_path):
    """Drawn at once where blocks repeat, and all of it can be reached."""
    report = _report(_long(5000, 6).SerializeToString(), timed=False)
    path = tmp_path / "network.html"
    path.write_text(network_page(report), encoding="utf-8")
    start = time.monotonic()
    with browser.opened(path) as opened:
        opened.settle()
        print(f"opened and drawn in {time.monotonic() - start:.1f} s")
        search(opened, "node4321")
        assert panel(opened)["title"] == "node4321"
        opened.check()
        assert opened.page.locator("svg.box").count() < 100  # only what is in sight
        opened.page.get_by_role("button", name="Show all 5000 rows").click()
        assert opened.page.locator("tbody tr").count() == 5000


def test_command(tmp_path, capsys):
    model, page, result = tmp_path / "m.onnx", tmp_path / "m.html", tmp_path / "m.json"
    onnx.save(network(), model)
    options = [str(model), "--dim", "H=8", "--dim", "W=6", "--device", "cpu", "--json", str(result)]
    assert inspect.main([*options, "--html", str(page), "--profile", "--runs", "2"]) == 0
    assert capsys.readouterr().err == ""
    data = page.read_text().split('<script type="application/json" id="data">')[1]
    assert json.loads(data.split("</script>")[0]) == json.loads(result.read_text())
    assert inspect.main([*options, "--html", str(tmp_path / "no" / "m.html")]) == 2
    assert "there is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("most", [1, 2, 4])
def test_threads_of_the_machine_bound(most):
    """Memory's rate is of the order of any machine's."""
    from adder_onnx.inspection.bounds import bandwidth_of

    assert 1e8 < bandwidth_of("cpu", most) < 1e13
