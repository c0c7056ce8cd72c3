"""The benchmark of the CUDA kernels, its GPU replaced by kernels that run on the CPU."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from adder_onnx.errors import AdderError, DeviceError
from adder_onnx.kernels.cuda.launch.device import Grid
from adder_onnx.kernels.cuda.launch.variants import Kernel
from benchmarks.cuda import __main__ as command
from benchmarks.cuda import borders, conditions, integers, layers, measurement, networks, table
from benchmarks.cuda.layers import LayerContenders, layer_row
from benchmarks.cuda.machine import Inputs
from benchmarks.cuda.rounding import WrongResultError
from benchmarks.cuda.timing import EventTimer, WallTimer
from benchmarks.documents import END, begin_of
from benchmarks.networks import adder_layers
from benchmarks.shapes import Layer
from tests.cuda_on_cpu.device import CpuDevice

SMALL = Layer(16, 16, 8, 3, 1)
SHAPES = [SMALL, Layer(16, 32, 9, 3, 2), Layer(64, 64, 5, 1, 1), Layer(256, 64, 7, 1, 2)]


class CountingTimer:
    """Calls take ten milliseconds each, whatever they do."""

    def __init__(self) -> None:
        self.calls = 0

    def seconds(self, call: Callable[[], object], times: int) -> float:
        for _ in range(times):
            call()
        self.calls += times
        return 1e-2 * times


class FakeMachine:
    """A `Machine` without a GPU."""

    session_device = "cpu"
    torch_device = "cpu"

    def __init__(self, device: CpuDevice | None = None, cache_bytes: int = 0) -> None:
        self.device = device or CpuDevice()
        self.cache_bytes = cache_bytes
        self.kernel_timer = CountingTimer()
        self.wall_timer = CountingTimer()
        self._rng = np.random.default_rng(3)

    def random(self, shape: Sequence[int], type_: str) -> NDArray[Any]:
        if type_ == "uint8":
            return self.device.upload(self._rng.integers(0, 256, shape, np.uint8))
        return self.device.upload(self._rng.standard_normal(shape).astype(type_))

    def download(self, array: NDArray[Any]) -> NDArray[Any]:
        return self.device.download(array)

    def bound(self, type_: str) -> float:
        return {"float32": 10e12, "float16": 20e12, "uint8": 40e12}[type_]

    def distances(self) -> dict[str, float]:
        return {"Fused": 40e12, "Dotted": 30e12}

    def sm_clock(self) -> float:
        return 1.5e9

    def release(self) -> None:
        pass


class BrokenDevice(CpuDevice):
    """Kernels whose names begin so get other arguments than they should."""

    def __init__(self, expression: str, change: Callable[[NDArray[np.void]], None]) -> None:
        super().__init__()
        self._expression, self._change = expression, change

    def launch(self, kernel: Kernel, grid: Grid, args: NDArray[np.void]) -> None:
        if kernel.expression.startswith(self._expression):
            args = args.copy()
            self._change(args)
        super().launch(kernel, grid, args)


def test_layers_of_resnet20() -> None:
    """Of the 20 adder layers' taps nearly all are in the 18 of 3 x 3; the others are shortcuts."""
    found = adder_layers("resnet20")
    of_3x3 = [layer for layer in found if layer.kernel == 3]
    assert sum(layer.count for layer in of_3x3) == 18
    assert sum(layer.taps * layer.count for layer in of_3x3) == 40_108_032
    assert sum(layer.taps * layer.count for layer in found) == 40_370_176
    assert {(a.channels, a.size) for a in of_3x3} == {(16, 32), (32, 16), (64, 8)}


def test_layers_of_resnet50() -> None:
    """Strides are those of version 1.5: in the 3 x 3 layers, and in the shortcuts."""
    found = adder_layers("resnet50")
    assert sum(layer.taps * layer.count for layer in found) == 3_969_122_304
    strided = {(a.channels, a.filters, a.kernel) for a in found if a.stride == 2}
    assert strided == {
        *[(128, 128, 3), (256, 256, 3), (512, 512, 3)],
        *[(256, 512, 1), (512, 1024, 1), (1024, 2048, 1)],
    }
    assert {a.kernel for a in found} == {1, 3}


@pytest.mark.parametrize("layer", SHAPES, ids=str)
def test_right_kernels_pass_the_check(layer: Layer) -> None:
    device = CpuDevice()
    LayerContenders(FakeMachine(device), layer, 2).check()
    assert {name.partition("<")[0] for name in device.launched} == {
        "pack_weights",
        "adder_conv_gemm",
        "adder_conv_direct",
        "integer_gemm",
        "pack_integer_weights",
    }


