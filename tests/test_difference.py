"""How two models differ in their graphs: matching, attributes, weights, what feeds a node, cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import pytest
from onnx import TensorProto, helper, numpy_helper

from adder_onnx.errors import InputError, ModelError
from adder_onnx.inspection.difference import Comparison, compare_models
from adder_onnx.quantization import quantize
from tests.conftest import ROOT
from tests.inlined import TOOLS
from tests.models import W1, W2, K, adder_conv, image, make_model, network, node

DIGITS = ROOT / "examples" / "digits" / "resnet8_digits.onnx"
DIMS = {"H": 8, "W": 6}


def compared(a: onnx.ModelProto, b: onnx.ModelProto, dims: dict[str, int] = DIMS) -> Comparison:
    return compare_models(a.SerializeToString(), b.SerializeToString(), dims=dims)


def renamed(model: onnx.ModelProto, prefix: str = "other_") -> onnx.ModelProto:
    """Other names for all nodes and inner values; inputs and outputs of the graph keep theirs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = {value.name for value in (*copy.graph.input, *copy.graph.output)}
    del copy.graph.value_info[:]
    for i, one in enumerate(copy.graph.node):
        one.name = f"{prefix}{i}"
        for names in (one.input, one.output):
            names[:] = [n if not n or n in kept else prefix + n for n in names]
    for tensor in copy.graph.initializer:
        tensor.name = prefix + tensor.name
    onnx.checker.check_model(copy)
    return copy


