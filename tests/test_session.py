"""`InferenceSession`: its answers, its errors, its promises to callers."""

from __future__ import annotations

import logging
import os
import re
import sys
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
from adder_onnx.graph.plan import ChainStep, OnnxruntimeStep
from adder_onnx.ops import ConvAttributes
from adder_onnx.ops.reference import adder_conv as reference
from adder_onnx.runtime import onnxruntime_library, threads
from adder_onnx.runtime.lru import LruCache
from tests.concurrency import assert_threads_agree
from tests.models import W1, W2, K, adder_conv, image, make_model, node, normalized_network, oracle


@pytest.fixture(scope="module")
def session() -> adder_onnx.InferenceSession:
    return adder_onnx.InferenceSession(normalized_network().SerializeToString(), threads=2)


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (3, 3, 5, 9), (0, 3, 8, 8), (2, 3, 1, 1)])
def test_equals_stock_onnxruntime(
    session: adder_onnx.InferenceSession, shape: tuple[int, ...]
) -> None:
    x = image(*shape)
    stock = onnxruntime.InferenceSession(normalized_network().SerializeToString())
    np.testing.assert_allclose(
        session.run(None, {"X": x})[0], stock.run(None, {"X": x})[0], rtol=1e-5, atol=1e-4
    )


def test_path_threads_and_fusing_do_not_matter(tmp_path: Path) -> None:
    onnx.save(normalized_network(), tmp_path / "model.onnx")
    x = image(2, 3, 7, 7)
    (expected,) = oracle(normalized_network(), {"X": x})
    for fuse in (True, False):
        for count in (1, 3):
            s = adder_onnx.InferenceSession(tmp_path / "model.onnx", threads=count, fuse=fuse)
            np.testing.assert_allclose(s.run(["Y"], {"X": x})[0], expected, rtol=1e-5, atol=1e-4)


def test_arithmetics_are_close_and_not_the_same() -> None:
    x = image(2, 3, 7, 7)
    (expected,) = oracle(normalized_network(), {"X": x})
    found = {}
    for arithmetic in ("fast", "exact"):
        s = adder_onnx.InferenceSession(
            normalized_network().SerializeToString(), arithmetic=arithmetic
        )
        found[arithmetic] = s.run(None, {"X": x})[0]
        assert s.arithmetic == arithmetic
        np.testing.assert_allclose(found[arithmetic], expected, rtol=1e-5, atol=1e-4)
    assert (found["fast"] != found["exact"]).any()
    s = adder_onnx.InferenceSession(normalized_network().SerializeToString())
    np.testing.assert_array_equal(s.run(None, {"X": x})[0], found["fast"])


def test_unknown_arithmetic_is_an_error() -> None:
    with pytest.raises(InputError, match="arithmetic 'precise' is unknown; choose one of fast, ex"):
        adder_onnx.InferenceSession(normalized_network().SerializeToString(), arithmetic="precise")


def test_inputs_and_outputs_are_described_as_onnxruntime_does(
    session: adder_onnx.InferenceSession,
) -> None:
    stock = onnxruntime.InferenceSession(normalized_network().SerializeToString())
    for ours, theirs in (
        (session.get_inputs(), stock.get_inputs()),
        (session.get_outputs(), stock.get_outputs()),
    ):
        assert [(v.name, v.type, v.shape) for v in ours] == [
            (v.name, v.type, v.shape) for v in theirs
        ]


def test_many_threads_with_changing_shapes(session: adder_onnx.InferenceSession) -> None:
    assert_threads_agree(session, [(n, 3, 4 + n, 6) for n in range(1, 7)], runs=30)


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


def test_double_runs_through_the_body(caplog: pytest.LogCaptureFixture) -> None:
    model = make_model(
        [adder_conv("X", "W", "Y")],
        {"X": ["N", 3, 5, 5]},
        {"Y": ["N", 20, 3, 3]},
        {"W": W1.astype(np.float64)},
        elem_type=TensorProto.DOUBLE,
        bodies=False,
    )
    with caplog.at_level(logging.WARNING):
        s = adder_onnx.InferenceSession(model.SerializeToString())
    assert "'n_Y' is executed by onnxruntime through its function body" in caplog.text
    x = image(1, 3, 5, 5).astype(np.float64)
    np.testing.assert_allclose(s.run(None, {"X": x})[0], oracle(model, {"X": x})[0], rtol=1e-12)