def _set(field: str, change: Callable[[Any], Any]) -> Callable[[NDArray[np.void]], None]:
    def apply(args: NDArray[np.void]) -> None:
        args[field] = change(args[field])

    return apply


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("pad_left", lambda pad: pad + 1),
        ("stride_h", lambda stride: stride + 1),
        ("low", lambda low: low + 1),
        ("pixels", lambda pixels: pixels - 1),
        ("y_scale", lambda scale: scale * 1.5),
    ],
)
def test_wrong_integers_do_not(field: str, change: Callable[[Any], Any]) -> None:
    machine = FakeMachine(BrokenDevice("integer_gemm", _set(field, change)))
    with pytest.raises(WrongResultError, match="16 x 8 -> 16, 3x3, batch 2, kernel, uint8: "):
        LayerContenders(machine, SMALL, 2).check()


def test_too_few_integers_to_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integers, "_DEVIATION", 1e9)
    with pytest.raises(WrongResultError, match="too few to compare"):
        LayerContenders(FakeMachine(), SMALL, 2).check()


@pytest.mark.parametrize("kernel", ["adder_conv_gemm", "adder_conv_direct"])
@pytest.mark.parametrize(
    "change",
    [
        _set("pad_top", lambda pad: pad + 1),
        _set("stride_w", lambda stride: stride + 1),
        _set("clip_min", lambda _: -np.inf),
        _set("pixels", lambda pixels: pixels - 1),
    ],
)
def test_wrong_kernels_do_not(kernel: str, change: Callable[[NDArray[np.void]], None]) -> None:
    machine = FakeMachine(BrokenDevice(kernel, change))
    with pytest.raises(WrongResultError, match="16 x 8 -> 16, 3x3, batch 2"):
        LayerContenders(machine, SMALL, 2).check()


def test_a_missing_channel_is_noticed() -> None:
    """One of 256, in float16: within a bound on the worst case of its roundings."""

    class Forgetful(CpuDevice):
        def upload(self, array: NDArray[Any]) -> NDArray[Any]:
            if array.dtype == np.float16 and array.shape == (64, 256, 1, 1):
                array = array.copy()
                array[:, -1] = 0
            return super().upload(array)

    with pytest.raises(WrongResultError, match="float16"):
        LayerContenders(FakeMachine(Forgetful()), Layer(256, 64, 5, 1, 1), 2).check()


def test_outputs_that_are_all_clipped_compare_nothing() -> None:
    contenders = LayerContenders(FakeMachine(), SMALL, 2)
    contenders.bias -= 1000
    with pytest.raises(WrongResultError, match="0 of 132 outputs are not 0: too few"):
        contenders.check()


@pytest.mark.parametrize("cache_bytes", [0, 5000, 50_000_000])
def test_inputs_exceed_the_cache(cache_bytes: int) -> None:
    """However small one of them is."""
    machine = FakeMachine(cache_bytes=cache_bytes)
    inputs = Inputs(machine, (7, 7, 512), "float16")
    first = machine.device.pointer(inputs.arrays)
    copies = inputs.arrays.shape[0]
    assert copies >= 2
    assert inputs.arrays.nbytes > 2 * cache_bytes
    found = [inputs.next_address() for _ in range(copies + 1)]
    assert found == [first + i * 7 * 7 * 512 * 2 for i in [*range(copies), 0]]


def test_contenders_of_torch_rotate_too() -> None:
    machine = FakeMachine(cache_bytes=100_000)
    images = LayerContenders(machine, SMALL, 2)._images(2, half=True, last=True)
    seen = [next(images) for _ in range(60)]
    assert len({image.data_ptr() for image in seen}) * seen[0].nbytes > 200_000
    assert all(image.is_contiguous(memory_format=torch.channels_last) for image in seen)


