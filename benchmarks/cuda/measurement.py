"""Everything that is measured on a GPU, one after the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adder_onnx.files import write_atomically
from adder_onnx.kernels.cuda.launch.selection import select_distances
from benchmarks.cuda.borders import measure_borders
from benchmarks.cuda.layers import BOUNDED, measure_layers
from benchmarks.cuda.machine import Machine
from benchmarks.cuda.networks import measure_networks

__all__ = ["measure_all"]

ROUNDS, QUICK_ROUNDS = 11, 3


def measure_all(
    machine: Machine, result: dict[str, Any], path: Path, *, quick: bool, only: str | None
) -> None:
    """Measures, and writes the result after each row.

    Args:
        machine: what is measured.
        result: what is known before; grows.
        path: where it goes.
        quick: a few layers and rounds.
        only: ``layers`` or ``networks``; None for both.

    Raises:
        AdderError: the result cannot be written, or the runtime fails.
        WrongResultError: a kernel computes something else.
    """
    rounds = QUICK_ROUNDS if quick else ROUNDS
    result |= {"layers": [], "borders": [], "networks": []}

    def keep(section: str, row: Any) -> None:
        result[section].append(row)
        write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())

    if only != "networks":
        bound = result["bound"] = {type_: machine.bound(type_) for type_ in BOUNDED}
        result["uint8_distances"] = machine.distances()
        result["sm_clock"] = machine.sm_clock()
        print(
            f"{result['device']}, {result['sm_clock'] / 1e9:.2f} GHz: bare inner loops "
            + ", ".join(f"{t} {r / 1e12:.2f} Ttaps/s" for t, r in bound.items()),
            flush=True,
        )
        print(
            "uint8, by how differences are added up: "
            + ", ".join(f"{n} {r / 1e12:.2f}" for n, r in result["uint8_distances"].items())
            + f"; chosen is {select_distances(machine.device.target)}",
            flush=True,
        )
        measure_layers(machine, bound, rounds, quick, lambda row: keep("layers", row))
        measure_borders(machine, rounds, quick, lambda row: keep("borders", row))
    if only != "layers":
        measure_networks(machine, rounds, quick, lambda row: keep("networks", row))
