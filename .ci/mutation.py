"""Changes a module, one place at a time, and shows whether the tests notice.

No file is changed: each mutant is what a child process finds in the place of the module. Children
are forked from a process that has loaded what tests need, as many at a time as there are cores.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import multiprocessing
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import hypothesis  # noqa: F401
import numpy  # noqa: F401
import onnx  # noqa: F401
import onnx_ir  # noqa: F401
import onnxruntime  # noqa: F401
import pytest

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


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Gives a module another text than its file has."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant
        self._name = ".".join(mutant.path.relative_to(ROOT).with_suffix("").parts)

    def find_spec(
        self, fullname: str, path: object, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_loader(fullname, self, origin=str(self._mutant.path))

    def get_source(self, fullname: str) -> str:
        return self._mutant.text


def try_mutants(mutants: Iterable[Mutant], tests: Sequence[str]) -> int:
    """Runs tests on each mutant; returns how many went unnoticed."""
    every = list(mutants)
    for path in {mutant.path for mutant in every}:
        if not _passes(Mutant(path, path.read_text(), "nothing"), tests):
            sys.exit("the tests fail before anything is changed")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        passed = list(pool.map(lambda mutant: _passes(mutant, tests), every))
    for mutant, unnoticed in zip(every, passed, strict=True):
        what = mutant.what.replace("\n", " ")
        print(f"{'SURVIVED' if unnoticed else 'noticed '}  {mutant.path.name}: {what}", flush=True)
    print(f"{len(passed) - sum(passed)} noticed, {sum(passed)} survived")
    return sum(passed)


def _passes(mutant: Mutant, tests: Sequence[str]) -> bool:
    child = multiprocessing.get_context("fork").Process(target=_run, args=(mutant, tests))
    child.start()
    child.join()
    return child.exitcode == 0


def _run(mutant: Mutant, tests: Sequence[str]) -> None:
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
        os.dup2(nowhere.fileno(), sys.stderr.fileno())
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    sys.meta_path.insert(0, _Finder(mutant))
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
    status = pytest.main([*options, *(f"tests/{name}" for name in tests)])
    os._exit(int(status))  # without the ends of threads that only the parent has