def test_float16_is_native(caplog: pytest.LogCaptureFixture) -> None:
    """Inside a chain values are float32: the result is the exact one, rounded once."""
    model = make_model(
        [
            adder_conv("X", "W1", "A", pads=[1, 1, 1, 1]),
            node("Mul", ["A", "s"], "B"),
            node("Relu", ["B"], "C"),
            adder_conv("C", "W2", "D", pads=[1, 1, 1, 1]),
            node("Add", ["D", "C"], "Y"),
        ],
        {"X": ["N", 3, 5, 5]},
        {"Y": ["N", 20, 5, 5]},
        {
            "W1": W1.astype(np.float16),
            "W2": W2.astype(np.float16),
            "s": np.full((20, 1, 1), -0.1, np.float16),
        },
        elem_type=TensorProto.FLOAT16,
    )
    with caplog.at_level(logging.WARNING):
        s = adder_onnx.InferenceSession(model.SerializeToString())
    assert not caplog.records
    assert [type(step).__name__ for step in s.plan.steps].count("OnnxruntimeStep") == 0
    x = image(2, 3, 5, 5).astype(np.float16)
    (y,) = s.run(None, {"X": x})
    pads = ConvAttributes(pads=(1, 1, 1, 1))
    c = np.maximum(reference(x, W1.astype(np.float16), pads) * float(np.float16(-0.1)), 0)
    expected = reference(c, W2.astype(np.float16), pads) + c
    assert y.dtype == np.float16
    np.testing.assert_allclose(y, expected, rtol=2**-10)
    stock = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"X": x})[0]
    np.testing.assert_allclose(y, stock, rtol=0.01)


def test_computed_weights_are_native() -> None:
    model = make_model(
        [node("Exp", ["V"], "W"), adder_conv("X", "W", "Y"), adder_conv("X", "V", "Z")],
        {"X": ["N", 3, 5, 5], "V": [4, 3, 3, 3]},
        {"Y": ["N", 4, 3, 3], "Z": ["N", 4, 3, 3]},
    )
    s = adder_onnx.InferenceSession(model.SerializeToString())
    (chain,) = [step for step in s.plan.steps if isinstance(step, ChainStep)]
    assert set(chain.weights) == {"W", "V"}
    for _ in range(2):  # other weights in each run
        feed = {"X": image(2, 3, 5, 5), "V": image(4, 3, 3, 3)}
        for result, expected in zip(s.run(None, feed), oracle(model, feed), strict=True):
            np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_weights_computed_by_an_adder_node_come_from_another_chain() -> None:
    """The first node's output has the shape of a weight: (4, 3, 3, 3) from a batch of 4."""
    model = make_model(
        [
            adder_conv("V", "K", "A"),
            node("Relu", ["A"], "W"),
            adder_conv("X", "W", "B"),
            node("Relu", ["B"], "Y"),
        ],
        {"X": ["N", 3, 5, 5], "V": [4, 3, 3, 3]},
        {"Y": ["N", 4, 3, 3]},
        {"K": -K},
    )
    s = adder_onnx.InferenceSession(model.SerializeToString())
    assert sum(isinstance(step, ChainStep) for step in s.plan.steps) == 2
    feed = {"X": image(2, 3, 5, 5), "V": image(4, 3, 3, 3)}
    np.testing.assert_allclose(s.run(None, feed)[0], oracle(model, feed)[0], rtol=1e-5)


def test_weight_of_unknown_shape_runs_through_the_body(caplog: pytest.LogCaptureFixture) -> None:
    model = make_model(
        [adder_conv("X", "W", "Y")],
        {"X": ["N", 3, 5, 5], "W": ["M", 3, "k", "k"]},
        {"Y": ["N", "M", None, None]},
    )
    with caplog.at_level(logging.WARNING):
        s = adder_onnx.InferenceSession(model.SerializeToString())
    assert "function body" in caplog.text
    feed = {"X": image(2, 3, 5, 5), "W": image(7, 3, 2, 2)}
    np.testing.assert_allclose(s.run(None, feed)[0], oracle(model, feed)[0], rtol=1e-5)


def test_nodes_without_names() -> None:
    model = make_model(
        [adder_conv("X", "W1", "A"), adder_conv("X", "W2", "B"), node("Sub", ["A", "B"], "Y")],
        {"X": ["N", 3, 5, 5]},
        {"Y": ["N", 20, 3, 3]},
        {"W1": W1, "W2": W1[::-1].copy()},
    )
    for proto in model.graph.node:
        proto.name = ""
    feed = {"X": image(2, 3, 5, 5)}
    s = adder_onnx.InferenceSession(model.SerializeToString())
    np.testing.assert_allclose(s.run(None, feed)[0], oracle(model, feed)[0], atol=1e-4)


