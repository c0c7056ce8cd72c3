"""Post-training quantization: ranges, weights, the rewritten graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import adder_onnx
from adder_onnx.errors import DataError, InputError, ModelError
from adder_onnx.graph.plan import ChainStep, OnnxruntimeStep
from adder_onnx.ops import ConvAttributes
from adder_onnx.ops.reference import adder_conv as reference
from adder_onnx.quantization import quantize
from adder_onnx.quantization.ranges import Histogram, Quantization, choose
from adder_onnx.quantization.weights import quantize_weights
from tests.models import W1, W2, K, adder_conv, make_model, network, node


def histogram_of(values: NDArray[np.floating]) -> Histogram:
    histogram = Histogram(values.shape[1])
    histogram.add(values, "x")
    return histogram


@given(
    low=st.floats(-100, 0),
    high=st.floats(0, 100),
    bits=st.integers(2, 8),
)
def test_zero_is_exact_and_rounding_is_to_the_nearest(low: float, high: float, bits: int) -> None:
    q = Quantization.covering(low, high, bits)
    assert q.dequantize(q.quantize(np.zeros(1)))[0] == 0
    assert 0 <= q.zero_point < 2**bits
    values = np.linspace(q.low, q.high, 101)
    errors = np.abs(q.dequantize(q.quantize(values)) - values)
    assert errors.max() <= 0.5001 * float(q.scale)
    # Beyond the range integers saturate.
    outside = q.dequantize(q.quantize(np.array([q.low - 1, q.high + 1])))
    np.testing.assert_allclose(outside, [q.low, q.high], atol=1e-9)


def test_histograms_grow_with_what_is_seen() -> None:
    rng = np.random.default_rng(0)
    parts = [np.zeros((1, 3, 4, 4)), *(rng.standard_normal((2, 3, 5, 5)) * s for s in (1, 30, 5))]
    histogram = Histogram(3)
    for part in parts:
        histogram.add(part, "x")
    everything = np.concatenate([p.transpose(1, 0, 2, 3).reshape(3, -1) for p in parts], axis=1)
    assert (histogram.counts.sum(axis=1) == everything.shape[1]).all()
    assert (histogram.smallest, histogram.largest) == (everything.min(), everything.max())
    for channel in range(3):
        mean = histogram.counts[channel] @ histogram.centers / everything.shape[1]
        assert mean == pytest.approx(everything[channel].mean(), abs=histogram.width)
    assert histogram.percentile(90) == pytest.approx(
        np.percentile(everything, 90), abs=2 * histogram.width + 0.1
    )
    with pytest.raises(DataError, match="make x infinite or undefined"):
        histogram.add(np.full((1, 3, 1, 1), np.nan), "x")


def test_calibrations() -> None:
    rng = np.random.default_rng(1)
    values = np.maximum(rng.standard_normal((4, 2, 100, 100)), 0)
    values[0, 0, 0, 0] = 40  # an outlier
    histogram = histogram_of(values)
    assert choose(histogram, 8, "minmax").high == pytest.approx(40, rel=1e-6)
    assert choose(histogram, 8, "percentile", 99.0).high == pytest.approx(2.33, abs=0.05)
    for bits in (2, 3, 4, 6, 8):
        chosen = choose(histogram, bits, "mse")
        errors = [
            float(np.mean((q.dequantize(q.quantize(values)) - values) ** 2))
            for q in (chosen, *(Quantization.covering(0, h, bits) for h in np.arange(0.5, 41, 0.5)))
        ]
        assert errors[0] <= 1.05 * min(errors[1:])
        assert chosen.low == 0
    signed = choose(histogram_of(rng.standard_normal((1, 1, 100, 100))), 8, "percentile", 99.0)
    assert signed.low == pytest.approx(-2.33, abs=0.1)
    with pytest.raises(InputError, match="calibration 'best' is not one of output, mse"):
        choose(histogram, 8, "best")


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), group=st.sampled_from([1, 2]), spread=st.floats(0.1, 20))
def test_clamping_weights_loses_nothing(seed: int, group: int, spread: float) -> None:
    """For inputs on the grid, weights on it or outside of the range: the exact sum."""
    rng = np.random.default_rng(seed)
    q = Quantization.covering(-1.0, 3.0, 6)
    x = q.dequantize(rng.integers(0, 64, (2, 4, 5, 5), np.uint8))
    w = (rng.standard_normal((6, 4 // group, 3, 3)) * spread).astype(np.float32)
    inside = (w > q.low) & (w < q.high)
    w[inside] = q.dequantize(q.quantize(w[inside])).astype(np.float32)
    a = ConvAttributes(pads=(1, 1, 1, 1), group=group)
    packed = quantize_weights(w, group, q, histogram_of(x))
    sums = -reference(x, q.dequantize(packed.integers), a) + packed.constant[:, None, None]
    exact = -reference(x, w, a)
    # What the bias takes up for rounding is known to the width of a bin for each tap; it is the
    # same at all positions, and all else is exact.
    off = sums - exact
    taps = w[0].size
    assert np.abs(off).max() < taps * 4 / 2048
    np.testing.assert_allclose(off, np.broadcast_to(off[:1, :, :1, :1], off.shape), atol=1e-4)
    assert packed.clamped == pytest.approx(np.mean((w < q.low) | (w > q.high)), abs=0.02)


def test_rounding_is_made_up_for_on_average() -> None:
    rng = np.random.default_rng(2)
    q = Quantization.covering(0.0, 2.0, 2)
    x = np.abs(rng.standard_normal((8, 6, 12, 12))).astype(np.float32)
    w = rng.standard_normal((5, 6, 3, 3)).astype(np.float32)
    packed = quantize_weights(w, 1, q, histogram_of(x))
    rounded = q.dequantize(q.quantize(x))
    ours = -reference(rounded, q.dequantize(packed.integers)) + packed.constant[:, None, None]
    off = (ours + reference(x, w)).mean(axis=(0, 2, 3))
    plain = np.abs(w - np.clip(w, q.low, q.high)).sum(axis=(1, 2, 3))
    uncorrected = off - packed.constant + plain
    assert np.abs(off).max() < 0.2 * np.abs(uncorrected).max()


def calibration(count: int = 4) -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    return [{"X": rng.standard_normal((2, 3, 8, 8)).astype(np.float32)} for _ in range(count)]


def normalized_network() -> onnx.ModelProto:
    """As `network`, but with batch normalisation, which keeps values small."""
    rng = np.random.default_rng(4)
    norm = {
        f"{kind}{i}": value.astype(np.float32)
        for i, taps in ((1, 27), (2, 180))
        for kind, value in {
            "gamma": rng.uniform(0.5, 1.5, 20),
            "beta": rng.standard_normal(20),
            "mean": np.full(20, -1.2 * taps),
            "var": np.full(20, float(taps)),
        }.items()
    }
    return make_model(
        [
            node("Conv", ["X", "K"], "S"),
            adder_conv("S", "W1", "A", pads=[1, 1, 1, 1]),
            node("BatchNormalization", ["A", "gamma1", "beta1", "mean1", "var1"], "A1"),
            node("Relu", ["A1"], "B"),
            adder_conv("B", "W2", "C", pads=[1, 1, 1, 1]),
            node("BatchNormalization", ["C", "gamma2", "beta2", "mean2", "var2"], "C1"),
            node("Add", ["C1", "B"], "D"),
            node("Relu", ["D"], "D1"),
            node("GlobalAveragePool", ["D1"], "E"),
            node("Flatten", ["E"], "Y"),
        ],
        {"X": ["N", 3, "H", "W"]},
        {"Y": ["N", 20]},
        {"W1": W1, "W2": W2, "K": K, **norm},
    )


@pytest.mark.parametrize("bits", [7, 8])
def test_the_graph(bits: int) -> None:
    result = quantize(normalized_network(), calibration(), bits=bits)
    ops = [n.op_type for n in result.model.graph.node]
    clip = ("Clip",) if bits < 8 else ()  # QuantizeLinear clips to 8 bits
    assert ops == [
        *("Conv", *clip, "QuantizeLinear", "QLinearAdderConv", "QLinearAdderConv"),
        *("DequantizeLinear", "GlobalAveragePool", "Flatten"),
    ]
    first, second = (n for n in result.model.graph.node if n.op_type == "QLinearAdderConv")
    assert second.input[0] == first.output[0]
    assert second.input[6] == first.output[0]  # the residual, in integers too
    assert all(name for n in (first, second) for name in n.input)
    assert result.samples == 4
    assert [n.name for n in result.nodes] == ["n_A", "n_C"]
    assert result.left == ()
    onnx.checker.check_model(result.model, full_check=True)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shared", [False, True])
def test_max_pool_between_adder_nodes(bits: int, shared: bool) -> None:
    """It works on integers; its range is that of its output, unless others take its input."""
    model = make_model(
        [
            adder_conv("X", "W1", "A"),
            node("Mul", ["A", "s"], "A1"),
            node("Relu", ["A1"], "B"),
            node("MaxPool", ["B"], "P", kernel_shape=[2, 2], strides=[2, 2]),
            adder_conv("P", "W2", "C", pads=[1, 1, 1, 1]),
            *([node("Neg", ["B"], "Z")] if shared else []),
        ],
        {"X": ["N", 3, "H", "W"]},
        {"C": ["N", 20, None, None], **({"Z": ["N", 20, None, None]} if shared else {})},
        {"W1": W1, "W2": W2, "s": np.full((20, 1, 1), -0.1, np.float32)},
    )
    feeds = calibration()
    quantized = quantize(model, feeds, bits=bits)
    result = quantized.model
    (pool,) = (n for n in result.graph.node if n.op_type == "MaxPool")
    first, second = (n for n in result.graph.node if n.op_type == "QLinearAdderConv")
    assert (pool.input[0], second.input[0]) == (first.output[0], pool.output[0])
    assert list(first.input[9:]) != list(second.input[2:4])  # the same values under other names
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in result.graph.initializer}
    for ours, theirs in zip(first.input[9:], second.input[2:4], strict=True):
        assert constants[ours] == constants[theirs]
    scale, zero = (constants[name].astype(np.float64) for name in first.input[9:])
    exact_b = [stock_outputs(model, feed, "B")[0] for feed in feeds]
    ours_b = [(stock_outputs(result, f, first.output[0])[0] - zero) * scale for f in feeds]
    assert quantized.snr["n_A"] == pytest.approx(decibels(exact_b, ours_b), abs=0.01)
    data = result.SerializeToString()
    session = adder_onnx.InferenceSession(data)
    (chain,) = [step for step in session.plan.steps if isinstance(step, ChainStep)]
    assert [n.name for n in chain.nodes] == ["n_A", "n_P_quantized", "n_C"]
    for expected, y in zip(
        onnxruntime.InferenceSession(data).run(None, feeds[0]),
        session.run(None, feeds[0]),
        strict=True,
    ):
        np.testing.assert_array_equal(y, expected)
    (exact, *_) = adder_onnx.InferenceSession(model.SerializeToString()).run(None, feeds[0])
    error = np.abs(session.run(None, feeds[0])[0] - exact).max()
    assert error < {8: 0.02, 4: 0.25}[bits] * np.abs(exact).max()


@pytest.mark.parametrize(("bits", "bound"), [(8, 0.02), (6, 0.06), (4, 0.25)])
def test_results_stay_near(bits: int, bound: float) -> None:
    model = normalized_network()
    feeds = calibration()
    result = quantize(model, feeds, bits=bits, calibration="minmax" if bits == 8 else "mse")
    data = result.model.SerializeToString()
    ours, stock = adder_onnx.InferenceSession(data), onnxruntime.InferenceSession(data)
    for feed in feeds:
        (exact,) = adder_onnx.InferenceSession(model.SerializeToString()).run(None, feed)
        (y,) = ours.run(None, feed)
        assert np.abs(y - exact).max() < bound * np.abs(exact).max()
        np.testing.assert_array_equal(stock.run(None, feed)[0], y)
    for constant in result.model.graph.initializer:
        if constant.data_type == onnx.TensorProto.UINT8:
            assert onnx.numpy_helper.to_array(constant).max() < 2**bits


def stock_outputs(model: onnx.ModelProto, feed: dict[str, Any], *names: str) -> list[Any]:
    """Values of a graph by their names, in onnxruntime."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {value.name for value in model.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in known)
    session = onnxruntime.InferenceSession(copy.SerializeToString())
    return session.run(list(names), feed)  # type: ignore[no-any-return]


