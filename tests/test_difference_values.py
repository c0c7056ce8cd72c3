"""Values inside of two models, against onnxruntime and sums in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import adder_onnx.inspection.difference.values as difference_values
from adder_onnx.errors import DataError, InputError
from adder_onnx.inspection.difference import (
    Answers,
    Values,
    compare_models,
    compare_values,
    to_json,
)
from adder_onnx.inspection.difference.noise import Noise
from adder_onnx.quantization import quantize
from tests.inlined import TOOLS
from tests.models import W2, make_model, network, node
from tests.test_difference import DIGITS, compared, initializer, renamed, set_values

Array = NDArray[Any]


def compared_on(
    a: onnx.ModelProto, b: onnx.ModelProto, *feeds: dict[str, Array], **options: Any
) -> Values:
    comparison = compare_models(a.SerializeToString(), b.SerializeToString())
    return compare_values(comparison, lambda: feeds, threads=1, **options)


def stock(model: onnx.ModelProto, names: list[str], feed: dict[str, Array]) -> dict[str, Array]:
    """Inner values by onnxruntime, of whose work nothing is ours: bodies are in the file."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(names, session.run(names, feed), strict=True))


def ratio(a: Array, b: Array) -> float:
    signal, noise = a.astype(np.float64), b.astype(np.float64) - a.astype(np.float64)
    return float(10 * np.log10((signal**2).sum() / (noise**2).sum()))


