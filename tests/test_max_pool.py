"""MaxPool between integer nodes: its rules, and the kernels of both devices against onnxruntime."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

import adder_onnx
from adder_onnx.errors import InputError
from adder_onnx.graph.plan import ChainStep, OnnxruntimeStep
from adder_onnx.graph.pools import PoolNode
from adder_onnx.inspection.report import inspect_model
from adder_onnx.kernels.cpu import Program
from adder_onnx.kernels.cuda.launch import max_pool
from tests.cuda_on_cpu.device import CpuDevice, CpuGpu
from tests.models import node
from tests.pooled_models import CHANNELS, adder, make_model, pool
from tests.test_cuda_session import cuda_session, gpu  # noqa: F401


def pools_of(session: adder_onnx.InferenceSession) -> list[PoolNode]:
    chains = [step for step in session.plan.steps if isinstance(step, ChainStep)]
    return [n for chain in chains for n in chain.nodes if isinstance(n, PoolNode)]


def image(*size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (2, CHANNELS, *size), np.uint8)


def assert_equals_stock(model: onnx.ModelProto, session: Any, x: NDArray[np.uint8]) -> None:
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"X": x})
    for ours, truth in zip(session.run(None, {"X": x}), expected, strict=True):
        np.testing.assert_array_equal(ours, truth)


@st.composite
def pooled(draw: st.DrawFn) -> tuple[onnx.ModelProto, NDArray[np.uint8]]:
    kernel = [draw(st.integers(1, 4)) for _ in range(2)]
    attributes: dict[str, Any] = {"strides": [draw(st.integers(1, 3)) for _ in range(2)]}
    mode = draw(
        st.sampled_from(["NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
    )
    if mode == "NOTSET":
        attributes["dilations"] = [draw(st.integers(1, 3)) for _ in range(2)]
        # onnxruntime demands that pads be smaller than the kernel.
        attributes["pads"] = [draw(st.integers(0, kernel[i % 2] - 1)) for i in range(4)]
        attributes["ceil_mode"] = draw(st.integers(0, 1))
    else:
        attributes["auto_pad"] = mode
        attributes["strides"] = [
            min(pair) for pair in zip(kernel, attributes["strides"], strict=True)
        ]
    spans = [(k - 1) * attributes.get("dilations", [1, 1])[i] + 1 for i, k in enumerate(kernel)]
    size = [draw(st.integers(s, 13)) for s in spans]
    nodes = [adder("X", "A"), pool("A", "P", kernel, **attributes), adder("P", "B")]
    return make_model(nodes, draw(st.sampled_from(["B", "BP"]))), image(*size)


def test_any_attributes(gpu: CpuGpu) -> None:  # noqa: F811
    @settings(max_examples=50, deadline=None)
    @given(case=pooled())
    def check(case: tuple[onnx.ModelProto, NDArray[np.uint8]]) -> None:
        model, x = case
        for session in (
            adder_onnx.InferenceSession(model.SerializeToString()),
            cuda_session(model),
        ):
            assert len(pools_of(session)) == 1
            assert not any(isinstance(step, OnnxruntimeStep) for step in session.plan.steps)
            assert_equals_stock(model, session, x)

    check()
    gpu.check_guards()
    assert "max_pool" in gpu.launched


def devices(model: onnx.ModelProto) -> list[adder_onnx.InferenceSession]:
    return [adder_onnx.InferenceSession(model.SerializeToString()), cuda_session(model)]


@pytest.mark.parametrize(
    ("outputs", "nodes"),
    [
        (
            "B",
            [
                adder("X", "A"),
                pool("A", "P"),
                pool("P", "Q", (3, 3), strides=[2, 2]),
                adder("Q", "B"),
            ],
        ),
        ("BD", [adder("X", "A"), adder("A", "C"), pool("C", "P"), adder("P", "B"), pool("A", "D")]),
        ("BC", [adder("X", "A"), pool("A", "P"), adder("P", "C"), adder("P", "B")]),
        ("B", [adder("X", "A"), pool("A", "B")]),
    ],
    ids=["two in a row", "a branch", "several users", "at the end"],
)
def test_pools_among_integer_nodes(
    gpu: CpuGpu,  # noqa: F811
    outputs: str,
    nodes: list[onnx.NodeProto],
) -> None:
    model = make_model(nodes, outputs)
    for session in devices(model):
        (chain,) = [step for step in session.plan.steps if isinstance(step, ChainStep)]
        assert len(chain.nodes) == len(nodes)
        assert_equals_stock(model, session, image(9, 8))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_inspection_shows_pools_in_the_chain(device: str) -> None:
    """What became part of the pool included."""
    model = make_model(conversions(), "B", CONSTANTS)
    sizes = {"H": 9, "W": 8}
    report = inspect_model(model.SerializeToString(), batch_size=2, dims=sizes, device=device)
    (chain,) = [step for step in report.steps if step.kind == "chain"]
    assert chain.nodes == ("n_A", "n_M", "n_B")
    places = {node.name: node.step for node in report.nodes}
    assert len({places[name] for name in ("n_A", "n_F", "n_M", "n_P", "n_B")}) == 1
    assert {n.name: n.fused_into for n in report.nodes}["n_F"] == "n_M"


INDICES = helper.make_node("MaxPool", ["A"], ["P", "I"], "n_P", kernel_shape=[2, 2])


@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [
        ([adder("X", "A"), INDICES, adder("P", "B")], {"I": TensorProto.INT64}),
        ([pool("X", "P"), adder("P", "B")], {}),
        (
            [
                adder("X", "A"),
                node("Unsqueeze", ["A", "axis"], "U"),
                pool("U", "V", (1, 2, 2)),
                node("Squeeze", ["V", "axis"], "P"),
                adder("P", "B"),
            ],
            {},
        ),
        (
            [
                adder("X", "A"),
                pool("A", "P", strides=[3, 1], auto_pad="SAME_UPPER"),
                adder("P", "B"),
            ],
            {},
        ),
    ],
    ids=["indices", "of an input", "of three dimensions", "less than its stride"],
)
def test_other_pools_are_left_to_onnxruntime(
    gpu: CpuGpu,  # noqa: F811
    nodes: list[onnx.NodeProto],
    outputs: dict[str, int],
) -> None:
    model = make_model(nodes, {"B": TensorProto.UINT8, **outputs}, {"axis": np.array([2])})
    for session in devices(model):
        assert not pools_of(session)
        assert_equals_stock(model, session, image(9, 8))


def conversions(*, clip: bool = False, bits: int = 8) -> list[onnx.NodeProto]:
    found = [
        adder("X", "A", bits),
        node("DequantizeLinear", ["A", "s", "z"], "F"),
        pool("F", "M"),
    ]
    if clip:
        found.append(node("Clip", ["M", "low", "high"], "C"))
    found.append(node("QuantizeLinear", ["C" if clip else "M", "s", "z"], "P"))
    return [*found, adder("P", "B")]


CONSTANTS = {
    "other": np.float32(0.04),
    "low": np.float32(-3 * 0.05),
    "high": np.float32(12 * 0.05),
    "each": np.full(CHANNELS, 0.05, np.float32),
    "zeros": np.full(CHANNELS, 3, np.uint8),
}


@pytest.mark.parametrize("options", [{}, {"clip": True, "bits": 4}])
@pytest.mark.parametrize("shared", [False, True])
def test_conversions_that_give_back_every_integer(
    gpu: CpuGpu,  # noqa: F811
    options: dict[str, Any],
    shared: bool,
) -> None:
    """What others take of the float value they still get."""
    outputs = {"B": TensorProto.UINT8, **({"F": TensorProto.FLOAT} if shared else {})}
    model = make_model(conversions(**options), outputs, CONSTANTS)
    for session in devices(model):
        (found,) = pools_of(session)
        assert found.fused[-1] == "n_P"
        assert ("n_F" in found.fused) is not shared
        assert not any(isinstance(step, OnnxruntimeStep) for step in session.plan.steps)
        assert_equals_stock(model, session, image(9, 8))


def changed(how: str) -> tuple[list[onnx.NodeProto], dict[str, int]]:
    nodes, outputs = conversions(clip=how == "a clip that cuts", bits=8), {}
    last, quantize = nodes[-1], nodes[-2]
    if how == "another scale":
        quantize.input[1] = "other"
    elif how == "a scale for each channel":
        quantize.input[1:] = ["each", "zeros"]
        quantize.attribute.add(name="axis", i=1, type=onnx.AttributeProto.INT)
    elif how == "another zero point":
        quantize.input[2] = "none"
    elif how == "others take the float maximum":
        outputs["M"] = TensorProto.FLOAT
    elif how == "the float comes from elsewhere":
        nodes.insert(2, node("Relu", ["F"], "R"))
        nodes[3].input[0] = "R"
    assert last.op_type == "QLinearAdderConv"
    return nodes, outputs


@pytest.mark.parametrize(
    "how",
    [
        "another scale",
        "another zero point",
        "a scale for each channel",
        "a clip that cuts",
        "others take the float maximum",
        "the float comes from elsewhere",
    ],
)
def test_other_conversions_stay(gpu: CpuGpu, how: str) -> None:  # noqa: F811
    nodes, outputs = changed(how)
    model = make_model(nodes, {"B": TensorProto.UINT8, **outputs}, CONSTANTS)
    for session in devices(model):
        assert not pools_of(session)
        assert_equals_stock(model, session, image(9, 8))


@pytest.mark.parametrize("blocks", [1 << 20, 1])
def test_many_channels(monkeypatch: pytest.MonkeyPatch, blocks: int) -> None:
    """The kernels alone. One block, as if a grid had not enough threads for the image."""
    monkeypatch.setattr(max_pool, "_MAX_BLOCKS", blocks)
    x = np.random.default_rng(2).integers(0, 256, (2, 9, 8, 48), np.uint8)
    expected = np.zeros((2, 5, 4, 48), np.uint8)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for h, w in itertools.product(range(3), range(3)):
        window = padded[:, h : h + 9 : 2, w : w + 8 : 2]
        np.maximum(expected, window, out=expected)
    device = CpuDevice()
    on_gpu, y = device.upload(x), device.empty(expected.shape, np.uint8)
    geometry: Any = ((2, 40, 9, 8), (5, 4), (3, 3), (2, 2), (1, 1), (1, 1))
    launch = max_pool.launch_max_pool(*geometry)
    launch.run(device, x=device.pointer(on_gpu), y=device.pointer(y))
    device.check_guards()
    np.testing.assert_array_equal(y[..., :40], expected[..., :40])
    program = Program(2, 1)
    program.add_nchw_to_nhwc(0, (2, 40, 9, 8), 0, "uint8", "uint8")
    program.add_max_pool(40, (3, 3), (2, 2), (1, 1), 2, (9, 8), (5, 4), (1, 1), 0, 9 * 8 * 48 // 4)
    program.add_nhwc_to_nchw(9 * 8 * 48 // 4, (2, 40, 5, 4), 0, "uint8", "uint8")
    result = np.empty((2, 40, 5, 4), np.uint8)
    images = np.ascontiguousarray(x[..., :40].transpose(0, 3, 1, 2))
    program.run(np.empty(program.arena_size(2), np.float32), [images], [result], 2)
    np.testing.assert_array_equal(result, expected[..., :40].transpose(0, 3, 1, 2))


def test_images_smaller_than_the_kernel_are_named(gpu: CpuGpu) -> None:  # noqa: F811
    model = make_model(
        [adder("X", "A"), pool("A", "P", (3, 3)), adder("P", "B")], {"B": TensorProto.UINT8}
    )
    for session in devices(model):
        with pytest.raises(InputError, match="node 'n_P': the kernel spans 3 pixels in height"):
            session.run(None, {"X": image(2, 8)})
        assert session.run(None, {"X": image(3, 3)[:0]})[0].shape == (0, CHANNELS, 1, 1)