def initializer(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def set_values(model: onnx.ModelProto, name: str, values: np.ndarray[Any, Any]) -> None:
    initializer(model, name).CopyFrom(numpy_helper.from_array(values, name))


def test_a_model_and_itself() -> None:
    found = compared(network(), network())
    assert found.is_equal
    assert not found.renamed
    assert len(found.nodes) == 7
    assert {node.how for node in found.nodes} == {"name"}
    assert found.totals_a == found.totals_b
    assert found.totals_a.operations.taps == 48 * 9 * (20 * 3 + 20 * 20)


def test_one_weight() -> None:
    a, b = network(), network()
    values = W2.copy()
    values[3, 4, 1, 1] += 0.25
    set_values(b, "W2", values)
    (node,) = compared(a, b).changed
    (weight,) = node.weights
    assert (node.a, weight.input, weight.a, weight.shape_a) == ("n_C", "W", "W2", W2.shape)
    assert weight.largest == pytest.approx(0.25, rel=1e-6)
    assert weight.relative == pytest.approx(0.25 / np.abs(W2).max(), rel=1e-6)
    assert (node.attributes, node.feeds) == ((), ())


def test_weights_of_another_type_shape_or_without_numbers() -> None:
    def model(values: np.ndarray[Any, Any]) -> onnx.ModelProto:
        return make_model([node("Mul", ["X", "c"], "Y")], {"X": [2]}, {"Y": [2]}, {"c": values})

    plain = model(np.float32([1, 2]))
    cast = make_model(
        [node("Cast", ["d"], "c", to=1), node("Mul", ["X", "c"], "Y")],
        {"X": [2]},
        {"Y": [2]},
        {"d": np.array([1, 2], np.float64)},
    )
    assert [n.name for n in compared(plain, cast, {}).only_b] == ["n_c"]
    (node_,) = compared(plain, model(np.float32([1])), {}).changed
    assert (node_.weights[0].largest, node_.weights[0].shape_b) == (None, (1,))
    (node_,) = compared(plain, model(np.float32([1, np.nan])), {}).changed
    assert node_.weights[0].largest is None
    nan = model(np.float32([1, np.nan]))
    assert compared(nan, nan, {}).is_equal


@pytest.mark.parametrize(
    ("attributes", "differs"),
    [
        ({}, {}),
        ({"group": 1, "strides": [1, 1], "dilations": [1, 1], "auto_pad": "NOTSET"}, {}),
        ({"kernel_shape": [3, 3], "pads": [0, 0, 0, 0]}, {}),
        ({"auto_pad": "VALID"}, {}),
        ({"strides": [2, 1]}, {"strides": ([1, 1], [2, 1])}),
        ({"pads": [0, 1, 0, 0]}, {"pads": ([0, 0, 0, 0], [0, 1, 0, 0])}),
        ({"dilations": [2, 2]}, {"dilations": ([1, 1], [2, 2])}),
    ],
)
@pytest.mark.parametrize("op", ["Conv", "AdderConv"])
def test_attributes_with_defaults(
    op: str, attributes: dict[str, Any], differs: dict[str, Any]
) -> None:
    def model(**attributes: Any) -> onnx.ModelProto:
        make: Callable[..., onnx.NodeProto] = (
            adder_conv
            if op == "AdderConv"
            else lambda x, w, y, **more: node("Conv", [x, w], y, **more)
        )
        return make_model(
            [make("X", "W", "Y", **attributes)],
            {"X": [1, 3, 12, 12]},
            {"Y": [1, 20, "h", "w"]},
            {"W": W1},
        )

    for one, other, swap in (
        (model(), model(**attributes), False),
        (model(**attributes), model(), True),
    ):
        found = compared(one, other, {})
        changed = {a.name: (a.a, a.b) for n in found.changed for a in n.attributes}
        assert changed == {n: (b, a) if swap else (a, b) for n, (a, b) in differs.items()}
        assert found.is_equal == (not differs)


def test_attributes_whose_default_depends_on_the_opset() -> None:
    """Softmax had axis 1 before opset 13, and has -1 since."""

    def model(opset: int) -> onnx.ModelProto:
        nodes = [node("Softmax", ["X"], "Y")]
        return make_model(nodes, {"X": [2, 3, 4]}, {"Y": [2, 3, 4]}, opset=opset, bodies=False)

    found = compared(model(12), model(18), {})
    (attribute,) = found.changed[0].attributes
    assert (attribute.name, attribute.a, attribute.b) == ("axis", 1, -1)
    assert [(d.what, d.name, d.a, d.b) for d in found.model] == [("opset", "ai.onnx", "12", "18")]


def test_a_node_removed() -> None:
    a, b = network(), network()
    relu = next(n for n in b.graph.node if n.op_type == "Relu")
    for one in b.graph.node:
        one.input[:] = [relu.input[0] if n == relu.output[0] else n for n in one.input]
    b.graph.node.remove(relu)
    found = compared(a, b)
    assert [n.name for n in found.only_a] == ["n_B"]
    assert not found.only_b
    feeds = {
        n.a: [(f.input, f.a.node, f.b.node) for f in n.feeds if f.a and f.b] for n in found.changed
    }
    assert feeds == {"n_C": [("X", "n_B", "n_A")], "n_D": [("B", "n_B", "n_A")]}
    assert found.only_a[0].fused_into is None  # B's plan has no integer node that took it in
    swapped = compared(b, a)
    assert [n.name for n in swapped.only_b] == ["n_B"]


def test_a_node_inserted_between_others_of_other_names() -> None:
    """What is behind it is matched by its use, from the outputs on."""
    a, b = network(), renamed(network())
    relu = next(n for n in b.graph.node if n.op_type == "Relu")
    extra = helper.make_node("Abs", [relu.input[0]], ["extra"], "extra")
    relu.input[0] = "extra"
    b.graph.node.insert(list(b.graph.node).index(relu), extra)
    found = compared(a, b)
    assert [n.name for n in found.only_b] == ["extra"]
    assert not found.only_a
    assert [(n.a, len(n.feeds)) for n in found.changed] == [("n_B", 1)]
    assert {n.a: n.b for n in found.renamed}["n_C"] == "other_3"


def test_an_operator_replaced_under_its_name() -> None:
    a, b = network(), network()
    next(n for n in b.graph.node if n.op_type == "Relu").op_type = "Sigmoid"
    (changed,) = compared(a, b).changed
    assert (changed.a, changed.op_a, changed.op_b) == ("n_B", "Relu", "Sigmoid")


def test_renamed_nodes_are_matched_by_what_they_compute() -> None:
    found = compared(network(), renamed(network()))
    assert found.is_equal
    assert len(found.renamed) == 7
    assert {node.how for node in found.nodes} <= {"computation", "output"}
    assert [node.b for node in found.nodes] == [f"other_{i}" for i in range(7)]


def test_renamed_nodes_with_other_weights_are_matched_by_shapes() -> None:
    b = renamed(network())
    set_values(b, "other_W1", W1 * np.float32(2))
    found = compared(network(), b)
    (changed,) = found.changed
    assert (changed.a, changed.b, changed.how) == ("n_A", "other_1", "shapes")
    assert changed.weights[0].relative == pytest.approx(1)


def two_branches(first: float, second: float, prefix: str = "") -> onnx.ModelProto:
    nodes = [
        node("Mul", ["X", "c1"], "p"),
        node("Mul", ["X", "c2"], "q"),
        node("Relu", ["p"], "r"),
        node("Abs", ["q"], "s"),
        node("Sub", ["r", "s"], "Y"),
    ]
    constants = {"c1": np.float32([first]), "c2": np.float32([second])}
    model = make_model(nodes, {"X": [4]}, {"Y": [4]}, constants)
    return renamed(model, prefix) if prefix else model


def test_branches_are_not_mixed_up() -> None:
    """By constants where these tell them apart; else by their use, or not at all."""
    found = compared(two_branches(1, 2), two_branches(1, 2, "z"), {})
    assert found.is_equal
    assert [n.b for n in found.nodes] == ["z0", "z1", "z2", "z3", "z4"]
    # All weights are others: which Mul is which cannot be told, and is not guessed.
    found = compared(two_branches(1, 2), two_branches(3, 4, "z"), {})
    assert {n.name for n in found.only_a} == {"n_p", "n_q"}
    assert {n.name for n in found.only_b} == {"z0", "z1"}
    # The weights have changed places, and so have the Muls.
    found = compared(two_branches(1, 2), two_branches(2, 1, "z"), {})
    pairs = {n.a: n.b for n in found.nodes}
    assert (pairs["n_p"], pairs["n_q"]) == ("z1", "z0")
    assert {n.a for n in found.changed} >= {"n_r", "n_s"}


def test_equal_nodes_that_another_tool_made_one_of() -> None:
    nodes = [
        node("Relu", ["X"], "p"),
        node("Relu", ["X"], "q"),
        node("Abs", ["p"], "r"),
        node("Neg", ["q"], "s"),
        node("Add", ["r", "s"], "Y"),
    ]
    a = make_model(nodes, {"X": [4]}, {"Y": [4]})
    nodes[3].input[0] = "p"
    b = renamed(make_model([nodes[0], *nodes[2:]], {"X": [4]}, {"Y": [4]}))
    found = compared(a, b, {})
    assert not found.changed
    assert [n.name for n in found.only_a] == ["n_q"]


def test_inputs_of_an_addition_may_change_places() -> None:
    def model(*inputs: str, op: str = "Add") -> onnx.ModelProto:
        nodes = [node("Relu", ["X"], "p"), node(op, inputs, "Y")]
        return make_model(nodes, {"X": [4]}, {"Y": [4]}, {"c": np.float32([1])})

    assert compared(model("p", "X"), model("X", "p"), {}).is_equal
    assert compared(model("p", "c"), model("c", "p"), {}).is_equal
    assert not compared(model("p", "X", op="Sub"), model("X", "p", op="Sub"), {}).is_equal


def test_names_that_were_made_up_are_no_names() -> None:
    """Nodes without names are called after their operators and numbered; one more shifts them."""

    def model(ops: Sequence[str]) -> onnx.ModelProto:
        names = ["X", *(f"{len(ops)}_{i}" for i in range(len(ops) - 1)), "Y"]
        nodes = [helper.make_node(op, [names[i]], [names[i + 1]]) for i, op in enumerate(ops)]
        return make_model(nodes, {"X": [4]}, {"Y": [4]})

    found = compared(
        model(["Abs", "Relu", "Neg", "Relu"]), model(["Relu", "Abs", "Relu", "Neg", "Relu"]), {}
    )
    assert not found.only_a
    assert [n.op for n in found.only_b] == ["Relu"]
    assert [n.op_a for n in found.changed] == ["Abs"]


def test_control_flow_is_compared_as_part_of_its_node() -> None:
    def model(inner: str, name: str = "z", bound: float = 1.0) -> onnx.ModelProto:
        def branch(op: str) -> onnx.GraphProto:
            return helper.make_graph(
                [helper.make_node(op, ["p", "k"], [name])],
                "branch",
                [],
                [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])],
                [numpy_helper.from_array(np.float32([bound]), "k")],
            )

        nodes = [
            node("Relu", ["X"], "p"),
            node("ReduceSum", ["X"], "t", keepdims=0),
            node("Cast", ["t"], "c", to=TensorProto.BOOL),
            node("If", ["c"], "Y", then_branch=branch("Add"), else_branch=branch(inner)),
        ]
        return make_model(nodes, {"X": [4]}, {"Y": [4]})

    assert compared(model("Mul"), model("Mul", "other"), {}).is_equal
    assert compared(model("Mul"), renamed_outside(model("Mul")), {}).is_equal
    (changed,) = compared(model("Mul"), model("Sub"), {}).changed
    (attribute,) = changed.attributes
    assert (attribute.name, attribute.note) == ("else_branch", "they part at node 1, Mul and Sub")
    (changed,) = compared(model("Mul"), model("Mul", bound=2.0), {}).changed
    assert [a.name for a in changed.attributes] == ["else_branch", "then_branch"]


