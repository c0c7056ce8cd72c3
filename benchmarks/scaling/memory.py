"""A command, and the memory that its processes take."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.documents import ROOT

__all__ = ["run_watched"]

_PAUSE = 0.5


def run_watched(model: Path, words: list[str]) -> dict[str, float]:
    """Runs adder-run; what it says of its speed, how long all took, and the most memory in MiB.

    The memory is that of the command and all processes below it, what they share counted once for
    each of them left out.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        command = [sys.executable, "-m", "adder_onnx.cli.run", str(model), *words]
        start = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--json", str(file)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        peaks = [0.0]
        over = threading.Event()

        def watch() -> None:
            while not over.wait(_PAUSE):
                peaks.append(_memory(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        status = process.wait()
        over.set()
        watcher.join()
        if status:
            raise RuntimeError(f"{' '.join(command)} ended with status {status}")
        found = json.loads(file.read_text())
    return {
        "images_per_second": found["images_per_second"],
        "command_seconds": time.perf_counter() - start,
        "memory_mib": max(peaks),
        "right": found["top1_correct"],
    }


def _memory(root: int) -> float:
    """MiB that a process and all below it have for themselves."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text()
        except OSError:  # it has ended
            continue
        parents[int(status.parent.name)] = int(text.rpartition(")")[2].split()[1])
    total = 0
    for number in parents:
        above = number
        while above not in (root, 0):
            above = parents.get(above, 0)
        if above == root:
            total += _private(number)
    return total / 1024


def _private(number: int) -> int:
    try:
        lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
