"""What the docs say is known to work is held by tests that exist."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.conftest import ROOT

TESTS = re.compile(r"`(test_\w+\.py(?:::\w+(?:\[[^`]+\])?)?)`")


def known_rows() -> list[str]:
    text = (ROOT / "docs" / "migrating.md").read_text()
    table = text.partition("<!-- begin: known -->")[2].partition("<!-- end -->")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    return [row for row in rows if not row.endswith("| tests |") and not row.startswith("| ---")]


def test_every_row_names_tests_that_there_are() -> None:
    rows = known_rows()
    assert len(rows) > 20
    named = [TESTS.findall(row) for row in rows]
    assert all(named)
    tests = sorted({f"tests/{test}" for row in named for test in row})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:xdist", *tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
