"""Changes a module, one place at a time, and shows whether the tests notice.

No file is changed: each mutant is what a child process finds in the place of the module. Children
are forked from a process that has loaded what tests need, as many at a time as there are cores.
"""

from __future__ import annotations

import builtins
import importlib.abc
import importlib.machinery
import importlib.util
import json
import multiprocessing
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

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
        tests: of those that are run, the only ones whose results it can change; all if None.
    """

    path: Path
    text: str
    what: str
    tests: tuple[str, ...] | None = None


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


class _Stops:
    """Finds out which tests a guard stops something in.

    Guards are numbers, and a condition in a module's text is ``_ask(guard)((condition), passing)``.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._unanswered: Counter[int] = Counter()
        self._found: dict[int, list[str]] = {}
        vars(builtins)["_ask"] = self._ask

    def _ask(self, guard: int) -> Callable[[Any, bool], Any]:
        self._unanswered[guard] += 1

        def answer(value: Any, passing: bool) -> Any:
            self._unanswered[guard] -= bool(value) == passing
            return value

        return answer

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            for guard in +self._unanswered:
                self._found.setdefault(guard, []).append(report.nodeid)
            self._unanswered.clear()

    def pytest_sessionfinish(self) -> None:
        self._file.write_text(json.dumps(self._found))


def stopped_tests(probed: Mutant, tests: Sequence[str]) -> dict[int, tuple[str, ...]]:
    """By each guard's number, the tests in which it stops something, or has no value.

    They are all that can differ where the guard lets everything pass. In the text ``probed.text``
    a guard is written as `_Stops` says.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stops.json"
        if not _passes(probed, tests, file):
            sys.exit("the tests fail before anything is changed")
        return {int(guard): tuple(names) for guard, names in json.loads(file.read_text()).items()}


def try_mutants(mutants: Iterable[Mutant], tests: Sequence[str]) -> int:
    """Runs tests on each mutant; returns how many went unnoticed."""
    every = list(mutants)
    for path in {mutant.path for mutant in every if mutant.tests is None}:
        if not _passes(Mutant(path, path.read_text(), "nothing"), tests):
            sys.exit("the tests fail before anything is changed")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        passed = list(pool.map(lambda mutant: _survives(mutant, tests), every))
    for mutant, unnoticed in zip(every, passed, strict=True):
        what = mutant.what.replace("\n", " ")
        print(f"{'SURVIVED' if unnoticed else 'noticed '}  {mutant.path.name}: {what}", flush=True)
    print(f"{len(passed) - sum(passed)} noticed, {sum(passed)} survived")
    return sum(passed)


def _survives(mutant: Mutant, tests: Sequence[str]) -> bool:
    if mutant.tests is None:
        return _passes(mutant, tests)
    return not mutant.tests or _passes(mutant, mutant.tests)


def _passes(mutant: Mutant, tests: Sequence[str], stops: Path | None = None) -> bool:
    process = multiprocessing.get_context("fork").Process
    child = process(target=_run, args=(mutant, tests, stops))
    child.start()
    child.join()
    return child.exitcode == 0


def _run(mutant: Mutant, tests: Sequence[str], stops: Path | None) -> None:
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
        os.dup2(nowhere.fileno(), sys.stderr.fileno())
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    sys.meta_path.insert(0, _Finder(mutant))
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
    plugins = [] if stops is None else [_Stops(stops)]
    status = pytest.main([*options, *tests], plugins)
    os._exit(int(status))  # without the ends of threads that only the parent has
