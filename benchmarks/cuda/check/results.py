"""What checks find, and how it is printed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from adder_onnx.errors import AdderError
from adder_onnx.runtime.cuda.errors import DeviceLostError

__all__ = ["Check", "FailedError", "Result", "SkippedError", "run_checks", "verdict"]


class FailedError(Exception):
    """A check fails; the message says what was found, on one line."""


class SkippedError(Exception):
    """A check cannot be made here; the message says why, on one line."""


@dataclass(frozen=True)
class Check:
    """Something to find out.

    Attributes:
        name: what it is about.
        run: gives what was found, on one line; raises where it is not as it should be.
    """

    name: str
    run: Callable[[], str]


@dataclass(frozen=True)
class Result:
    """What was found.

    Attributes:
        name: of the check.
        outcome: ``pass``, ``FAIL``, ``skip``.
        detail: what was found, on one line.
        seconds: that it took.
    """

    name: str
    outcome: str
    detail: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.outcome}  {self.name:33}  {self.detail} ({self.seconds:.1f} s)"


def run_checks(checks: Iterable[Check], done: Callable[[Result], None]) -> list[Result]:
    """Runs checks one after the other; each result goes to ``done``, too.

    Where the GPU is lost, nothing more can be found out, and the others are left.
    """
    results: list[Result] = []
    lost = ""
    for check in checks:
        start = time.perf_counter()
        try:
            if lost:
                raise SkippedError(f"the GPU was lost in the check {lost!r}")
            outcome, detail = "pass", check.run()
        except SkippedError as error:
            outcome, detail = "skip", str(error)
        except DeviceLostError as error:
            lost, outcome, detail = check.name, "FAIL", str(error)
        except (AdderError, FailedError) as error:
            outcome, detail = "FAIL", str(error)
        except Exception as error:  # whatever it is, the report must say so and go on
            outcome, detail = "FAIL", f"{type(error).__name__}: {error}"
        detail = " ".join(detail.split())
        results.append(Result(check.name, outcome, detail, time.perf_counter() - start))
        done(results[-1])
    return results


def verdict(results: Iterable[Result]) -> str:
    """One line on all of them."""
    by_outcome: dict[str, list[str]] = {"pass": [], "FAIL": [], "skip": []}
    for result in results:
        by_outcome[result.outcome].append(result.name)
    passed, failed, skipped = by_outcome.values()
    text = f"{len(passed)} checks passed"
    if failed:
        text = f"FAILED: {', '.join(failed)}; {text}"
    if skipped:
        text += f"; not run: {', '.join(skipped)}"
    return text
