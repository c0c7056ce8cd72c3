"""``adder-bench``: latency and throughput of models."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adder_onnx.cli._command import (
    add_arithmetic_option,
    add_dim_option,
    check_outputs,
    comma_separated,
    file_path,
    make_parser,
    positive,
    print_lines,
    run_command,
    write_json,
)
from adder_onnx.cli._histogram import has_blocks, histogram_lines
from adder_onnx.cli._progress import progress_bar
from adder_onnx.errors import InputError
from adder_onnx.evaluation.environment import cpu_name, gpu_name, versions
from adder_onnx.files import write_atomically
from adder_onnx.inspection.inputs import random_feed
from adder_onnx.inspection.latency import Latency, measure_latency
from adder_onnx.inspection.profile import Profile, profile
from adder_onnx.inspection.report import Report, inspect_model
from adder_onnx.pages.latency import latency_page
from adder_onnx.runtime import InferenceSession
from adder_onnx.runtime.devices import resolve_device
from adder_onnx.runtime.threads import available_cores

__all__ = ["main"]

_SECONDS = 2.0
_PROFILED_RUNS = 10
_DAY = 86_400
_FEW = 4
"""Measurements whose histograms are several lines high."""

_EXAMPLES = """\
  adder-bench resnet20.onnx
  adder-bench resnet20.onnx resnet56.onnx --batch-size 1,16,128 --threads 1,2
  adder-bench resnet50.onnx --batch-size 8 --device cpu,cuda --seconds 5 --json result.json
  adder-bench resnet20.onnx resnet20_int8.onnx --threads 1,2 --html latency.html
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = make_parser(
        "adder-bench",
        "Times whole runs of models on random inputs, and says where their time goes.",
        _EXAMPLES,
    )
    parser.add_argument("models", metavar="MODEL.onnx", type=file_path, nargs="+")
    parser.add_argument(
        "--batch-size",
        metavar="N,…",
        type=comma_separated(positive),
        default=(1,),
        help="images in a run (1)",
    )
    add_dim_option(parser)
    parser.add_argument(
        "--threads",
        metavar="N,…",
        type=comma_separated(positive),
        help="on the CPU (all available cores)",
    )
    parser.add_argument(
        "--device",
        metavar="NAME,…",
        type=comma_separated(str),
        default=("auto",),
        help="cpu, cuda, cuda:N or auto (auto)",
    )
    add_arithmetic_option(parser)
    parser.add_argument(
        "--seconds", metavar="S", type=_seconds, default=_SECONDS, help=f"for each ({_SECONDS:g})"
    )
    parser.add_argument(
        "--html",
        metavar="FILE",
        type=file_path,
        help="write a page that shows histograms, rates, and where the time goes",
    )
    return run_command(parser, _run, argv)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= _DAY:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most {_DAY}")
    return value


@dataclass(frozen=True)
class _Result:
    """One measurement."""

    model: Path
    device: str
    threads: int
    arithmetic: str
    batch_size: int
    latency: Latency
    report: Report
    profile: Profile

    @property
    def images_per_second(self) -> float:
        return self.batch_size * self.latency.runs / self.latency.seconds

    def as_json(self) -> dict[str, Any]:
        latency, found = self.latency, self.profile
        return {
            "model": str(self.model),
            "device": self.device,
            "threads": self.threads,
            "arithmetic": self.arithmetic,
            "batch_size": self.batch_size,
            "runs": latency.runs,
            "median_ms": latency.median_ms,
            "p90_ms": latency.p90_ms,
            "p99_ms": latency.p99_ms,
            "histogram": {
                "edges_ms": latency.histogram.edges,
                "counts": latency.histogram.counts,
                "beyond": latency.histogram.beyond,
                "longest_ms": latency.histogram.greatest,
            },
            "images_per_second": self.images_per_second,
            "steps": [
                {"kind": step.kind, "median_ms": times.times.median * 1e3}
                for step, times in zip(self.report.steps, found.steps, strict=True)
            ],
            "runtime_overhead_ms": found.overhead.times.median * 1e3,
        }