def decibels(exact: list[NDArray[Any]], ours: list[NDArray[Any]]) -> float:
    signal, noise = (
        np.concatenate([np.ravel(array).astype(np.float64) for array in arrays])
        for arrays in (exact, [a - b.astype(np.float64) for a, b in zip(exact, ours, strict=True)])
    )
    return float(10 * np.log10((signal**2).sum() / (noise**2).sum()))


@pytest.mark.parametrize(("method", "arrays"), [("output", 4), ("mse", 2)])
def test_ratios_of_signal_to_noise(method: str, arrays: int) -> None:
    """Of all arrays, or the first ones, with the nodes' outputs taken from onnxruntime."""
    model, feeds = normalized_network(), calibration()
    result = quantize(model, feeds, bits=4, calibration=method)
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in result.model.graph.initializer}
    nodes = [n for n in result.model.graph.node if n.op_type == "QLinearAdderConv"]
    for node_, y in zip(nodes, ("B", "D1"), strict=True):
        scale, zero = (constants[name].astype(np.float64) for name in node_.input[9:])
        exact, ours = [], []
        for feed in feeds[:arrays]:
            exact += stock_outputs(model, feed, y)
            ours += [(v - zero) * scale for v in stock_outputs(result.model, feed, node_.output[0])]
        assert result.snr[node_.name] == pytest.approx(decibels(exact, ours), abs=0.01)


