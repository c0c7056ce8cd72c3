"""Hostile input, long use, and random programs of the native layer: counts for docs/reliability.md.

    python -m benchmarks.reliability [--cases N] [--seed S] [--runs N] [--sessions N] [--fuzz S]
                                     [--json FILE]
    python -m benchmarks.reliability --check

Runs `tests.hostile`, each case of which is a call of a command, then `tests.hostile.load`, and for
so many seconds ``fuzz_native`` (tests/native/fuzz), built with the address and undefined behaviour
sanitizers. The result goes to ``benchmarks/results/reliability-<processor>.json`` and into the
table of docs/reliability.md, unless --json names another file; --check only compares the two.

The exit status is 0, and 1 where something went wrong, or the table is not up to date.

JSON, schema 1: what `benchmarks.environment.environment` says; ``cases``, ``load`` and ``fuzz`` are
the results of the three.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from adder_onnx.files import write_atomically
from benchmarks.documents import ROOT, results_of, update_table
from benchmarks.environment import environment, result_path

_COMMAND = "python -m benchmarks.reliability"
_DOCUMENT = ROOT / "docs" / "reliability.md"


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog=_COMMAND, description=__doc__)
    parser.add_argument("--cases", type=int, default=4000, help="of hostile input (4000)")
    parser.add_argument("--seed", type=int, default=0, help="of the first case (0)")
    parser.add_argument("--runs", type=int, default=10_000, help="of each of 8 threads (10000)")
    parser.add_argument("--sessions", type=int, default=1000, help="opened and closed (1000)")
    parser.add_argument("--fuzz", type=int, default=3600, metavar="S", help="seconds (3600)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(argv)
    if options.check:
        return update_table(_DOCUMENT, _COMMAND, _table(results_of("reliability")), check=True)
    result = environment("reliability") | {
        "cases": _module("tests.hostile", "--cases", options.cases, "--seed", options.seed),
        "load": _module(
            "tests.hostile.load", "--runs", options.runs, "--sessions", options.sessions
        ),
        "fuzz": _fuzz(options.fuzz),
    }
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    write_atomically(options.json or result_path(result), text.encode())
    if options.json is None:
        update_table(_DOCUMENT, _COMMAND, _table(results_of("reliability")), check=False)
    return int(not _is_good(result))


def _module(name: str, *words: object) -> dict[str, Any]:
    """The result of a module that writes one, and whose messages go to where ours go."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        command = [sys.executable, "-m", name, *map(str, words), "--json", str(file)]
        subprocess.run(command, check=False, cwd=ROOT)
        return json.loads(file.read_text())  # type: ignore[no-any-return]


def _fuzz(seconds: int) -> dict[str, Any]:
    """What ``fuzz_native`` says after so many seconds."""
    folder = ROOT / "build" / "sanitize-address"
    cores = str(os.cpu_count() or 1)
    options = ["-DADDER_ONNX_NATIVE_TESTS=ON", "-DADDER_ONNX_SANITIZE=address,undefined"]
    for command in (
        ["cmake", "-S", str(ROOT), "-B", str(folder), "-DCMAKE_BUILD_TYPE=None", *options],
        ["cmake", "--build", str(folder), "--target", "fuzz_native", "--parallel", cores],
    ):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seed = int(time.time()) * 1_000_000
    run = subprocess.run(
        [str(folder / "fuzz_native"), str(seed), f"{seconds}s"],
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    print(run.stdout)
    found = re.match(r"(\d+) cases", run.stdout)
    cases = int(found[1]) if found else 0
    return {"seed": seed, "seconds": seconds, "cases": cases, "status": run.returncode}


def _is_good(result: dict[str, Any]) -> bool:
    load = result["load"].values()
    return (
        result["cases"]["bad"] == 0
        and not any(part["wrong"] for part in load)
        and result["fuzz"]["status"] == 0
    )


def _table(results: list[dict[str, Any]]) -> str:
    """Markdown; results are of one processor each."""
    lines = []
    for result in results:
        cases, load, fuzz = result["cases"], result["load"], result["fuzz"]
        runs, sessions = load["runs"], load["sessions"]
        others = sum(n for status, n in cases["statuses"].items() if status not in ("0", "2"))
        slowest, largest = cases["slowest"], cases["largest"]
        lines += [
            f"**{result['cpu']}**, {result['isa']}, {result['cores']} cores, commit "
            f"{result['commit'][:12]}, {result['date']}.",
            "",
            "| what | how many | what went wrong |",
            "| --- | ---: | --- |",
            f"| hostile cases, seed {cases['seed']}: status 0 {cases['statuses'].get('0', 0)}, "
            f"2 {cases['statuses'].get('2', 0)}, of a signal that was sent {others} | "
            f"{cases['cases']} | {_wrong(cases['bad'])} |",
            f"| the slowest of these, seconds: {_code(slowest[0])} | {slowest[1]} | |",
            f"| the largest, MiB beside the command's own: {_code(largest[0])} | "
            f"{largest[1] >> 20} | |",
            f"| runs of {runs['threads']} threads in float32 and 8 bits, in changing shapes, each "
            f"compared with one thread's to the bit; {_held(runs)} | {runs['runs']} | "
            f"{_wrong(len(runs['wrong']))} |",
            f"| sessions opened, run and closed; {_held(sessions)} | {sessions['sessions']} | "
            f"{_wrong(len(sessions['wrong']))} |",
            f"| random programs and calls of the native layer with sanitizers, "
            f"{fuzz['seconds']} s | {fuzz['cases']} | {_wrong(int(fuzz['status'] != 0))} |",
            "",
        ]
    return "\n".join(lines)


def _wrong(count: int) -> str:
    return f"{count}" if count else "nothing"


def _code(name: str) -> str:
    return f"`{name[:60].replace('|', ' ')}`"


def _held(part: dict[str, Any]) -> str:
    first, last = part["held"][0], part["held"][-1]
    return (
        f"{first['memory'] >> 20} MiB and {first['descriptors']} descriptors after half of them, "
        f"{last['memory'] >> 20} and {last['descriptors']} after all"
    )


if __name__ == "__main__":
    sys.exit(main())
