"""A contender of a benchmark in a process of its own, which runs when it is told to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.documents import ROOT

__all__ = ["Process"]


class Process:
    """A Python module that writes a line of JSON when it is ready, and one for each turn.

    Args:
        module: that is run.
        arguments: of it.
        packages: a folder of packages that go before those of this environment.
        variables: of the environment, beside those of this process.

    Attributes:
        ready: its first line; None where it ended without one.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        packages: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        path = [str(packages)] if packages else []
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([*path, str(ROOT)]),
                **(variables or {}),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ready = self._answer()

    def turn(self, seconds: float) -> Any:
        """Lets it run for about so long, and gives its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else None
