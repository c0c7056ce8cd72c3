"""``python -m benchmarks.cuda --check``, its GPU replaced by kernels that run on the CPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.grad import conv2d_weight

from adder_onnx.errors import DeviceError
from adder_onnx.export.layer import selection
from adder_onnx.export.layer.cuda import CudaKernels
from adder_onnx.kernels.cuda.launch.selection import kernels_on
from adder_onnx.kernels.cuda.launch.variants import TYPES
from adder_onnx.runtime.cuda.errors import DeviceLostError
from benchmarks.cuda import __main__ as command
from benchmarks.cuda.check import kernels, rates, report, sessions, training
from benchmarks.cuda.check.results import Check, FailedError, Result, SkippedError, run_checks
from benchmarks.shapes import Layer
from tests.conftest import ROOT
from tests.cuda_on_cpu.device import CpuDevice, CpuGpu
from tests.cuda_on_cpu.sessions import pretend
from tests.cuda_on_cpu.torch_device import TorchOnCpu
from tests.test_benchmark_cuda import FakeMachine

FEW_TAPS = 8_000_000


class LateGpu(CpuGpu):
    """Copies on the caller's stream are done when somebody waits for that stream."""

    def __init__(self) -> None:
        super().__init__()
        self.is_busy = False
        self.queued: list[tuple[Any, Any]] = []

    def copy(self, source: Any, destination: Any) -> None:
        if self.is_busy and not self.on:
            self.queued.append((source, destination))
        else:
            super().copy(source, destination)

    def wait(self, stream: int, other: int) -> None:
        super().wait(stream, other)
        if other == 0:
            self.flush()

    def download(self, array: Any) -> NDArray[Any]:
        if not self.on:
            self.flush()
        return super().download(array)

    def flush(self) -> None:
        for source, destination in self.queued:
            super().copy(source, destination)
        self.queued.clear()


class CheckedMachine(FakeMachine):
    """A `SessionMachine` without a GPU."""

    session_device = "cuda"

    def __init__(self, gpu: LateGpu | None = None, bound: float = 1.0) -> None:
        super().__init__(CpuDevice())
        self.gpu = gpu or LateGpu()
        self._bound = bound
        self.ways = {"Fused": 9e12, "Dotted": 8e12}

    def bound(self, type_: str) -> float:
        return self._bound

    def distances(self) -> dict[str, float]:
        return self.ways

    @contextmanager
    def busy_stream(self) -> Iterator[None]:
        self.gpu.is_busy = True
        yield
        self.gpu.is_busy = False


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> CheckedMachine:
    """Whose layers and images are few."""
    found = CheckedMachine()
    pretend(monkeypatch, found.gpu)
    few = [s for s in kernels.SHAPES if s.taps < FEW_TAPS]
    monkeypatch.setattr(kernels, "SHAPES", few)
    monkeypatch.setattr(training, "SHAPES", few)
    monkeypatch.setattr(rates, "LAYERS", (Layer(16, 16, 8, 3, 1),))
    monkeypatch.setattr(rates, "_BATCH", 1)
    monkeypatch.setattr(sessions, "_TIMED_RUNS", 2)
    monkeypatch.setattr(sessions, "_THREADS", 3)
    monkeypatch.setattr(sessions, "_RUNS_OF_A_THREAD", 6)

    class FewDigits(sessions.Digits):
        def __init__(self) -> None:
            super().__init__()
            self.images, self.labels = self.images[::12], self.labels[::12]
            self.logits = self.logits[::12]

    monkeypatch.setattr(report, "Digits", FewDigits)
    return found


def outcomes(machine: CheckedMachine, only: str = "") -> dict[str, Result]:
    chosen = [check for check in report.checks(machine) if only in check.name]
    return {result.name: result for result in run_checks(chosen, lambda _: None)}


def test_all_checks_pass(machine: CheckedMachine) -> None:
    lines: list[str] = []
    assert report.report(machine, {"device": "a GPU", "versions": {"a": 1, "b": 2}}, lines.append)
    assert lines[:2] == ["device: a GPU", "versions: a 1, b 2"]
    assert [line.startswith("skip") for line in lines if "torch" in line] == [True, True, False]
    assert sum(line.startswith("pass") for line in lines) == len(lines) - 5
    assert lines[-1] == (
        f"verdict: {len(lines) - 5} checks passed; not run: torch, training in torch"
    )