def test_cdist_computes_the_layer() -> None:
    contenders = LayerContenders(FakeMachine(), Layer(16, 8, 6, 3, 2), 2)
    image = torch.randn(2, 16, 6, 6, generator=torch.Generator().manual_seed(0))
    contenders._images = lambda *_, **__: iter([image])  # type: ignore[method-assign]
    found: Any = contenders._cdist()()
    padded = np.pad(image.numpy().astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    for n, h, v, m in ((0, 0, 0, 0), (1, 2, 1, 7), (1, 0, 2, 3)):
        window = padded[n, :, 2 * h :, 2 * v :][:, :3, :3]
        expected = np.abs(window - contenders.w[m]).sum()
        assert found[(n * 3 + h) * 3 + v, m].item() == pytest.approx(expected, rel=1e-5)


def test_convolutions_use_what_their_names_say() -> None:
    contenders = LayerContenders(FakeMachine(), SMALL, 2)
    calls = contenders.all()
    for name, dtype, tf32 in (
        ("conv float32", torch.float32, False),
        ("conv tf32", torch.float32, True),
        ("conv float16", torch.float16, False),
    ):
        for suffix in ("", ", channels last"):
            y: Any = calls[name + suffix]()
            assert (y.dtype, y.shape) == (dtype, (2, 16, 8, 8))
            assert torch.backends.cudnn.allow_tf32 is tf32
            assert y.is_contiguous(memory_format=torch.channels_last) is bool(suffix)


def test_cdist_with_too_little_memory_gets_a_smaller_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    per_image = 4 * 8 * 8 * (2 * 144 + 16)
    monkeypatch.setattr(layers, "CDIST_LIMIT", 3 * per_image)
    assert LayerContenders(FakeMachine(), SMALL, 8).cdist_batch == 3
    assert LayerContenders(FakeMachine(), SMALL, 2).cdist_batch == 2
    monkeypatch.setattr(layers, "CDIST_LIMIT", 1)
    assert LayerContenders(FakeMachine(), SMALL, 8).cdist_batch == 1


def test_its_time_is_scaled_up() -> None:
    seconds = {"float32": [0.5], "float16": [0.25], "cdist": [3.0]}
    row = layer_row("n", SMALL, 8, seconds, {"float32": 1e9, "float16": 2e9}, cdist_batch=2)
    assert row["cdist_batch"] == 2
    assert row["seconds"]["cdist"]["median"] == 12
    assert row["times_faster_than"] == {"float16": 0.5, "cdist": 24}
    assert row["float16_times_faster_than"] == {"float32": 2, "cdist": 48}
    assert row["taps_per_second"]["float16"] == 8 * SMALL.taps / 0.25


class FakeCuda:
    """CuPy's events and kernels, with a clock that a call and a wait move on.

    Args:
        python: seconds in which Python queues a call.
        work: seconds in which the GPU does it.
    """

    def __init__(self, python: float, work: float) -> None:
        self.python, self.work = python, work
        self.host = self.gpu = 0.0  # the time for each, at which it has come to the end
        self.waits: list[int] = []
        fake = self

        class Event:
            def record(self) -> None:
                self.at = max(fake.gpu, fake.host)

            def synchronize(self) -> None:
                fake.host = max(fake.host, self.at)

            @property
            def done(self) -> bool:
                return fake.host >= self.at

        self.cuda = SimpleNamespace(
            Event=Event, get_elapsed_time=lambda start, end: (end.at - start.at) * 1e3
        )

    def RawKernel(self, source: str, name: str) -> Callable[..., None]:  # noqa: N802
        assert f"void {name}(" in source

        def launch(grid: tuple[int], block: tuple[int], args: tuple[np.int64]) -> None:
            assert isinstance(args[0], np.int64)
            self.waits.append(int(args[0]))
            self.gpu = max(self.gpu, self.host) + args[0] / 2e9

        return launch

    def call(self) -> None:
        self.host += self.python
        self.gpu = max(self.gpu, self.host) + self.work


def test_python_does_not_show_in_the_times() -> None:
    fake = FakeCuda(python=50e-6, work=7e-6)
    timer = EventTimer(fake)
    assert timer.seconds(fake.call, 10) == pytest.approx(70e-6)
    assert fake.waits == [2_000_000]


def test_a_wait_that_was_too_short_is_made_longer() -> None:
    fake = FakeCuda(python=250e-6, work=7e-6)
    timer = EventTimer(fake)
    assert timer.seconds(fake.call, 10) == pytest.approx(70e-6)
    assert fake.waits == [2_000_000, 4_000_000, 8_000_000]
    hopeless = FakeCuda(python=5e-3, work=7e-6)
    assert EventTimer(hopeless).seconds(hopeless.call, 1) > 0
    assert len(hopeless.waits) == 4


def test_long_calls_are_not_repeated() -> None:
    fake = FakeCuda(python=5e-3, work=0.2)
    assert EventTimer(fake).seconds(fake.call, 1) == pytest.approx(
        0.2049
    )  # the wait ends 0.1 ms after the start
    assert len(fake.waits) == 1


def test_the_clock() -> None:
    assert EventTimer(FakeCuda(0, 0)).clock() == pytest.approx(2e9)


def test_the_wall_timer_waits_before_and_after() -> None:
    order: list[str] = []
    timer = WallTimer(lambda: order.append("wait"))
    assert timer.seconds(lambda: order.append("call"), 2) > 0
    assert order == ["wait", "call", "call", "wait"]


def test_borders_are_those_of_the_chains() -> None:
    assert borders.borders("resnet20", 128) == {
        "enter": (128, 16, 32, 32),
        "leave": (128, 64, 8, 8),
    }
    assert borders.borders("resnet50", 1) == {
        "enter": (1, 64, 56, 56),
        "leave": (1, 2048, 7, 7),
    }


def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "BATCHES", {"a": (2,), "b": (2, 1)})
    monkeypatch.setattr(borders, "BATCHES", {"a": (2,)})
    monkeypatch.setattr(networks, "BATCHES", {"resnet20": (2,)})
    shapes = {"a": SHAPES[:1], "b": SHAPES[1:2]}
    monkeypatch.setattr(layers, "adder_layers", shapes.__getitem__)
    monkeypatch.setattr(borders, "adder_layers", shapes.__getitem__)
    monkeypatch.setattr(measurement, "ROUNDS", 2)


