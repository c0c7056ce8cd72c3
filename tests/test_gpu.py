"""What needs a GPU: ``pytest -m gpu``."""

from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import adder_onnx
from adder_onnx.errors import AdderError, DeviceError, InputError
from adder_onnx.kernels.cuda.bound import measure_distances
from adder_onnx.kernels.cuda.launch.selection import select_distances
from adder_onnx.kernels.cuda.launch.variants import TYPES
from adder_onnx.quantization import quantize
from adder_onnx.runtime.cuda import kernels
from adder_onnx.runtime.cuda.cupy_gpu import CupyGpu
from adder_onnx.runtime.devices import check_cuda
from benchmarks.cuda.check.report import report
from benchmarks.cuda.machine import CupyMachine
from tests.concurrency import assert_threads_agree
from tests.conftest import ROOT
from tests.cuda_layers import assert_near, assert_right, run, run_integers, splits
from tests.integer_chains import random_chain
from tests.integer_layers import QLayer
from tests.layers import Layer, layers, make_layer
from tests.models import image, normalized_network
from tests.pooled_models import pooled_network
from tests.random_graphs import random_model
from tests.test_random_graphs import TOLERANCE, stock

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True, scope="module")
def needs_gpu() -> None:
    try:
        check_cuda(0)
    except AdderError as error:
        pytest.skip(f"no GPU: {error}")


@pytest.fixture(scope="module")
def gpu(needs_gpu: None) -> CupyGpu:
    return CupyGpu(0)


@pytest.fixture
def cupy(gpu: CupyGpu) -> Iterator[Any]:
    import cupy

    yield cupy
    cupy.get_default_memory_pool().set_limit(size=0)


@pytest.fixture(scope="module")
def session(needs_gpu: None) -> adder_onnx.InferenceSession:
    return adder_onnx.InferenceSession(normalized_network().SerializeToString(), device="cuda")


def on_cpu(model: onnx.ModelProto, feed: dict[str, Any]) -> list[Any]:
    return adder_onnx.InferenceSession(model.SerializeToString()).run(None, feed)


@pytest.mark.parametrize("type_", TYPES)
def test_any_shape(gpu: CupyGpu, type_: str) -> None:
    @settings(max_examples=300, deadline=None)
    @given(layer=layers(), force_direct=st.booleans(), grid=st.none() | st.integers(0, 1000))
    def check(layer: Layer, force_direct: bool, grid: int | None) -> None:
        assert_right(layer, type_, gpu, force_direct=force_direct, grid=grid)

    check()


def test_integers_of_any_shape(gpu: CupyGpu) -> None:
    @settings(max_examples=300, deadline=None)
    @given(
        layer=layers(),
        seed=st.integers(0, 2**32 - 1),
        bits=st.integers(2, 8),
        force_direct=st.booleans(),
        grid=st.none() | st.integers(0, 1000),
    )
    def check(layer: Layer, seed: int, bits: int, force_direct: bool, grid: int | None) -> None:
        quantized = QLayer.like(layer, seed, bits)
        y = run_integers(quantized, gpu, force_direct=force_direct, grid=grid)
        np.testing.assert_array_equal(y, quantized.expected())

    check()


@pytest.mark.parametrize("type_", [*TYPES, "uint8"])
def test_every_tile_and_share_of_sums(gpu: CupyGpu, type_: str) -> None:
    """Whether it is selected or not."""
    layer = make_layer(np.random.default_rng(0), 1, 192, 96, (9, 8), (3, 3), pads=(1, 1, 1, 1))
    layer.z = np.random.default_rng(1).standard_normal(layer.y_shape).astype(np.float32)
    quantized = QLayer.like(layer, 0, 8)
    for grid in range(2 * 54):  # of two tiles, and no more shares than turns in float32
        if type_ == "uint8":
            y = run_integers(quantized, gpu, grid=grid)
            np.testing.assert_array_equal(y, quantized.expected())
        else:
            assert_right(layer, type_, gpu, grid=grid)