def renamed_outside(model: onnx.ModelProto) -> onnx.ModelProto:
    """The value that the branches take from outside, and its node, have another name."""
    text = onnx.printer.to_text(model).replace("n_p", "n_other")
    return onnx.parser.parse_model(
        text.replace("[n_other] p ", "[n_other] pp ").replace("(p,", "(pp,")
    )


def test_inputs_outputs_and_metadata() -> None:
    a, b = network(), network()
    b.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    b.graph.output[0].name = "scores"
    b.graph.node[-1].output[0] = "scores"
    entry = b.metadata_props.add()
    entry.key, entry.value = "key", "x"
    found = compared(a, b)
    assert not found.changed
    assert [(d.what, d.name, d.a, d.b) for d in found.model] == [
        ("input", "X", "float32 N x 3 x H x W", "float32 1 x 3 x H x W"),
        ("output", "Y", "Y: float32 N x 20", "scores: float32 N x 20"),
        ("metadata", "key", None, "x"),
    ]


def test_dimensions() -> None:
    with pytest.raises(InputError, match="neither model's inputs have a symbolic dimension 'Q'"):
        compared(network(), network(), {"Q": 1})
    with pytest.raises(ModelError, match="is not an ONNX model"):
        compare_models(b"nothing", b"nothing")