def test_adder_node_behind_an_operator_that_onnx_does_not_know() -> None:
    """Onnx cannot infer what comes out of com.microsoft.Gelu; onnxruntime can."""
    model = make_model(
        [
            onnx.helper.make_node("Gelu", ["X"], ["G"], "gelu", domain="com.microsoft"),
            adder_conv("G", "W1", "A"),
            node("Relu", ["A"], "Y"),
        ],
        {"X": ["N", 3, 5, 5]},
        {"Y": ["N", 20, 3, 3]},
        {"W1": -10 * W1},
        domains=["com.microsoft"],
    )
    s = adder_onnx.InferenceSession(model.SerializeToString())
    assert sum(isinstance(step, ChainStep) for step in s.plan.steps) == 1
    x = image(2, 3, 5, 5)
    stock = onnxruntime.InferenceSession(model.SerializeToString())
    np.testing.assert_allclose(
        s.run(None, {"X": x})[0], stock.run(None, {"X": x})[0], rtol=1e-5, atol=1e-5
    )


def test_sequences_and_text_pass_through() -> None:
    text = onnx.helper.make_tensor_value_info("T", TensorProto.STRING, ["N"])
    sequence = onnx.helper.make_tensor_sequence_value_info("S", TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph(
        [
            node("SequenceAt", ["S", "zero"], "Y"),
            node("Identity", ["T"], "U"),
            node("SequenceLength", ["S"], "L"),
        ],
        "g",
        [sequence, text],
        [
            onnx.helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None]),
            onnx.helper.make_tensor_value_info("U", TensorProto.STRING, ["N"]),
            onnx.helper.make_tensor_value_info("L", TensorProto.INT64, []),
        ],
        [onnx.numpy_helper.from_array(np.array(0), "zero")],
    )
    opsets = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    s = adder_onnx.InferenceSession(model.SerializeToString())
    stock = onnxruntime.InferenceSession(model.SerializeToString())
    assert [(v.name, v.type) for v in s.get_inputs()] == [
        (v.name, v.type) for v in stock.get_inputs()
    ]
    feed = {"S": [image(3), image(3)], "T": np.array(["a", "b"])}
    y, u, length = s.run(None, feed)
    np.testing.assert_array_equal(y, feed["S"][0])
    assert u.tolist() == ["a", "b"]
    assert length == 2


def test_input_of_unknown_rank() -> None:
    model = make_model([node("Relu", ["X"], "Y")], {"X": ["N"]}, {"Y": ["N"]})
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.ClearField("shape")
    s = adder_onnx.InferenceSession(model.SerializeToString())
    for shape in ((), (3,), (2, 3)):
        x = image(*shape)
        np.testing.assert_array_equal(s.run(None, {"X": np.asarray(x)})[0], np.maximum(x, 0))


def test_torch_tensors_in_and_out(session: adder_onnx.InferenceSession) -> None:
    torch = pytest.importorskip("torch")
    x = image(2, 3, 6, 6)
    (expected,) = session.run(None, {"X": x})
    (result,) = session.run(None, {"X": torch.from_numpy(x)})
    assert isinstance(result, torch.Tensor)
    np.testing.assert_array_equal(result.numpy(), expected)
    strided = torch.from_numpy(x).permute(0, 1, 3, 2)
    (result,) = session.run(None, {"X": strided})
    np.testing.assert_array_equal(
        result.numpy(), session.run(None, {"X": x.transpose(0, 1, 3, 2)})[0]
    )
    with pytest.raises(InputError, match="'X' is not an array"):
        session.run(None, {"X": torch.from_numpy(x).requires_grad_()})
    with pytest.raises(InputError, match="'X' is not an array"):
        session.run(None, {"X": torch.empty(2, 3, 6, 6, device="meta")})