def test_sensitivity() -> None:
    """Of each node what is measured with the other one excluded."""
    model = normalized_network()
    rng = np.random.default_rng(1)
    feeds = [{"X": rng.standard_normal((64, 3, 8, 8)).astype(np.float32)} for _ in range(2)]
    found = quantize(model, feeds, bits=2, sensitivity=True).sensitivity
    assert [s.name for s in found] == ["n_A", "n_C"]
    for sensitivity, other in zip(found, ("n_C", "n_A"), strict=True):
        single = quantize(model, feeds, bits=2, exclude=[other]).model
        exact = [stock_outputs(model, feed, "Y")[0] for feed in feeds[:2]]
        ours = [stock_outputs(single, feed, "Y")[0] for feed in feeds[:2]]
        assert sensitivity.snr == pytest.approx(decibels(exact, ours), abs=0.01)
        answers = [np.concatenate(y).argmax(axis=1) for y in (exact, ours)]
        assert sensitivity.changed == np.mean(answers[0] != answers[1])
    assert all(0 < s.changed < 1 for s in found)


@pytest.mark.parametrize(
    ("weight", "output"),
    [
        *((name, "Y") for name in ("X_scale", "X_low", "n_Y.weight", "no_residual", "X_Clip")),
        *(("W", name) for name in ("X_Clip_output", "X_QuantizeLinear", "no_residual")),
    ],
)
def test_names_that_are_taken(weight: str, output: str) -> None:
    model = make_model(
        [adder_conv("X", weight, output), node("Relu", [output], f"{output}_quantized")],
        {"X": ["N", 3, 8, 8]},
        {output: ["N", 20, 6, 6], f"{output}_quantized": ["N", 20, 6, 6]},
        {weight: W1},
    )
    result = quantize(model, calibration(), bits=7).model
    (feed, *_) = calibration()
    exact, ours = (
        adder_onnx.InferenceSession(proto.SerializeToString()).run(None, feed)
        for proto in (model, result)
    )
    for a, b in zip(exact, ours, strict=True):
        assert np.abs(a - b).max() < 0.02 * np.abs(exact[0]).max()
    stock = onnxruntime.InferenceSession(result.SerializeToString()).run(None, feed)
    np.testing.assert_array_equal(stock[0], ours[0])