def test_integers_of_layers_of_resnets(gpu: CupyGpu) -> None:
    """With few and with many blocks: sums that several share, and sums of one alone."""
    for batch, channels, filters, size, kernel in (
        (1, 512, 512, 7, 3),
        (1, 2048, 512, 7, 1),
        (4, 64, 64, 56, 3),
        (16, 16, 16, 32, 3),
        (16, 32, 32, 16, 3),
    ):
        rng = np.random.default_rng(0)
        pads = (kernel // 2,) * 4
        shape = (1, channels, filters, (size, size), (kernel, kernel))
        layer = make_layer(rng, *shape, pads=pads)
        layer.z = np.zeros(layer.y_shape, np.float32)
        quantized = QLayer.like(layer, 1, 8)
        one = quantized.expected()
        quantized.x = np.repeat(quantized.x, batch, axis=0)
        assert quantized.z is not None
        quantized.z = np.repeat(quantized.z, batch, axis=0)
        y = run_integers(quantized, gpu)
        np.testing.assert_array_equal(y, np.repeat(one, batch, axis=0))


@pytest.mark.parametrize("y_scale", [0.1, 3e-4, 7e12, 1e-25, 1e-44, 1e-38, 1e37])
def test_integer_epilogues_keep_subnormal_numbers(gpu: CupyGpu, y_scale: float) -> None:
    """CuPy compiles with -ftz=true: they would be flushed to zero."""
    scale = np.float32(y_scale)
    with np.errstate(over="ignore"):
        bias = (np.arange(-1, 257) + 0.5).astype(np.float32) * scale
    layer = make_layer(np.random.default_rng(0), 1, 16, len(bias), (1, 1), (1, 1))
    quantized = QLayer.like(layer, 0, 8)
    quantized.scale[:], quantized.bias = 0, bias
    quantized.zero_points = (0, 0, 3)
    quantized.scales = (np.float32(1), np.float32(1), scale)
    quantized.clip_min = -np.inf
    np.testing.assert_array_equal(run_integers(quantized, gpu), quantized.expected())


def test_random_integer_graphs(needs_gpu: None) -> None:
    for seed in range(60):
        model, feed = random_chain(seed)
        expected = on_cpu(model, feed)
        session = adder_onnx.InferenceSession(model.SerializeToString(), device="cuda")
        for result, truth in zip(session.run(None, feed), expected, strict=True):
            np.testing.assert_array_equal(result, truth, f"seed {seed}")


def test_quantized_networks(needs_gpu: None) -> None:
    """Quantization at a chain's border, and MaxPool in it, to the bit as on the CPU."""
    feeds = [{"X": image(2, 3, 8, 8)}]
    model = quantize(normalized_network(), feeds).model
    session = adder_onnx.InferenceSession(model.SerializeToString(), device="cuda")
    (y,), (expected,) = session.run(None, feeds[0]), on_cpu(model, feeds[0])
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)  # the head is float
    pooled = pooled_network()
    x = {"X": np.random.default_rng(1).integers(0, 256, (2, 5, 9, 8), np.uint8)}
    session = adder_onnx.InferenceSession(pooled.SerializeToString(), device="cuda")
    np.testing.assert_array_equal(session.run(None, x)[0], on_cpu(pooled, x)[0])