def described() -> dict[str, Any]:
    """What `environment` tells of a GPU, made up."""
    return {
        "benchmark": "cuda",
        "schema": conditions.SCHEMA,
        "device": "A GPU",
        "driver_and_clocks": "1.2, 3 MHz, 4 MHz",
        "commit": "0123456789abcdef",
        "date": "2026-01-02",
    }


def test_a_whole_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small_networks(monkeypatch)
    path = tmp_path / "result.json"
    measurement.measure_all(FakeMachine(), described(), path, quick=False, only=None)
    result = json.loads(path.read_text())
    assert result["bound"] == {"float32": 10e12, "float16": 20e12, "uint8": 40e12}
    assert result["uint8_distances"] == {"Fused": 40e12, "Dotted": 30e12}
    assert result["sm_clock"] == 1.5e9
    assert [(row["network"], row["batch"]) for row in result["layers"]] == [
        ("a", 2),
        ("b", 2),
        ("b", 1),
    ]
    contenders = {"float32", "float16", "uint8", "naive", "cdist"}
    convolutions = {"conv float32", "conv tf32", "conv float16"}
    for row in result["layers"]:
        assert set(row["seconds"]) == contenders | convolutions
        assert row["seconds"]["naive"] == {"median": 0.01, "p10": 0.01, "p90": 0.01}
        assert row["share_of_bound"]["float16"] == row["taps"] / 0.01 / 20e12
        assert set(row["times_faster_than"]) == set(row["seconds"]) - {"float32"}
    assert [(row["direction"], row["type"]) for row in result["borders"]] == [
        (direction, type_) for direction in ("enter", "leave") for type_ in ("float32", "float16")
    ]
    assert [row["bytes"] for row in result["borders"]] == [16384, 8192] * 2
    (network,) = result["networks"]
    assert set(network["seconds"]) == {"adder float32"} | convolutions
    assert network["images_per_second"]["conv tf32"] == 200
    out = capsys.readouterr().out
    assert out.count("\n") == 2 + 1 + 3 + 4 + 1
    assert "Fused 40.00, Dotted 30.00; chosen is Fused" in out

    markdown = table.table([result])
    assert "**A GPU**, driver 1.2, commit 0123456789ab, 2026-01-02. The bound is 10.0" in markdown
    assert "| a, batch 2, enter, 16 × 8 × 8, float32 | 10000.0 | 0 |" in markdown
    assert "| resnet20, batch 2 | CPU | 200 | 200 | 200 | 200 |" in markdown


def test_what_was_measured_stays_where_a_run_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_networks(monkeypatch)
    path = tmp_path / "result.json"

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(measurement, "measure_borders", stop)
    with pytest.raises(KeyboardInterrupt):
        measurement.measure_all(FakeMachine(), described(), path, quick=False, only="layers")
    result = json.loads(path.read_text())
    assert len(result["layers"]) == 3
    assert "| b 16 x 9 -> 32, 3x3 / 2, 1 |" in table.table([result])


