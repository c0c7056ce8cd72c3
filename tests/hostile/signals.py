"""Signals at any time."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.hostile.case import Case
from tests.hostile.file_system import CHECKPOINT, DATA, MODEL, calls


def cases(rng: np.random.Generator, folder: Path) -> Iterator[Case]:
    """Each command, ended by each signal at any time of its first seconds."""
    for i in range(100_000):
        all_calls = calls(MODEL, CHECKPOINT, DATA, folder / f"out{i}")
        command, words = all_calls[i % len(all_calls)]
        words = tuple(w for w in words if w not in ("--no-verify", "--seconds=0.01"))
        number = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)[i % 3]
        delay = float(rng.uniform(0, 1.2)) ** 2
        yield Case(f"{number.name} after {delay:.3f} s", command, words, signal=(number, delay))
