"""Runs seeded hostile cases and says which commands did what they must not.

    python -m tests.hostile [--cases N] [--seed S] [--kind NAME …] [--jobs N] [--json FILE]

Cases are taken in turn from all kinds, N in all. Printed is a line for each that ends badly, with
the case's arguments; files stay where --keep names a folder for them. The status is 1 where there
is one.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import numpy as np

from tests.hostile.case import Case
from tests.hostile.child import Outcome, load_commands, run_cases
from tests.hostile.judge import faults

KINDS = (
    *("models", "model_bytes", "checkpoints", "pickles", "archives", "images"),
    *("options", "file_system", "signals"),
)


def main(argv: list[str] | None = None) -> int:
    """Runs the cases; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--cases", metavar="N", type=int, default=2400, help="in all (2400)")
    parser.add_argument("--seed", metavar="S", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, nargs="+", default=KINDS)
    parser.add_argument("--jobs", metavar="N", type=int, default=2, help="at the same time (2)")
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="for the cases' files")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for every case")
    options = parser.parse_args(argv)
    since = time.monotonic()
    bad, outcomes = 0, []
    with ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(exist_ok=True, parents=True)
        folder.chmod(0o755)
        chosen = choose(options.kind, options.cases, options.seed, folder)
        for outcome in run_cases(chosen, load_commands(), options.jobs):
            wrong = faults(outcome)
            outcomes.append(outcome)
            bad += bool(wrong)
            if wrong or options.verbose:
                print(describe(outcome, wrong), flush=True)
    result = summary(outcomes, bad, options.seed, time.monotonic() - since)
    print(json.dumps(result, indent=2))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return int(bad > 0)


def choose(kinds: tuple[str, ...], count: int, seed: int, folder: Path) -> Iterator[Case]:
    """As many cases, taken in turn from the kinds as long as they have any."""
    return islice(_in_turn(kinds, seed, folder), count)


def _in_turn(kinds: tuple[str, ...], seed: int, folder: Path) -> Iterator[Case]:
    sources = []
    for i, kind in enumerate(kinds):
        own = folder / kind
        own.mkdir()
        module = importlib.import_module(f"tests.hostile.{kind}")
        sources.append(module.cases(np.random.default_rng([seed, i]), own))
    while sources:
        for source in list(sources):
            case = next(source, None)
            if case is None:
                sources.remove(source)
            else:
                yield case


def describe(outcome: Outcome, wrong: list[str]) -> str:
    """A line that says how a case has ended, and how to repeat it."""
    case = outcome.case
    words = shlex.join(a if len(a) < 200 else f"{a[:200]}…" for a in case.arguments)
    more = "".join(f" {name}={value}" for name, value in case.limits)
    verdict = f"{'; '.join(wrong)}: status {outcome.status}: {outcome.messages.strip()[:300]!r}"
    return (
        f"{case.name}: {verdict} [{outcome.seconds:.1f} s, {outcome.peak >> 20} MiB] "
        f"{case.command} {words}{more}".encode("utf-8", "backslashreplace").decode()
    )


def summary(outcomes: list[Outcome], bad: int, seed: int, seconds: float) -> dict[str, object]:
    """The counts, for docs/reliability.md."""
    statuses = Counter("none" if o.status is None else str(o.status) for o in outcomes)
    slowest = max(outcomes, key=lambda o: o.seconds, default=None)
    largest = max(outcomes, key=lambda o: o.peak, default=None)
    return {
        "seed": seed,
        "cases": len(outcomes),
        "bad": bad,
        "statuses": dict(sorted(statuses.items())),
        "commands": dict(sorted(Counter(o.case.command for o in outcomes).items())),
        "seconds": round(seconds, 1),
        "slowest": None if slowest is None else [slowest.case.name, round(slowest.seconds, 2)],
        "largest": None if largest is None else [largest.case.name, largest.peak],
    }


if __name__ == "__main__":
    sys.exit(main())
