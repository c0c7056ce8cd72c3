"""Fits the costs by which tiles and shares of sums are compared to what a sweep has measured.

    python -m benchmarks.cuda.costs FILE

FILE is the result of ``python -m benchmarks.cuda.sweep``. For each type the `Costs` of
adder_onnx/kernels/cuda/launch/cost.py, and what a launch takes beside them, are those that predict
the times of every other layer best: of least root mean square of log(predicted / measured), found
by random steps, always the same. Printed are they, that error for the layers they are fitted to and
for the others, and what the grids that are selected by them take, of what the fastest take: mean
and worst of the others, and the same of the costs that are in use.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np

from adder_onnx.kernels.cuda.launch.cost import COSTS, Costs, cycles

__all__ = ["error", "fit", "losses", "main"]

_STEPS = 3000
_LAUNCH = 3e-6
"""Seconds that a launch takes: where the search begins."""

_Row = dict[str, Any]


def predicted(costs: Costs, grid: dict[str, Any], turns: int, multiprocessors: int) -> float:
    """Cycles of a grid in a sweep's row."""
    of_grid = costs.of_turns(grid["turn"])
    return cycles(of_grid, grid["threads"], grid["blocks"], turns, grid["splits"], multiprocessors)


def error(rows: Sequence[_Row], costs: Costs, launch: float, clock: float, on: int) -> float:
    """Root mean square of log(predicted / measured) over all grids.

    Args:
        rows: of a sweep.
        costs: that predict.
        launch: seconds beside them.
        clock: cycles per second.
        on: multiprocessors.
    """
    squares = [
        math.log((launch + predicted(costs, grid, row["turns"], on) / clock) / grid["seconds"]) ** 2
        for row in rows
        for grid in row["grids"]
    ]
    return math.sqrt(statistics.fmean(squares))


def losses(rows: Sequence[_Row], costs: Costs, on: int) -> list[float]:
    """Seconds of the grid that is selected of each row, by those of the fastest."""

    def lost(row: _Row) -> float:
        chosen = min(row["grids"], key=lambda grid: predicted(costs, grid, row["turns"], on))
        return float(chosen["seconds"] / min(grid["seconds"] for grid in row["grids"]))

    return [lost(row) for row in rows]


def fit(rows: Sequence[_Row], start: Costs, clock: float, on: int) -> tuple[Costs, float]:
    """The costs of least `error`, and seconds of a launch."""

    def off(values: Sequence[float]) -> float:
        return error(rows, Costs(*values[:-1]), values[-1], clock, on)

    *costs, launch = _least(off, [*astuple(start), _LAUNCH])
    return Costs(*costs), launch


def _least(value: Callable[[Sequence[float]], float], start: Sequence[float]) -> list[float]:
    """Where a function of positive numbers is least, by steps that become smaller."""
    rng = np.random.default_rng(0)
    best, least, step = np.array(start, float), value(start), 0.2
    for _ in range(_STEPS):
        some = rng.random(len(best)) < 0.5
        tried = best * np.exp(step * rng.standard_normal(len(best)) * some)
        found = value(tried)
        if found < least:
            best, least = tried, found
        else:
            step = max(0.999 * step, 0.01)
    return [float(number) for number in best]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cuda.costs", description=__doc__.splitlines()[0]
    )
    parser.add_argument("file", type=Path, help="the result of a sweep")
    options = parser.parse_args(argv)
    result = json.loads(options.file.read_text())
    clock, on = result["sm_clock"], result["multiprocessors"]
    for type_, now in COSTS.items():
        rows = [row for row in result["rows"] if row["type"] == type_]
        fitted_to, others = rows[::2], rows[1::2]
        costs, launch = fit(fitted_to, now, clock, on)
        print(f"{type_}: {', '.join(f'{value:.4g}' for value in astuple(costs))}")
        errors = (error(part, costs, launch, clock, on) for part in (fitted_to, others))
        told = " and ".join(f"{100 * found:.1f} %" for found in errors)
        print(f"  launch {1e6 * launch:.1f} us; predicts within {told} of the others")
        for name, which in (("by these", costs), ("by those in use", now)):
            lost = losses(others, which, on)
            print(
                f"  selected {name}: {statistics.fmean(lost):.3f} of the fastest's time, "
                f"at worst {max(lost):.2f}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
