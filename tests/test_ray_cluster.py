"""A run on several nodes, one of which is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.rays import processes_with

pytest.importorskip("ray", reason="needs adder-onnx[ray]")
pytest.importorskip("pyarrow", reason="needs adder-onnx[ray]")

import pyarrow.parquet as pq

MARK = "ADDER_ONNX_TEST_CLUSTER"


def test_a_node_that_is_lost(tmp_path: Path) -> None:
    """In the midst of a piece, which another node runs again: nothing is lost or twice."""
    mark = uuid.uuid4().hex
    environment = {**os.environ, MARK: mark}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-m", "tests.ray_cluster", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["alive"] == 2
    assert found["images"] == {str(number): 20 for number in range(6)}
    assert found["labelled"] == 120
    assert len(list((tmp_path / "begun").iterdir())) == 2, "a node had no piece"
    names = Counter(
        name
        for file in (tmp_path / "answers").glob("part-*.parquet")
        for name in pq.read_table(file).column("name").to_pylist()
    )
    assert (len(names), set(names.values())) == (120, {1})
    assert processes_with(MARK, mark) == []
