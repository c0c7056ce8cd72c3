"""Networks whose adder nodes take few values of a finer grid: which, and how they are made."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import adder_onnx
from adder_onnx.errors import InputError
from adder_onnx.graph.plan import ChainStep, ConversionStep
from adder_onnx.quantization import quantize
from adder_onnx.quantization.few_levels import choose_levels, entry_of, leaving_entry, with_levels
from adder_onnx.quantization.ranges import Histogram, Quantization
from tests.models import W1, W2, adder_conv, make_model, node
from tests.test_quantization import calibration, decibels
from tests.test_reconstruction import deep_network, feeds_of


def nearest(value: float, q: Quantization, levels: Sequence[int]) -> int:
    """By the definition: the nearest level, of two the lower."""
    place = value / float(q.scale) + q.zero_point
    return min(levels, key=lambda level: (abs(place - level), level))


def test_values_become_the_nearest_level() -> None:
    q = Quantization(np.float32(0.5), 3, 4, (0, 3, 4, 9, 12))
    values = np.concatenate([np.arange(-4, 8, 0.125), [-1e30, 1e30, -np.inf, np.inf]])
    expected = [nearest(v, q, q.levels) for v in np.clip(values, -99, 99)]
    np.testing.assert_array_equal(q.quantize(values), expected)
    assert q.quantize(values).dtype == np.uint8
    assert (q.low, q.high) == (-1.5, 4.5)


def test_weights_have_all_integers_between_the_first_level_and_the_last() -> None:
    q = Quantization(np.float32(0.5), 3, 4, (2, 3, 9))
    np.testing.assert_array_equal(
        q.round(np.arange(-2, 5, 0.5)), [2] * 3 + [*range(2, 10)] + [9] * 3
    )


@pytest.mark.parametrize("zero_point", [0, 3, 7])
@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_levels_have_the_least_squared_error(zero_point: int, count: int) -> None:
    """Of all choices of so many integers with the zero point among them."""
    rng = np.random.default_rng(count)
    q = Quantization(np.float32(0.25), zero_point, 3)
    values = ((rng.gamma(1.0, 2.0, (7, 30)) - zero_point) * 0.25).astype(np.float32)

    def error(levels: tuple[int, ...]) -> float:
        rounded = [(nearest(v, q, levels) - zero_point) * 0.25 for v in values.flat]
        return float(((rounded - values.reshape(-1).astype(np.float64)) ** 2).sum())

    choices = [c for c in itertools.combinations(range(8), count) if zero_point in c]
    found = with_levels(q, count, values)
    assert (found.scale, found.zero_point, found.bits) == (q.scale, zero_point, 3)
    assert found.levels in choices
    assert error(found.levels) == pytest.approx(min(map(error, choices)), rel=1e-9)
    assert len(choices) == 1 or error(found.levels) < max(map(error, choices))


def test_levels_of_a_histogram() -> None:
    """Those of each range with the least error, and of ranges the one with the least."""
    rng = np.random.default_rng(3)
    histogram = Histogram(2)
    values = rng.gamma(0.7, 1.0, (4, 2, 9, 9)).astype(np.float32)
    histogram.add(values, "x")
    found = choose_levels(histogram, 4, 6)

    def error(q: Quantization) -> float:
        return float(((q.dequantize(q.quantize(values)) - values) ** 2).sum())

    high = float(values.max())
    others = [
        with_levels(Quantization.covering(0, high * share, 4), 6, values)
        for share in np.linspace(1, 0.1, 40)
    ]
    assert error(found) < 1.03 * min(map(error, others))
    assert error(found) < 0.8 * max(map(error, others))
    weighted = with_levels(found, 6, np.array([0.1, 3.0]), np.array([500, 1]))
    repeated = with_levels(found, 6, np.array([0.1] * 500 + [3.0]))
    assert weighted == repeated


def test_values_that_are_all_alike_have_levels_too() -> None:
    found = with_levels(Quantization(np.float32(1), 2, 4), 6, np.zeros(9, np.float32))
    assert len(set(found.levels)) == 6
    assert 2 in found.levels


@pytest.mark.parametrize("levels", [(0, 15), (0, 2, 3, 4, 5, 7, 10, 15), (1, 4, 6), (0, 3, 255)])
def test_a_table_makes_levels_of_finer_integers(levels: tuple[int, ...]) -> None:
    """A float becomes the nearest level, but for those within half a fine step of a border."""
    q = Quantization(np.float32(0.3), levels[1], 8, levels)
    fine, table = entry_of(q)
    assert (table.shape, table.dtype) == ((256,), np.uint8)
    assert set(table) == set(levels)
    values = np.linspace(q.low - 1, q.high + 1, 5000)
    found, exact = table[fine.quantize(values)], q.quantize(values)
    middles = (np.add(levels[1:], levels[:-1]) / 2 - q.zero_point) * float(q.scale)
    near = np.abs(values[:, None] - middles).min(axis=1) < 0.51 * float(fine.scale)
    assert 0 < near.mean() < 0.3 or levels == (0, 3, 255)
    np.testing.assert_array_equal(found[~near], exact[~near])
    assert table[fine.quantize(np.zeros(1))] == q.zero_point  # padding
    steps = round(float(q.scale) / float(fine.scale))
    for low, high in itertools.pairwise(levels):  # on the border itself it is the lower one
        tie = (low + high - 2 * q.zero_point) * steps / 2 + fine.zero_point
        assert table[int(np.floor(tie))] == low
        assert table[int(np.floor(tie)) + 1] == high
    again = leaving_entry(fine, table, float(q.scale), q.zero_point)
    assert again is not None
    assert (again.levels, again.scale, again.zero_point) == (levels, q.scale, q.zero_point)


def test_tables_that_no_levels_have() -> None:
    """More than a node takes, or none but one."""
    for levels, found in ((range(16), True), (range(17), False), ((3, 3), False)):
        q = Quantization(np.float32(0.3), 3, 5, tuple(levels))
        again = leaving_entry(*entry_of(q), float(q.scale), q.zero_point)
        assert (again is not None) == found


def test_the_smallest_scale_has_an_entry() -> None:
    q = Quantization(np.float32(1e-45), 0, 4, (0, 3, 15))
    fine, table = entry_of(q)
    assert fine.scale > 0
    assert [table[0], table[15]] == [0, 15]


def integer_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [n for n in model.graph.node if n.op_type == "QLinearAdderConv"]


def attribute(n: onnx.NodeProto, name: str) -> Any:
    found = [onnx.helper.get_attribute_value(a) for a in n.attribute if a.name == name]
    return found[0] if found else None


def check(model: onnx.ModelProto, feed: dict[str, Any], levels: int, bits: int) -> int:
    """Looks at what nodes take in onnxruntime; how many different integers weights have."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    names = {n.input[0] for n in integer_nodes(model)}
    probe.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None) for name in names
    )
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    values = dict(zip(names, session.run(list(names), feed), strict=True))
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    kinds = 0
    for n in integer_nodes(model):
        taken = np.unique(values[n.input[0]])
        assert len(taken) <= levels, n.name
        weights = constants[n.input[1]]
        assert weights.max() < 2**bits
        kinds = max(kinds, len(np.unique(weights)))
        made = attribute(n, "levels")
        takers = [m for m in integer_nodes(model) if m.input[0] == n.output[0]]
        if takers:
            assert len(made) == levels
            assert int(constants[n.input[10]]) in made  # padding
        elif not made:
            assert attribute(n, "bits") == 8
    return kinds