def digits(count: int) -> Array:
    rng = np.random.default_rng(3)
    return rng.standard_normal((count, 1, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def pair() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    model = onnx.load(DIGITS)
    feeds: Iterator[Mapping[str, Array]] = iter([{"input": digits(16)}])
    return model, quantize(model, feeds, calibration="minmax").model


def test_a_model_and_itself() -> None:
    feed = {"X": np.random.default_rng(0).standard_normal((2, 3, 8, 6)).astype(np.float32)}
    found = compared_on(network(), network(), feed)
    # What is fused into the adder nodes, A and C, is never made.
    assert [value.a for value in found.values] == ["S", "B", "D", "E", "Y"]
    assert all(value.noise.is_identical for value in found.values)
    assert found.first_difference is None
    assert found.first_below(1000) is None
    assert found.largest_drop is None
    assert [(o.a, o.noise.is_identical) for o in found.outputs] == [("Y", True)]
    assert found.inputs == 2


def test_one_weight_shows_where_two_models_part() -> None:
    a, b = network(), network()
    set_values(b, "W2", (W2 + np.float32(0.5) * (np.arange(20) == 3)[:, None, None, None]))
    feed = {"X": np.random.default_rng(0).standard_normal((2, 3, 8, 6)).astype(np.float32)}
    found = compared_on(a, b, feed)
    assert [(v.a, v.noise.is_identical) for v in found.values] == [
        ("S", True),
        ("B", True),
        ("D", False),
        ("E", False),
        ("Y", False),
    ]
    assert found.first_difference is not None
    assert (found.first_difference.a, found.first_difference.node) == ("D", "n_D")
    truths = [stock(model, ["D", "E", "Y"], feed) for model in (a, b)]
    for value in found.values[2:]:
        ours, theirs = (truth[value.a] for truth in truths)
        assert value.noise.decibels == pytest.approx(ratio(ours, theirs), abs=0.01)
        assert value.noise.largest == pytest.approx(np.abs(theirs - ours).max(), rel=1e-3)
        assert value.noise.relative == pytest.approx(
            np.abs(theirs - ours).max() / np.abs(ours).max(), rel=1e-3
        )
    first = {v.a: v for v in found.values}
    assert first["D"].drop is None  # what it is made of is identical
    assert first["E"].drop == pytest.approx(first["D"].noise.decibels - first["E"].noise.decibels)
    between = (first["D"].noise.decibels + min(v.noise.decibels for v in found.values)) / 2
    below = found.first_below(between)
    assert below is None or below.noise.decibels < between
    assert found.first_below(1e9) == first["D"]


def test_float_and_8_bits(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    model, integers = pair
    images = [digits(16)[i : i + 4] for i in range(0, 16, 4)]
    found = check_against_onnxruntime(model, integers, images)
    names = [v.a for v in found.values]
    assert names[:3] == ["conv1_output", "relu_output", "layer1.0.relu_output"]
    assert names[-2:] == ["fc_output", "logits"]
    assert len(names) == 13  # conv1, relu, the 8 adder nodes, avgpool, fc, Reshape
    assert found.inputs == 16
    assert found.first_difference is not None
    assert found.first_difference.a == "layer1.0.relu_output"
    # Of several values that mean the same it is that of the same name.
    pairs = {v.a: v.b for v in found.values}
    assert pairs["layer3.0.relu_1_output"] == "layer3.0.relu_1_output"
    assert pairs["relu_output"] == "relu_output"


def check_against_onnxruntime(
    model: onnx.ModelProto, integers: onnx.ModelProto, images: list[Array]
) -> Values:
    """All values of a float model and its integer one, these as the reals that they mean."""
    found = compared_on(model, integers, *({"input": batch} for batch in images))
    names = [v.a for v in found.values]
    constants = {t.name: numpy_helper.to_array(t) for t in integers.graph.initializer}
    produced = {o: n for n in integers.graph.node for o in n.output}
    everything = {"input": np.concatenate(images)}
    ours = stock(model, names, everything)
    theirs = stock(integers, [v.b for v in found.values], everything)
    for value in found.values:
        other = theirs[value.b]
        if other.dtype == np.uint8:
            scale, zero = (constants[produced[value.b].input[i]] for i in (9, 10))
            other = (other.astype(np.float64) - zero) * scale.astype(np.float64)
        if value.noise.is_identical:
            np.testing.assert_array_equal(ours[value.a], other)
        else:
            assert value.noise.decibels == pytest.approx(ratio(ours[value.a], other), abs=0.05)
    adders = [v for v in found.values if not v.noise.is_identical and theirs[v.b].ndim == 4]
    assert len(adders) >= sum(n.op_type == "AdderConv" for n in model.graph.node)
    return found


@pytest.mark.slow
def test_the_real_network(resnet20: Path, images: NDArray[np.float32]) -> None:
    """Float and 8 bits, each of the 20 adder nodes against onnxruntime."""
    model = onnx.load(resnet20)
    integers = quantize(model, [{"input": images[:16]}], calibration="minmax").model
    check_against_onnxruntime(model, integers, [images[:2], images[2:4]])


def test_8_bits_and_float(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    """The other way round the noise is the same, and what it is compared with nearly so."""
    feed = {"input": digits(8)}
    found, swapped = compared_on(*pair, feed), compared_on(*pair[::-1], feed)
    ours = {v.a: v.noise for v in found.values}
    theirs = {v.b: v.noise for v in reversed(swapped.values)}
    assert set(theirs) == set(ours)
    # What quantizes the input of the first adder node means the same, and has noise of its own.
    assert [v.a for v in swapped.values if v.b == "relu_output"] == [
        "relu_output",
        "relu_output_QuantizeLinear_output",
    ]
    for name, noise in ours.items():
        assert theirs[name].largest == pytest.approx(noise.largest, rel=1e-6)


def test_drops_are_those_of_a_branch(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    found = compared_on(*pair, {"input": digits(8)})
    ratios = {v.a: v.noise.decibels for v in found.values}
    drops = {v.a: v.drop for v in found.values}
    before = ratios["layer1.0.relu_1_output"]
    for name in ("layer2.0.relu_output", "layer2.0.downsample.1_output"):
        assert drops[name] == pytest.approx(before - ratios[name])
    least = min(ratios["layer2.0.relu_output"], ratios["layer2.0.downsample.1_output"])
    assert drops["layer2.0.relu_1_output"] == pytest.approx(
        least - ratios["layer2.0.relu_1_output"]
    )
    assert drops["layer1.0.relu_output"] is None
    most = found.largest_drop
    assert most is not None
    assert most.drop == max(drop for drop in drops.values() if drop is not None)


@pytest.mark.parametrize("tool", ["onnx", "onnxruntime basic", "onnxruntime all"])
def test_after_other_tools(tool: str) -> None:
    """Adder nodes stand in another order, so that additions are fused into others than before."""
    model = onnx.load(DIGITS)
    found = compared_on(model, TOOLS[tool](model), {"input": digits(4)})
    assert len(found.values) == {"onnx": 13, "onnxruntime basic": 15, "onnxruntime all": 14}[tool]
    assert all(v.noise.is_identical or v.noise.decibels > 100 for v in found.values)
    assert {v.a for v in found.values} >= {"relu_output", "layer3.0.relu_1_output", "logits"}


def test_other_names(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    model = pair[0]
    found = compared_on(model, renamed(model), {"input": digits(4)})
    assert [v.b for v in found.values][:2] == ["other_conv1_output", "other_relu_output"]
    assert all(v.noise.is_identical for v in found.values)
    assert len(found.values) == 13


def test_half_precision_and_inputs_of_other_names() -> None:
    def model(type_: int, name: str) -> onnx.ModelProto:
        nodes = [node("Mul", [name, "c"], "p"), node("Relu", ["p"], "Y")]
        dtype = np.float16 if type_ == onnx.TensorProto.FLOAT16 else np.float32
        values = {"c": np.array([1.5, -2.25, 3.1], dtype)}
        return make_model(nodes, {name: ["N", 3]}, {"Y": ["N", 3]}, values, elem_type=type_)

    feed = {"X": np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)}
    found = compared_on(
        model(onnx.TensorProto.FLOAT, "X"), model(onnx.TensorProto.FLOAT16, "image"), feed
    )
    assert [v.a for v in found.values] == ["p", "Y"]
    assert all(50 < v.noise.decibels < 90 for v in found.values)


def test_operators_of_onnxruntime_itself() -> None:
    """Of what they give onnx knows no types."""

    def model(factor: float) -> onnx.ModelProto:
        nodes = [
            onnx.helper.make_node("Gelu", ["X"], ["p"], "p", domain="com.microsoft"),
            node("Mul", ["p", "c"], "q"),
            onnx.helper.make_node("Gelu", ["q"], ["Y"], "Y", domain="com.microsoft"),
        ]
        constants = {"c": np.float32([factor])}
        return make_model(
            nodes, {"X": ["N", 3]}, {"Y": ["N", 3]}, constants, domains=["com.microsoft"]
        )

    found = compared_on(model(1), model(2), {"X": np.ones((2, 3), np.float32)})
    ratios = [(v.a, v.noise.is_identical) for v in found.values]
    assert ratios == [("p", True), ("q", False), ("Y", False)]
    assert found.values[1].noise.decibels == pytest.approx(0)


def test_what_cannot_run_on_the_same_inputs() -> None:
    one = make_model([node("Relu", ["X"], "Y")], {"X": ["N", 3]}, {"Y": ["N", 3]})
    two = make_model(
        [node("Add", ["X", "Z"], "Y")], {"X": ["N", 3], "Z": ["N", 3]}, {"Y": ["N", 3]}
    )
    feed = {"X": np.ones((2, 3), np.float32)}
    with pytest.raises(InputError, match="model B has an input 'Z' that A has not"):
        compared_on(one, two, feed)
    wide = make_model([node("Relu", ["X"], "Y")], {"X": ["N", 4]}, {"Y": ["N", 4]})
    with pytest.raises(InputError, match="model B: input 'X' has shape"):
        compared_on(one, wide, feed)
    with pytest.raises(DataError, match="there are no images"):
        compared_on(one, one)
    other = make_model([node("Cast", ["X"], "T", to=7)], {"X": ["N", 3]}, {})
    other.graph.output.extend([onnx.helper.make_tensor_value_info("T", 7, ["N", 3])])
    with pytest.raises(InputError, match="no value in common"):
        compared_on(one, other, feed)


def test_shapes_that_differ_are_told() -> None:
    def model(perm: list[int]) -> onnx.ModelProto:
        nodes = [
            node("Transpose", ["X"], "p", perm=perm),
            node("ReduceMax", ["p"], "Y", keepdims=0),
        ]
        return make_model(nodes, {"X": ["N", 3]}, {"Y": []})

    found = compared_on(model([0, 1]), model([1, 0]), {"X": np.ones((2, 3), np.float32)})
    assert found.skipped == (("p", "p", "their shapes are [2, 3] and [3, 2]"),)
    assert [v.a for v in found.values] == ["Y"]


def test_turns_where_memory_is_small(
    pair: tuple[onnx.ModelProto, onnx.ModelProto], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values are then taken a few at a time, and nothing is different."""
    feeds = [{"input": digits(4)}, {"input": digits(8)[4:]}]
    numbers = [np.arange(4), np.zeros(4, np.int64)]
    answers = Answers("logits", "logits", lambda _: numbers[0], lambda _: numbers[1])
    expected = compared_on(*pair, *feeds)
    monkeypatch.setattr(difference_values, "limit", lambda: 8 * 9_000)
    calls: list[tuple[int, int]] = []
    found = compared_on(
        *pair,
        *feeds,
        answers=answers,
        progress=lambda done, turns: calls.append((done, turns)),
    )
    turns = calls[-1][1]
    assert turns > 3
    assert calls[-1][0] == 8 * turns
    assert [(v.a, v.noise.decibels) for v in found.values] == [
        (v.a, v.noise.decibels) for v in expected.values
    ]
    assert found.inputs == 8
    assert found.outputs[0].same_answers == 0.25


def test_values_are_not_kept(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    """Memory does not grow with the number of images: what one batch made is gone at the next."""
    import gc
    import tracemalloc

    def peak(count: int) -> int:
        comparison = compared(*pair, {})

        def feeds() -> Iterator[dict[str, Array]]:
            for _ in range(count):
                yield {"input": np.zeros((8, 1, 8, 8), np.float32)}

        gc.collect()
        tracemalloc.start()
        compare_values(comparison, feeds, threads=1)
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(1)
    assert peak(30) < peak(2) + 500_000


def test_sums_of_noise() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 7, 11))
    whole, parts = Noise(), Noise()
    whole.add(a, b)
    for i in range(7):
        parts.add(a[i], b[i])
    for noise in (whole, parts):
        assert noise.decibels == pytest.approx(ratio(a, b), rel=1e-12)
        assert noise.largest == np.abs(a - b).max()
        assert noise.largest_value == np.abs(a).max()
        assert (noise.elements, noise.is_identical) == (77, False)


@pytest.mark.parametrize(
    ("a", "b", "identical", "decibels", "not_finite"),
    [
        ([1, 2], [1, 2], True, math.inf, 0),
        ([0, 0], [0, 1], False, -math.inf, 0),
        ([], [], True, math.inf, 0),
        ([np.nan, 1], [np.nan, 1], True, math.inf, 0),
        ([np.inf, 1], [np.inf, 1], True, math.inf, 0),
        ([np.inf, 1], [-np.inf, 1], False, math.inf, 1),
        ([np.nan, 1], [0, 1], False, math.inf, 1),
        ([1e300, 0], [1e300, 0], True, math.inf, 0),
    ],
)
def test_noise_of_odd_values(
    a: list[float], b: list[float], identical: bool, decibels: float, not_finite: int
) -> None:
    noise = Noise()
    noise.add(np.array(a, np.float64), np.array(b, np.float64))
    assert (noise.is_identical, noise.decibels) == (identical, decibels)
    assert noise.not_finite == not_finite


def test_json_has_no_infinities() -> None:
    """One of identical values is null, and so is one without a signal."""
    import json

    def model(value: float) -> onnx.ModelProto:
        nodes = [node("Relu", ["X"], "p"), node("Mul", ["p", "c"], "Y")]
        return make_model(nodes, {"X": ["N", 1]}, {"Y": ["N", 1]}, {"c": np.float32([value])})

    for value in (1.0, 2.0, np.nan, np.inf):
        a, b = model(0), model(value)
        comparison = compared(a, b, {})
        found = compare_values(comparison, lambda: [{"X": np.ones((2, 1), np.float32)}])
        result = to_json("a", "b", comparison, found, threshold=20, data={})
        json.dumps(result, allow_nan=False)
        first, last = result["values"]["values"]
        assert (first["snr_db"], first["identical"]) == (None, True)
        assert (last["snr_db"], last["identical"]) == (None, False)
        assert last["no_signal"] == math.isfinite(value)
        assert last["not_finite"] == (0 if math.isfinite(value) else 2)
        assert result["values"]["first_below"]["a"] == "Y"


def test_a_weight_that_is_the_output_of_nothing() -> None:
    """Outputs that are constants or inputs are no values of nodes, and are left out."""
    model = network()
    model.graph.output.extend([onnx.helper.make_tensor_value_info("W1", 1, [20, 3, 3, 3])])
    assert initializer(model, "W1") is not None
    feed = {"X": np.ones((1, 3, 8, 6), np.float32)}
    assert [o.a for o in compared_on(model, model, feed).outputs] == ["Y"]
