"""Tables in the documents, made from results that benchmarks have written."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from adder_onnx.files import write_atomically

__all__ = ["END", "ROOT", "begin_of", "results_of", "update_table"]

ROOT = Path(__file__).resolve().parents[1]
END = "<!-- end -->\n"


def begin_of(command: str) -> str:
    """The line before the table that a command makes; `END` is the line behind it."""
    return f"<!-- begin: {command} -->\n"


def results_of(benchmark: str, root: Path = ROOT) -> list[dict[str, Any]]:
    """The results of a benchmark in ``benchmarks/results``, by the names of their files."""
    files = sorted((root / "benchmarks" / "results").glob("*.json"))
    found = [json.loads(file.read_text()) for file in files]
    return [result for result in found if result.get("benchmark") == benchmark]


def update_table(document: Path, command: str, table: str, *, check: bool) -> int:
    """Puts a table between its markers; returns the exit status of the command.

    Args:
        document: has the markers.
        command: that makes the table, as the markers name it.
        table: Markdown.
        check: nothing is written; where the document has another table, that is said, and the
            status is 1.

    Raises:
        ValueError: the document has no such markers.
    """
    old = document.read_text()
    start = old.index(begin_of(command)) + len(begin_of(command))
    new = f"{old[:start]}\n{table}\n{old[old.index(END, start) :]}"
    if not check:
        write_atomically(document, new.encode())
    elif old != new:
        print(f"{document} is not up to date: run {command}", file=sys.stderr)
        return 1
    return 0