def test_integer_nodes_are_native(caplog: pytest.LogCaptureFixture) -> None:
    data = quantize(normalized_network(), calibration()).model.SerializeToString()
    session = adder_onnx.InferenceSession(data)
    assert not caplog.records
    (chain,) = [step for step in session.plan.steps if isinstance(step, ChainStep)]
    assert [n.name for n in chain.nodes] == ["n_A", "n_C"]
    assert sum(isinstance(step, OnnxruntimeStep) for step in session.plan.steps) == 2


def test_excluded_nodes_stay_float() -> None:
    result = quantize(normalized_network(), calibration(), exclude=["n_A"])
    ops = [n.op_type for n in result.model.graph.node]
    assert ops.count("AdderConv") == ops.count("QLinearAdderConv") == 1
    assert result.left == ("n_A",)
    feed = calibration(1)[0]
    (exact,) = adder_onnx.InferenceSession(normalized_network().SerializeToString()).run(None, feed)
    (y,) = adder_onnx.InferenceSession(result.model.SerializeToString()).run(None, feed)
    assert np.abs(y - exact).max() < 0.03 * np.abs(exact).max()


def test_the_same_for_the_same_data() -> None:
    first, second = (quantize(normalized_network(), calibration(), bits=5) for _ in range(2))
    assert first.model.SerializeToString() == second.model.SerializeToString()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bits": 9}, InputError, "bits is 9; expected 2 to 8"),
        ({"bits": 1}, InputError, "bits is 1"),
        ({"calibration": "best"}, InputError, "calibration is 'best'"),
        ({"percentile": 50}, InputError, "percentile is 50"),
        ({"exclude": ["n_Q"]}, InputError, "--exclude n_Q: the model has no such adder node"),
        ({"feeds": []}, DataError, "there is no calibration data"),
        (
            {"feeds": [{"X": np.ones((1, 3, 8, 8), np.float32)}] * 2},
            DataError,
            "are all equal",
        ),
        (
            {"feeds": [{"X": np.zeros((1, 3, 8, 8), np.float32) * np.nan}]},
            DataError,
            "infinite or undefined",
        ),
        ({"feeds": [{"X": np.zeros((1, 4, 8, 8), np.float32)}]}, InputError, "shape"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"feeds": calibration(), **options}
    with pytest.raises(error, match=message):
        quantize(normalized_network(), **arguments)


