"""Our runtime against what a user would run instead, on whole networks on this machine's CPU.

    python -m benchmarks.race [--quick] [--network NAME] [--batch-size N,…] [--threads N,…]
                              [--isa avx2] [--json FILE]

Contenders: the adder network in our runtime, quantized and in float32; its convolutional twin in
onnxruntime and in OpenVINO, float32 and int8 (QDQ, per channel, calibrated); the adder network
through torch.cdist, as the reference implementation runs it; and our file in stock onnxruntime, by
its function bodies. Each has a process of its own; they take turns, with pauses, since idle workers
of the one would take the core of the other. Weights are random: no time depends on them.

With --isa the race is held to an instruction set, also on a machine that has more: OpenVINO and our
adder nodes by variables of the environment (race/contenders.py), and that they obey is seen from
their rates, since each then also runs free in the same race. onnxruntime cannot be held, so it only
takes part where there is no more than this set; there, nobody is held and all run once. Those that
take seconds for a run take no part.

The result, medians and spread of all runs and the peak memory of each process, goes to
``benchmarks/results/race-<cpu>-<instruction set>.json`` unless --json says otherwise;
``python -m benchmarks.race.table`` makes the tables and the plot in the docs from it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adder_onnx.files import write_atomically
from benchmarks.documents import ROOT
from benchmarks.environment import environment, result_path
from benchmarks.process import Process
from benchmarks.race.contenders import CONTENDERS, HOLDS, RACES, SLOW, has_more_than

FOLDER = ROOT / "build" / "race"
PAUSE = 0.3  # seconds between turns
TURN = 1.0  # seconds
ROUNDS = 5
SLOW_TURNS = 2


class Worker:
    """A contender, its times and its memory; held by variables of its environment, or free."""

    def __init__(
        self,
        name: str,
        network: str,
        batch: int,
        threads: int,
        variables: dict[str, str],
    ) -> None:
        self.name = name
        self.is_held = bool(variables)
        self.seconds: list[float] = []
        self.peak_bytes = 0
        arguments = [name, network, str(batch), str(threads), str(FOLDER)]
        self.process = Process("benchmarks.race.worker", arguments, variables=variables)
        self.works = self.process.ready == "ready"

    def turn(self, seconds: float) -> None:
        """Lets it run for about so long."""
        answer = self.process.turn(seconds)
        self.seconds += answer["seconds"]
        self.peak_bytes = answer["peak_bytes"]


@dataclass(frozen=True)
class Rules:
    """Of all races of a run.

    Attributes:
        quick: one short turn each.
        isa: the instruction set that the races are about, if they are about one.
        is_held: the machine has more than that, and contenders are held to it.
    """

    quick: bool
    isa: str | None = None
    is_held: bool = False


def race(network: str, batch: int, threads: int, rules: Rules) -> list[dict[str, Any]]:
    """One race; a row for each contender that can take part."""
    workers = _start(network, batch, threads, rules)
    for number in range(1 if rules.quick else ROUNDS):
        for worker in workers:
            if worker.name in SLOW and number >= SLOW_TURNS:
                continue
            time.sleep(PAUSE)
            worker.turn(0.1 if rules.quick else TURN)
    for worker in workers:
        worker.process.stop()
    rows, free = [], {}
    for worker in workers:
        values = _measured(worker, batch)
        if rules.is_held and not worker.is_held:
            free[worker.name] = values
            continue
        row = {"network": network, "batch": batch, "threads": threads, "contender": worker.name}
        rows.append(row | values)
    return [row | {"free": free[row["contender"]]} if free else row for row in rows]


def _start(network: str, batch: int, threads: int, rules: Rules) -> list[Worker]:
    """Those that take part; where they are held, each of them free, too."""
    workers = []
    for name, (kind, _) in CONTENDERS.items():
        if name == "onnxruntime, our file" and network == "resnet50" and (batch > 1 or rules.quick):
            continue  # minutes for a run
        if rules.isa is not None and name in SLOW:
            continue
        environments: list[dict[str, str]] = [{}]
        if rules.isa is not None and rules.is_held:
            if kind not in HOLDS[rules.isa]:
                continue
            environments.append(HOLDS[rules.isa][kind])
        started = [Worker(name, network, batch, threads, some) for some in environments]
        if all(worker.works for worker in started):
            workers += started
            continue
        print(f"{name} does not run here: it is left out", file=sys.stderr)
        for worker in started:
            worker.process.stop()
    return workers


def _measured(worker: Worker, batch: int) -> dict[str, Any]:
    p10, median, p90 = np.percentile(worker.seconds, (10, 50, 90))
    return {
        "runs": len(worker.seconds),
        "seconds": {"median": float(median), "p10": float(p10), "p90": float(p90)},
        "images_per_second": batch / float(median),
        "peak_bytes": worker.peak_bytes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short turn each")
    parser.add_argument("--network", choices=tuple(RACES))
    parser.add_argument("--batch-size", type=_numbers)
    parser.add_argument("--threads", type=_numbers, default=(1, 2))
    parser.add_argument("--isa", choices=tuple(HOLDS), help="an instruction set to be held to")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    is_held = options.isa is not None and has_more_than(options.isa)
    rules = Rules(options.quick, options.isa, is_held)
    result = environment("race") | ({"held_to": options.isa} if is_held else {}) | {"rows": []}
    path = options.json or result_path(result)
    path.parent.mkdir(parents=True, exist_ok=True)
    networks = [options.network] if options.network else list(RACES)
    _prepare(networks)
    for network in networks:
        for batch in options.batch_size or RACES[network]:
            for threads in options.threads:
                rows = race(network, batch, threads, rules)
                result["rows"] += rows
                _print(rows)
                write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())
    print(f"written to {path}")


def _prepare(networks: list[str]) -> None:
    """Makes the files in a process that ends, so that torch's threads end with it."""
    code = (
        "import sys; from pathlib import Path; from benchmarks.race.models import files\n"
        "for name in sys.argv[2:]: files(name, Path(sys.argv[1]))"
    )
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(FOLDER), *networks],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _print(rows: list[dict[str, Any]]) -> None:
    first = rows[0]
    print(f"{first['network']}, batch {first['batch']}, {first['threads']} threads")
    for row in rows:
        seconds = row["seconds"]
        print(
            f"  {row['contender']:26} {row['images_per_second']:10.1f} images/s  "
            f"{seconds['median'] * 1e3:10.3f} ms ({seconds['p10'] * 1e3:.3f} … "
            f"{seconds['p90'] * 1e3:.3f}), ours takes "
            f"{first['seconds']['median'] / seconds['median']:.2f} x its time{_free(row)}",
            flush=True,
        )


def _free(row: dict[str, Any]) -> str:
    return f", free {row['free']['images_per_second']:.1f} images/s" if "free" in row else ""


if __name__ == "__main__":
    main()
