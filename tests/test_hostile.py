"""Hostile cases, a few of all kinds; and that the harness notices what a command must not do."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adder_onnx.files import open_atomically
from tests.hostile import judge, load
from tests.hostile.__main__ import KINDS, choose, describe
from tests.hostile.case import Case
from tests.hostile.child import load_commands, run_cases
from tests.hostile.judge import faults, is_whole

COMMAND = "adder-run"


@pytest.fixture(scope="module")
def mains():
    return load_commands()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_cases(kind, mains, public_path):
    outcomes = list(run_cases(choose((kind,), 2, 20261127, public_path), mains, jobs=1))
    assert len(outcomes) == 2
    assert [describe(o, wrong) for o in outcomes if (wrong := faults(o))] == []


def _run(body, **case):
    """What is wrong with a command that does this; its arguments are a file's name at most."""

    def main(argv):
        return body(argv) or 0

    arguments = case.pop("arguments", ())
    (outcome,) = run_cases([Case("", COMMAND, arguments, **case)], {COMMAND: main}, seconds=2)
    return faults(outcome)


def _say(text):
    os.write(2, text.encode())


def test_what_is_right():
    assert _run(lambda _: None) == []
    assert _run(lambda _: _say("adder-run: WARNING: of something\n")) == []
    assert _run(lambda _: _say("adder-run: error: bad\n") or 2) == []


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (lambda _: _say("adder-run: this is a defect\n") or 1, "its status is 1"),
        (lambda _: os.kill(os.getpid(), signal.SIGSEGV), "its status is -11"),
        (lambda _: os.abort(), "its status is -6"),
        (lambda _: time.sleep(30), "it does not end"),
        (lambda _: 2, "it says 0 lines to status 2"),
        (lambda _: _say("adder-run: error: a\nadder-run: error: b\n") or 2, "it says 2 lines"),
        (lambda _: _say("adder-run: error: a\n"), "it says 1 lines to status 0"),
        (lambda _: _say("\x1b[0;93mWarning of a library\n"), "it says '\\x1b[0;93mWarning"),
        (lambda _: _say("usage: adder-run\nadder-run: error: a\n") or 2, "it says 'usage"),
        (lambda _: 1 / 0, "its status is 251"),
        (lambda _: print("Traceback (most recent call last)"), "it prints a traceback"),
        (lambda _: sys.exit("text"), "its status is 1"),
        (lambda _: len(b"x" * (200 << 20)) and None, "it takes 2"),
    ],
)
def test_what_is_noticed(body, fault, monkeypatch):
    monkeypatch.setattr(judge, "PEAK", 100 << 20)
    assert any(found.startswith(fault) for found in _run(body))


def test_files_that_are_left(tmp_path):
    output = tmp_path / "out.json"
    arguments = (str(output),)

    def write(_):
        output.write_text("{")
        _say("adder-run: error: a\n")
        return 2

    def leave_temporary(_):
        output.with_name(".out.json.0123456789abcdef").touch()

    def run_code(_):
        (tmp_path / "canary").touch()

    assert _run(write, arguments=arguments) == ["it leaves out.json"]
    output.unlink()
    left = ["it leaves .out.json.0123456789abcdef"]
    assert _run(leave_temporary, arguments=arguments) == left
    assert _run(run_code, arguments=arguments) == ["it runs code"]


def test_what_replaces_a_file_that_was_there(tmp_path):
    output = tmp_path / "out.json"
    output.write_text("old")

    def write(_):
        with output.open("w") as file:
            file.write("{")
        _say("adder-run: error: a\n")
        return 2

    assert _run(write, arguments=(str(output),)) == ["it leaves out.json"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals(number, tmp_path):
    output = tmp_path / "out.json"
    sent = {"signal": (number, 0.2), "arguments": (str(output),)}
    assert _run(lambda _: time.sleep(1), **sent) == []  # by what `start` does with signals

    def deaf(_):
        signal.signal(number, signal.SIG_DFL)
        time.sleep(1)

    assert f"its status is {-number}" in _run(deaf, **sent)

    def half(_):
        output.write_text("{")
        time.sleep(1)

    assert _run(half, **sent) == ["it leaves out.json"]

    def whole(_):
        with open_atomically(output) as file:
            file.write(b"{}\n")
        time.sleep(1)

    assert _run(whole, **sent) == []


def test_limits():
    def open_many(_):
        files = [open(os.devnull) for _ in range(20)]  # noqa: SIM115
        del files

    assert _run(open_many) == []
    assert "its status is 251" in _run(open_many, limits=(("RLIMIT_NOFILE", 15),))


def test_what_is_whole(tmp_path):
    for name, data, is_it in [
        ("a.json", b"{}\n", True),
        ("b.json", b"{", False),
        ("a.npz", b"PK\x03\x04", False),
        ("a.csv", b"a,b\n", True),
        ("b.csv", b"a,b", False),
        ("a.onnx", b"\x08\x07", False),
        ("b.onnx", b"\xff\xff", False),
    ]:
        (tmp_path / name).write_bytes(data)
        assert is_whole(tmp_path / name) == is_it, name
    assert is_whole(Path(__file__).parents[1] / "examples/digits/resnet8_digits.onnx")


def test_a_seed_gives_the_same_cases(tmp_path):
    def names(folder):
        folder.mkdir()
        cases = choose(("options", "models", "pickles"), 60, 7, folder)
        return [dataclasses.replace(c, arguments=()) for c in cases]

    assert names(tmp_path / "a") == names(tmp_path / "b")


_LOAD = """
from tests.hostile import load

models = load.digits_models()
runs = load.run_in_threads(models, 60)
assert (runs["runs"], runs["wrong"]) == (480, []), runs
sessions = load.open_sessions(models, 10)
assert (sessions["sessions"], sessions["wrong"]) == (10, []), sessions
"""


def test_load():
    """A small part of what `benchmarks.reliability` runs; no other test has threads there."""
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", _LOAD], cwd=root, check=True)


def test_load_notices_wrong_answers_and_what_grows(monkeypatch):
    models = load.digits_models()
    real, count = load._answer, iter(range(10**6))
    monkeypatch.setattr(load, "_answer", lambda *a: real(*a) + (next(count) == 100))
    assert len(load.run_in_threads(models, 60)["wrong"]) == 1
    held = load.Held(100 << 20, 4, 9)
    assert held.growth(load.Held(120 << 20, 4, 9)) == []
    assert held.growth(load.Held(200 << 20, 5, 10)) == [
        "memory grows from 100 to 200 MiB",
        "threads grow from 4 to 5",
        "descriptors grow from 9 to 10",
    ]