def _run(options: argparse.Namespace) -> None:
    models = {str(model): model for model in options.models}
    check_outputs(options, {"--html": options.html}, models)
    threads = options.threads or (available_cores(),)
    devices = [resolve_device(name) for name in options.device]
    runs = list(itertools.product(options.models, devices, threads, options.batch_size))
    results = []
    with progress_bar("measurements", len(runs)) as advance:
        for model, device, count, batch_size in runs:
            report = _report(model, device.kind, batch_size, count, dict(options.dim))
            session = InferenceSession(
                report.model,
                device=device.name,
                threads=count,
                arithmetic=options.arithmetic,
            )
            results.append(_measure(model, report, session, batch_size, options.seconds))
            advance(1)
    found = _as_json(results)
    if options.json:
        write_json(options.json, found)
    if options.html is not None:
        write_atomically(options.html, latency_page(found).encode())
    if options.json != "-":
        print_lines(_lines(results))
        if sys.stdout.isatty():  # others read lines and columns, which stay as they are
            print_lines(_histograms(results))


def _report(
    model: Path, device: str, batch_size: int, threads: int, dims: dict[str, int]
) -> Report:
    """The model with numbers for its dimensions, and the plan for ``cpu`` or ``cuda``."""
    report = inspect_model(model, batch_size=batch_size, dims=dims, device=device, threads=threads)
    fixed = next((v.shape[0] for v in report.inputs if v.shape), None)
    if isinstance(fixed, int) and fixed != batch_size:
        raise InputError(
            f"{model} takes batches of {fixed} only, and --batch-size asks for {batch_size}"
        )
    return report


def _measure(
    model: Path, report: Report, session: InferenceSession, batch_size: int, seconds: float
) -> _Result:
    feed: dict[str, Any] = random_feed(session.get_inputs())
    placed, wait = _on_device(feed, session.device)
    latency = measure_latency(session, placed, seconds, wait)
    found = profile(session, report, feed, _PROFILED_RUNS)
    how = (session.device, session.threads, session.arithmetic)
    return _Result(model, *how, batch_size, latency, report, found)


def _on_device(
    feed: dict[str, np.ndarray[Any, Any]], device: str
) -> tuple[dict[str, Any], Callable[[], object]]:
    """Inputs that lie where the model runs, and what waits for results, which stay there too."""
    if device == "cpu":
        return feed, lambda: None
    import cupy

    gpu = cupy.cuda.Device(int(device.partition(":")[2]))
    with gpu:
        placed = {name: cupy.asarray(array) for name, array in feed.items()}
    return placed, gpu.synchronize


def _as_json(results: Sequence[_Result]) -> dict[str, Any]:
    devices = [name for name in dict.fromkeys(r.device for r in results) if name != "cpu"]
    return {
        "schema": 1,
        "cpu": cpu_name(),
        "gpus": {device: gpu_name(device) for device in devices},
        "versions": versions(devices[0] if devices else "cpu"),
        "results": [result.as_json() for result in results],
    }


def _lines(results: Sequence[_Result]) -> list[str]:
    width = max(len(str(result.model)) for result in results)
    lines = [
        f"{'model':{width}}  device  threads  batch  median ms    p90 ms    p99 ms  images/s  "
        "kernels  onnxruntime  other"
    ]
    for result in results:
        latency = result.latency
        kernels, standard, other = _shares(result)
        lines.append(
            f"{result.model!s:{width}}  {result.device:6}  {result.threads:7}  "
            f"{result.batch_size:5}  {latency.median_ms:9.3f} {latency.p90_ms:9.3f} "
            f"{latency.p99_ms:9.3f}  {result.images_per_second:8.1f}  "
            f"{kernels:5.0f} %  {standard:9.0f} %  {other:3.0f} %"
        )
    return lines


def _histograms(results: Sequence[_Result]) -> list[str]:
    """One for each measurement, lower where there are many."""
    blocks, rows = has_blocks(sys.stdout.encoding), 3 if len(results) <= _FEW else 1
    lines = []
    for result in results:
        latency, found = result.latency, result.latency.histogram
        marks = {"50": latency.median_ms, "99": latency.p99_ms, "90": latency.p90_ms}
        beyond = f", {found.beyond} beyond, up to {found.greatest:.4g} ms" if found.beyond else ""
        lines += [
            "",
            f"{result.model}, {result.device}, threads {result.threads}, batch "
            f"{result.batch_size}: {latency.runs} runs{beyond}",
            *histogram_lines(found, marks, rows=rows, blocks=blocks),
        ]
    return lines


def _shares(result: _Result) -> tuple[float, float, float]:
    """Percent of a run in chains, in onnxruntime, and in conversions and Python."""
    shares = dict.fromkeys(("chain", "onnxruntime", "conversion"), 0.0)
    for step, times in zip(result.report.steps, result.profile.steps, strict=True):
        shares[step.kind] += 100 * times.share
    kernels, standard = shares["chain"], shares["onnxruntime"]
    return kernels, standard, max(0.0, 100 - kernels - standard)


if __name__ == "__main__":
    sys.exit(main())
