"""Calibration by what layers' outputs lose: its choices, and networks as a whole."""

from __future__ import annotations

import errno
import itertools
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import adder_onnx
from adder_onnx.errors import AdderError, DataError, InputError
from adder_onnx.graph.adder_node import AdderNode
from adder_onnx.graph.loading import load_graph
from adder_onnx.kernels.cpu import choose_roundings
from adder_onnx.ops.reference import adder_conv as reference
from adder_onnx.quantization import quantize
from adder_onnx.quantization.ranges import Quantization
from adder_onnx.quantization.reconstruction import network
from adder_onnx.quantization.reconstruction.choices import (
    Seen,
    choose_range,
    choose_weights,
    matching_bias,
    round_weights,
    wanted_sums,
)
from adder_onnx.quantization.reconstruction.layers import run_layer, sums
from adder_onnx.quantization.reconstruction.samples import columns, draw, pixels_of
from adder_onnx.quantization.reconstruction.segments import Segment, sources
from adder_onnx.quantization.reconstruction.store import Store
from tests.layers import float_layer
from tests.models import W1, W2, adder_conv, make_model, node
from tests.test_quantization import calibration, decibels, normalized_network, stock_outputs


def layer(weight: NDArray[np.float32], residual: bool = False, **attributes: Any) -> AdderNode:
    rng = np.random.default_rng(len(weight))
    scale, bias = rng.uniform(0.5, 1.5, len(weight)), rng.standard_normal(len(weight))
    return float_layer(weight, scale, bias, residual=residual, **attributes)


# Choosing between two integers


def problem(
    seed: int, filters: int = 11, taps: int = 9, samples: int = 70
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int8], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 8, (taps, samples), np.uint8)
    weights = rng.integers(0, 8, (filters, taps), np.uint8)
    steps = rng.integers(-1, 2, (filters, taps)).astype(np.int8)
    steps[(weights == 0) & (steps < 0)] = 0
    missing = (5 * rng.standard_normal((filters, samples))).astype(np.float32)
    return x, weights, steps, missing


