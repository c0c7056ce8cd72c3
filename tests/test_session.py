"""`InferenceSession`: its answers, its errors, its promises to callers."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

import adder_onnx
from adder_onnx.errors import (
    AdderError,
    DeviceError,
    InputError,
    MissingDependencyError,
    ModelError,
)
from adder_onnx.runtime import onnxruntime_step, threads
from adder_onnx.runtime.lru import LruCache
from tests.models import adder_conv, make_model, node, oracle

RNG = np.random.default_rng(0)
W1 = RNG.standard_normal((20, 3, 3, 3)).astype(np.float32)
W2 = RNG.standard_normal((20, 20, 3, 3)).astype(np.float32)
K = RNG.standard_normal((3, 3, 1, 1)).astype(np.float32)


def network() -> onnx.ModelProto:
    """Stem, two adder layers with a residual, head; batch, height and width symbolic."""
    return make_model(
        [
            node("Conv", ["X", "K"], "S"),
            adder_conv("S", "W1", "A", pads=[1, 1, 1, 1]),
            node("Relu", ["A"], "B"),
            adder_conv("B", "W2", "C", pads=[1, 1, 1, 1]),
            node("Add", ["C", "B"], "D"),
            node("GlobalAveragePool", ["D"], "E"),
            node("Flatten", ["E"], "Y"),
        ],
        {"X": ["N", 3, "H", "W"]},
        {"Y": ["N", 20]},
        {"W1": W1, "W2": W2, "K": K},
    )


def image(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def session() -> adder_onnx.InferenceSession:
    return adder_onnx.InferenceSession(network().SerializeToString(), threads=2)


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (3, 3, 5, 9), (0, 3, 8, 8), (2, 3, 1, 1)])
def test_equals_stock_onnxruntime(
    session: adder_onnx.InferenceSession, shape: tuple[int, ...]
) -> None:
    x = image(*shape)
    stock = onnxruntime.InferenceSession(network().SerializeToString())
    np.testing.assert_allclose(
        session.run(None, {"X": x})[0], stock.run(None, {"X": x})[0], rtol=1e-5, atol=1e-4
    )


def test_path_threads_and_fusing_do_not_matter(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "model.onnx")
    x = image(2, 3, 7, 7)
    (expected,) = oracle(network(), {"X": x})
    for fuse in (True, False):
        for count in (1, 3):
            s = adder_onnx.InferenceSession(tmp_path / "model.onnx", threads=count, fuse=fuse)
            np.testing.assert_allclose(s.run(["Y"], {"X": x})[0], expected, rtol=1e-5, atol=1e-4)


def test_inputs_and_outputs_are_described_as_onnxruntime_does(
    session: adder_onnx.InferenceSession,
) -> None:
    stock = onnxruntime.InferenceSession(network().SerializeToString())
    for ours, theirs in (
        (session.get_inputs(), stock.get_inputs()),
        (session.get_outputs(), stock.get_outputs()),
    ):
        assert [(v.name, v.type, v.shape) for v in ours] == [
            (v.name, v.type, v.shape) for v in theirs
        ]


def test_many_threads_with_changing_shapes(session: adder_onnx.InferenceSession) -> None:
    feeds = [{"X": image(n, 3, 4 + n, 6)} for n in range(1, 7)]
    expected = [session.run(None, feed)[0] for feed in feeds]
    wrong: list[int] = []

    def call(offset: int) -> None:
        for i in range(30):
            which = (i * 5 + offset) % len(feeds)
            if not np.array_equal(session.run(None, feeds[which])[0], expected[which]):
                wrong.append(which)

    workers = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_results_stay_when_the_session_runs_again() -> None:
    """An adder node's output is given back as it is: it must not lie in a buffer used again."""
    model = make_model(
        [adder_conv("X", "W1", "Y")], {"X": ["N", 3, 8, 8]}, {"Y": ["N", 20, 6, 6]}, {"W1": W1}
    )
    s = adder_onnx.InferenceSession(model.SerializeToString())
    x = image(1, 3, 8, 8)
    (first,) = s.run(None, {"X": x})
    kept = first.copy()
    s.run(None, {"X": image(1, 3, 8, 8)})
    np.testing.assert_array_equal(first, kept)