@pytest.mark.parametrize("tool", TOOLS)
def test_after_other_tools(tool: str) -> None:
    """The inlined bodies are adder nodes again; what onnxruntime fused or laid out anew is told."""
    given = onnx.load(DIGITS)
    found = compared(given, TOOLS[tool](given), {})
    fused = {"onnxruntime extended": {"relu"}, "onnxruntime all": {"conv1", "fc", "relu"}}
    assert {node.name for node in found.only_a} == fused.get(tool, set())
    changed = {"onnxruntime extended": ["conv1"]}
    assert [node.a for node in found.changed] == changed.get(tool, [])
    assert found.is_equal == (tool not in fused)


@pytest.fixture(scope="module")
def integer_network() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    feeds = [{"X": rng.standard_normal((4, 3, 8, 6)).astype(np.float32)} for _ in range(2)]
    return quantize(network(), feeds, calibration="minmax").model


def test_an_integer_network(integer_network: onnx.ModelProto) -> None:
    """What is fused into an integer node is not missing, and weights are the reals they mean."""
    found = compared(network(), integer_network)
    assert {n.name: n.fused_into for n in found.only_a} == {"n_B": "n_A", "n_D": "n_C"}
    assert {n.op for n in found.only_b} == {"QuantizeLinear", "DequantizeLinear"}
    changed = {n.a: n for n in found.changed}
    assert set(changed) == {"n_A", "n_C"}
    for name, values in (("n_A", W1), ("n_C", W2)):
        assert changed[name].op_b == "ai.addernet.QLinearAdderConv"
        assert (changed[name].attributes, changed[name].feeds) == ((), ())
        weights = {w.input: w for w in changed[name].weights}
        integers = next(n for n in integer_network.graph.node if n.name == name)
        stored = {t.name: numpy_helper.to_array(t) for t in integer_network.graph.initializer}
        q, scale, zero = (stored[integers.input[i]] for i in (1, 2, 3))
        reals = (q.astype(np.float64) - zero) * np.float64(scale)
        assert weights["W"].largest == pytest.approx(np.abs(reals - values).max(), rel=1e-12)
        assert (weights["W"].type_a, weights["W"].type_b) == ("float32", "uint8")
        # Rounded to the nearest integer, or clamped to the ends of their range.
        beyond = np.abs(reals - values) > float(scale) * 0.5001
        assert weights["W"].clamped == pytest.approx(beyond.mean(), abs=0.002)
        assert weights["W"].largest_inside is not None
        assert weights["W"].largest_inside <= float(scale) * 0.51
        bias = np.abs(stored[integers.input[5]].astype(np.float64)).max()
        assert weights["bias"].largest == pytest.approx(bias, rel=1e-6)
    swapped = compared(integer_network, network())
    assert {n.name: n.fused_into for n in swapped.only_b} == {"n_B": "n_A", "n_D": "n_C"}
    assert not any(n.feeds for n in swapped.changed)


