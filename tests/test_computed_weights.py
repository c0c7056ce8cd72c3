"""Chains on the CPU some of whose weights are computed: they alone are packed in each run."""

from __future__ import annotations

import gc
import logging
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import adder_onnx
from adder_onnx import memory
from adder_onnx.errors import InputError, ModelError
from adder_onnx.graph.plan import ChainStep
from adder_onnx.runtime import native_step
from tests.integer_chains import random_chain
from tests.models import W1, W2, adder_conv, image, make_model, node, oracle


def _network(elem_type: int = TensorProto.FLOAT, x: str = "X") -> onnx.ModelProto:
    """Three adder layers with a residual, the weight of the second one an input."""
    nodes = [
        adder_conv(x, "W1", "A", pads=[1, 1, 1, 1]),
        node("Mul", ["A", "s"], "M"),
        node("Relu", ["M"], "R"),
        adder_conv("R", "W", "B", pads=[1, 1, 1, 1]),
        node("Add", ["B", "R"], "C"),
        adder_conv("C", "W2", "Z", pads=[1, 1, 1, 1]),
    ]
    type_ = helper.tensor_dtype_to_np_dtype(elem_type)
    constants = {"W1": W1, "s": np.full((20, 1, 1), -0.1), "W2": W2}
    return make_model(
        nodes,
        {x: ["N", 3, "H", "V"], "W": [20, 20, 3, 3]},
        {"Z": ["N", 20, "H", "V"]},
        {name: array.astype(type_) for name, array in constants.items()},
        elem_type=elem_type,
    )


def _network_of_any_weight() -> onnx.ModelProto:
    """Three adder layers, the weight of the second one an input of any channels and kernel."""
    nodes = [
        adder_conv("X", "W1", "A"),
        adder_conv("A", "W", "B", auto_pad="SAME_UPPER"),
        adder_conv("B", "W2", "Z"),
    ]
    inputs = {"X": ["N", 3, "H", "V"], "W": [20, "c", "k", "k"]}
    return make_model(nodes, inputs, {"Z": ["N", 20, None, None]}, {"W1": W1, "W2": W2})


def _session(model: onnx.ModelProto, **options: Any) -> adder_onnx.InferenceSession:
    session = adder_onnx.InferenceSession(model.SerializeToString(), **options)
    assert sum(isinstance(step, ChainStep) for step in session.plan.steps) == 1
    return session


def _feed(kernel: int = 3, batch: int = 2, type_: Any = np.float32) -> dict[str, NDArray[Any]]:
    feed = {"X": image(batch, 3, 6, 5), "W": image(20, 20, kernel, kernel)}
    return {name: array.astype(type_) for name, array in feed.items()}


@pytest.mark.parametrize("arithmetic", ["fast", "exact"])
def test_weights_change_from_run_to_run(arithmetic: str) -> None:
    model = _network()
    session = _session(model, arithmetic=arithmetic, threads=2)
    for batch in (2, 2, 40, 1, 2):
        feed = _feed(batch=batch)
        np.testing.assert_allclose(
            session.run(None, feed)[0], oracle(model, feed)[0], rtol=1e-4, atol=1e-3
        )


def test_sizes_of_weights_change_from_run_to_run() -> None:
    model = _network_of_any_weight()
    session = _session(model)
    for kernel in (3, 1, 2, 1, 3, 3):
        feed = _feed(kernel)
        np.testing.assert_allclose(
            session.run(None, feed)[0], oracle(model, feed)[0], rtol=1e-4, atol=1e-3
        )


def test_results_are_the_bits_of_constant_weights() -> None:
    model = _network()
    session = _session(model)
    for _ in range(3):
        feed = _feed()
        fixed = onnx.ModelProto()
        fixed.CopyFrom(model)
        fixed.graph.initializer.append(onnx.numpy_helper.from_array(feed["W"], "W"))
        del fixed.graph.input[1]
        (expected,) = _session(fixed).run(None, {"X": feed["X"]})
        np.testing.assert_array_equal(session.run(None, feed)[0], expected)


def test_weights_of_float16() -> None:
    model = _network(TensorProto.FLOAT16)
    session = _session(model)
    for _ in range(2):
        feed = _feed(type_=np.float16)
        (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)
        np.testing.assert_allclose(session.run(None, feed)[0], expected, rtol=0.01)