class _Exchangeable:
    """What speaks DLPack and is neither NumPy's nor torch's."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


def test_dlpack_in(session: adder_onnx.InferenceSession) -> None:
    x = image(2, 3, 6, 6)
    np.testing.assert_array_equal(
        session.run(None, {"X": _Exchangeable(x)})[0], session.run(None, {"X": x})[0]
    )


def _peak_of_this_process() -> int:
    """The most bytes of memory that it has had at once."""
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(line)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells a process's memory")
@pytest.mark.parametrize("threads", [1, 2])
def test_memory_is_what_was_planned(threads: int) -> None:
    """Two tensors live at a time, of one image for each thread, whatever the batch."""
    model = make_model(
        [
            adder_conv("X", "W1", "A", pads=[1, 1, 1, 1]),
            adder_conv("A", "W2", "B", pads=[1, 1, 1, 1]),
            adder_conv("B", "W2", "Y", pads=[1, 1, 1, 1]),
        ],
        {"X": ["N", 3, "H", "W"]},
        {"Y": ["N", 20, "H", "W"]},
        {"W1": W1, "W2": W2},
    )
    s = adder_onnx.InferenceSession(model.SerializeToString(), threads=threads)
    x = image(4, 3, 256, 256)
    image_bytes = 2 * 256 * 256 * 32 * 4  # twice (H, W, 20 padded to 32) float32
    planned = threads * image_bytes
    s.run(None, {"X": x[:1]})
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _peak_of_this_process()
    (y,) = s.run(None, {"X": x})
    taken = _peak_of_this_process() - before
    assert taken < planned + y.nbytes + (4 << 20)
    memory = s.memory()
    assert [m.shapes for m in memory] == [{"X": (1, 3, 256, 256)}, {"X": (4, 3, 256, 256)}]
    assert [m.peak_bytes for m in memory] == [image_bytes, planned]
    assert [m.arenas for m in memory] == [1, 1]
    s.run(None, {"X": x})
    assert [m.arenas for m in s.memory()] == [1, 1]


def test_the_memory_of_a_chain_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    s = adder_onnx.InferenceSession(normalized_network().SerializeToString())
    with caplog.at_level(logging.INFO, "adder_onnx.runtime.native_step"):
        for size in (8, 8, 9, 8):
            s.run(None, {"X": image(1, 3, size, size)})
    assert len(caplog.records) == 2


def test_model_of_adder_nodes_only_and_of_none() -> None:
    only = make_model(
        [adder_conv("X", "W1", "Y")], {"X": ["N", 3, 5, 5]}, {"Y": ["N", 20, 3, 3]}, {"W1": W1}
    )
    s = adder_onnx.InferenceSession(only.SerializeToString())
    assert not any(isinstance(step, OnnxruntimeStep) for step in s.plan.steps)
    x = image(2, 3, 5, 5)
    np.testing.assert_allclose(s.run(None, {"X": x})[0], oracle(only, {"X": x})[0], rtol=1e-5)
    none = make_model([node("Relu", ["X"], "Y")], {"X": ["N"]}, {"Y": ["N"]})
    s = adder_onnx.InferenceSession(none.SerializeToString())
    assert [type(step) for step in s.plan.steps] == [OnnxruntimeStep]
    np.testing.assert_array_equal(s.run(None, {"X": -x.ravel()})[0], np.maximum(-x.ravel(), 0))


def test_adder_node_in_a_scan(caplog: pytest.LogCaptureFixture) -> None:
    """The body captures its weight, whose only use is inside."""
    body = onnx.helper.make_graph(
        [adder_conv("x", "W1", "y"), node("Identity", ["s"], "s_out")],
        "body",
        [
            onnx.helper.make_tensor_value_info("s", TensorProto.FLOAT, [1]),
            onnx.helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 5, 5]),
        ],
        [
            onnx.helper.make_tensor_value_info("s_out", TensorProto.FLOAT, [1]),
            onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 20, 3, 3]),
        ],
    )
    scan = onnx.helper.make_node(
        "Scan", ["s0", "A"], ["s1", "Y"], "scan", body=body, num_scan_inputs=1
    )
    model = make_model(
        [adder_conv("X", "K", "B"), node("Unsqueeze", ["B", "axes"], "A"), scan],
        {"X": [2, 3, 5, 5]},
        {"Y": [1, 2, 20, 3, 3]},
        {"W1": W1, "K": K, "axes": np.array([0]), "s0": np.zeros(1, np.float32)},
    )
    with caplog.at_level(logging.WARNING):
        s = adder_onnx.InferenceSession(model.SerializeToString())
    assert "node 'n_y' is executed by onnxruntime" in caplog.text
    assert sum(isinstance(step, ChainStep) for step in s.plan.steps) == 1
    feed = {"X": image(2, 3, 5, 5)}
    stock = onnxruntime.InferenceSession(model.SerializeToString())
    np.testing.assert_allclose(s.run(None, feed)[0], stock.run(None, feed)[0], rtol=1e-5)


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
    data = normalized_network().SerializeToString()
    assert adder_onnx.InferenceSession(data).device == "cpu"
    s = adder_onnx.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert s.device == "cpu"
    with pytest.raises(DeviceError, match="TensorrtExecutionProvider"):
        adder_onnx.InferenceSession(data, providers=[("TensorrtExecutionProvider", {})])


def test_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = normalized_network().SerializeToString()
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
        onnxruntime_library.import_onnxruntime()


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
    assert 0 < len(session.memory()) <= 16