def test_an_integer_network_that_lacks_something(integer_network: onnx.ModelProto) -> None:
    """Without the lower bound the Relu is not part of it; without Z the addition is not."""
    b = onnx.ModelProto()
    b.CopyFrom(integer_network)
    first, second = (n for n in b.graph.node if n.op_type == "QLinearAdderConv")
    next(a for a in first.attribute if a.name == "clip_min").f = -np.inf
    second.input[6:9] = first.input[6:9]
    found = compared(network(), b)
    assert {n.name: n.fused_into for n in found.only_a} == {"n_B": None, "n_D": None}
    assert {n.a for n in found.changed if n.feeds} >= {"n_C", "n_E"}


def test_an_integer_network_of_few_levels(integer_network: onnx.ModelProto) -> None:
    """Levels are a difference to other integers, not to the network that they were made of."""
    b = onnx.ModelProto()
    b.CopyFrom(integer_network)
    one = next(n for n in b.graph.node if n.name == "n_C")
    one.attribute.append(helper.make_attribute("levels", [0, 3, 9]))
    (changed,) = compared(integer_network, b).changed
    (attribute,) = changed.attributes
    assert (attribute.name, attribute.a, attribute.b) == ("levels", [], [0, 3, 9])
    assert not any(n.attributes for n in compared(network(), b).changed)


def test_an_integer_network_and_one_of_other_scales(integer_network: onnx.ModelProto) -> None:
    """Integers that mean the same reals are no difference in W, but the scale is one."""
    b = onnx.ModelProto()
    b.CopyFrom(integer_network)
    one = next(n for n in b.graph.node if n.name == "n_C")
    values = numpy_helper.to_array(initializer(b, one.input[1]))
    set_values(b, one.input[1], np.where(values < 255, values + 1, values))
    (changed,) = compared(integer_network, b).changed
    (weight,) = changed.weights
    scale = float(numpy_helper.to_array(initializer(b, one.input[2])))
    assert (changed.a, weight.input) == ("n_C", "W")
    assert weight.largest == pytest.approx(scale, rel=1e-6)


def test_weights_behind_a_dequantize_linear() -> None:
    """As onnxruntime's tool writes them, a scale for each filter."""
    scale = np.abs(K).max(axis=(1, 2, 3)) / 127
    integers = np.rint(K / scale[:, None, None, None]).astype(np.int8)
    a = make_model(
        [node("Conv", ["X", "K"], "Y")], {"X": [1, 3, 4, 4]}, {"Y": [1, 3, 4, 4]}, {"K": K}
    )
    b = make_model(
        [
            node("DequantizeLinear", ["q", "s", "z"], "k", axis=0),
            node("Conv", ["X", "k"], "Y"),
        ],
        {"X": [1, 3, 4, 4]},
        {"Y": [1, 3, 4, 4]},
        {"q": integers, "s": scale.astype(np.float32), "z": np.zeros(3, np.int8)},
    )
    found = compared(a, b, {})
    (weight,) = found.changed[0].weights
    reals = integers * scale.astype(np.float32).astype(np.float64)[:, None, None, None]
    assert weight.largest == pytest.approx(np.abs(reals - K).max(), rel=1e-12)
    assert not found.changed[0].feeds


def test_a_pool_among_integer_nodes() -> None:
    """A MaxPool between integer nodes is the float one, whatever its name."""
    nodes = [
        adder_conv("X", "W1", "A"),
        node("MaxPool", ["A"], "P", kernel_shape=[2, 2]),
        adder_conv("P", "W2", "Y"),
    ]
    model = make_model(nodes, {"X": [1, 3, 10, 10]}, {"Y": [1, 20, "h", "w"]}, {"W1": W1, "W2": W2})
    integers = quantize(model, [{"X": image(1, 3, 10, 10)}], calibration="minmax").model
    found = compared(model, integers, {})
    assert {n.a: n.b for n in found.nodes if n.op_a == "MaxPool"} == {"n_P": "n_P_quantized"}
    assert not found.only_a
    assert not any(n.feeds for n in found.changed)


def test_files(tmp_path: Path) -> None:
    a, b = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(network(), a)
    onnx.save(network(), b, save_as_external_data=True, size_threshold=0, location="b.bin")
    assert compare_models(a, b, dims=DIMS).is_equal
