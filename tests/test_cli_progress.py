"""What is shown of long work: something that moves, and on a terminal only."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

DIGITS = Path(__file__).parents[1] / "examples" / "digits"
MODEL, DATA = str(DIGITS / "resnet8_digits.onnx"), str(DIGITS / "test")

# A command some of whose parts take their time.
_SLOW = """
import importlib, os, sys, time
from adder_onnx.cli import _progress

_progress._DELAY = 0.1

def slow(place):
    module, name = place.split(":")
    module = importlib.import_module(module)
    function = getattr(module, name)
    def later(*arguments, **options):
        time.sleep(0.6 if os.isatty(2) else 0.2)  # twice the delay
        return function(*arguments, **options)
    setattr(module, name, later)

command, places, *arguments = sys.argv[1:]
for place in places.split(","):
    slow(place)
sys.exit(importlib.import_module(command).main(arguments))
"""

EXPORT = "adder_onnx.export"
CHECKPOINT = [str(DIGITS / "resnet8_digits.pth"), "out.onnx"]
CHECKPOINT += ["--input-shape", "1,8,8", "--mean", "0.3", "--std", "0.38"]
CALIBRATION = [MODEL, "out.onnx", "--data", DATA, "--samples", "8", "--threads", "1"]
ALL_NODES_BUT_ONE = [
    f"--exclude=layer{i}.0.{name}"
    for i, name in ((1, "conv2"), *((i, n) for i in (2, 3) for n in ("conv1", "conv2")))
]

CASES: dict[str, tuple[list[str], dict[str, str]]] = {
    "run": (
        [MODEL, "--data", DATA],
        {
            "InferenceSession": "loading the model",
            "open_dataset": "reading the data",
            "evaluate": "images",
        },
    ),
    "inspect": (
        [MODEL, "--profile", "--runs", "1", "--html", "out.html"],
        {
            "inspect_model": "loading the model",
            "InferenceSession": "making a session",
            "profile": "runs",
            "network_page": "writing files",
        },
    ),
    "bench": ([MODEL, "--seconds", "0.01"], {"inspect_model": "measurements"}),
    "quantize": (
        [*CALIBRATION, "--calibration", "minmax", "--sensitivity", "--standard-nodes"],
        {
            "InferenceSession": "loading the model",
            "open_dataset": "reading the data",
            "quantize": "calibration",
            "adder_onnx.quantization.quantize:measure_alone": "calibration",
            "quantize_standard_nodes": "standard nodes",
            "write_atomically": "writing the model",
        },
    ),
    "quantize, auto": (
        [*CALIBRATION, *ALL_NODES_BUT_ONE, "--bits", "auto", "--max-loss", "99"],
        {
            "HeldOut": "running the float model",
            "quantize_within": "widths",
            "adder_onnx.quantization.sensitivity:decibels": "nodes alone",
        },
    ),
    "export": (
        CHECKPOINT,
        {
            f"{EXPORT}.checkpoint:read_checkpoint": "reading the checkpoint",
            f"{EXPORT}.api:_run_given": "running the model in PyTorch",
            f"{EXPORT}.api:export_model": "converting the model",
            f"{EXPORT}.api:runners": "comparing the file with PyTorch",
            f"{EXPORT}.verification:_errors": "running the file in onnxruntime",
            f"{EXPORT}.writing:open_atomically": "writing the file",
        },
    ),
}
"""For a command its arguments, and what is slow, with the name of the phase that it is in."""


def slow(case: str) -> list[str]:
    """Arguments of `_SLOW`."""
    arguments, phases = CASES[case]
    if case == "export":
        pytest.importorskip("torch")
    command = f"adder_onnx.cli.{case.partition(',')[0]}"
    places = (place if ":" in place else f"{command}:{place}" for place in phases)
    return [_SLOW, command, ",".join(places), *arguments]


def on_a_terminal(script: str, *arguments: str, folder: Path) -> tuple[int, str, str]:
    """The status, standard output, which is a pipe, and what is shown on standard error."""
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # nobody has it open any more
                return
            if not part:
                return
            shown.append(part)

    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=folder,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        text=True,
    )
    os.close(theirs)
    reader = threading.Thread(target=read)
    reader.start()
    out, _ = process.communicate(timeout=120)
    reader.join()
    os.close(ours)
    return process.returncode, out, b"".join(shown).decode()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_something_moves_in_each_phase(case: str, tmp_path: Path) -> None:
    status, out, err = on_a_terminal(*slow(case), folder=tmp_path)
    assert status == 0, err
    assert out
    text = re.sub(r"\x1b\[[\d;]*m", "", err)
    for name in CASES[case][1].values():
        turns = set(re.findall(rf"([\u2801-\u28ff]) {re.escape(name)}", text))
        assert len(turns) > 3, name
    assert "\x1b[?25h" in err  # the cursor is there again
    if case == "run":
        assert re.search(r"images .* \d+/360", text)  # how many of how many


@pytest.mark.parametrize("case", ["run", "inspect", "quantize"])
def test_nothing_is_shown_elsewhere(case: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", *slow(case)],
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm", "FORCE_COLOR": "1"},
        check=True,
    )
    assert done.stdout
    assert done.stderr == b""


_PHASES = """
import logging, sys, time
from adder_onnx.cli._command import make_parser, run_command
from adder_onnx.cli._progress import phases, progress_bar

def command(options):
    with {shown}:
        {body}
    print("done")

sys.exit(run_command(make_parser("adder-test", "", ""), command, []))
"""


@pytest.mark.parametrize("shown", ['phases("long work")', 'progress_bar("long work", 3)'])
def test_short_work_shows_nothing(shown: str, tmp_path: Path) -> None:
    script = _PHASES.format(shown=shown, body="time.sleep(0.05)")
    assert on_a_terminal(script, folder=tmp_path) == (0, "done\n", "")


@pytest.mark.parametrize("shown", ['phases("long work")', 'progress_bar("long work", 3)'])
def test_messages_stand_above(shown: str, tmp_path: Path) -> None:
    body = "time.sleep(1); logging.warning('[red]mind[/red] this'); time.sleep(1)"
    status, out, err = on_a_terminal(_PHASES.format(shown=shown, body=body), folder=tmp_path)
    assert (status, out) == (0, "done\n")
    assert "long work" in err
    message = "adder-test: WARNING: [red]mind[/red] this\r\n"
    before, after = err.split(message)
    # Its line has been cleared before.
    assert before.endswith("\x1b[2K")
    assert "long work" in after


def test_what_ends_a_command_is_said_on_a_line_of_its_own(tmp_path: Path) -> None:
    body = "time.sleep(1); from adder_onnx.errors import AdderError; raise AdderError('no')"
    script = _PHASES.format(shown='phases("long work")', body=body)
    status, _, err = on_a_terminal(script, folder=tmp_path)
    assert status == 2
    assert err.endswith("\x1b[2Kadder-test: error: no\r\n")


@pytest.mark.parametrize("print_to", ["sys.stdout", "sys.stderr"])
def test_streams_are_left_alone(print_to: str, tmp_path: Path) -> None:
    """Exporters of others catch what is printed, and give the streams back later."""
    body = (
        "before = sys.stdout, sys.stderr; time.sleep(1); "
        f"assert (sys.stdout, sys.stderr) == before; print('text', file={print_to})"
    )
    script = _PHASES.format(shown='phases("long work")', body=body)
    status, out, err = on_a_terminal(script, folder=tmp_path)
    assert status == 0, err
    assert "text" in (out if print_to == "sys.stdout" else err)
