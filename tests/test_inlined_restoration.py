"""Files that went through another tool: adder nodes come back, or one warning says why not."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import adder_onnx
from adder_onnx.graph.loading import load_graph
from adder_onnx.graph.plan import ChainStep
from adder_onnx.ops import DOMAIN, MIN_OPSET, VERSION, ConvAttributes
from adder_onnx.ops.reference import adder_conv as reference
from tests.inlined import TOOLS, WRITTEN_OUT, adder_nodes, by_onnxruntime, inlined_by_onnx_ir
from tests.models import Shape, adder_conv, image, make_model, network, node

GEOMETRIES: list[dict[str, Any]] = [
    {"kernel_shape": [3, 2]},
    {"kernel_shape": [1, 1], "strides": [2, 2]},
    {"kernel_shape": [1, 3], "dilations": [1, 3], "pads": [0, 1, 0, 0]},
    {"kernel_shape": [5, 1], "strides": [1, 3], "pads": [0, 0, 2, 1], "group": 2},
    {"kernel_shape": [3, 2], "dilations": [1, 2], "strides": [2, 1], "pads": [1, 0, 2, 3]},
    {"kernel_shape": [3, 3], "group": 6, "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 2], "auto_pad": "SAME_UPPER", "strides": [2, 3], "group": 3},
    {"kernel_shape": [3, 2], "auto_pad": "SAME_LOWER", "strides": [2, 3], "dilations": [2, 1]},
    {"kernel_shape": [3, 3], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [3, 2], "auto_pad": "VALID", "pads": [1, 1, 1, 1]},
]
SHAPES: dict[str, Shape] = {
    "fixed": [2, 6, 9, 11],
    "any batch": ["N", 6, 9, 11],
    "any size": ["N", 6, "H", "W"],
    "nothing known": [None] * 4,
}
RNG = np.random.default_rng(0)


def one_layer(
    geometry: dict[str, Any], shape: Shape, dtype: type = np.float32, opset: int = 18
) -> onnx.ModelProto:
    attributes = {**WRITTEN_OUT, **geometry}
    w = RNG.standard_normal((12, 6 // attributes["group"], *attributes["kernel_shape"]))
    return make_model(
        [adder_conv("X", "W", "A", **attributes), node("Abs", ["A"], "Y")],
        {"X": shape},
        {"Y": [None] * 4},
        {"W": w.astype(dtype)},
        elem_type=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)),
        opset=opset,
    )


def assert_restored(model: onnx.ModelProto, original: onnx.ModelProto, shape: Shape) -> None:
    """One adder node, of the original's weight, which means the same."""
    (found,) = adder_nodes(model)
    attributes = {name: a.value for name, a in found.attributes.items()}
    given = helper.make_node("x", [], [])
    given.CopyFrom(original.graph.node[0])
    expected = {a.name: helper.get_attribute_value(a) for a in given.attribute}
    weight = found.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    w = onnx.numpy_helper.to_array(original.graph.initializer[0])
    np.testing.assert_array_equal(weight.const_value.numpy(), w)
    fixed = [size if isinstance(size, int) else None for size in shape]
    for height, width in ((9, 11), (10, 7)):
        x = np.asarray(RNG.standard_normal((2, 6, fixed[2] or height, fixed[3] or width)))
        results = [reference(x, w, ConvAttributes.from_mapping(a)) for a in (attributes, expected)]
        np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_all_attributes(geometry: dict[str, Any], shape: str, tool: str) -> None:
    original = one_layer(geometry, SHAPES[shape])
    assert_restored(TOOLS[tool](original), original, SHAPES[shape])


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("opset", [MIN_OPSET, 18, 23])
def test_other_types(dtype: type, opset: int, tool: str) -> None:
    """Of float16, onnxruntime may have cast what follows to float32."""
    for geometry in (GEOMETRIES[4], GEOMETRIES[7]):
        original = one_layer(geometry, SHAPES["any size"], dtype, opset)
        assert_restored(TOOLS[tool](original), original, SHAPES["any size"])


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("opset", [MIN_OPSET, 17, 21, 23])
def test_opsets(opset: int, tool: str) -> None:
    original = one_layer(GEOMETRIES[7], SHAPES["any size"], opset=opset)
    assert_restored(TOOLS[tool](original), original, SHAPES["any size"])


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_computed_weight(dtype: type, tool: str) -> None:
    """Which is an input of the model."""
    original = make_model(
        [adder_conv("X", "W", "Y", **WRITTEN_OUT, kernel_shape=[3, 2])],
        {"X": ["N", 6, "H", "W"], "W": [4, 6, 3, 2]},
        {"Y": [None] * 4},
        elem_type=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)),
    )
    model = TOOLS[tool](original)
    feed = {"X": image(2, 6, 5, 5).astype(dtype), "W": image(4, 6, 3, 2).astype(dtype)}
    assert len(adder_nodes(model)) == 1
    (result,) = adder_onnx.InferenceSession(model.SerializeToString()).run(None, feed)
    expected = reference(feed["X"], feed["W"])
    np.testing.assert_allclose(result, expected, rtol=2 * float(np.finfo(dtype).eps))


