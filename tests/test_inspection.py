"""What adder-inspect counts, reports and times."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from rich.console import Console

import adder_onnx
from adder_onnx.errors import InputError
from adder_onnx.inspection.cost import Operations
from adder_onnx.inspection.energy import energy
from adder_onnx.inspection.inputs import random_feed
from adder_onnx.inspection.json_report import to_json
from adder_onnx.inspection.profile import profile
from adder_onnx.inspection.report import Report, inspect_model
from adder_onnx.inspection.tables import print_report, si
from adder_onnx.inspection.trace import trace
from tests.models import W1, adder_conv, make_model, network, node

ROOT = Path(__file__).resolve().parents[1]


def costs(*nodes: onnx.NodeProto, x: list[int], constants: dict[str, Any]) -> list[Operations]:
    """The operations of each node of a model with the input X of shape ``x``."""
    outputs: dict[str, list[Any]] = {nodes[-1].output[0]: [None] * 4}
    model = make_model(nodes, {"X": x}, outputs, constants)  # type: ignore[arg-type]
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    found = [n.cost.operations for n in inspect_model(model.SerializeToString()).nodes]
    assert None not in found
    return found  # type: ignore[return-value]


def test_an_adder_layer_is_two_additions_a_tap() -> None:
    w = np.zeros((8, 6, 3, 3), np.float32)
    (found,) = costs(adder_conv("X", "W", "Y"), x=[2, 6, 7, 5], constants={"W": w})
    taps = 2 * 8 * 5 * 3 * 6 * 9
    assert found == Operations(taps=taps, adds=2 * taps)
    assert found.as_convolution() == Operations(macs=taps, adds=taps, multiplications=taps)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "constants", "expected"),
    [
        (
            "Conv",
            ["X", "W", "B"],
            {"group": 2},
            {"W": np.zeros((8, 3, 3, 3), np.float32), "B": np.zeros(8, np.float32)},
            Operations(macs=6480, adds=6480 + 240, multiplications=6480),
        ),
        (
            "ConvTranspose",
            ["X", "W"],
            {"strides": [2, 2]},
            {"W": np.zeros((6, 4, 2, 2), np.float32)},
            Operations(macs=2 * 6 * 35 * 16, adds=2 * 6 * 35 * 16, multiplications=2 * 6 * 35 * 16),
        ),
        ("Relu", ["X"], {}, {}, Operations(other=420)),
        ("Neg", ["X"], {}, {}, Operations(adds=420)),
        ("Mul", ["X", "X"], {}, {}, Operations(multiplications=420)),
        ("Sum", ["X", "X", "X"], {}, {}, Operations(adds=840)),
        ("Transpose", ["X"], {}, {}, Operations()),
        ("MaxPool", ["X"], {"kernel_shape": [2, 3]}, {}, Operations(other=12 * 18 * 5)),
        (
            "AveragePool",
            ["X"],
            {"kernel_shape": [2, 3]},
            {},
            Operations(adds=12 * 18 * 5, multiplications=12 * 18),
        ),
        ("GlobalAveragePool", ["X"], {}, {}, Operations(adds=12 * 34, multiplications=12)),
        ("ReduceMax", ["X"], {}, {}, Operations(other=419)),
        ("Softmax", ["X"], {}, {}, Operations(adds=420 + 420 - 84, other=420 - 84 + 840)),
        (
            "BatchNormalization",
            ["X", "s", "s", "s", "s"],
            {},
            {"s": np.ones(6, np.float32)},
            Operations(adds=420, multiplications=420),
        ),
    ],
)
def test_counts_of_standard_nodes(
    op: str,
    inputs: list[str],
    attributes: dict[str, Any],
    constants: dict[str, Any],
    expected: Operations,
) -> None:
    """Counted by hand for X of 2 x 6 x 7 x 5."""
    (found,) = costs(node(op, inputs, "Y", **attributes), x=[2, 6, 7, 5], constants=constants)
    assert found == expected


def test_an_integer_adder_layer() -> None:
    from tests.test_ops_qlinear import make_case

    for residual, epilogue in ((False, (2, 1)), (True, (4, 2))):
        model, _ = make_case(0, {}, residual=residual, clip_min=0.0, bits=8)
        (found,) = inspect_model(model.SerializeToString()).nodes
        outputs = 2 * 6 * 5 * 7
        taps = outputs * 6 * 6
        assert found.cost.operations == Operations(
            taps=taps,
            adds=2 * taps + epilogue[0] * outputs,
            multiplications=epilogue[1] * outputs,
            other=5 * outputs,
        )


def test_levels_of_integers() -> None:
    from tests.test_ops_qlinear import make_case

    for levels in ((), (0, 3, 7)):
        model, feed = make_case(0, {}, residual=False, clip_min=0.0, bits=8, levels=levels)
        for name, value in feed.items():
            if name != "X":
                model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        del model.graph.input[1:]
        (found,) = inspect_model(model.SerializeToString()).nodes
        assert found.integers is not None
        assert found.integers.levels == levels


def test_matrix_products() -> None:
    model = make_model(
        [
            node("Flatten", ["X"], "F"),
            node("Gemm", ["F", "W", "b"], "G", transB=1),
            node("MatMul", ["G", "V"], "Y"),
        ],
        {"X": [3, 4, 5]},
        {"Y": [3, 7]},
        {
            "W": np.zeros((6, 20), np.float32),
            "b": np.zeros(6, np.float32),
            "V": np.zeros((6, 7), np.float32),
        },
    )
    _, gemm, matmul = inspect_model(model.SerializeToString()).nodes
    assert gemm.cost.operations == Operations(macs=360, adds=360 + 18, multiplications=360)
    assert matmul.cost.operations == Operations(macs=126, adds=126, multiplications=126)
    assert (gemm.cost.parameters, gemm.cost.weight_bytes) == (126, 504)
    assert gemm.cost.activation_bytes == 4 * (60 + 18)
    assert gemm.cost.intensity == pytest.approx((360 + 378) / (504 + 312))


def test_what_is_not_known_is_listed_and_not_zero() -> None:
    model = make_model(
        [
            node("Relu", ["X"], "A"),
            helper.make_node("Gelu", ["A"], ["Y"], "g", domain="com.microsoft"),
        ],
        {"X": [1, 8]},
        {"Y": [1, 8]},
        domains=["com.microsoft"],
    )
    report = inspect_model(model.SerializeToString())
    assert [n.name for n in report.not_counted] == ["g"]
    assert report.totals == Operations(other=8)
    result = to_json("m", report)
    assert result["nodes"][1]["taps"] is None
    assert result["nodes"][1]["why_not_counted"] == "the cost of com.microsoft.Gelu is not known"
    assert result["totals"]["not_counted"] == ["g"]
    assert "not counted: 1 nodes, since the cost of com.microsoft.Gelu" in text_of(report)


def test_unknown_dimensions() -> None:
    report = inspect_model(network().SerializeToString(), batch_size=4)
    assert report.assumes == {"N": 4}
    assert report.inputs[0].shape == ("N", 3, "H", "W")
    assert report.inputs[0].assumed_shape == (4, 3, "H", "W")
    assert len(report.not_counted) == len(report.nodes) - 1  # all but Flatten, which is free
    assert "unknown: H, W; give them with --dim" in text_of(report)
    assert report.steps[1].bytes is None

    report = inspect_model(network().SerializeToString(), batch_size=4, dims={"H": 8, "W": 6})
    assert report.assumes == {"H": 8, "W": 6, "N": 4}
    assert not report.not_counted
    assert report.totals.taps == 4 * 48 * 9 * (20 * 3 + 20 * 20)
    assert "float32 N x 20 x " in text_of(report)
    assert "Totals for H = 8, W = 6, N = 4" in text_of(report)
    with pytest.raises(InputError, match="no symbolic dimension 'Q'; theirs are N, H, W"):
        inspect_model(network().SerializeToString(), dims={"Q": 1})


def test_dimensions_that_do_not_fit() -> None:
    model = make_model(
        [node("Add", ["X", "b"], "Y")],
        {"X": ["N", "C"]},
        {"Y": ["N", 5]},
        {"b": np.zeros(5, np.float32)},
    )
    with pytest.raises(InputError, match="the model does not fit C = 3, N = 1"):
        inspect_model(model.SerializeToString(), dims={"C": 3})


def test_a_batch_without_a_name() -> None:
    model = make_model([node("Relu", ["X"], "Y")], {"X": [None, 5]}, {"Y": [None, 5]})
    report = inspect_model(model.SerializeToString(), batch_size=3)
    assert report.assumes == {"X[0]": 3}
    assert report.totals.other == 15


def test_the_plan() -> None:
    report = inspect_model(network().SerializeToString(), dims={"H": 8, "W": 6})
    assert [s.kind for s in report.steps] == [
        "onnxruntime",
        "conversion",
        "chain",
        "conversion",
        "onnxruntime",
    ]
    places = {n.name: (n.step, n.fused_into) for n in report.nodes}
    assert places == {
        "n_S": (0, None),
        "n_A": (2, None),
        "n_B": (2, "n_A"),
        "n_C": (2, None),
        "n_D": (2, "n_C"),
        "n_E": (4, None),
        "n_Y": (4, None),
    }
    _, entry, _, leave, _ = report.steps
    assert (entry.layout, leave.layout) == ("NCHW -> NHWC", "NHWC -> NCHW")
    assert entry.bytes == 48 * 4 * (3 + 16)
    assert leave.bytes == 48 * 4 * (20 + 32)
    for batch_size, threads in ((1, 2), (7, 1), (7, 2), (7, 3)):
        report = inspect_model(
            network().SerializeToString(),
            batch_size=batch_size,
            dims={"H": 8, "W": 6},
            threads=threads,
        )
        session = adder_onnx.InferenceSession(report.model.SerializeToString(), threads=threads)
        session.run(None, random_feed(session.get_inputs()))
        assert report.steps[2].bytes == session.memory()[0].peak_bytes

    gpu = inspect_model(network().SerializeToString(), dims={"H": 8, "W": 6}, device="cuda")
    assert gpu.steps[1].bytes == 48 * 4 * (3 + 4)
    assert gpu.steps[2].device == "cuda"
    unfused = inspect_model(network().SerializeToString(), dims={"H": 8, "W": 6}, fuse=False)
    assert all(n.fused_into is None for n in unfused.nodes)


def test_nodes_without_or_with_the_same_names() -> None:
    model = make_model(
        [node("Relu", ["X"], "A"), node("Relu", ["A"], "B"), node("Relu", ["B"], "Y")],
        {"X": [1, 3]},
        {"Y": [1, 3]},
    )
    for proto, name in zip(model.graph.node, ("", "same", "same"), strict=True):
        proto.name = name
    names = [n.name for n in inspect_model(model.SerializeToString()).nodes]
    assert names == ["Relu_1", "same", "same_1"]


def test_energy_is_that_of_the_table() -> None:
    operations = Operations(macs=10, adds=1_000_000, multiplications=2_000_000, other=5)
    assert energy(operations, "float32") == pytest.approx(0.9 + 2 * 3.7)
    assert energy(operations, "float16") == pytest.approx(0.4 + 2 * 1.1)
    assert energy(operations, "int8") == pytest.approx(0.03 + 2 * 0.2)


def test_the_real_resnet20(resnet20: Path) -> None:
    report = inspect_model(resnet20)
    assert sum(n.is_adder for n in report.nodes) == 20
    assert report.totals.taps == 40_370_176
    assert report.totals.macs == 3 * 9 * 16 * 32 * 32 + 64 * 10  # stem and classifier
    by_name = {n.name: n for n in report.nodes}
    stem, classifier = by_name["conv1"].cost.operations, by_name["fc"].cost.operations
    assert stem is not None
    assert stem.multiplications == 3 * 9 * 16 * 32 * 32
    assert classifier is not None
    assert classifier.multiplications == 640
    assert not report.not_counted


def text_of(report: Report, width: int = 200, **options: Any) -> str:
    console = Console(width=width, color_system=None, record=True, file=io.StringIO())
    print_report(console, "m.onnx", report, **options)
    return console.export_text()


@pytest.mark.parametrize("width", [40, 80, 100, 160])
def test_tables_fit_the_terminal(width: int) -> None:
    report = inspect_model(network().SerializeToString(), dims={"H": 8, "W": 6})
    session = adder_onnx.InferenceSession(report.model.SerializeToString())
    found = profile(session, report, random_feed(session.get_inputs()), 2)
    for times in (None, found):
        text = text_of(report, width, profile=times)
        assert max(map(len, text.splitlines())) <= width
        # Numbers are never cut: the taps of n_C.
        assert "173 k" in text or width < 80


def test_sorting_and_choosing_nodes() -> None:
    report = inspect_model(network().SerializeToString(), dims={"H": 8, "W": 6})
    text = text_of(report, sort="taps", ops=["AdderConv", "Relu"])
    names = re.findall(r"^(n_\w)", text, re.MULTILINE)
    assert names == ["n_C", "n_A", "n_B"]
    assert re.findall(r"^(n_\w)", text_of(report), re.MULTILINE) == [
        *("n_S", "n_A", "n_B", "n_C", "n_D", "n_E", "n_Y")
    ]


def test_numbers_with_prefixes() -> None:
    assert [si(v) for v in (7, 999, 1000, 40_370_176, 3_969_122_304)] == [
        *("7", "999", "1 k", "40.4 M", "3.97 G")
    ]
    assert si(2e12, "taps/s") == "2 Ttaps/s"


def test_a_profile() -> None:
    report = inspect_model(network().SerializeToString(), dims={"H": 16, "W": 16}, batch_size=8)
    session = adder_onnx.InferenceSession(report.model.SerializeToString(), threads=1)
    done: list[int] = []
    found = profile(session, report, random_feed(session.get_inputs()), 9, done.append)
    assert sum(done) == found.runs == 9
    assert len(found.steps) == len(report.steps)
    assert set(found.nodes) == {"n_A", "n_C"}
    # Each run's time is that of its steps and what is left; medians differ a little.
    total = sum(s.times.median for s in found.steps) + found.overhead.times.median
    assert total == pytest.approx(found.run.median, rel=0.2)
    assert found.overhead.times.p10 > 0
    for times in (found.run, found.plain_run, *(s.times for s in found.steps)):
        assert 0 < times.p10 <= times.median <= times.p90
    nodes = sum(n.times.median for n in found.nodes.values())
    assert nodes == pytest.approx(found.steps[2].times.median, rel=0.2)
    (operations,) = [n.cost.operations for n in report.nodes if n.name == "n_C"]
    assert operations is not None
    node_c = found.nodes["n_C"]
    assert node_c.taps_per_second == pytest.approx(operations.taps / node_c.times.median)
    assert node_c.taps_per_second is not None
    share = node_c.taps_per_second / found.bound["float32"]
    assert node_c.share_of_bound == pytest.approx(share)
    result = to_json("m", report, found)
    json.dumps(result)
    assert result["profile"]["runs"] == 9
    assert "overhead" in text_of(report, profile=found)


def test_a_trace() -> None:
    report = inspect_model(network().SerializeToString(), dims={"H": 16, "W": 16})
    session = adder_onnx.InferenceSession(report.model.SerializeToString())
    found = profile(session, report, random_feed(session.get_inputs()), 1)
    events = trace(found, session.plan.steps)["traceEvents"]
    spans = [e for e in events if e["ph"] == "X"]
    assert [e["name"] for e in spans if e["tid"] == 1] == ["onnxruntime", "chain", "onnxruntime"]
    assert [e["name"] for e in spans if e["tid"] == 2] == ["to NHWC", "n_A", "n_C", "to NCHW"]
    (run,) = [e for e in spans if e["tid"] == 0]
    run_end = run["ts"] + run["dur"]
    end = 0.0
    for event in spans:
        assert event["ts"] >= run["ts"]
        assert event["ts"] + event["dur"] <= run_end + 1e-6
        if event["tid"] == 1:  # parts follow each other
            assert event["ts"] >= end
            end = event["ts"] + event["dur"]
    assert {e["args"]["name"] for e in events if e["ph"] == "M"} == {"run", "parts", "kernels"}


def test_a_trace_of_many_runs() -> None:
    report = inspect_model(network().SerializeToString(), dims={"H": 16, "W": 16})
    session = adder_onnx.InferenceSession(report.model.SerializeToString())
    found = profile(session, report, random_feed(session.get_inputs()), 4)
    spans = [e for e in trace(found, session.plan.steps)["traceEvents"] if e["ph"] == "X"]
    runs = [e for e in spans if e["tid"] == 0]
    assert [e["name"] for e in runs] == ["run 1", "run 2", "run 3", "run 4"]
    for run, (_, times) in zip(runs, found.timed, strict=True):
        assert run["dur"] == pytest.approx(1e6 * times.seconds)
    end = 0.0
    for run in runs:
        assert run["ts"] >= end  # the run before is over
        end = run["ts"] + run["dur"]
        inside = [e for e in spans if run["ts"] <= e["ts"] < end and e is not run]
        assert [e["name"] for e in inside if e["tid"] == 2] == ["to NHWC", "n_A", "n_C", "to NCHW"]
        assert all(e["ts"] + e["dur"] <= end + 1e-6 for e in inside)


def test_random_inputs() -> None:
    inputs = [
        adder_onnx.runtime.NodeArg("a", "tensor(float16)", [2, 3]),
        adder_onnx.runtime.NodeArg("b", "tensor(int64)", [4]),
    ]
    feed = random_feed(inputs)
    assert (feed["a"].shape, feed["a"].dtype) == ((2, 3), np.float16)
    assert feed["a"].std() > 0
    np.testing.assert_array_equal(feed["b"], np.zeros(4, np.int64))
    with pytest.raises(InputError, match="--dim H=224"):
        random_feed([adder_onnx.runtime.NodeArg("a", "tensor(float)", [1, "H"])])
    with pytest.raises(InputError, match=r"tensor\(string\)"):
        random_feed([adder_onnx.runtime.NodeArg("a", "tensor(string)", [1])])


def test_the_schema_is_documented() -> None:
    """Every key of the JSON is described in docs/inspect.md."""
    report = inspect_model(network().SerializeToString(), dims={"H": 8, "W": 6})
    session = adder_onnx.InferenceSession(report.model.SerializeToString())
    found = profile(session, report, random_feed(session.get_inputs()), 1)
    text = (ROOT / "docs" / "inspect.md").read_text()

    def keys(value: Any, inside: str = "") -> set[str]:
        if isinstance(value, list):
            return set().union(*(keys(item, inside) for item in value))
        if not isinstance(value, dict):
            return set()
        # These are keyed by names of the model, or of types.
        open_ended = inside in ("metadata", "assumes", "attributes", "bound_taps_per_second")
        own = set() if open_ended else set(value)
        return own.union(*(keys(item, key) for key, item in value.items()))

    for key in keys(to_json("m", report, found)):
        assert f"`{key}`" in text, key


def test_another_element_type_for_control_flow_and_others() -> None:
    """Any model: control flow, integers, text and no adder nodes at all."""
    branch = helper.make_graph(
        [helper.make_node("Identity", ["X"], ["B"])],
        "branch",
        [],
        [helper.make_tensor_value_info("B", TensorProto.FLOAT, [1, 3])],
    )
    model = make_model(
        [
            node("ReduceSum", ["X"], "S", keepdims=0),
            node("Cast", ["S"], "C", to=TensorProto.BOOL),
            node("If", ["C"], "Y", then_branch=branch, else_branch=branch),
        ],
        {"X": [1, 3]},
        {"Y": [1, 3]},
    )
    report = inspect_model(model.SerializeToString())
    assert [n.op for n in report.not_counted] == ["If"]
    assert report.totals.adds == 2
    assert "If" in text_of(report)


def test_weights_that_are_shared_count_once_for_a_node() -> None:
    model = make_model(
        [adder_conv("X", "W1", "A"), adder_conv("X", "W1", "Y")],
        {"X": [1, 3, 5, 5]},
        {"A": [1, 20, 3, 3], "Y": [1, 20, 3, 3]},
        {"W1": W1},
    )
    report = inspect_model(model.SerializeToString())
    assert [n.cost.parameters for n in report.nodes] == [540, 540]
