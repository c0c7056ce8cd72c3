"""Integer networks on a GPU, which the CPU stands in for: the same bits as everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

import adder_onnx
from adder_onnx.errors import InputError
from adder_onnx.graph.plan import ChainStep, ConversionStep, OnnxruntimeStep
from adder_onnx.quantization import quantize
from tests.cuda_on_cpu.device import CpuGpu
from tests.integer_chains import random_chain
from tests.models import image, network, normalized_network
from tests.test_cuda_session import cuda_session, gpu  # noqa: F401

COUNT, BLOCK = 60, 20


@pytest.mark.parametrize("block", range(0, COUNT, BLOCK))
def test_random_chains(gpu: CpuGpu, block: int) -> None:  # noqa: F811
    for seed in range(block, block + BLOCK):
        model, feed = random_chain(seed)
        data = model.SerializeToString()
        expected = onnxruntime.InferenceSession(data).run(None, feed)
        session = cuda_session(data)
        assert not [step for step in session.plan.steps if isinstance(step, OnnxruntimeStep)]
        for ours, truth in zip(session.run(None, feed), expected, strict=True):
            np.testing.assert_array_equal(ours, truth, f"seed {seed}")
    gpu.check_guards()


@pytest.mark.parametrize("bits", [8, 3])
def test_quantized_networks(gpu: CpuGpu, bits: int) -> None:  # noqa: F811
    """Quantization and its inverse are part of the conversions at a chain's border."""
    feeds = [{"X": image(2, 3, 8, 8)}]
    data = quantize(network(), feeds, bits=bits).model.SerializeToString()
    session = cuda_session(data)
    conversions = [s for s in session.plan.steps if isinstance(s, ConversionStep)]
    assert any(s.quantization is not None for s in conversions)
    (expected,) = onnxruntime.InferenceSession(data).run(None, feeds[0])
    (y,) = session.run(None, feeds[0])
    np.testing.assert_array_equal(y, expected)
    assert any("Byte, float" in name for name in gpu.launched)
    assert session.memory()[0].peak_bytes > 0
    times = session.profile(feeds[0])
    assert sum(len(part.kernels) for part in times.parts) >= 3


def test_tables_of_what_enters(gpu: CpuGpu) -> None:  # noqa: F811
    """Any table, not only such as levels have."""
    proto = quantize(normalized_network(), [{"X": image(2, 3, 8, 8)}], levels=8).model
    (table,) = (t for t in proto.graph.initializer if t.name == "S_levels")
    assert onnx.numpy_helper.to_array(table).max() < 16
    random = np.random.default_rng(0).integers(0, 16, 256, np.uint8)
    table.CopyFrom(onnx.numpy_helper.from_array(random, table.name))
    data = proto.SerializeToString()
    session = cuda_session(data)
    (entry,) = (s.quantization for s in session.plan.steps if getattr(s, "to_kernels", False))
    assert entry is not None
    assert entry.table == random.tobytes()
    for size in (8, 5):
        x = 3 * image(2, 3, size, size)
        (expected,) = onnxruntime.InferenceSession(data).run(None, {"X": x})
        np.testing.assert_array_equal(session.run(None, {"X": x})[0], expected)
        assert (np.ptp(expected, axis=0) > 0).mean() > 0.5  # they depend on what enters
    gpu.check_guards()


def test_shapes_that_do_not_fit_are_named(gpu: CpuGpu) -> None:  # noqa: F811
    model, _ = random_chain(0)
    for axis, size in enumerate(model.graph.input[0].type.tensor_type.shape.dim):
        size.dim_param = f"D{axis}"
    session = cuda_session(model)
    with pytest.raises(InputError, match="node 'n_Y0': "):
        session.run(None, {"X": np.zeros((1, 5, 8, 9), np.uint8)})


def test_the_real_resnet20(
    gpu: CpuGpu,  # noqa: F811
    resnet20: Path,
    images: NDArray[np.float32],
) -> None:
    """The trained network, quantized: logits to the bit as on the CPU, all adders in one chain."""
    feeds = [{"input": images[:4]}]
    data = quantize(onnx.load(resnet20), feeds).model.SerializeToString()
    session = cuda_session(data)
    (chain,) = [step for step in session.plan.steps if isinstance(step, ChainStep)]
    assert {node.type for node in chain.nodes} == {"uint8"}
    assert len(chain.nodes) == 20
    (logits,) = session.run(None, {"input": images[:1]})
    (expected,) = adder_onnx.InferenceSession(data).run(None, {"input": images[:1]})
    np.testing.assert_array_equal(logits, expected)
