"""Whole sessions: the shipped network, streams, threads, graphs, arrays of torch."""

from __future__ import annotations

import statistics
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from PIL import Image

import adder_onnx
from adder_onnx.evaluation.preprocessing import preprocess
from adder_onnx.metadata import ModelMetadata
from adder_onnx.quantization import quantize
from benchmarks.cuda.check.results import FailedError, SkippedError
from benchmarks.cuda.machine import SessionMachine

__all__ = [
    "Digits",
    "check_graphs",
    "check_integer_network",
    "check_network",
    "check_streams",
    "check_threads",
    "check_torch",
]

_FOLDER = Path(__file__).resolve().parents[3] / "examples" / "digits"
_LEAST_ACCURACY = 0.95
_LOGITS = 1e-3
_SAME_ANSWERS = 0.99
_TIMED_RUNS = 50
_THREADS, _RUNS_OF_A_THREAD = 8, 30


class Digits:
    """The shipped network, its held-out images, and what the CPU makes of them.

    Attributes:
        model: the network.
        images: (360, 1, 8, 8), preprocessed.
        labels: (360,).
        logits: (360, 10), by our kernels on the CPU.
    """

    def __init__(self) -> None:
        self.model = onnx.load(_FOLDER / "resnet8_digits.onnx")
        props = {entry.key: entry.value for entry in self.model.metadata_props}
        how = ModelMetadata.from_props(props).preprocessing
        assert how is not None
        files = sorted((_FOLDER / "test").glob("*/*.png"))
        self.images = np.stack([preprocess(Image.open(file), how) for file in files])
        self.labels = np.array([int(file.parent.name) for file in files])
        self.logits = self.run(adder_onnx.InferenceSession(self.model, arithmetic="exact"))

    def run(self, session: adder_onnx.InferenceSession, first: int | None = None) -> NDArray[Any]:
        """The logits, of the first images only where asked for."""
        name = session.get_inputs()[0].name
        logits: NDArray[Any] = session.run(None, {name: self.images[:first]})[0]
        return logits

    def accuracy(self, logits: NDArray[Any]) -> float:
        """The share of images that are right."""
        return float((logits.argmax(axis=1) == self.labels).mean())


def _session(machine: SessionMachine, model: onnx.ModelProto, **options: Any) -> Any:
    return adder_onnx.InferenceSession(model, device=machine.session_device, **options)


def check_network(machine: SessionMachine, digits: Digits) -> str:
    """The shipped network in float32: its logits, and how often it is right.

    Raises:
        FailedError: logits differ from the CPU's, or too few images are right.
    """
    logits = digits.run(_session(machine, digits.model))
    difference = float(np.abs(logits - digits.logits).max())
    if not difference <= _LOGITS:
        raise FailedError(f"logits differ from the CPU's by {difference:.3g}")
    return _right(digits, logits, f"logits within {difference:.1e} of the CPU's")


def check_integer_network(machine: SessionMachine, digits: Digits) -> str:
    """The shipped network in 8 bits.

    Its standard nodes may round otherwise than the CPU's, so that answers are compared, not bits.

    Raises:
        FailedError: other answers than on the CPU, or too few images are right.
    """
    name = digits.model.graph.input[0].name
    model = quantize(digits.model, [{name: digits.images[:64]}]).model
    on_cpu = digits.run(adder_onnx.InferenceSession(model)).argmax(axis=1)
    logits = digits.run(_session(machine, model))
    same = float((logits.argmax(axis=1) == on_cpu).mean())
    if same < _SAME_ANSWERS:
        raise FailedError(f"{100 * (1 - same):.1f} % of the answers are not the CPU's")
    return _right(digits, logits, f"{100 * same:.1f} % of the answers are the CPU's")


def _right(digits: Digits, logits: NDArray[Any], found: str) -> str:
    accuracy = digits.accuracy(logits)
    if accuracy < _LEAST_ACCURACY:
        raise FailedError(f"{100 * accuracy:.1f} % of {len(digits.labels)} images are right")
    return f"{100 * accuracy:.1f} % of {len(digits.labels)} images are right; {found}"