def test_the_chosen_way_to_add_up_differences_is_the_fastest(gpu: CupyGpu) -> None:
    """Within what measuring is off by; else `select_distances` is wrong for this GPU."""
    rates = measure_distances()
    assert rates[select_distances(gpu.target)] > 0.9 * max(rates.values()), rates


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize(
    ("batch", "channels", "filters", "size", "kernel", "stride"),
    [
        (16, 16, 16, 32, 3, 1),
        (16, 16, 32, 32, 3, 2),
        (16, 64, 64, 8, 3, 1),
        (4, 64, 256, 56, 1, 1),
        (4, 64, 64, 56, 3, 1),
        (4, 512, 1024, 28, 1, 2),
        (4, 512, 512, 14, 3, 2),
        (4, 512, 2048, 7, 1, 1),
        (1, 2048, 512, 7, 1, 1),
    ],
)
def test_layers_of_resnets(
    gpu: CupyGpu,
    type_: str,
    batch: int,
    channels: int,
    filters: int,
    size: int,
    kernel: int,
    stride: int,
) -> None:
    """Alone and in a batch against float64, and no image of the batch unlike the others.

    Alone and in a batch the bits are the same where as many blocks share a sum.
    """
    rng = np.random.default_rng(0)
    pads = (kernel // 2,) * 4
    layer = make_layer(
        rng,
        1,
        channels,
        min(filters, 96),
        (size, size),
        (kernel, kernel),
        strides=(stride, stride),
        pads=pads,
    )
    one, sharing = run(layer, type_, gpu), splits(layer, type_, gpu)
    assert_near(one, layer, type_)
    many = dataclasses.replace(layer, x=np.repeat(layer.x, batch, axis=0))
    y = run(many, type_, gpu)
    np.testing.assert_array_equal(y, np.repeat(y[:1], batch, axis=0))
    if splits(many, type_, gpu) == sharing:
        np.testing.assert_array_equal(y[:1], one)
    else:
        assert_near(y[:1], layer, type_)


@pytest.mark.parametrize("type_", TYPES)
def test_nan_and_infinity_pass_through(gpu: CupyGpu, type_: str) -> None:
    x = np.array([np.nan, np.inf, 1], np.float32).reshape(1, 1, 1, 3)
    w = np.ones((20, 1, 1, 1), np.float32)
    ones, zeros = np.ones(20, np.float32), np.zeros(20, np.float32)
    for clip in ((-np.inf, np.inf), (0.0, 6.0)):
        layer = Layer(x, w, adder_onnx.ops.ConvAttributes(), ones, zeros, clip=clip)
        for force_direct in (False, True):
            y = run(layer, type_, gpu, force_direct=force_direct)
            assert np.isnan(y[..., 0]).all()
            assert (y[..., 1] == clip[0]).all()
            assert (y[..., 2] == 0).all()


def test_random_graphs(needs_gpu: None) -> None:
    for seed in range(60):
        model, feed = random_model(seed)
        data = model.SerializeToString()
        expected = stock(data).run(None, feed)
        results = adder_onnx.InferenceSession(data, device="cuda").run(None, feed)
        for value, result, truth in zip(model.graph.output, results, expected, strict=True):
            where = f"seed {seed}, output {value.name}"
            assert result.shape == truth.shape, where
            assert result.dtype == truth.dtype, where
            scale = max(1.0, float(np.abs(truth).max(initial=0)))
            # cuDNN's convolutions sum in another order than the CPU's.
            assert float(np.abs(result - truth).max(initial=0)) <= 3 * TOLERANCE * scale, where


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (3, 3, 5, 9), (0, 3, 8, 8), (2, 3, 1, 1)])
def test_equals_the_cpu(session: adder_onnx.InferenceSession, shape: tuple[int, ...]) -> None:
    feed = {"X": image(*shape)}
    (expected,) = on_cpu(normalized_network(), feed)
    (y,) = session.run(None, feed)
    assert type(y) is np.ndarray
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-4)


def test_arrays_of_cupy(session: adder_onnx.InferenceSession, cupy: Any) -> None:
    x = image(2, 3, 6, 6)
    (expected,) = session.run(None, {"X": x})
    (y,) = session.run(None, {"X": cupy.asarray(x)})
    assert isinstance(y, cupy.ndarray)
    np.testing.assert_array_equal(cupy.asnumpy(y), expected)
    # On a stream that has work left when the session is called, and goes on with the result.
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        late = cupy.zeros((2, 3, 6, 6), np.float32)
        busy = cupy.ones((4096, 4096), np.float32)
        for _ in range(20):
            busy = cupy.sqrt(busy + 1)
        late += cupy.asarray(x) + 0 * busy[0, 0]
        (y,) = session.run(None, {"X": late})
        doubled = y * 2
    stream.synchronize()
    np.testing.assert_array_equal(cupy.asnumpy(doubled), 2 * expected)