def test_input_that_is_also_an_output_and_constant_output() -> None:
    graph = make_model(
        [node("Relu", ["X"], "Y")],
        {"X": [1, 3]},
        {"Y": [1, 3]},
    )
    graph.graph.output.append(graph.graph.input[0])
    graph.graph.initializer.append(onnx.numpy_helper.from_array(K, "K"))
    graph.graph.output.append(
        onnx.helper.make_tensor_value_info("K", TensorProto.FLOAT, list(K.shape))
    )
    s = adder_onnx.InferenceSession(graph.SerializeToString())
    x = image(1, 3)
    y, same, constant = s.run(None, {"X": x})
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    np.testing.assert_array_equal(same, x)
    np.testing.assert_array_equal(constant, K)
    same[:] = 0
    constant[:] = 0
    assert x.any()
    np.testing.assert_array_equal(s.run(["K"], {"X": x})[0], K)


def test_subset_and_order_of_outputs(session: adder_onnx.InferenceSession) -> None:
    assert len(session.run(["Y", "Y"], {"X": image(1, 3, 4, 4)})) == 2
    with pytest.raises(InputError, match="no output 'Z'"):
        session.run(["Z"], {"X": image(1, 3, 4, 4)})


def test_arrays_that_are_not_contiguous(session: adder_onnx.InferenceSession) -> None:
    x = image(4, 3, 8, 8)
    np.testing.assert_array_equal(
        session.run(None, {"X": x[::2, :, ::-1]})[0],
        session.run(None, {"X": np.ascontiguousarray(x[::2, :, ::-1])})[0],
    )
    model = make_model(
        [adder_conv("X", "W1", "Y")], {"X": ["N", 3, 8, 8]}, {"Y": ["N", 20, 6, 6]}, {"W1": W1}
    )
    s = adder_onnx.InferenceSession(model.SerializeToString())
    np.testing.assert_array_equal(
        s.run(None, {"X": x.transpose(0, 1, 3, 2)})[0],
        s.run(None, {"X": x.transpose(0, 1, 3, 2).copy()})[0],
    )


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({}, "input 'X' is missing"),
        ({"X": image(1, 3, 4, 4), "Q": image(1)}, "no input 'Q'"),
        ({"X": image(1, 3, 4, 4).astype(np.float64)}, "has type float64"),
        ({"X": image(1, 4, 4, 4)}, r"shape \[1, 4, 4, 4\]; expected \[.N., 3, .H., .W.\]"),
        ({"X": image(3, 4, 4)}, r"shape \[3, 4, 4\]"),
    ],
)
def test_wrong_feeds(
    session: adder_onnx.InferenceSession, feed: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        session.run(None, feed)


def test_image_smaller_than_the_kernel_names_the_node() -> None:
    model = make_model(
        [adder_conv("X", "W1", "Y")],
        {"X": ["N", 3, "H", "W"]},
        {"Y": ["N", 20, None, None]},
        {"W1": W1},
    )
    s = adder_onnx.InferenceSession(model.SerializeToString())
    with pytest.raises(InputError, match=r"node 'n_Y': the kernel spans 3 pixels in width"):
        s.run(None, {"X": image(1, 3, 3, 2)})


def test_failure_inside_onnxruntime_is_one_of_ours() -> None:
    model = make_model(
        [node("Reshape", ["X", "shape"], "Y")],
        {"X": ["N", 4]},
        {"Y": [None, 3]},
        {"shape": np.array([-1, 3])},
    )
    s = adder_onnx.InferenceSession(model.SerializeToString())
    with pytest.raises(InputError, match="onnxruntime failed"):
        s.run(None, {"X": image(1, 4)})
    assert s.run(None, {"X": image(3, 4)})[0].shape == (4, 3)


@pytest.mark.parametrize("name", ["FLOAT16", "DOUBLE"])
def test_other_types_run_through_the_body(name: str, caplog: pytest.LogCaptureFixture) -> None:
    dtype = {"FLOAT16": np.float16, "DOUBLE": np.float64}[name]
    model = make_model(
        [adder_conv("X", "W", "Y")],
        {"X": ["N", 3, 5, 5]},
        {"Y": ["N", 20, 3, 3]},
        {"W": W1.astype(dtype)},
        elem_type=getattr(TensorProto, name),
        bodies=False,
    )
    with caplog.at_level(logging.WARNING):
        s = adder_onnx.InferenceSession(model.SerializeToString())
    assert "'n_Y' is executed by onnxruntime through its function body" in caplog.text
    x = image(1, 3, 5, 5).astype(dtype)
    np.testing.assert_allclose(s.run(None, {"X": x})[0], oracle(model, {"X": x})[0], rtol=1e-3)


def test_computed_weights_run_through_the_body() -> None:
    model = make_model(
        [node("Exp", ["V"], "W"), adder_conv("X", "W", "Y")],
        {"X": ["N", 3, 5, 5], "V": [4, 3, 3, 3]},
        {"Y": ["N", 4, 3, 3]},
    )
    feed = {"X": image(2, 3, 5, 5), "V": image(4, 3, 3, 3)}
    s = adder_onnx.InferenceSession(model.SerializeToString())
    np.testing.assert_allclose(s.run(None, feed)[0], oracle(model, feed)[0], rtol=1e-5)


def test_residual_of_another_shape_at_run_time_is_an_error() -> None:
    """Equal symbols promise equal sizes; a caller who breaks the promise is told."""
    model = make_model(
        [adder_conv("X", "W1", "A", pads=[1, 1, 1, 1]), node("Add", ["A", "R"], "Y")],
        {"X": ["N", 3, 4, 4], "R": ["N", 20, 4, 4]},
        {"Y": ["N", 20, 4, 4]},
        {"W1": W1},
    )
    s = adder_onnx.InferenceSession(model.SerializeToString())
    feed = {"X": image(2, 3, 4, 4), "R": image(1, 20, 4, 4)}
    with pytest.raises(InputError, match="residual has shape"):
        s.run(None, feed)


def test_devices_and_providers() -> None:
    data = network().SerializeToString()
    assert adder_onnx.InferenceSession(data).device == "cpu"
    assert adder_onnx.InferenceSession(data, device="auto").device == "cpu"
    s = adder_onnx.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert s.device == "cpu"
    with pytest.raises(DeviceError, match="'tpu' is not supported"):
        adder_onnx.InferenceSession(data, device="tpu")
    with pytest.raises(DeviceError, match="TensorrtExecutionProvider"):
        adder_onnx.InferenceSession(data, providers=[("TensorrtExecutionProvider", {})])


def test_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = network().SerializeToString()
    assert adder_onnx.InferenceSession(data, threads=3).threads == 3
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 5
    assert adder_onnx.InferenceSession(data, session_options=options).threads == 5
    with pytest.raises(InputError, match="threads is 0"):
        adder_onnx.InferenceSession(data, threads=0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(threads, "_CGROUP_QUOTA", quota)
    assert threads.available_cores() == 8
    quota.write_text("max 100000\n")
    assert threads.available_cores() == 8
    quota.write_text("250000 100000\n")
    assert threads.available_cores() == 3
    quota.write_text("10000 100000\n")
    assert threads.available_cores() == 1


def test_missing_onnxruntime_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "adder-onnx\[cpu\]"'):
        onnxruntime_step.import_onnxruntime()


def test_model_that_onnxruntime_refuses() -> None:
    model = make_model([node("Relu", ["X"], "Y")], {"X": [1, 3]}, {"Y": [1, 3]}, opset=18)
    model.graph.node[0].op_type = "Attention"
    model.graph.node[0].domain = "com.microsoft"
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(ModelError, match="onnxruntime refuses"):
        adder_onnx.InferenceSession(model.SerializeToString())


def test_errors_are_one_family() -> None:
    for name in ("ModelError", "InputError", "DeviceError", "DataError", "CheckpointError"):
        assert issubclass(getattr(adder_onnx.errors, name), AdderError)
    assert issubclass(InputError, ValueError)
    assert issubclass(MissingDependencyError, ImportError)


def test_cache_is_bounded_and_keeps_what_was_used_last() -> None:
    cache: LruCache[int, int] = LruCache(2)
    made: list[int] = []

    def make(key: int) -> int:
        made.append(key)
        return key * 10

    assert [cache.get_or_make(k, make) for k in (1, 2, 1, 3, 1, 2)] == [10, 20, 10, 30, 10, 20]
    assert made == [1, 2, 3, 2]
    assert len(cache) == 2


def test_many_shapes_do_not_pile_up(session: adder_onnx.InferenceSession) -> None:
    for n in range(1, 40):
        session.run(None, {"X": image(n, 3, 2, 2)})
    native = [e for e in session._executors if hasattr(e, "_programs")]
    assert native
    assert all(len(e._programs) <= 16 for e in native)  # type: ignore[union-attr]
