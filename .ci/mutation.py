"""Changes sources in place, one place at a time, and shows whether the tests notice."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Mutant:
    """A change to a source file.

    Attributes:
        path: of the file.
        text: of the file, changed.
        what: the change, for people.
    """

    path: Path
    text: str
    what: str


def try_mutants(mutants: Iterable[Mutant], tests: Sequence[str]) -> int:
    """Runs tests on each mutant, and puts the file back; returns how many went unnoticed."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += [str(ROOT / "tests" / name) for name in tests]
    if subprocess.run(command, check=False, cwd=ROOT, capture_output=True).returncode:
        sys.exit("the tests fail before anything is changed")
    survivors = count = 0
    for mutant in mutants:
        original = mutant.path.read_text()
        try:
            mutant.path.write_text(mutant.text)
            result = subprocess.run(command, check=False, cwd=ROOT, capture_output=True)
        finally:
            mutant.path.write_text(original)
        failed = result.returncode != 0
        count += 1
        survivors += not failed
        what = mutant.what.replace("\n", " ")
        print(f"{'noticed ' if failed else 'SURVIVED'}  {mutant.path.name}: {what}", flush=True)
    print(f"{count - survivors} passed, {survivors} failed")
    return survivors
