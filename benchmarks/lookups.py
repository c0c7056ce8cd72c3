"""Times layers of random sizes by lookups and by sums of absolute differences, and the choice.

    python -m benchmarks.lookups [--layers N] [--seed N] [--json FILE]

Layers have as many levels as lookups of this machine's highest instruction set take, or fewer, no
residual, and outputs of as many levels or of all integers; both ways take turns on one thread.
Printed are, over all layers, the time of what our costs choose and of sums of absolute differences
alone, each over that of the faster one, and how often the choice is the faster one.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from adder_onnx.evaluation.environment import cpu_name
from adder_onnx.files import write_atomically
from adder_onnx.kernels.cpu import (
    Program,
    QAdderConv,
    available_isas,
    most_lookup_levels,
    padded_channels,
)

CHANNELS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
SIZES = (8, 14, 16, 28, 32)
VARIABLE = "ADDER_ONNX_LOOKUPS"
TURNS = 7
SECONDS = 0.004  # of a turn, at least


def layer(rng: np.random.Generator, isa: str) -> dict[str, Any]:
    """A random layer by lookups ("always") and without ("never"), and whether it takes them."""
    channels, filters = (int(rng.choice(CHANNELS)) for _ in range(2))
    kernel, stride = int(rng.choice((1, 3))), int(rng.choice((1, 1, 1, 2)))
    size, few = int(rng.choice(SIZES)), int(rng.integers(2, most_lookup_levels(isa) + 1))
    batch, out = 4 if size < 16 else 1, (size - 1) // stride + 1
    values = [14 * i // (few - 1) for i in range(few)]
    levels = values if rng.random() < 0.7 else []
    taps = channels * kernel**2
    weights = np.clip(rng.integers(-4, 16, (filters, channels, kernel, kernel)), 0, 15)
    ones = np.ones(filters, np.float32)
    made: dict[str, Any] = {}
    for mode in ("always", "never", "auto"):
        os.environ[VARIABLE] = mode
        conv = QAdderConv(
            *(weights.astype(np.uint8), 0, 0.01 * ones, ones * (0.05 * taps + 7), 1.0, 0, 1.0, 0),
            *(0.0, 4 if levels else 8, (stride, stride), (1, 1), 1, isa, levels, values),
        )
        if mode == "auto":
            made[mode] = conv.has_lookups
            continue
        program = Program(batch, batch)
        image = batch * size * size * padded_channels(channels)
        sizes = ((size, size), (out, out), (kernel // 2, kernel // 2))
        program.add_qadder_conv(conv, batch, *sizes, 0, -1, image // 4)
        bytes_ = rng.choice(np.array(values, np.uint8), 4 * program.arena_size(1))
        arena = bytes_.view(np.float32)
        made[mode] = functools.partial(program.run, arena, [], [], 1)
    return made


def seconds(run: Callable[[], object]) -> float:
    """Of one run, the mean over a turn."""
    start, count = time.perf_counter(), 0
    while True:
        run()
        count += 1
        now = time.perf_counter()
        if now - start >= SECONDS:
            return (now - start) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rng, isa = np.random.default_rng(options.seed), available_isas()[-1]
    rows = []
    for _ in range(options.layers):
        made = layer(rng, isa)
        times: dict[str, list[float]] = {"always": [], "never": []}
        for _ in range(TURNS):
            for mode, taken in times.items():
                taken.append(seconds(made[mode]))
        rows.append({mode: statistics.median(taken) for mode, taken in times.items()})
        rows[-1]["chosen"] = rows[-1]["always" if made["auto"] else "never"]
    fastest = [min(row.values()) for row in rows]
    right = sum(row["chosen"] == least for row, least in zip(rows, fastest, strict=True))
    result = {
        "cpu": cpu_name(),
        "isa": isa,
        "layers": len(rows),
        "choice_right": right / len(rows),
        "chosen": sum(row["chosen"] for row in rows) / sum(fastest),
        "never": sum(row["never"] for row in rows) / sum(fastest),
        "always": sum(row["always"] for row in rows) / sum(fastest),
    }
    print(
        f"{result['cpu']}, {isa}, {len(rows)} layers: the choice takes {result['chosen']:.3f} of "
        f"the time of the faster way, which it is in {100 * result['choice_right']:.0f} %; "
        f"differences alone {result['never']:.3f}, lookups alone {result['always']:.3f}"
    )
    if options.json:
        write_atomically(options.json, (json.dumps(result, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
