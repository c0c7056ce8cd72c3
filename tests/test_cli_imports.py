"""What the commands import, and how."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from adder_onnx.cli._imports import importing


def test_modules_load_without_collections() -> None:
    """And those that come later do not go through the modules."""
    script = """
import gc, sys

while_loading = []

def note(phase, info):
    if phase == "start" and not hasattr(sys.modules.get("adder_onnx.cli.run"), "main"):
        while_loading.append(info)

from adder_onnx.cli.start import run
gc.callbacks.append(note)
sys.argv[1:] = ["no.onnx", "--data", "no"]
status = run()
print(status, len(while_loading), gc.isenabled(), gc.get_freeze_count() > 50_000)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout == "2 0 True True\n"


def test_collections_are_as_before() -> None:
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), importing():
        import adder_onnx.no_such_module  # noqa: F401
    assert gc.isenabled()
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
