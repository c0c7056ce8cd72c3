"""What is wrong with how a command has ended."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from tests.hostile.child import MEMORY, Outcome

__all__ = ["PEAK", "canary_of", "faults", "is_whole"]

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
    for path in outcome.left:
        # A signal may come between the output and the end: the output is there, and whole.
        is_output = status == 0 or (case.signal is not None and is_whole(Path(path)))
        if _is_temporary(path) or not is_output:
            yield f"it leaves {Path(path).name}"
    if outcome.peak > PEAK:
        yield f"it takes {outcome.peak >> 20} MiB"
    if canary_of(case.arguments) is not None:
        yield "it runs code"


def is_whole(path: Path) -> bool:
    """Whether a file of any kind that the commands write is one from its beginning to its end."""
    data = path.read_bytes()
    if data[:1] == b"{":
        return data[-2:] == b"}\n"
    if data[:2] == b"PK":
        return zipfile.is_zipfile(path)
    if path.suffix == ".csv":
        return data[-1:] == b"\n"
    try:
        return len(onnx.load_model_from_string(data).graph.output) > 0
    except DecodeError:
        return False


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
