"""One training step of ResNet-20 by `AdderConv2d` and by the reference's formulation in PyTorch.

    python -m benchmarks.training [--device cpu|cuda] [--batch-size N] [--threads N] [--repeat N]
                                  [--json FILE]
    python -m benchmarks.training --check

The reference formulation unfolds the input to a matrix, takes ``torch.cdist`` of it and the
filters, and for the gradients holds the differences of every position, filter and tap at a time.
Both take turns, each in a process of its own; a step is forward, backward and an update by SGD on
random images. Printed are the median time of each and the most memory that its steps took: the
process's resident memory on a CPU, torch's tensors on a GPU. The result goes to
``benchmarks/results/training-<processor>.json`` and into the table in docs/benchmarks.md (of a GPU,
docs/gpu.md), unless --json names another file; --check only compares the tables with the results.

The exit status is 0, 1 where a table is not up to date, and 2 where there is no GPU.

JSON, schema 1: what `benchmarks.environment.environment` says of the processor, and of a GPU
``device``, ``driver_and_clocks`` and the like as in `benchmarks.cuda`; ``network``, ``batch``,
``threads``; ``seconds``, those of each step, and ``peak_bytes``, by contender.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from adder_onnx.errors import AdderError
from adder_onnx.export import AdderConv2d
from adder_onnx.files import write_atomically
from adder_onnx.runtime.devices import check_cuda
from benchmarks.cuda.conditions import environment as gpu_environment
from benchmarks.cuda.table import NOT_MEASURED
from benchmarks.documents import ROOT, results_of, update_table
from benchmarks.environment import environment, result_path
from benchmarks.networks import adder_network
from benchmarks.race.worker import peak_bytes, resident_bytes

CONTENDERS = ("AdderConv2d", "reference")
DOCUMENTS = {"cpu": "docs/benchmarks.md", "cuda": "docs/gpu.md"}
COMMANDS = {
    "cpu": "python -m benchmarks.training",
    "cuda": "python -m benchmarks.training --device cuda",
}
REPEAT = {"cpu": 5, "cuda": 30}
WARM_UPS = {"cpu": 1, "cuda": 5}
"""Steps before those that are timed; on a GPU kernels are compiled and cuDNN makes its choice."""


class _Distances(torch.autograd.Function):
    """-sum |x - w| of columns (taps, positions) and filters (M, taps); the paper's gradients."""

    @staticmethod
    def forward(ctx: Any, filters: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(filters, columns)
        return -torch.cdist(filters, columns.t().contiguous(), p=1.0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        filters, columns = ctx.saved_tensors
        differences = columns.unsqueeze(0) - filters.unsqueeze(2)
        grad_filters = (differences * grad.unsqueeze(1)).sum(2)
        norm = grad_filters.norm().clamp_min(1e-12)
        grad_filters = grad_filters * (0.2 * grad_filters.numel() ** 0.5 / norm)
        return grad_filters, ((-differences).clamp(-1, 1) * grad.unsqueeze(1)).sum(0)


class _Reference(nn.Module):
    def __init__(self, layer: AdderConv2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        size = layer.kernel_size[0]
        columns = functional.unfold(x, size, padding=layer.padding[0], stride=layer.stride[0])
        side = (x.shape[2] + 2 * layer.padding[0] - size) // layer.stride[0] + 1
        columns = columns.permute(1, 2, 0).reshape(columns.shape[1], -1)
        y: Tensor = _Distances.apply(layer.adder.flatten(1), columns)  # type: ignore[no-untyped-call]
        return y.view(-1, side, side, x.shape[0]).permute(3, 0, 1, 2).contiguous()


def make_network(contender: str) -> nn.Module:
    """The same for both, but for how its adder layers compute."""
    network: nn.Module = adder_network("resnet20").train()
    if contender == "reference":
        for path, module in list(network.named_modules()):
            if isinstance(module, AdderConv2d):
                parent, _, child = path.rpartition(".")
                setattr(network.get_submodule(parent), child, _Reference(module))
    return network


def make_step(contender: str, batch: int, device: str) -> Callable[[], None]:
    """A step that ends when all of it is done."""
    network = make_network(contender).to(device)
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9)
    x = torch.randn(batch, 3, 32, 32, device=device)
    labels = torch.randint(10, (batch,), device=device)

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(network(x), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def work(contender: str, batch: int, threads: int, device: str) -> None:
    """A process that makes a step for each line it reads, and writes its time and peak memory."""
    torch.set_num_threads(threads)
    before = resident_bytes()
    step = make_step(contender, batch, device)
    for _ in range(WARM_UPS[device]):
        step()
    print(json.dumps("ready"), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        seconds = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated() if device == "cuda" else peak_bytes() - before
        print(json.dumps([seconds, peak]), flush=True)


def table(results: list[dict[str, Any]]) -> str:
    """Markdown for results of this benchmark, a row for each."""
    if not results:
        return NOT_MEASURED
    lines = [
        "| one step | `AdderConv2d` | reference | time | memory |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for result in results:
        ours, theirs = CONTENDERS
        seconds = {name: statistics.median(times) for name, times in result["seconds"].items()}
        peaks = result["peak_bytes"]
        cells = [f"{seconds[name]:.3g} s, {peaks[name] / 1e6:,.0f} MB" for name in CONTENDERS]
        lines.append(
            f"| ResNet-20, batch {result['batch']}{_processor(result)}; "
            f"torch {result['versions']['torch']}; commit {result['commit'][:12]}, "
            f"{result['date']} | {cells[0]} | {cells[1]} | "
            f"{seconds[ours] / seconds[theirs]:.3f} × | {peaks[ours] / peaks[theirs]:.3f} × |"
        )
    return "\n".join(lines) + "\n"


def _processor(result: dict[str, Any]) -> str:
    if _device(result) == "cuda":
        return f"; {result['device']}, driver {result['driver_and_clocks'].partition(',')[0]}"
    return f", {result['threads']} threads; {result['cpu']}, {result['isa']}"


def _device(result: dict[str, Any]) -> str:
    return "cuda" if "device" in result else "cpu"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--device", choices=tuple(COMMANDS), default="cpu")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, help="steps that are timed; 5, or 30 on a GPU")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--work", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        work(options.work, options.batch_size, options.threads, options.device)
        return 0
    if not options.check:
        try:
            if options.device == "cuda":
                check_cuda(0)
            measure(options)
        except AdderError as error:
            print(f"{parser.prog}: error: {error}", file=sys.stderr)
            return 2
    if options.json:
        return 0
    return update_tables(check=options.check)


def update_tables(root: Path = ROOT, *, check: bool) -> int:
    """Puts the results into the documents; returns the exit status of the command."""
    statuses = []
    for device, document in DOCUMENTS.items():
        results = [r for r in results_of("training", root) if _device(r) == device]
        statuses.append(
            update_table(root / document, COMMANDS[device], table(results), check=check)
        )
    return max(statuses)


def measure(options: argparse.Namespace) -> None:
    """Runs the contenders, prints and writes the result."""
    workers = {}
    sizes = ["--batch-size", str(options.batch_size), "--threads", str(options.threads)]
    sizes += ["--device", options.device]
    for name in CONTENDERS:
        command = [sys.executable, "-m", "benchmarks.training", "--work", name, *sizes]
        workers[name] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        _answer(workers[name])
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    peaks = dict.fromkeys(CONTENDERS, 0)
    for _ in range(options.repeat or REPEAT[options.device]):
        for name, worker in workers.items():
            assert worker.stdin is not None
            worker.stdin.write("step\n")
            worker.stdin.flush()
            seconds, peaks[name] = _answer(worker)
            times[name].append(seconds)
    for worker in workers.values():
        worker.communicate()
    of_cpu = environment("training")
    of_gpu = gpu_environment() if options.device == "cuda" else {"versions": {}}
    result = {
        **of_cpu,
        **of_gpu,
        "benchmark": of_cpu["benchmark"],
        "versions": of_gpu["versions"] | of_cpu["versions"],
        "network": "resnet20",
        "batch": options.batch_size,
        "threads": options.threads,
        "seconds": times,
        "peak_bytes": peaks,
    }
    write_atomically(
        options.json or result_path(result), (json.dumps(result, indent=1) + "\n").encode()
    )
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"ResNet-20, batch {options.batch_size}{_processor(result)}")
    for name in CONTENDERS:
        print(f"  {name:12} {medians[name]:8.3f} s a step, {peaks[name] / 1e6:7.0f} MB")
    ours, theirs = CONTENDERS
    print(
        f"  {medians[theirs] / medians[ours]:.1f} x as fast, in "
        f"{peaks[ours] / peaks[theirs]:.3f} x the memory"
    )


def _answer(worker: subprocess.Popen[str]) -> Any:
    assert worker.stdout is not None
    return json.loads(worker.stdout.readline())


if __name__ == "__main__":
    sys.exit(main())
