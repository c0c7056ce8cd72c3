"""What a model, its adder nodes and the function bodies say of themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import adder_onnx
from adder_onnx.ops import describe_model, describe_nodes, function_bodies
from adder_onnx.quantization import quantize
from tests.models import adder_conv, image, make_model, network, node, oracle


def docs(model: onnx.ModelProto) -> dict[str, str]:
    return {n.name: n.doc_string for n in model.graph.node if n.doc_string}


def test_an_adder_node_says_what_it_computes() -> None:
    sizes = [2, 3, 8, 6]
    model = make_model(
        [adder_conv("X", "W", "A", strides=[2, 1]), node("Relu", ["A"], "Y")],
        {"X": sizes},
        {"Y": [2, 5, 3, 4]},
        {"W": np.ones((5, 3, 3, 3), np.float32)},
    )
    describe_nodes(model)
    assert docs(model) == {"n_A": "Adder layer, y = -sum |x - w|: 5 filters of 3 x 3 x 3"}
    model = onnx.shape_inference.infer_shapes(model)
    describe_nodes(model)
    taps = 5 * 3 * 4 * 3 * 3 * 3
    assert docs(model) == {
        "n_A": f"Adder layer, y = -sum |x - w|: {taps:,} taps an image; 5 filters of 3 x 3 x 3; "
        "3 x 8 x 6 to 5 x 3 x 4"
    }


def test_what_is_not_known_is_left_out() -> None:
    model = make_model(
        [adder_conv("X", "V", "Y")], {"X": [1, 3, "H", 6], "V": ["M", 3, 1, 1]}, {"Y": [None] * 4}
    )
    describe_nodes(model)
    assert docs(model) == {"n_Y": "Adder layer, y = -sum |x - w|"}


def test_integer_nodes_say_it_too() -> None:
    model = network()
    height, width = model.graph.input[0].type.tensor_type.shape.dim[2:]
    height.dim_value, width.dim_value = 8, 6
    before = model.graph.node[0].doc_string
    result = quantize(model, [{"X": image(2, 3, 8, 6)}], bits=5).model
    first, second = docs(result).values()
    assert first.startswith(
        "Adder layer on integers, y = max(-scale * sum |x - w| + bias, 0), rounded to 5 bits: "
        f"{20 * 8 * 6 * 3 * 9:,} taps an image; 20 filters of 3 x 3 x 3; 3 x 8 x 6 to 20 x 8 x 6"
    )
    assert "y = -scale * sum |x - w| + bias + z, rounded to" in second
    integer = next(n for n in result.graph.node if n.op_type == "QLinearAdderConv")
    integer.attribute.append(onnx.helper.make_attribute("levels", [0, 3, 5]))
    describe_nodes(result)
    assert ", rounded to 3 levels of 5 bits: " in integer.doc_string
    assert f": {20 * 8 * 6 * 20 * 9:,} taps an image; " in second
    assert result.doc_string.startswith("A network: 2 QLinearAdderConv among ")
    assert "Quantized by adder-onnx" in result.doc_string
    assert model.graph.node[0].doc_string == before


def test_a_model_says_what_it_is() -> None:
    model = network()
    text = describe_model(model, "It is small.")
    assert text.startswith("A network: 2 AdderConv among 7 nodes. It is small. Run it with ")
    model.metadata_props.add(key="ai.addernet.architecture", value="a\n" + 200 * "b")
    assert describe_model(model).startswith(f"a {98 * 'b'}: 2 AdderConv among")
    plain = make_model([node("Relu", ["X"], "Y")], {"X": [1]}, {"Y": [1]})
    assert "no adder layer among 1 nodes" in describe_model(plain)


@pytest.mark.parametrize("body", function_bodies(18), ids=lambda body: body.name)
def test_bodies_have_their_formula(body: onnx.FunctionProto) -> None:
    assert "sum over c,i,j of |X[" in body.doc_string or "AdderConv(X - x_zero" in body.doc_string
    assert body.doc_string.isascii()


def test_docs_change_no_result(tmp_path: Path) -> None:
    model = network()
    x = image(2, 3, 8, 6)
    (expected,) = oracle(model, {"X": x})
    describe_nodes(model)
    model.doc_string = describe_model(model)
    onnx.save(model, tmp_path / "m.onnx")
    (got,) = adder_onnx.InferenceSession(tmp_path / "m.onnx").run(None, {"X": x})
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