def test_nothing_is_measured_of_a_wrong_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_networks(monkeypatch)
    broken = BrokenDevice("adder_conv_gemm", _set("pad_left", lambda pad: pad + 1))
    machine = FakeMachine(broken)
    path = tmp_path / "result.json"
    with pytest.raises(WrongResultError):
        measurement.measure_all(machine, described(), path, quick=True, only=None)
    assert machine.kernel_timer.calls == 0
    assert not path.exists()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the command believe in a GPU."""
    monkeypatch.setattr(command, "check_cuda", lambda number: None)
    monkeypatch.setattr(command, "CudaMachine", FakeMachine)
    monkeypatch.setattr(command, "environment", described)


@pytest.mark.usefixtures("gpu")
def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small_networks(monkeypatch)
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results")
    assert command.main(["--quick", "--only", "layers"]) == 0
    path = tmp_path / "results" / "a-gpu.json"
    assert capsys.readouterr().out.endswith(f"written to {path}\n")
    result = json.loads(path.read_text())
    assert result["arguments"] == ["--quick", "--only", "layers"]
    assert (result["quick"], result["networks"]) == (True, [])
    # The first batch of each network.
    assert [row["batch"] for row in result["layers"]] == [2, 2]
    assert ", a quick run. The bound" in table.table([result])


@pytest.mark.usefixtures("gpu")
def test_statuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(error: Exception) -> Callable[..., None]:
        def raise_it(*_: Any, **__: Any) -> None:
            raise error

        return raise_it

    path = tmp_path / "result.json"
    monkeypatch.setattr(measurement, "measure_all", fail(WrongResultError("output (0, 0) is 1")))
    assert command.main(["--json", str(path)]) == 1
    assert (
        capsys.readouterr().err == "python -m benchmarks.cuda: wrong result: output (0, 0) is 1\n"
    )
    monkeypatch.setattr(measurement, "measure_all", fail(AdderError("out of memory")))
    assert command.main(["--json", str(path)]) == 2
    assert capsys.readouterr().err == "python -m benchmarks.cuda: error: out of memory\n"
    assert command.main(["--json", str(tmp_path / "none" / "result.json")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_without_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def no_gpu(number: int) -> None:
        raise DeviceError(f"there is no cuda:{number}")

    monkeypatch.setattr(command, "check_cuda", no_gpu)
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results")
    assert command.main([]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "python -m benchmarks.cuda: error: there is no cuda:0\n")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("given", [["--only", "borders"], ["--json"], ["layers"]])
def test_unknown_arguments(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(given)
    assert stopped.value.code == 2
    assert "usage: python -m benchmarks.cuda" in capsys.readouterr().err


def test_tools_that_are_missing_or_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    assert conditions._output_of("no-such-tool-anywhere") == ""
    assert conditions._output_of("sh", "-c", "echo said; exit 3") == ""
    assert conditions._output_of("sh", "-c", "echo ' 1,  2'; echo 3") == "1, 2 3"


def test_a_table_of_networks_alone() -> None:
    """Contenders that a row does not have are dashes."""
    rows = [
        {"network": "n", "batch": 4, "standard_nodes": "CUDA", "seconds": {"x": {"median": 2.0}}},
        {"network": "n", "batch": 8, "standard_nodes": "CUDA", "seconds": {"y": {"median": 1.0}}},
    ]
    result = {**described(), "layers": [], "networks": rows, "commit": "", "quick": False}
    text = table.table([result])
    assert "commit unknown" in text
    assert "bound" not in text
    assert "| n, batch 4 | CUDA | 2 | – |" in text
    assert "| n, batch 8 | CUDA | – | 8 |" in text


def test_rows_of_another_commit_name_it() -> None:
    layer = {"network": "n", "layer": "a", "batch": 1, "taps": 1, "count": 1, "share_of_bound": {}}
    layer["seconds"] = {name: {"median": 1.0} for name in table._COLUMNS.values()}
    network = {"network": "n", "batch": 1, "standard_nodes": "CUDA", "seconds": {}}
    border = {"network": "n", "batch": 1, "direction": "enter", "shape": [1, 4], "type": "float32"}
    border |= {"seconds": {"median": 1.0}, "bytes_per_second": 1e9}
    old = {"commit": "fedcba9876543210"}
    result = {**described(), "bound": {}, "networks": [network | old], "borders": [border | old]}
    text = table.table([result | {"layers": [layer, layer | {"layer": "b"} | old]}])
    assert "commit 0123456789ab, " in text
    assert "Rows that name a commit are of that one." in text
    assert "| n, batch 1 (fedcba9) | CUDA |" in text
    assert "| n, batch 1 (in part fedcba9) | 2000.0 |" in text
    assert "| n a, 1 | " in text
    assert "| n b, 1 (fedcba9) | " in text
    assert "| n, batch 1, enter, 4, float32 (fedcba9) | " in text
    assert "fedcba9" not in table.table(
        [result | {"layers": [layer], "networks": [], "borders": []}]
    )


def test_a_table_that_is_not_up_to_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "gpu.md").write_text(f"{begin_of(table.COMMAND)}old\n{END}")
    assert table.main(["--check"], tmp_path) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "is not up to date: run python -m benchmarks.cuda.table" in err