def test_tensors_of_torch(session: adder_onnx.InferenceSession) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    x = image(2, 3, 6, 6)
    (expected,) = session.run(None, {"X": x})
    (y,) = session.run(None, {"X": torch.from_numpy(x)})
    assert y.device.type == "cpu"
    np.testing.assert_array_equal(y.numpy(), expected)
    (y,) = session.run(None, {"X": torch.from_numpy(x).cuda()})
    assert y.device.type == "cuda"
    np.testing.assert_array_equal(y.cpu().numpy(), expected)
    with torch.cuda.stream(torch.cuda.Stream()):
        late = torch.zeros(2, 3, 6, 6, device="cuda")
        busy = torch.ones(4096, 4096, device="cuda")
        for _ in range(20):
            busy = torch.sqrt(busy + 1)
        late += torch.from_numpy(x).cuda(non_blocking=True) + 0 * busy[0, 0]
        (y,) = session.run(None, {"X": late})
        doubled = y * 2
    torch.cuda.synchronize()
    np.testing.assert_array_equal(doubled.cpu().numpy(), 2 * expected)


def test_many_threads_with_changing_shapes(session: adder_onnx.InferenceSession) -> None:
    assert_threads_agree(session, [(n, 3, 4 + n, 6) for n in range(1, 7)], runs=30)


def test_running_out_of_memory_is_a_clear_error(
    session: adder_onnx.InferenceSession, cupy: Any
) -> None:
    x = image(1, 3, 4, 4)
    (expected,) = session.run(None, {"X": x})
    pool = cupy.get_default_memory_pool()
    pool.set_limit(size=pool.used_bytes() + (1 << 20))
    with pytest.raises(DeviceError, match=r"cuda:0 is out of memory .*: use a smaller batch"):
        session.run(None, {"X": image(64, 3, 64, 64)})
    pool.set_limit(size=0)
    np.testing.assert_array_equal(session.run(None, {"X": x})[0], expected)


def test_an_array_of_another_gpu(session: adder_onnx.InferenceSession, cupy: Any) -> None:
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is one GPU only")
    with cupy.cuda.Device(1):
        x = cupy.zeros((1, 3, 4, 4), np.float32)
    with pytest.raises(InputError, match="cuda:1, and the session runs on cuda:0"):
        session.run(None, {"X": x})


def test_a_gpu_that_is_not_there(needs_gpu: None) -> None:
    with pytest.raises(DeviceError, match="cuda:99 does not exist; this machine has cuda:0"):
        adder_onnx.InferenceSession(normalized_network().SerializeToString(), device="cuda:99")