def written_out_network() -> onnx.ModelProto:
    model = network()
    for adder in model.graph.node:
        if adder.domain == DOMAIN:
            attributes = {**WRITTEN_OUT, "kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
            del adder.attribute[:]
            adder.attribute.extend(helper.make_attribute(*item) for item in attributes.items())
    return model


@pytest.mark.parametrize("tool", TOOLS)
def test_a_network_has_the_same_plan(tool: str) -> None:
    """Epilogues are fused as before, in one chain, and the results are the same bits."""
    # Types and shapes are written down, as adder-export does: onnx knows no fused operators.
    original = onnx.shape_inference.infer_shapes(written_out_network())
    model = TOOLS[tool](original)
    sessions = [adder_onnx.InferenceSession(m.SerializeToString()) for m in (original, model)]
    chains = [[s for s in x.plan.steps if isinstance(s, ChainStep)] for x in sessions]
    assert len(chains[1]) == 1
    assert [len(n.fused) for n in chains[1][0].nodes] == [len(n.fused) for n in chains[0][0].nodes]
    assert len(sessions[0].plan.steps) == len(sessions[1].plan.steps)
    x = image(3, 3, 9, 8)
    results = [session.run(None, {"X": x})[0] for session in sessions]
    np.testing.assert_array_equal(results[0], results[1])


@pytest.mark.parametrize("tool", ["onnxruntime extended", "onnxruntime all"])
def test_types_behind_fused_convolutions_are_known(tool: str) -> None:
    """Where nobody wrote them down."""
    original = written_out_network()
    original.graph.node.insert(1, node("Relu", ["S"], "T"))
    original.graph.node[2].input[0] = "T"
    model = TOOLS[tool](original)
    assert any(n.domain.startswith("com.microsoft") for n in model.graph.node)
    assert len(adder_nodes(model)) == 2
    x = image(3, 3, 9, 8)
    (result,) = adder_onnx.InferenceSession(model.SerializeToString()).run(None, {"X": x})
    np.testing.assert_allclose(result, by_onnxruntime(model, {"X": x})[0], rtol=1e-4)


def test_names_that_onnxruntime_gives_again_are_changed() -> None:
    """A body of ours is inlined beside what is left of another, which is of double."""
    attributes = [{**WRITTEN_OUT, "pads": pads} for pads in ([0, 0, 1, 1], [-1, 0, 0, 0])]
    model = make_model(
        [adder_conv("X", "W", "A", **attributes[0]), adder_conv("A", "W", "Y", **attributes[1])],
        {"X": ["N", 3, 5, 5]},
        {"Y": [None] * 4},
        {"W": image(3, 3, 2, 2).astype(np.float64)},
        elem_type=TensorProto.DOUBLE,
    )
    model = TOOLS["onnxruntime basic"](model)
    assert len(adder_nodes(model)) == 1
    feed = {"X": image(2, 3, 5, 5).astype(np.float64)}
    (result,) = adder_onnx.InferenceSession(model.SerializeToString()).run(None, feed)
    np.testing.assert_array_equal(result, by_onnxruntime(model, feed)[0])


def test_names_come_from_the_output() -> None:
    nodes = [
        adder_conv("X", "W", "layer1.conv1_output", **WRITTEN_OUT),
        node("Relu", ["layer1.conv1_output"], "B"),
        adder_conv("B", "V", "layer1.conv2", **WRITTEN_OUT),
        node("Relu", ["layer1.conv2"], "layer1.conv1"),  # a node's name and a value's may be equal
        node("Abs", ["layer1.conv1"], "Y"),
    ]
    nodes[4].name = "layer1.conv2"
    w = image(3, 3, 1, 1)
    model = make_model(nodes, {"X": ["N", 3, 5, 5]}, {"Y": [None] * 4}, {"W": w, "V": w + 1})
    names = [found.name for found in adder_nodes(TOOLS["onnxruntime basic"](model))]
    assert names == ["layer1.conv1", "layer1.conv2_1"]


def test_a_shared_weight_stays_one() -> None:
    nodes = [
        adder_conv("X", "W", "A", **WRITTEN_OUT),
        adder_conv("A", "W", "B", **WRITTEN_OUT),
        adder_conv("B", "V", "Y", **WRITTEN_OUT),
    ]
    w = image(3, 3, 1, 1)
    model = make_model(nodes, {"X": ["N", 3, 5, 5]}, {"Y": [None] * 4}, {"W": w, "V": w + 1})
    for tool in TOOLS.values():
        graph = load_graph(tool(model)).graph
        assert len(graph) == 3
        assert len(graph.initializers) == 2


def test_a_model_that_was_inlined_in_part() -> None:
    model = inlined_by_onnx_ir(one_layer(GEOMETRIES[1], SHAPES["any batch"]))
    model.graph.node.append(adder_conv("Y", "V", "Z", **WRITTEN_OUT))
    model.graph.initializer.append(onnx.numpy_helper.from_array(image(2, 12, 1, 1), "V"))
    model.graph.output[0].name = "Z"
    assert len(adder_nodes(model)) == 2


def test_nothing_of_the_loop_is_left() -> None:
    model = inlined_by_onnx_ir(one_layer(GEOMETRIES[7], SHAPES["any size"]))
    before = model.SerializeToString(deterministic=True)
    graph = load_graph(model)
    assert [n.op_type for n in graph.graph] == ["AdderConv", "Abs"]
    assert list(graph.graph.initializers) == ["W"]
    assert graph.opset_imports[DOMAIN] == VERSION
    (adder, _) = graph.graph
    assert adder.outputs[0].name == "A"
    assert str(adder.outputs[0].shape) != "None"
    assert model.SerializeToString(deterministic=True) == before


def test_the_domain_is_imported_again() -> None:
    model = inlined_by_onnx_ir(one_layer(GEOMETRIES[0], SHAPES["fixed"]))
    kept = [entry for entry in model.opset_import if entry.domain != DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    assert len(adder_nodes(model)) == 1


def warnings_of(model: onnx.ModelProto, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        load_graph(model)
    return [record.message for record in caplog.records]


def inside_if() -> onnx.ModelProto:
    """Two adder nodes inside an If, one before it."""
    w = image(3, 3, 1, 1)
    branches = {}
    for branch in ("then_branch", "else_branch"):
        inner = adder_conv("A", "W", f"{branch}_out", **WRITTEN_OUT)
        output = helper.make_tensor_value_info(f"{branch}_out", TensorProto.FLOAT, [None] * 4)
        branches[branch] = helper.make_graph([inner], branch, [], [output])
    nodes = [
        adder_conv("X", "W", "A", **WRITTEN_OUT),
        node("ReduceSum", ["X"], "total", keepdims=0),
        node("Cast", ["total"], "condition", to=TensorProto.BOOL),
        node("If", ["condition"], "Y", **branches),
    ]
    return make_model(nodes, {"X": ["N", 3, 5, 5]}, {"Y": [None] * 4}, {"W": w})


@pytest.mark.parametrize("tool", ["onnx", "onnx_ir"])
def test_loops_inside_control_flow_are_left(tool: str, caplog: pytest.LogCaptureFixture) -> None:
    model = TOOLS[tool](inside_if())
    (warning,) = warnings_of(model, caplog)
    assert warning.startswith("2 loops compute adder layers in standard operators")
    assert "Use it as adder-export or adder-quantize wrote it" in warning
    feed = {"X": image(2, 3, 5, 5)}
    (result,) = adder_onnx.InferenceSession(model.SerializeToString()).run(None, feed)
    np.testing.assert_allclose(result, by_onnxruntime(model, feed)[0], rtol=1e-6)


def test_one_loop_is_said_in_the_singular(caplog: pytest.LogCaptureFixture) -> None:
    model = inlined_by_onnx_ir(one_layer({**GEOMETRIES[0], "pads": [-1, 0, 0, 0]}, SHAPES["fixed"]))
    (warning,) = warnings_of(model, caplog)
    assert warning.startswith("1 loop computes an adder layer in standard operators")


def test_nothing_is_said_where_all_is_well(caplog: pytest.LogCaptureFixture) -> None:
    original = one_layer(GEOMETRIES[4], SHAPES["any batch"])
    for model in (original, *(tool(original) for tool in TOOLS.values())):
        assert not warnings_of(model, caplog)


def test_an_adder_network_without_adder_nodes(caplog: pytest.LogCaptureFixture) -> None:
    model = make_model([node("Relu", ["X"], "Y")], {"X": [1, 3]}, {"Y": [1, 3]}, bodies=False)
    (warning,) = warnings_of(model, caplog)
    assert warning.startswith("the file imports ai.addernet, but has no adder node")
    assert "Use it as adder-export or adder-quantize wrote it" in warning
    model.metadata_props.add(key="ai.addernet.architecture", value="resnet20")
    for _ in range(2):
        (warning,) = warnings_of(model, caplog)
        assert warning.startswith("the file says it is the AdderNet resnet20, but has no adder")
        del model.opset_import[1:]
    del model.metadata_props[:]
    assert not warnings_of(model, caplog)


def test_adder_nodes_inside_control_flow_alone_are_some(caplog: pytest.LogCaptureFixture) -> None:
    model = inside_if()
    assert not warnings_of(model, caplog)


@pytest.mark.parametrize("op_type", ["Add", "Mul", "Max", "Identity"])
def test_a_deep_graph_is_left_quickly(op_type: str, caplog: pytest.LogCaptureFixture) -> None:
    """Of nodes each of which doubles what it takes, before the trip count of a loop."""
    model = inlined_by_onnx_ir(one_layer(GEOMETRIES[0], SHAPES["any size"]))
    loop = next(n for n in model.graph.node if n.op_type == "Loop")
    place = list(model.graph.node).index(loop)
    name = "size"
    for i in range(500):
        operands = [name] if op_type == "Identity" else [name, name]
        deeper = helper.make_node(op_type, operands, [f"deep_{i}"])
        model.graph.node.insert(place + i, deeper)
        name = f"deep_{i}"
    loop.input[0] = name
    (warning,) = warnings_of(model, caplog)
    assert warning.startswith("1 loop computes an adder layer")