@pytest.mark.parametrize(("levels", "bits"), [(2, 4), (4, 4), (8, 4), (8, 3), (16, 4), (5, 6)])
def test_networks(levels: int, bits: int) -> None:
    model, feeds = deep_network(), feeds_of(1, 2)
    result = quantize(model, feeds, bits=bits, levels=levels)
    last = integer_nodes(result.model)[-1].output[0]
    result.model.graph.output.append(
        onnx.helper.make_tensor_value_info(last, onnx.TensorProto.UINT8, None)
    )
    data = result.model.SerializeToString()
    assert check(result.model, feeds[0], levels, bits) > levels - (levels == 2**bits)
    assert all(len(n.levels) == levels for n in result.nodes)
    assert {n.bits for n in result.nodes} == {bits}
    session = adder_onnx.InferenceSession(data)
    expected = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    ours, theirs = (s.run([last], feeds[1])[0] for s in (session, expected))
    np.testing.assert_array_equal(ours, theirs)
    assert len(np.unique(ours)) > 20


def test_four_bits_are_the_default() -> None:
    feeds = feeds_of(1, 1)
    assert {n.bits for n in quantize(deep_network(), feeds, levels=3).nodes} == {4}
    assert {n.bits for n in quantize(deep_network(), feeds).nodes} == {8}
    assert {n.levels for n in quantize(deep_network(), feeds).nodes} == {()}