def test_auto_takes_the_gpu_and_says_when_it_compiles(
    needs_gpu: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_kernels", {})
    with caplog.at_level(logging.INFO):
        s = adder_onnx.InferenceSession(normalized_network().SerializeToString(), device="auto")
        assert "compiling for cuda:0" in caplog.text
        assert "adder_conv_gemm<float, " in caplog.text
        caplog.clear()
        s.run(None, {"X": image(1, 3, 4, 4)})
    assert s.device == "cuda:0"
    assert "compiling" not in caplog.text


def test_the_check_of_a_new_gpu(needs_gpu: None) -> None:
    """Its rates aside, which depend on what else the GPU does."""
    lines: list[str] = []
    report(CupyMachine(), {}, lines.append)
    assert not [line for line in lines if line.startswith("FAIL") and "rate" not in line]


@pytest.mark.parametrize("size", [0, 1, 4 << 20, (4 << 20) + 1, 45_000_000])
def test_arrays_of_any_size_go_there_and_back(gpu: CupyGpu, cupy: Any, size: int) -> None:
    source = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    stream = gpu.new_stream()
    with gpu.using(stream):
        array = gpu.upload(source)
        sent = source.copy()
        source[:] = 0  # while it may still be on the bus
        back = gpu.download(array)
    np.testing.assert_array_equal(back, sent)
    np.testing.assert_array_equal(cupy.asnumpy(array), sent)


def test_sessions_that_come_and_go(needs_gpu: None, cupy: Any) -> None:
    """Streams outlive onnxruntime's sessions, and neither stays."""
    x = image(2, 3, 32, 32)
    (expected,) = on_cpu(normalized_network(), {"X": x})
    free = []
    for i in range(24):
        s = adder_onnx.InferenceSession(
            normalized_network().SerializeToString(), device="cuda", concurrency=2
        )
        for feed in (x, cupy.asarray(x)):
            (y,) = s.run(None, {"X": feed})
        np.testing.assert_allclose(cupy.asnumpy(y), expected, rtol=1e-5, atol=1e-4)
        if i % 2:
            s.close()
        del s, y
        free.append(cupy.cuda.runtime.memGetInfo()[0])
    assert free[-1] >= free[3] - (32 << 20)


def test_a_callers_capture_is_refused(session: adder_onnx.InferenceSession, cupy: Any) -> None:
    x = image(1, 3, 4, 4)
    (expected,) = session.run(None, {"X": x})
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        array = cupy.asarray(x)
        stream.synchronize()
        stream.begin_capture()
        for feed in (x, array):
            with pytest.raises(DeviceError, match="is being captured"):
                session.run(None, {"X": feed})
        stream.end_capture()
    np.testing.assert_array_equal(session.run(None, {"X": x})[0], expected)


def test_a_callers_current_device_stays(needs_gpu: None, cupy: Any) -> None:
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is one GPU only")
    x = image(1, 3, 4, 4)
    (expected,) = on_cpu(normalized_network(), {"X": x})
    for number in (0, 1):
        with cupy.cuda.Device(1 - number):
            device = f"cuda:{number}"
            s = adder_onnx.InferenceSession(normalized_network().SerializeToString(), device=device)
            (y,) = s.run(None, {"X": x})
            np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-4)
            assert cupy.cuda.runtime.getDevice() == 1 - number
            with pytest.raises(InputError, match="has type float64"):
                s.run(None, {"X": x.astype(np.float64)})
            s.close()
            assert cupy.cuda.runtime.getDevice() == 1 - number


_LOSE_THE_GPU = """
import sys
import cupy, numpy as np
import adder_onnx
from adder_onnx.errors import DeviceError
from tests.models import image, normalized_network

session = adder_onnx.InferenceSession(normalized_network().SerializeToString(), device="cuda")
x = {"X": image(1, 3, 4, 4)}
session.run(None, x)
wild = cupy.RawKernel('extern "C" __global__ void wild(int* p) { p[1 << 28] = 1; }', "wild")
wild((1,), (1,), (cupy.uintp(64),))
for _ in range(2):
    try:
        session.run(None, x)
    except DeviceError as error:
        print(error)
sys.stdout.flush()
"""


def test_losing_the_gpu_ends_the_session(needs_gpu: None) -> None:
    """In a process of its own, which can use the GPU no more afterwards."""
    command = [sys.executable, "-c", _LOSE_THE_GPU]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    first, second = done.stdout.splitlines()
    assert "cannot be used in this process any more: start the process again" in first
    assert second.startswith("this session cannot be used any more: ")


def test_the_real_checkpoint(
    needs_gpu: None,
    resnet20: Path,
    shared: Path,
    images: NDArray[np.float32],
    truth: NDArray[np.float64],
) -> None:
    """All of adder-run on the GPU, and the logits against float64."""
    command = [sys.executable, "-m", "adder_onnx.cli.run", resnet20, "--data", shared / "cifar10"]
    out = subprocess.run([*command, "--device", "cuda"], check=True, capture_output=True).stdout
    assert b"(456 of 500)" in out
    assert b"(499 of 500)" in out
    session = adder_onnx.InferenceSession(resnet20, device="cuda")
    (logits,) = session.run(None, {"input": images})
    assert np.abs(logits - truth).max() < 1e-3
