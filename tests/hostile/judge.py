"""What is wrong with how a command has ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.hostile.child import MEMORY, Outcome

__all__ = ["PEAK", "faults"]

PEAK = 3 * MEMORY
"""What a command may take that was told to take `MEMORY` for what it is given, beside itself."""

_SIGNAL = 128


def faults(outcome: Outcome) -> list[str]:
    """What a command must not do, of all that it did: none where it has ended well.

    Its status is 0 or 2, or that of the signal that it was sent; it says one line of its own, and
    warnings at most before it; only what succeeds leaves files; time and memory are bounded.
    """
    return list(_faults(outcome))


def _faults(outcome: Outcome) -> Iterator[str]:
    case, status = outcome.case, outcome.status
    allowed = {0, 2} if case.signal is None else {0, 2, _SIGNAL + case.signal[0]}
    if status is None:
        yield "it does not end"
    elif status not in allowed:
        yield f"its status is {status}"
    yield from _wrong_lines(outcome)
    if status != 0:
        yield from (f"it leaves {Path(path).name}" for path in outcome.left)
    else:
        yield from (f"it leaves {Path(p).name}" for p in outcome.left if _is_temporary(p))
    if outcome.peak > PEAK:
        yield f"it takes {outcome.peak >> 20} MiB"
    if canary_of(case.arguments) is not None:
        yield "it runs code"


def canary_of(arguments: tuple[str, ...]) -> Path | None:
    """What code in a hostile file makes beside the file, if it is ever run."""
    folders = {Path(a).parent for a in arguments if a.startswith("/") and "\0" not in a}
    for folder in folders:
        try:
            if (folder / "canary").exists():
                return folder / "canary"
        except OSError:
            continue
    return None


def _is_temporary(path: str) -> bool:
    return re.search(r"/\.[^/]*\.\w{8,16}$", path) is not None


def _wrong_lines(outcome: Outcome) -> Iterator[str]:
    command = outcome.case.command
    lines = outcome.messages.splitlines()
    strange = [line for line in lines if not line.startswith(f"{command}: ")]
    if strange:
        yield f"it says {strange[0][:200]!r}"
    ends = [line for line in lines if line not in strange and not _is_warning(line, command)]
    if outcome.status is not None and len(ends) != (outcome.status != 0):
        yield f"it says {len(ends)} lines to status {outcome.status}"
    if "Traceback" in outcome.output or "Traceback" in outcome.messages:
        yield "it prints a traceback"


def _is_warning(line: str, command: str) -> bool:
    return line.startswith(f"{command}: WARNING: ")
