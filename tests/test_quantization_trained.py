"""From models with rounding in them to integer nodes, by the scales that they have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx.numpy_helper import from_array, to_array

import adder_onnx
from adder_onnx.errors import DataError, ModelError
from adder_onnx.ops import ConvAttributes
from adder_onnx.ops.reference import adder_conv as reference
from adder_onnx.quantization.ranges import Quantization
from adder_onnx.quantization.trained import quantize_trained, trained_layer
from tests.layers import float_layer
from tests.models import W1, W2, adder_conv, make_model, node

SCALES = {"X": (0.3, 2), "B": (0.45, 0), "P": (0.45, 0)}
BITS = 3
NORM = {"s": np.full((20, 1, 1), 0.15, np.float32), "b": np.full((20, 1, 1), 5.0, np.float32)}
NORM |= {"s2": np.full((20, 1, 1), 0.02, np.float32), "b2": np.full((20, 1, 1), 3.0, np.float32)}


def rounding(value: str, result: str, bits: int = BITS) -> list[onnx.NodeProto]:
    """As the exporter writes it."""
    clip = [node("Clip", [value, f"{value}_low", f"{value}_high"], f"{result}_c")]
    source = f"{result}_c" if bits < 8 else value
    parameters = [f"{value}_s", f"{value}_z"]
    return [
        *(clip if bits < 8 else []),
        node("QuantizeLinear", [source, *parameters], f"{result}_q"),
        node("DequantizeLinear", [f"{result}_q", *parameters], result),
    ]


def constants() -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {"W1": W1, "W2": W2, **NORM}
    for name, (scale, zero) in SCALES.items():
        q = Quantization(np.float32(scale), zero, BITS)
        found[f"{name}_s"], found[f"{name}_z"] = np.array(q.scale), np.array(zero, np.uint8)
        found[f"{name}_low"], found[f"{name}_high"] = np.float32([q.low, q.high]).reshape(2)
        found[f"{name}_low"] = np.array(found[f"{name}_low"])
        found[f"{name}_high"] = np.array(found[f"{name}_high"])
    return found


def model(nodes: Sequence[onnx.NodeProto], *outputs: str) -> onnx.ModelProto:
    shapes: dict[str, Any] = {name: ["N", None, None, None] for name in outputs}
    used = {name for n in nodes for name in n.input}
    return make_model(
        nodes,
        {"X": ["N", 3, "H", "W"]},
        shapes,
        {name: array for name, array in constants().items() if name in used},
    )


def layer(x: str, number: str, y: str) -> list[onnx.NodeProto]:
    """An adder layer, scaled and moved by constants."""
    suffix = "" if number == "1" else number
    return [
        adder_conv(x, f"W{number}", f"{y}_a", pads=[1, 1, 1, 1]),
        node("Mul", [f"{y}_a", f"s{suffix}"], f"{y}_m"),
        node("Add", [f"{y}_m", f"b{suffix}"], y),
    ]


def two_layers(bits: int = BITS) -> onnx.ModelProto:
    """Both inputs rounded, the second one a residual, too."""
    return model(
        [
            *rounding("X", "Xr", bits),
            *layer("Xr", "1", "A"),
            node("Relu", ["A"], "B"),
            *rounding("B", "Br", bits),
            *layer("Br", "2", "C"),
            node("Add", ["C", "Br"], "Y"),
        ],
        "Y",
    )


def feeds(count: int = 2) -> list[dict[str, Any]]:
    rng = np.random.default_rng(7)
    return [{"X": rng.standard_normal((2, 3, 8, 8)).astype(np.float32)} for _ in range(count)]


def integer_nodes(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [n for n in proto.graph.node if n.op_type == "QLinearAdderConv"]


def parameters(proto: onnx.ModelProto, n: onnx.NodeProto) -> dict[int, NDArray[Any]]:
    found = {t.name: to_array(t) for t in proto.graph.initializer}
    return {i: found[name] for i, name in enumerate(n.input) if name in found}


@pytest.mark.parametrize("bits", [BITS, 8])
def test_nodes_have_the_scales_and_integers_of_the_model(bits: int) -> None:
    result = quantize_trained(two_layers(bits), feeds())
    proto = result.model
    clip = ["Clip"] if bits < 8 else []
    assert [n.op_type for n in proto.graph.node] == [
        *(*clip, "QuantizeLinear", "QLinearAdderConv", "QLinearAdderConv", "DequantizeLinear")
    ]
    first, second = integer_nodes(proto)
    assert second.input[0] == second.input[6] == first.output[0]
    for n, name, weight in ((first, "X", W1), (second, "B", W2)):
        scale, zero = SCALES[name]
        found = parameters(proto, n)
        assert (found[2], found[3]) == (np.float32(scale), zero)
        integers = np.clip(np.rint(weight / np.float32(scale)) + zero, 0, 2**bits - 1)
        np.testing.assert_array_equal(found[1], integers)
    (given,) = (a.i for a in first.attribute if a.name == "bits")
    (last,) = (a.i for a in second.attribute if a.name == "bits")
    assert (given, last) == (bits, 8)
    assert result.left == ()
    assert [n.name for n in result.nodes] == ["n_A_a", "n_C_a"]


LEVELS = (0, 2, 3, 5, 9)


def rounding_to_levels(value: str, result: str) -> list[onnx.NodeProto]:
    """As the exporter writes it."""
    fine = [f"{value}_fine_s", f"{value}_fine_z"]
    return [
        node("QuantizeLinear", [value, *fine], f"{result}_i"),
        node("Cast", [f"{result}_i"], f"{result}_j", to=onnx.TensorProto.INT32),
        node("Gather", [f"{value}_t", f"{result}_j"], f"{result}_q"),
        node("DequantizeLinear", [f"{result}_q", f"{value}_s", f"{value}_z"], result),
    ]


def few_levels(steps: int = 28, zeros: tuple[int, int] = (2, 0)) -> onnx.ModelProto:
    """`two_layers` with few levels; QuantizeLinear has so many steps for one integer."""
    arrays = constants()
    for name, zero in zip(("X", "B"), zeros, strict=True):
        scale = np.float32(SCALES[name][0])
        places = 2 * (np.arange(256) - zero * steps)
        borders = (np.add(LEVELS[1:], LEVELS[:-1]) - 2 * zero) * steps
        table = np.array(LEVELS)[(places[:, None] > borders).sum(axis=1)]
        arrays[f"{name}_t"] = table.astype(np.uint8)
        arrays[f"{name}_fine_s"] = np.array(float(scale) / steps, np.float32)
        arrays[f"{name}_fine_z"] = np.array(zero * steps, np.uint8)
        arrays[f"{name}_s"], arrays[f"{name}_z"] = np.array(scale), np.array(zero, np.uint8)
    nodes = [
        *rounding_to_levels("X", "Xr"),
        *layer("Xr", "1", "A"),
        node("Relu", ["A"], "B"),
        *rounding_to_levels("B", "Br"),
        *layer("Br", "2", "C"),
        node("Add", ["C", "Br"], "Y"),
    ]
    used = {name for n in nodes for name in n.input}
    shape = ["N", None, None, None]
    inputs = {"X": ["N", 3, "H", "W"]}
    return make_model(nodes, inputs, {"Y": shape}, {k: v for k, v in arrays.items() if k in used})


def test_few_levels() -> None:
    """Nodes have the levels of the tables, and weights the integers between."""
    proto = few_levels()
    result = quantize_trained(proto, feeds())
    first, second = integer_nodes(result.model)
    (made,) = (a.ints for a in first.attribute if a.name == "levels")
    assert tuple(made) == LEVELS
    assert [n.levels for n in result.nodes] == [LEVELS, LEVELS]
    assert [n.op_type for n in result.model.graph.node] == [
        *("QuantizeLinear", "Cast", "Gather", "QLinearAdderConv", "QLinearAdderConv"),
        "DequantizeLinear",
    ]
    for n, zero, name, weight in ((first, 2, "X", W1), (second, 0, "B", W2)):
        integers = np.clip(np.rint(weight / np.float32(SCALES[name][0])) + zero, 0, 9)
        np.testing.assert_array_equal(parameters(result.model, n)[1], integers)
    given, found = (
        {t.name: to_array(t) for t in m.graph.initializer} for m in (proto, result.model)
    )
    fine, lookup = (result.model.graph.node[i] for i in (0, 2))
    for name, truth in zip(
        (*fine.input[1:], lookup.input[0]), ("fine_s", "fine_z", "t"), strict=True
    ):
        np.testing.assert_array_equal(found[name], given[f"X_{truth}"])


def test_tables_that_are_not_of_levels_are_left_alone() -> None:
    """Coarser steps, a zero that is no level, or any other table: these are no rounding of ours."""
    others = [few_levels(steps=20), few_levels(zeros=(4, 4))]
    other = few_levels()
    for tensor in other.graph.initializer:
        if tensor.name.endswith("_t"):
            table = to_array(tensor).copy()
            table[100] = 9 - table[100]
            tensor.CopyFrom(from_array(table, tensor.name))
    signed = few_levels()
    for tensor in signed.graph.initializer:
        if tensor.name.endswith(("_t", "_s", "_z")) and "fine" not in tensor.name:
            array = to_array(tensor)
            tensor.CopyFrom(
                from_array(array.astype(np.int8) if array.dtype == np.uint8 else array, tensor.name)
            )
    onnx.checker.check_model(signed, full_check=True)
    for proto in (*others, other, signed):
        with pytest.raises(ModelError, match="no AdderConv node takes a rounded value"):
            quantize_trained(proto, feeds())


def test_the_graph_is_that_of_the_model() -> None:
    """Beside the definition in float64, within half a level of the 8 bits of its output."""
    (feed,) = feeds(1)
    pads = ConvAttributes(pads=(1, 1, 1, 1))

    def rounded(v: NDArray[Any], name: str) -> NDArray[np.float64]:
        scale, zero = np.float32(SCALES[name][0]), SCALES[name][1]
        return np.clip(np.rint(v / scale), -zero, 7 - zero) * np.float64(scale)

    def weights(w: NDArray[Any], name: str) -> NDArray[np.float64]:
        """Rounded in the range; beyond it they are as they were."""
        scale, zero = float(np.float32(SCALES[name][0])), SCALES[name][1]
        inside = (w >= -zero * scale) & (w <= (7 - zero) * scale)
        return np.where(inside, rounded(w, name), w)

    exact = two_layers()
    for tensor in exact.graph.initializer:
        if tensor.name in ("W1", "W2"):
            new = weights(to_array(tensor), {"W1": "X", "W2": "B"}[tensor.name])
            tensor.CopyFrom(onnx.numpy_helper.from_array(new.astype(np.float32), tensor.name))
    proto = quantize_trained(exact, feeds(8)).model
    x = rounded(feed["X"], "X")
    b = np.maximum(reference(x, weights(W1, "X"), pads) * np.float64(NORM["s"]) + 5, 0)
    b = rounded(b.astype(np.float32), "B")
    y = reference(b, weights(W2, "B"), pads) * np.float64(NORM["s2"]) + 3 + b
    data = proto.SerializeToString()
    (found,) = adder_onnx.InferenceSession(data).run(None, feed)
    step = float(parameters(proto, integer_nodes(proto)[1])[9])
    assert np.unique(b).size > 3
    assert np.abs(found - y).max() <= 0.51 * step
    (portable,) = onnxruntime.InferenceSession(data).run(None, feed)
    np.testing.assert_array_equal(found, portable)


def test_weights() -> None:
    q = Quantization(np.float32(0.5), 1, 2)
    w = np.array([[-3.0, -0.5, 0.0, 0.5, 1.0, 1.25, 4.0]]).reshape(1, 7, 1, 1)
    found = trained_layer(float_layer(w.astype(np.float32), scale=[2.0], bias=[1.0]), q)
    np.testing.assert_array_equal(found.weight.ravel(), [0, 0, 1, 2, 3, 3, 3])
    assert found.bias.tolist() == [1.0 - 2.0 * (2.5 + 0.25 + 3.0)]
    assert found.clamped == pytest.approx(3 / 7)


@pytest.mark.parametrize("other", [False, True], ids=["alone", "taken elsewhere"])
def test_max_pool(other: bool) -> None:
    """It takes integers of the trained scale, unless others take its input."""
    proto = quantize_trained(
        model(
            [
                *rounding("X", "Xr"),
                *layer("Xr", "1", "A"),
                node("Relu", ["A"], "B"),
                node("MaxPool", ["B"], "P", kernel_shape=[2, 2], strides=[2, 2]),
                *rounding("P", "Pr"),
                *layer("Pr", "2", "Y"),
                *([node("Neg", ["B"], "Z")] if other else []),
            ],
            *("Y", "Z")[: 1 + other],
        ),
        feeds(),
    ).model
    (pool,) = (n for n in proto.graph.node if n.op_type == "MaxPool")
    first, second = integer_nodes(proto)
    assert parameters(proto, second)[2] == np.float32(0.45)
    assert (pool.input[0] == first.output[0]) == (not other)
    (bits,) = (a.i for a in first.attribute if a.name == "bits")
    assert bits == (8 if other else 3)


def test_standard_nodes_take_rounded_values() -> None:
    """Of one that a standard node gives, and of one that an integer node gives."""
    nodes = [
        *rounding("X", "Xr"),
        node("Neg", ["Xr"], "N"),
        *layer("Xr", "1", "A"),
        node("Relu", ["A"], "B"),
        *rounding("B", "Br"),
        *layer("Br", "2", "Y"),
        node("Neg", ["Br"], "M"),
    ]
    proto = quantize_trained(model(nodes, "Y", "N", "M"), feeds()).model
    (feed,) = feeds(1)
    exact = onnxruntime.InferenceSession(model(nodes, "Y", "N", "M").SerializeToString())
    found = onnxruntime.InferenceSession(proto.SerializeToString()).run(["N", "M"], feed)
    np.testing.assert_array_equal(found[0], exact.run(["N"], feed)[0])
    # The weights of this model are not rounded, so that values differ, but not their levels.
    levels = -found[1] / np.float32(0.45)
    assert set(np.rint(levels).astype(int).ravel()) <= {*range(8)}
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-5)


def test_what_an_integer_node_gives_is_not_rounded_again() -> None:
    nodes = [
        *rounding("X", "Xr"),
        adder_conv("Xr", "W1", "B", pads=[1, 1, 1, 1]),
        *rounding("B", "Br"),
        *layer("Br", "2", "Y"),
        node("Neg", ["Br"], "M"),
    ]
    proto = quantize_trained(model(nodes, "Y", "M"), feeds()).model
    assert [n.op_type for n in proto.graph.node].count("QuantizeLinear") == 1


def test_fusing_does_not_go_across_rounding() -> None:
    """What scales a rounded value is no part of the node that gives it."""
    proto = quantize_trained(
        model(
            [
                *rounding("X", "Xr"),
                *layer("Xr", "1", "B"),
                *rounding("B", "Br"),
                node("Mul", ["Br", "s2"], "Y"),
            ],
            "Y",
        ),
        feeds(),
    ).model
    assert [n.op_type for n in proto.graph.node][-3:] == [
        *("QLinearAdderConv", "DequantizeLinear", "Mul")
    ]
    assert parameters(proto, integer_nodes(proto)[0])[9] == np.float32(0.45)


def test_nodes_without_rounding_stay_float() -> None:
    nodes = [
        *rounding("X", "Xr"),
        *layer("Xr", "1", "A"),
        node("Relu", ["A"], "B"),
        *layer("B", "2", "C"),
        node("Clip", ["C", "X_low", "X_high"], "Y"),
    ]
    result = quantize_trained(model(nodes, "Y"), feeds())
    assert result.left == ("n_C_a",)
    assert [n.name for n in result.nodes] == ["n_A_a"]
    with pytest.raises(ModelError, match="no AdderConv node takes a rounded value"):
        quantize_trained(model(layer("X", "1", "Y"), "Y"), feeds())


def test_data_are_needed() -> None:
    with pytest.raises(DataError, match="there is no calibration data"):
        quantize_trained(two_layers(), [])