def check_graphs(machine: SessionMachine, digits: Digits) -> str:
    """The same bits with CUDA graphs and without, in every run; the times of one image.

    Raises:
        FailedError: they differ, or there is no graph.
    """
    with_, without = (_session(machine, digits.model, cuda_graphs=on) for on in (True, False))
    expected = digits.run(without, 1)
    for run in range(3):
        if not np.array_equal(digits.run(with_, 1), expected):
            raise FailedError(f"run {run + 1} with graphs gives other bits than without")
    if not any(memory.arenas for memory in with_.memory()):
        raise FailedError("no graph was captured; the log says why")
    seconds = [_median_seconds(lambda s=s: digits.run(s, 1)) for s in (with_, without)]
    return "the same bits; one image takes {:.0f} us with, {:.0f} us without".format(
        *(1e6 * value for value in seconds)
    )


def _median_seconds(call: Any) -> float:
    times = []
    for _ in range(_TIMED_RUNS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def check_streams(machine: SessionMachine, digits: Digits) -> str:
    """Inputs that a caller's stream has yet to compute, results that it goes on with.

    Raises:
        FailedError: a run began before its input was there, or the caller went on before its end.
    """
    session, device = _session(machine, digits.model), machine.gpu
    name = session.get_inputs()[0].name
    expected = digits.run(session)
    ready = device.upload(digits.images)
    for _ in range(4):  # the first without a graph, later ones with one
        late = device.upload(np.full_like(digits.images, np.nan))
        device.finish()
        with machine.busy_stream():
            device.copy(ready, late)
            (y,) = session.run(None, {name: late})
            result = device.empty(y.shape, y.dtype)
            device.copy(y, result)
            found = device.download(result)
        if not np.array_equal(found, expected):
            raise FailedError("a run and its caller do not wait for each other")
    return "runs and a busy caller wait for each other"


def check_threads(machine: SessionMachine, digits: Digits) -> str:
    """Several threads with changing batches get what one gets.

    Raises:
        FailedError: a result differs.
    """
    session = _session(machine, digits.model, concurrency=2)
    batches = (1, 3, 8, 17)
    expected = {batch: digits.run(session, batch) for batch in batches}
    problems: list[str] = []

    def work(offset: int) -> None:
        try:
            for i in range(_RUNS_OF_A_THREAD):
                batch = batches[(3 * i + offset) % len(batches)]
                if not np.array_equal(digits.run(session, batch), expected[batch]):
                    problems.append(f"batch {batch}: another result")
        except Exception as error:  # a thread's errors would be lost
            problems.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise FailedError(f"{len(problems)} of {_THREADS * _RUNS_OF_A_THREAD} runs: {problems[0]}")
    return f"{_THREADS * _RUNS_OF_A_THREAD} runs on {_THREADS} threads agree"


def check_torch(machine: SessionMachine, digits: Digits) -> str:
    """Tensors of torch on the GPU, on a stream of torch's own.

    Raises:
        SkippedError: there is no torch with CUDA.
        FailedError: a result differs.
    """
    try:
        import torch
    except ImportError as error:
        raise SkippedError("torch is not installed") from error
    if not torch.cuda.is_available():
        raise SkippedError(f"torch {torch.__version__} has no CUDA")
    session = _session(machine, digits.model)
    expected = digits.run(session)
    with torch.cuda.stream(torch.cuda.Stream()):
        x = torch.from_numpy(digits.images).cuda(non_blocking=True)
        (y,) = session.run(None, {session.get_inputs()[0].name: x})
        doubled = (2 * y).cpu().numpy()
    if not np.array_equal(doubled, 2 * expected):
        raise FailedError("logits differ from those for NumPy's arrays")
    return f"torch {torch.__version__}: tensors go in and come out on its own stream"