def variances(missing: NDArray[Any], parts: int) -> NDArray[np.float64]:
    """Of each filter's row in each part, times its samples."""
    samples = missing.shape[1]
    ends = [p * samples // parts for p in range(parts + 1)]
    pieces = [missing[:, a:b].astype(np.float64) for a, b in itertools.pairwise(ends)]
    return np.stack([p.var(axis=1) * p.shape[1] for p in pieces])


def descend(
    x: NDArray[np.uint8],
    weights: NDArray[np.uint8],
    steps: NDArray[np.int8],
    missing: NDArray[np.float32],
    parts: int,
    sweeps: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The same, as slowly as it is defined."""
    found, ours = weights.astype(np.int64), missing.astype(np.float64)
    left = steps.astype(np.int64)
    for _ in range(sweeps):
        for m, k in ((m, k) for k in range(weights.shape[1]) for m in range(len(weights))):
            row = x[k].astype(np.int64)
            moved = np.abs(row - found[m, k] - left[m, k]) - np.abs(row - found[m, k])
            other = ours[m] - moved
            before, after = variances(ours[m : m + 1], parts), variances(other[None], parts)
            if left[m, k] and (after < before - 1e-9).all():
                found[m, k] += left[m, k]
                left[m, k] = -left[m, k]
                ours[m] = other
    return found, ours


@pytest.mark.parametrize(("parts", "sweeps"), [(1, 1), (1, 3), (4, 2)])
def test_roundings_are_those_of_the_definition(parts: int, sweeps: int) -> None:
    moved = 0
    for seed in range(8):
        x, weights, steps, missing = problem(seed)
        expected, left = descend(x, weights, steps, missing, parts, sweeps)
        before = weights.copy()
        choose_roundings(x, weights, steps, missing, parts, sweeps, 2)
        np.testing.assert_array_equal(weights, expected)
        np.testing.assert_allclose(missing, left, atol=1e-4)
        moved += int((weights != before).sum())
    assert moved > 5


def test_roundings_do_not_depend_on_threads() -> None:
    results = []
    for threads in (1, 2, 5):
        arrays = problem(3, filters=40, taps=60, samples=333)
        choose_roundings(*arrays, 4, 2, threads)
        results.append(arrays)
    for other in results[1:]:
        for ours, theirs in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_roundings_that_do_not_fit() -> None:
    x, weights, steps, missing = problem(0)
    with pytest.raises(ValueError, match="do not fit together"):
        choose_roundings(x[:-1].copy(), weights, steps, missing, 1, 1, 1)
    with pytest.raises(ValueError, match="not as many samples as parts"):
        choose_roundings(x, weights, steps, missing, 71, 1, 1)
    weights[0, 0], steps[0, 0] = 0, -1
    with pytest.raises(ValueError, match="leads out of uint8"):
        choose_roundings(x, weights, steps, missing, 1, 1, 1)


# The bias


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shift=st.floats(-3, 3), bounded=st.booleans())
def test_the_bias_makes_means_equal(seed: int, shift: float, bounded: bool) -> None:
    rng = np.random.default_rng(seed)
    found, targets = rng.standard_normal((5, 40)), rng.standard_normal((5, 40)) + shift
    clip_min = 0.25 if bounded else -np.inf
    bias = matching_bias(found, targets, clip_min)
    wanted = np.maximum(targets, clip_min).mean(axis=1)
    got = np.maximum(found + bias[:, None], clip_min).mean(axis=1)
    np.testing.assert_allclose(got, wanted, atol=1e-12)


def test_filters_that_never_show_stay_hidden() -> None:
    targets = np.array([[-3.0, -1.0], [-9.0, -7.0]])
    found = np.array([[0.0, 6.0], [0.0, 2.0]])
    # The mean's bias, -5, would show the first one's 6; the second one keeps its mean.
    np.testing.assert_allclose(matching_bias(found, targets, 0.0), [-6.0, -9.0])


# Samples

SHAPES = [
    {"pads": (1, 1, 1, 1)},
    {"strides": (2, 1), "pads": (0, 2, 1, 0)},
    {"dilations": (2, 3), "pads": (3, 3, 3, 3), "group": 2},
    {"auto_pad": "SAME_UPPER", "strides": (2, 2)},
]


@pytest.mark.parametrize("attributes", SHAPES)
def test_columns_are_what_a_layer_sees(attributes: dict[str, Any]) -> None:
    rng = np.random.default_rng(5)
    group = attributes.get("group", 1)
    w = rng.standard_normal((6, 4 // group, 3, 2)).astype(np.float32)
    xs = [rng.standard_normal((n, 4, 7 + n, 9)).astype(np.float32) for n in (2, 1, 3)]
    a = layer(w, **attributes)
    exact = [-reference(x, w, a.attributes) for x in xs]
    total = sum(y[:, 0].size for y in exact)
    for count in (25, total, total + 5):
        pixels = draw(a, [x.shape for x in xs], count, np.random.default_rng(0))
        assert sum(map(len, pixels)) == min(count, total)
        assert len({(i, *p) for i, own in enumerate(pixels) for p in own.tolist()}) == min(
            count, total
        )
        found = sums(columns(a, pixels, lambda i: xs[i]), w, group, 2)
        np.testing.assert_allclose(found, pixels_of(pixels, lambda i: exact[i]), rtol=1e-5)


@pytest.mark.parametrize("arithmetic", ["fast", "exact"])
def test_sums_of_integers_are_exact(arithmetic: str) -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(-255, 256, (4608, 50)).astype(np.float32)
    w = rng.integers(-255, 256, (20, 4608, 1, 1)).astype(np.float32)
    expected = np.abs(x.T[:, None] - w.reshape(20, -1)).sum(axis=2, dtype=np.float64).T
    np.testing.assert_array_equal(sums(x, w, 1, 2, arithmetic=arithmetic), expected)


@pytest.mark.parametrize("attributes", SHAPES)
@pytest.mark.parametrize("residual", [False, True])
def test_layers_on_arrays(attributes: dict[str, Any], residual: bool) -> None:
    rng = np.random.default_rng(6)
    w = rng.standard_normal((6, 4 // attributes.get("group", 1), 3, 2)).astype(np.float32)
    x = rng.standard_normal((70, 4, 8, 9)).astype(np.float32)
    a = layer(w, residual, **attributes)
    y = reference(x, w, a.attributes)
    z = rng.standard_normal(y.shape).astype(np.float32) * 9 if residual else None
    expected = y * a.scale[:, None, None] + a.bias[:, None, None] + 20 + (0 if z is None else z)
    found = run_layer(a, x, z, w, a.scale, a.bias + 20, 2)
    np.testing.assert_allclose(found, np.maximum(expected, 0), rtol=1e-5, atol=1e-4)


# Choices


@pytest.mark.parametrize("scale", [[1.0] * 8, [30.0] * 4 + [0.1] * 4, [0.1] * 4 + [30.0] * 4])
def test_the_range_is_the_one_that_the_layer_loses_least_with(scale: list[float]) -> None:
    """Of two groups, one of small values, which need a fine scale, and one of large ones."""
    rng = np.random.default_rng(7)
    sizes = np.repeat([0.3, 3.0], 15)[:, None]
    x = np.maximum(rng.standard_normal((30, 400)) * sizes, 0).astype(np.float32)
    w = (rng.standard_normal((8, 15, 1, 1)) * np.repeat([0.3, 3.0], 4)[:, None, None, None]).astype(
        np.float32
    )

    def sums_of(x: NDArray[Any], w: NDArray[Any]) -> NDArray[np.float64]:
        groups = np.repeat([x[:15], x[15:]], 4, axis=0)
        return np.abs(groups - w.reshape(8, 15, 1)).sum(axis=1)

    def loss(q: Quantization) -> float:
        ours = sums_of(
            q.dequantize(q.quantize(x)), q.dequantize(q.quantize(np.clip(w, q.low, q.high)))
        )
        return float((sums_of(x, w) - ours).var(axis=1) @ np.square(scale))

    high = float(x.max())
    node_ = float_layer(w, scale, np.zeros(8), group=2)
    q = choose_range(0.0, high, 3, [Seen(node_, x, x)], 2)
    others = [Quantization.covering(0.0, high * share, 3) for share in np.geomspace(1, 0.03, 90)]
    assert loss(q) <= 1.05 * min(map(loss, others))


def test_what_sums_should_be() -> None:
    rng = np.random.default_rng(4)
    targets, added = rng.standard_normal((2, 3, 20))
    step_scale = np.array([[0.5], [-2.0], [0.0]])
    wanted = wanted_sums(targets, added, step_scale, np.full((3, 20), 7.0))
    np.testing.assert_allclose((added - step_scale * wanted)[:2], targets[:2])
    assert (wanted[2] == 7).all()


@pytest.mark.parametrize("group", [1, 2])
def test_weights_are_rounded_up_or_down(group: int) -> None:
    rng = np.random.default_rng(8)
    w = (2 * rng.standard_normal((8, 4, 3, 3))).astype(np.float32)
    q = Quantization.covering(0.0, 3.0, 3)
    a = layer(w, group=group)
    # Taps that rise and fall together, as neighbouring pixels do: their errors add up.
    signals = 2 * rng.standard_normal((36 * group, 3)) @ rng.standard_normal((3, 600)) + 3
    x = np.clip(np.rint(signals), 0, 7).astype(np.uint8)
    columns_of = np.repeat(q.dequantize(x).reshape(group, 36, 600), 8 // group, axis=0)

    def sums_of(weight: NDArray[Any]) -> NDArray[np.float64]:
        return np.abs(columns_of - weight.reshape(8, 36, 1)).sum(axis=1)

    exact = sums_of(w)
    chosen = choose_weights(a, q, x, exact / float(q.scale), 2)
    places = np.clip(w, q.low, q.high).astype(np.float64) / float(q.scale) + q.zero_point
    assert (np.abs(chosen - places) < 1).all()
    plain, ours = (
        float((exact - sums_of(q.dequantize(integers))).var(axis=1).sum())
        for integers in (round_weights(a, q), chosen)
    )
    assert ours < 0.9 * plain


def test_groups_are_rounded_by_themselves() -> None:
    rng = np.random.default_rng(8)
    w = (2 * rng.standard_normal((8, 4, 3, 3))).astype(np.float32)
    q = Quantization.covering(0.0, 3.0, 3)
    x = np.clip(2 * rng.standard_normal((72, 3)) @ rng.standard_normal((3, 600)) + 3, 0, 7)
    x, targets = np.rint(x).astype(np.uint8), 30 * rng.standard_normal((8, 600))
    together = choose_weights(layer(w, group=2), q, x, targets, 2)
    for own, taps in ((slice(0, 4), slice(0, 36)), (slice(4, 8), slice(36, 72))):
        alone = choose_weights(layer(w[own]), q, x[taps].copy(), targets[own], 2)
        np.testing.assert_array_equal(together[own], alone)
    assert (together != round_weights(layer(w), q)).any()


# Parts of models


def test_segments_begin_at_the_nearest_known_values() -> None:
    then = onnx.helper.make_graph(
        [node("Add", ["B", "Q"], "T")], "then", [], [onnx.ValueInfoProto(name="T")]
    )
    other = onnx.helper.make_graph(
        [node("Identity", ["B"], "E")], "else", [], [onnx.ValueInfoProto(name="E")]
    )
    branch = onnx.helper.make_node("If", ["flag"], ["C"], then_branch=then, else_branch=other)
    model = load_graph(
        make_model(
            [
                node("Neg", ["X"], "A"),
                node("Exp", ["A"], "B"),
                node("Cast", ["P"], "flag", to=onnx.TensorProto.BOOL),
                branch,
                node("Mul", ["C", "A"], "Y"),
            ],
            {"X": [3], "P": [], "Q": [3]},
            {"Y": [3]},
        )
    )
    assert sources(model.graph, "Y", {"A", "B", "Y"}) == ["A", "B", "P", "Q"]
    assert sources(model.graph, "B", set()) == ["X"]
    part = Segment(model, ["A", "B", "P", "Q"], "Y", 1)
    a, b, q = (np.arange(3, dtype=np.float32) + i for i in range(3))
    given_ = {"A": a, "B": b, "Q": q, "P": np.float32(1)}
    np.testing.assert_array_equal(part.run(given_), (b + q) * a)
    np.testing.assert_array_equal(part.run({**given_, "P": np.float32(0)}), b * a)


# Networks


def deep_network(layers: int = 6) -> onnx.ModelProto:
    """Blocks with residuals, one of which changes the number of pixels, and a classifier."""
    rng = np.random.default_rng(9)
    constants: dict[str, NDArray[Any]] = {}
    nodes = []

    def convolution(x: str, y: str, channels: int, filters: int, kernel: int, stride: int) -> str:
        taps = channels * kernel**2
        constants[f"{y}_w"] = rng.standard_normal((filters, channels, kernel, kernel))
        for name, value in {
            "gamma": rng.uniform(0.5, 1.5, filters),
            "beta": rng.standard_normal(filters) / 2,
            "mean": np.full(filters, -1.0 * taps),
            "var": np.full(filters, float(taps)),
        }.items():
            constants[f"{y}_{name}"] = value
        pad = kernel // 2
        nodes.append(adder_conv(x, f"{y}_w", f"{y}_c", pads=[pad] * 4, strides=[stride] * 2))
        inputs = [f"{y}_c", *(f"{y}_{n}" for n in ("gamma", "beta", "mean", "var"))]
        nodes.append(node("BatchNormalization", inputs, y))
        return y

    x = "X"
    for i in range(layers // 2):
        stride, channels = (2, 8) if i == 1 else (1, 8)
        convolution(x, f"a{i}", 3 if i == 0 else channels, 8, 3, stride)
        nodes.append(node("Relu", [f"a{i}"], f"ar{i}"))
        convolution(f"ar{i}", f"b{i}", 8, 8, 3, 1)
        skip = x if i > 1 else convolution(x, f"s{i}", 3 if i == 0 else 8, 8, 1, stride)
        nodes.append(node("Add", [f"b{i}", skip], f"o{i}"))
        nodes.append(node("Relu", [f"o{i}"], f"r{i}"))
        x = f"r{i}"
    nodes += [
        node("GlobalAveragePool", [x], "P"),
        node("Flatten", ["P"], "F"),
        node("MatMul", ["F", "M"], "Y"),
    ]
    constants["M"] = rng.standard_normal((8, 5))
    floats = {name: value.astype(np.float32) for name, value in constants.items()}
    return make_model(nodes, {"X": ["N", 3, "H", "W"]}, {"Y": ["N", 5]}, floats)


def feeds_of(seed: int, count: int = 4) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [{"X": rng.standard_normal((8, 3, 12, 12)).astype(np.float32)} for _ in range(count)]


def output_snr(model: onnx.ModelProto, quantized: onnx.ModelProto) -> float:
    exact, ours = [], []
    for feed in feeds_of(99):
        exact += stock_outputs(model, feed, "Y")
        ours += adder_onnx.InferenceSession(quantized.SerializeToString()).run(None, feed)
    return decibels(exact, ours)


@pytest.mark.parametrize("bits", [3, 4])
def test_a_network_loses_less(bits: int) -> None:
    """On inputs that were not seen, than by ranges of values alone."""
    model = deep_network()
    ours, theirs = (
        output_snr(model, quantize(model, feeds_of(1), bits=bits, calibration=name).model)
        for name in ("output", "mse")
    )
    assert ours > theirs + 1


def test_means_of_all_channels_are_kept() -> None:
    """All pixels of these feeds are samples; the last value has 8 bits."""
    model, feeds = deep_network(), feeds_of(1)
    result = quantize(model, feeds, bits=2)
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in result.model.graph.initializer}
    nodes = [n for n in result.model.graph.node if n.op_type == "QLinearAdderConv"]
    integers = {n.input[9]: n for n in nodes}
    scale, zero = (constants[name].astype(np.float64) for name in integers["r2_scale"].input[9:])
    exact = np.concatenate([stock_outputs(model, feed, "r2")[0] for feed in feeds])
    name = integers["r2_scale"].output[0]
    ours = np.concatenate([stock_outputs(result.model, feed, name)[0] for feed in feeds])
    found, wanted = ((ours - zero) * scale).mean(axis=(0, 2, 3)), exact.mean(axis=(0, 2, 3))
    assert np.abs(found - wanted).max() < 0.25 * float(scale)
    assert (exact == 0).any()  # and not only by chance, without the bound


@pytest.mark.parametrize("order", [1, -1])
def test_widths(order: int) -> None:
    """Of all nodes, or of each; values that no adder node takes have 8 bits."""
    model, feeds = deep_network(), feeds_of(1, 1)
    names = [n.name for n in quantize(model, feeds).nodes]
    widths = {name: 3 + order * (i % 3 - 1) for i, name in enumerate(names)}
    result = quantize(model, feeds, bits=widths)
    by_name = {n.name: n for n in result.model.graph.node if n.op_type == "QLinearAdderConv"}
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in result.model.graph.initializer}
    for n in result.nodes:
        takers = [m.name for m in by_name.values() if m.input[0] == by_name[n.name].input[0]]
        assert n.bits == max(widths[name] for name in takers)
        assert constants[by_name[n.name].input[1]].max() < 2**n.bits
    made = {
        n.output[0]: next(a.i for a in n.attribute if a.name == "bits") for n in by_name.values()
    }
    for name, bits in made.items():
        takers = [widths[m.name] for m in by_name.values() if m.input[0] == name]
        assert bits == max(takers, default=8)
    assert {3, 4, 8} <= set(made.values())
    with pytest.raises(InputError, match="bits of n_x: the model has no such adder node"):
        quantize(model, feeds, bits={**widths, "n_x": 3})
    with pytest.raises(InputError, match=f"bits of {names[0]}: the model has this adder node"):
        quantize(model, feeds, bits=dict.fromkeys(names[1:], 3))
    with pytest.raises(InputError, match="takes one width for all nodes"):
        quantize(model, feeds, bits=widths, calibration="mse")


def test_the_same_for_a_seed() -> None:
    rng = np.random.default_rng(0)
    feeds = [{"X": rng.standard_normal((8, 3, 40, 40)).astype(np.float32)} for _ in range(2)]
    results = [
        quantize(deep_network(), feeds, bits=3, seed=seed, threads=threads).model
        for seed, threads in ((1, 1), (1, 3), (2, 1))
    ]
    first, second, other = (r.SerializeToString(deterministic=True) for r in results)
    assert first == second
    assert first != other


def test_float_nodes_between_and_several_inputs() -> None:
    """What is computed between quantized nodes sees what these give."""
    model = make_model(
        [
            adder_conv("X", "W1", "A", pads=[1, 1, 1, 1]),
            node("Mul", ["A", "s"], "B"),
            node("Relu", ["B"], "C"),
            node("Mul", ["C", "G"], "D"),
            adder_conv("D", "W2", "E", pads=[1, 1, 1, 1]),
            node("Add", ["C", "E"], "Y"),
        ],
        {"X": ["N", 3, 8, 8], "G": ["N", 1, 1, 1]},
        {"Y": ["N", 20, 8, 8]},
        {"W1": W1, "W2": W2, "s": np.full((20, 1, 1), -0.1, np.float32)},
    )
    rng = np.random.default_rng(0)
    feeds = [
        {**feed, "G": rng.uniform(0.5, 1, (2, 1, 1, 1)).astype(np.float32)}
        for feed in calibration()
    ]
    for exclude in ([], ["n_A"], ["n_E"]):
        result = quantize(model, feeds, bits=8, exclude=exclude)
        (y,) = adder_onnx.InferenceSession(result.model.SerializeToString()).run(None, feeds[0])
        (exact,) = adder_onnx.InferenceSession(model.SerializeToString()).run(None, feeds[0])
        assert np.abs(y - exact).max() < 0.03 * np.abs(exact).max()


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    quantize(normalized_network(), calibration(), bits=4)
    with pytest.raises(DataError, match="make S infinite or undefined"):
        quantize(
            normalized_network(), [*calibration(), {"X": np.full((1, 3, 8, 8), np.inf, np.float32)}]
        )
    assert list(tmp_path.iterdir()) == []


def test_files_of_values_that_are_no_longer_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end only what was given is left of them."""
    left: list[int] = []

    class Watched(Store):
        def __exit__(self, *error: Any) -> None:
            left.append(len(list(Path(self._folder.name).iterdir())))
            super().__exit__(*error)

    monkeypatch.setattr(network, "Store", Watched)
    quantize(deep_network(), feeds_of(1, 3))
    assert left == [3]


def test_no_room_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(AdderError, match="No space left on device; set TMPDIR to a folder with"):
        quantize(normalized_network(), calibration())


def test_progress_is_by_values() -> None:
    seen: list[tuple[int, int]] = []
    quantize(normalized_network(), calibration(), progress=lambda *done: seen.append(done))
    assert seen == [(1, 3), (2, 3), (3, 3)]