@pytest.mark.parametrize("few", [{"levels": 8}, {"levels": 8, "bits": 5}])
def test_a_finer_grid_loses_less_than_as_many_bits(few: dict[str, int]) -> None:
    """Weights are between levels, too, and levels where values are."""
    fine, coarse = (
        np.mean(list(quantize(deep_network(), feeds_of(1), **options).snr.values()))
        for options in (few, {"bits": 3})
    )
    assert fine > coarse + 0.5


def test_floats_enter_a_chain_as_levels() -> None:
    """What makes levels of them is part of the conversion; signed values have them too."""
    rng = np.random.default_rng(0)
    model = make_model(
        [adder_conv("X", "W1", "Y", pads=[1, 1, 1, 1])],
        {"X": ["N", 3, 8, 8]},
        {"Y": ["N", 20, 8, 8]},
        {"W1": W1},
    )
    feeds = calibration()
    data = quantize(model, feeds, levels=8).model.SerializeToString()
    session = adder_onnx.InferenceSession(data)
    entry, chain, leave = session.plan.steps
    assert isinstance(entry, ConversionStep)
    assert isinstance(chain, ChainStep)
    assert isinstance(leave, ConversionStep)
    assert entry.quantization is not None
    assert entry.quantization.table is not None
    assert len(set(entry.quantization.table)) == 8
    stock = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    x = rng.standard_normal((3, 3, 8, 8)).astype(np.float32)
    x.flat[:4] = [np.inf, -np.inf, 1e30, -1e30]
    np.testing.assert_array_equal(session.run(None, {"X": x})[0], stock.run(None, {"X": x})[0])


@pytest.mark.parametrize("other", [False, True], ids=["alone", "taken elsewhere"])
def test_max_pool_keeps_levels(other: bool) -> None:
    """A MaxPool between adder nodes takes and gives integers of the same levels, in the chain."""
    model = make_model(
        [
            adder_conv("X", "W1", "A", pads=[1, 1, 1, 1]),
            node("Add", ["A", "b"], "B"),
            node("Relu", ["B"], "C"),
            node("MaxPool", ["C"], "P", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
            adder_conv("P", "W2", "Y", pads=[1, 1, 1, 1]),
        ],
        {"X": ["N", 3, 8, 8]},
        {"Y": ["N", 20, 4, 4]} | ({"C": ["N", 20, 8, 8]} if other else {}),
        {"W1": W1, "W2": W2, "b": np.full((20, 1, 1), 25, np.float32)},
    )
    feeds = calibration()
    result = quantize(model, feeds, levels=6)
    check(result.model, feeds[0], 6, 4)
    first, second = integer_nodes(result.model)
    assert attribute(first, "levels") == list(result.nodes[1].levels)
    assert not attribute(second, "levels")
    data = result.model.SerializeToString()
    session = adder_onnx.InferenceSession(data)
    assert sum(isinstance(step, ChainStep) for step in session.plan.steps) == 1
    stock = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for ours, theirs in zip(session.run(None, feeds[0]), stock.run(None, feeds[0]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_calibration_sees_what_the_tables_make() -> None:
    """The ratio that it tells of a layer is that of the file, floats next to borders included."""
    model = make_model(
        [adder_conv("X", "W1", "Y", pads=[1, 1, 1, 1])],
        {"X": ["N", 3, 8, 8]},
        {"Y": ["N", 20, 8, 8]},
        {"W1": W1},
    )
    feeds = calibration()
    result = quantize(model, feeds, levels=6)
    exact, ours = (
        [adder_onnx.InferenceSession(m.SerializeToString()).run(None, f)[0] for f in feeds]
        for m in (model, result.model)
    )
    assert decibels(exact, ours) == pytest.approx(result.snr["n_Y"], abs=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 1}, "levels is 1; expected 2 to 16"),
        ({"levels": 17, "bits": 8}, "levels is 17; expected 2 to 16"),
        ({"levels": 9, "bits": 3}, "levels is 9, of which 3 bits have 8"),
        ({"levels": 8, "calibration": "mse"}, "levels need calibration output, not mse"),
    ],
)
def test_what_makes_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        quantize(deep_network(), feeds_of(1, 1), **options)