def test_a_weight_of_two_nodes() -> None:
    nodes = [adder_conv(x, "W", y, pads=[1, 1, 1, 1]) for x, y in ("XA", "AB")]
    sizes = {"X": ["N", 20, 5, 5]}
    model = make_model(nodes, {**sizes, "W": [20, 20, 3, 3]}, {"B": ["N", 20, 5, 5]})
    session = _session(model)
    for _ in range(2):
        feed = {"X": image(1, 20, 5, 5), "W": image(20, 20, 3, 3)}
        np.testing.assert_allclose(session.run(None, feed)[0], oracle(model, feed)[0], rtol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_beside_integer_nodes(seed: int) -> None:
    """Whose weights are constants: a node with others is left to onnxruntime."""
    model, feed = random_chain(seed)
    own = _network(x="other").graph
    model.graph.node.extend(own.node)
    model.graph.initializer.extend(own.initializer)
    model.graph.input.extend(own.input)
    model.graph.output.extend(own.output)
    session = _session(model)
    stock = onnxruntime.InferenceSession(model.SerializeToString())
    for _ in range(2):
        given = _feed()
        both = {**feed, "other": given["X"], "W": given["W"]}
        for result, expected in zip(session.run(None, both), stock.run(None, both), strict=True):
            if result.dtype == np.uint8:
                np.testing.assert_array_equal(result, expected)
            else:
                np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-3)


def test_constant_weights_are_packed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And freed: beside the packed ones there is no copy of them."""
    chains = []
    kept: list[weakref.ref[Any]] = []

    def noted(integers: Any, floats: Any, operands: Any, *others: Any) -> Any:
        chains.append([None if array is None else array.shape for array in operands])
        kept.extend(weakref.ref(a) for a in operands if a is not None and a.ndim == 4)
        return native(integers, floats, operands, *others)

    native = native_step.NativeChain
    monkeypatch.setattr(native_step, "NativeChain", noted)
    session = _session(_network())
    gc.collect()
    assert [weight() for weight in kept] == [None, None]
    for _ in range(3):
        session.run(None, _feed())
    assert [shapes[::3] for shapes in chains] == [[W1.shape, None, W2.shape]]


def test_several_threads_with_weights_of_their_own() -> None:
    session = _session(_network_of_any_weight(), threads=2)
    feeds = [_feed(kernel, batch) for kernel, batch in ((3, 1), (3, 1), (2, 1), (3, 5))]
    expected = [session.run(None, feed)[0] for feed in feeds]

    def work(number: int) -> bool:
        return all(
            np.array_equal(session.run(None, feeds[number])[0], expected[number]) for _ in range(30)
        )

    with ThreadPoolExecutor(len(feeds)) as pool:
        assert all(pool.map(work, range(len(feeds))))


def test_memory_is_planned_once_for_weights_of_a_shape() -> None:
    session = _session(_network_of_any_weight(), threads=1)
    for _ in range(3):
        session.run(None, _feed(3))
    (planned,) = session.memory()
    assert planned.shapes == {"X": (2, 3, 6, 5)}
    assert planned.peak_bytes > 0
    assert planned.arenas == 1
    session.run(None, _feed(1))
    assert len(session.memory()) == 2


def test_the_memory_of_a_run_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    session = _session(_network_of_any_weight())
    with caplog.at_level(logging.INFO, native_step.__name__):
        for kernel in (3, 3, 1, 3):
            session.run(None, _feed(kernel))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert all(line.startswith("the chain of nodes 'n_A' to 'n_Z': ") for line in lines)


def test_too_much_memory_is_refused() -> None:
    session = _session(_network())
    with (
        memory.limited(1000),
        pytest.raises(InputError, match="chain of nodes 'n_A' to 'n_Z' takes"),
    ):
        session.run(None, _feed())
    session.run(None, _feed())


def test_weights_that_do_not_fit() -> None:
    session = _session(_network_of_any_weight())
    feed = _feed()
    for shape, message in (
        ((20, 19, 3, 3), "node 'n_B': weight of shape .20, 19, 3, 3. with group=1 takes 19 input"),
        ((20, 20, 0, 3), "node 'n_B': weight of shape .* has no taps"),
    ):
        with pytest.raises((InputError, ModelError), match=message):
            session.run(None, {**feed, "W": np.ones(shape, np.float32)})
    session.run(None, feed)
