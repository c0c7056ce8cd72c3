"""Long use of sessions: many threads, many runs, many sessions; answers and what a process holds.

    python -m tests.hostile.load [--runs N] [--sessions N] [--json FILE]

Eight threads share a session in float32 and one in 8 bits; each run has another shape, and every
answer must be, to the bit, that of one thread. Then sessions are opened, run and closed. Memory,
threads and descriptors are looked at on the way. The status is 1 where an answer differs, or what
the process holds grows.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import adder_onnx
from adder_onnx.cli import quantize

__all__ = ["Held", "main", "open_sessions", "run_in_threads"]

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"

THREADS = 8
_BATCHES = (1, 2, 3, 5, 8, 13, 21, 34, 55)
_GROWTH = 48 << 20
"""Memory that may be more in the second half than in the first: allocators keep some."""


@dataclass(frozen=True)
class Held:
    """What a process holds.

    Attributes:
        memory: bytes that lie in memory.
        threads: how many.
        descriptors: how many are open.
    """

    memory: int
    threads: int
    descriptors: int

    @classmethod
    def now(cls) -> Held:
        """What this one holds."""
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        tasks, files = Path("/proc/self/task"), Path("/proc/self/fd")
        return cls(resident, len(list(tasks.iterdir())), len(list(files.iterdir())))

    def growth(self, later: Held) -> list[str]:
        """What has grown since, beyond what may."""
        found = []
        if later.memory > self.memory + _GROWTH:
            found.append(f"memory grows from {self.memory >> 20} to {later.memory >> 20} MiB")
        if later.threads > self.threads:
            found.append(f"threads grow from {self.threads} to {later.threads}")
        if later.descriptors > self.descriptors:
            found.append(f"descriptors grow from {self.descriptors} to {later.descriptors}")
        return found


def run_in_threads(models: list[bytes], runs: int) -> dict[str, object]:
    """Eight threads share a session of each model; each makes so many runs, in changing shapes."""
    sessions = [adder_onnx.InferenceSession(model, threads=2) for model in models]
    rng = np.random.default_rng(0)
    feeds = [rng.standard_normal((n, 1, 8, 8)).astype(np.float32) for n in _BATCHES]
    expected = [[_answer(session, feed) for feed in feeds] for session in sessions]
    wrong: list[str] = []
    held: list[Held] = []

    def work(offset: int) -> None:
        try:
            for i in range(runs):
                which, shape = (i + offset) % len(sessions), (i * 5 + offset) % len(feeds)
                if not np.array_equal(
                    _answer(sessions[which], feeds[shape]), expected[which][shape]
                ):
                    wrong.append(f"model {which}, batch {_BATCHES[shape]}")
                if offset == 0 and i in (runs // 2, runs - 1):
                    held.append(Held.now())
        except Exception as error:
            wrong.append(repr(error))

    since = time.monotonic()
    workers = [threading.Thread(target=work, args=(i,)) for i in range(THREADS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.monotonic() - since
    wrong += held[0].growth(held[-1]) if len(held) > 1 else []
    return {
        "threads": THREADS,
        "runs": THREADS * runs,
        "wrong": wrong,
        "seconds": round(seconds, 1),
        "held": [asdict(h) for h in held],
    }


def open_sessions(models: list[bytes], count: int) -> dict[str, object]:
    """Opens, runs and closes so many sessions, one after the other."""
    x = np.zeros((3, 1, 8, 8), np.float32)
    held, since = [], time.monotonic()
    for i in range(count):
        with adder_onnx.InferenceSession(models[i % len(models)], threads=2) as session:
            _answer(session, x)
        if i in (count // 2, count - 1):
            held.append(Held.now())
    return {
        "sessions": count,
        "wrong": held[0].growth(held[-1]),
        "seconds": round(time.monotonic() - since, 1),
        "held": [asdict(h) for h in held],
    }


def _answer(session: adder_onnx.InferenceSession, x: NDArray[np.float32]) -> NDArray[np.float32]:
    (answer,) = session.run(None, {session.get_inputs()[0].name: x})
    return answer  # type: ignore[no-any-return]


def digits_models() -> list[bytes]:
    """The shipped model, and the same in 8 bits."""
    model = DIGITS / "resnet8_digits.onnx"
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "digits8.onnx"
        words = [str(model), str(output), "--data", str(DIGITS / "test"), "--samples", "32"]
        if quantize.main([*words, "--json", f"{folder}/report.json"]) != 0:
            raise RuntimeError("the shipped model cannot be quantized")
        return [model.read_bytes(), output.read_bytes()]


def main(argv: list[str] | None = None) -> int:
    """Runs all of it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.load", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="of each thread (10000)")
    parser.add_argument("--sessions", type=int, default=1000, help="(1000)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    models = digits_models()
    result = {
        "runs": run_in_threads(models, options.runs),
        "sessions": open_sessions(models, options.sessions),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")
    return int(any(part["wrong"] for part in result.values()))


if __name__ == "__main__":
    sys.exit(main())