def test_models_that_cannot_be_quantized() -> None:
    plain = make_model([node("Relu", ["X"], "Y")], {"X": [1, 3]}, {"Y": [1, 3]})
    with pytest.raises(ModelError, match="no AdderConv node"):
        quantize(plain, [])
    done = quantize(normalized_network(), calibration()).model
    with pytest.raises(ModelError, match="quantized already"):
        quantize(done, calibration())


def test_values_without_normalization() -> None:
    """Outputs in the hundreds, negative, without a ReLU at the end."""
    result = quantize(network(), calibration())
    feed = calibration(1)[0]
    (exact,) = adder_onnx.InferenceSession(network().SerializeToString()).run(None, feed)
    (y,) = adder_onnx.InferenceSession(result.model.SerializeToString()).run(None, feed)
    assert np.abs(y - exact).max() < 0.05 * np.abs(exact).max()


def test_the_real_resnet20(
    resnet20: Path, images: NDArray[np.float32], truth: NDArray[np.float64]
) -> None:
    """Eight bits, ranges from half of the images: the others' answers stay; bits are the same."""
    result = quantize(onnx.load(resnet20), [{"input": images[:16]}])
    assert len(result.nodes) == 20
    data = result.model.SerializeToString()
    assert len(data) < 0.35 * resnet20.stat().st_size
    session = adder_onnx.InferenceSession(data)
    (chain,) = [s for s in session.plan.steps if isinstance(s, ChainStep)]
    assert len(chain.nodes) == 20
    (logits,) = session.run(None, {"input": images})
    assert (logits[16:].argmax(axis=1) == truth[16:].argmax(axis=1)).all()
    assert np.abs(logits - truth).max() < 0.1 * np.abs(truth).max()
    for threads in (1, 3):
        other = adder_onnx.InferenceSession(data, threads=threads)
        np.testing.assert_array_equal(other.run(None, {"input": images[3:5]})[0], logits[3:5])
    stock = onnxruntime.InferenceSession(data)
    np.testing.assert_array_equal(stock.run(None, {"input": images[:2]})[0], logits[:2])