def test_every_kernel_is_checked(machine: CheckedMachine) -> None:
    """But for conversions of type at a chain's border, which no session has today."""
    # Which tile a layer takes depends on how many multiprocessors there are for its pixels.
    for checks, multiprocessors in (("kernels, ", 8), ("kernels, ", 1), ("8 bits", 8)):
        machine.gpu.multiprocessors = multiprocessors
        found = outcomes(machine, checks).values()
        assert {result.outcome for result in found} == {"pass"}
    missing = {k.expression for k in kernels_on(machine.gpu.target)} - set(machine.gpu.launched)
    assert missing <= {
        f"{name}<{a}, {b}>"
        for name in ("nchw_to_nhwc", "nhwc_to_nchw")
        for a, b in (("float", "__half"), ("__half", "float"))
    }
    machine.gpu.check_guards()


def test_a_wrong_kernel_is_found(machine: CheckedMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = CpuGpu.launch

    def shifted(self: CpuGpu, kernel: Any, grid: Any, args: Any) -> None:
        if kernel.name == "adder_conv_direct":
            args = args.copy()
            args["pad_left"] += 1
        launch(self, kernel, grid, args)

    monkeypatch.setattr(CpuGpu, "launch", shifted)
    found = outcomes(machine, "float32, against")
    (result,) = found.values()
    assert result.outcome == "FAIL"
    assert "32 x 9 -> 32, 3x3, 32 groups, batch 2: an output is off by" in result.detail


def test_a_wrong_gradient_is_found(
    machine: CheckedMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = CpuGpu.launch

    def fewer_filters(self: CpuGpu, kernel: Any, grid: Any, args: Any) -> None:
        if kernel.name == "input_gradient":
            args = args.copy()
            args["kernel_w"] -= 1
        launch(self, kernel, grid, args)

    monkeypatch.setattr(CpuGpu, "launch", fewer_filters)
    (result,) = outcomes(machine, "gradients").values()
    assert result.outcome == "FAIL"
    assert "16 x 32 -> 16, 3x3, batch 2: an element is off by" in result.detail


@pytest.mark.parametrize(("tf32", "outcome"), [(False, "pass"), (True, "FAIL")])
def test_a_filters_gradient_in_tf32_is_found(
    machine: CheckedMachine, monkeypatch: pytest.MonkeyPatch, tf32: bool, outcome: str
) -> None:
    """As cuDNN would make it, were it not told otherwise."""
    in_cuda = CudaKernels(TorchOnCpu())
    monkeypatch.setattr(selection, "_kernels_of", lambda device: in_cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Stream", object)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)

    def rounded(x: torch.Tensor, *others: Any, **options: Any) -> Any:
        return conv2d_weight(torch.from_numpy(training._tf32(x.numpy())), *others, **options)

    if tf32:
        module = sys.modules["adder_onnx.export.adder_conv2d"]
        monkeypatch.setattr(module, "conv2d_weight", rounded)
    monkeypatch.setattr(training, "SHAPES", training.SHAPES[1:2])
    (result,) = outcomes(machine, "training").values()
    assert result.outcome == outcome
    assert "filters' gradient" in result.detail


def test_other_integers_are_found(machine: CheckedMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    download = CpuGpu.download

    def one_more(self: CpuGpu, array: Any) -> Any:
        values = download(self, array)
        values.flat[3] += 1
        return values

    monkeypatch.setattr(CpuGpu, "download", one_more)
    (result,) = outcomes(machine, "bit for bit").values()
    assert (result.outcome, "batch 2: 1 outputs are other numbers" in result.detail) == (
        "FAIL",
        True,
    )


def test_a_network_that_is_wrong_is_found(
    machine: CheckedMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = CpuGpu.download
    monkeypatch.setattr(CpuGpu, "download", lambda self, a: np.roll(download(self, a), 1, axis=-1))
    found = outcomes(machine, "shipped")
    assert [result.outcome for result in found.values()] == ["FAIL", "FAIL"]
    details = [result.detail for result in found.values()]
    assert "logits differ from the CPU's" in details[0]
    assert "of the answers are not the CPU's" in details[1]


def test_graphs_that_are_wrong_or_missing_are_found(
    machine: CheckedMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.gpu, "replay", lambda graph: None)
    (result,) = outcomes(machine, "graphs").values()
    assert (result.outcome, result.detail) == (
        "FAIL",
        "run 2 with graphs gives other bits than without",
    )

    def fail(_: Callable[[], None]) -> None:
        raise DeviceError("not permitted")

    monkeypatch.setattr(machine.gpu, "capture", fail)
    (result,) = outcomes(machine, "graphs").values()
    assert result.detail == "no graph was captured; the log says why"


def test_runs_that_do_not_wait_are_found(
    machine: CheckedMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LateGpu, "wait", lambda *_: None)
    (result,) = outcomes(machine, "streams").values()
    assert (result.outcome, result.detail) == (
        "FAIL",
        "a run and its caller do not wait for each other",
    )


def test_threads_that_disagree_are_found(
    machine: CheckedMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    download, runs = CpuGpu.download, iter(range(1000))

    def sometimes_wrong(self: CpuGpu, array: Any) -> Any:
        return download(self, array) + (next(runs) == 10)

    monkeypatch.setattr(CpuGpu, "download", sometimes_wrong)
    (result,) = outcomes(machine, "threads").values()
    assert result.outcome == "FAIL"
    assert result.detail.startswith("1 of 18 runs: batch ")


def test_rates_below_their_least_are_found(
    monkeypatch: pytest.MonkeyPatch, machine: CheckedMachine
) -> None:
    taps = Layer(16, 16, 8, 3, 1).taps  # in ten milliseconds, says the timer
    for share, expected in ((0.61, "pass"), (0.59, "FAIL")):
        machine._bound = taps / 1e-2 / share
        assert outcomes(machine, "rate, float32")["rate, float32"].outcome == expected
    assert "16: 59 %" in outcomes(machine, "rate, float32")["rate, float32"].detail
    machine._bound = taps / 1e-2 / 0.51
    assert outcomes(machine, "rate, uint8")["rate, uint8"].outcome == "pass"
    machine._bound = taps / 1e-2 / 0.49
    assert outcomes(machine, "rate, uint8")["rate, uint8"].outcome == "FAIL"
    assert outcomes(machine, "rate, float16")["rate, float16"].outcome == "pass"


def test_a_faster_way_of_8_bit_differences_is_found(machine: CheckedMachine) -> None:
    (result,) = outcomes(machine, "differences").values()
    assert (result.outcome, result.detail) == ("pass", "Fused of Fused 9.00, Dotted 8.00 Ttaps/s")
    machine.ways["Dotted"] = 10e12
    (result,) = outcomes(machine, "differences").values()
    assert (result.outcome, result.detail) == (
        "FAIL",
        "Fused of Fused 9.00, Dotted 10.00 Ttaps/s: another way is faster",
    )


def test_whatever_a_check_raises_is_in_the_report() -> None:
    def fail(error: Exception) -> Callable[[], str]:
        def run() -> str:
            raise error

        return run

    results = run_checks(
        [
            Check("a", lambda: "fine"),
            Check("b", fail(FailedError("wrong"))),
            Check("c", fail(DeviceError("two\nlines"))),
            Check("d", fail(SkippedError("not here"))),
            Check("e", fail(ZeroDivisionError("a defect"))),
            Check("f", fail(DeviceLostError("lost"))),
            Check("g", lambda: "never run"),
        ],
        lambda _: None,
    )
    assert [(r.outcome, r.detail) for r in results] == [
        ("pass", "fine"),
        ("FAIL", "wrong"),
        ("FAIL", "two lines"),
        ("skip", "not here"),
        ("FAIL", "ZeroDivisionError: a defect"),
        ("FAIL", "lost"),
        ("skip", "the GPU was lost in the check 'f'"),
    ]
    assert report.verdict(results) == "FAILED: b, c, e, f; 1 checks passed; not run: d, g"


@pytest.mark.parametrize(("passed", "status"), [(True, 0), (False, 1)])
def test_the_command(monkeypatch: pytest.MonkeyPatch, passed: bool, status: int) -> None:
    monkeypatch.setattr(command, "check_cuda", lambda number: None)
    monkeypatch.setattr(command, "environment", lambda: {"device": "a GPU"})
    monkeypatch.setattr(command, "CupyMachine", CheckedMachine)
    monkeypatch.setattr(command, "report", lambda machine, conditions: passed)
    assert command.main(["--check"]) == status
    with pytest.raises(SystemExit):
        command.main(["--check", "--quick"])


def test_it_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; from benchmarks.cuda.__main__ import main; "
    code += "sys.exit(main(['--check']))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "torch" not in done.stderr
    assert done.returncode == 2 or "verdict: " in done.stdout


def test_all_types_have_a_rate() -> None:
    names = [check.name for check in report.checks(CheckedMachine())]
    assert names[-3:] == [f"rate, {type_}" for type_ in (*TYPES, "uint8")]
