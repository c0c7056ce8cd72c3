"""Signals end a command at once, by one line, with nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DIGITS = Path(__file__).parents[1] / "examples" / "digits"
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

_LINES = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "ended by SIGTERM",
    signal.SIGHUP: "ended by SIGHUP",
}

# A command that says when it has begun to write its output, which then takes for ever.
_WRITES = """
import sys, time
from pathlib import Path
from adder_onnx.cli._command import make_parser, run_command
from adder_onnx.files import open_atomically

def command(options):
    with open_atomically(Path(sys.argv[1])) as file:
        file.write(b"half")
        file.flush()
        {body}

sys.exit(run_command(make_parser("adder-test", "", ""), command, []))
"""

_SAYS_SO = 'print("writing", flush=True)'


def _take_all_signals():
    """Who runs the tests may ignore some, as nohup does."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def _start(script, *arguments, options=(), before=_take_all_signals):
    return subprocess.Popen(
        [sys.executable, *options, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,  # noqa: PLW1509 (this process has one thread)
    )


@pytest.mark.parametrize("number", SIGNALS)
def test_while_an_output_is_written(tmp_path, number):
    output = tmp_path / "out.npz"
    output.write_bytes(b"old")
    with _start(_WRITES.replace("{body}", f"{_SAYS_SO}; time.sleep(60)"), output) as process:
        assert process.stdout.readline() == "writing\n"
        process.send_signal(number)
        _, messages = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert messages == f"adder-test: {_LINES[number]}\n"
    assert os.listdir(tmp_path) == ["out.npz"]
    assert output.read_bytes() == b"old"


def test_an_error_made_of_a_signal_is_one(tmp_path):
    """What is interrupted may catch too much, as modules do while they are imported."""
    body = f"""
        try:
            {_SAYS_SO}
            time.sleep(60)
        except BaseException as error:
            raise RuntimeError("initialization failed") from error"""
    with _start(_WRITES.replace("{body}", body), tmp_path / "out") as process:
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, messages = process.communicate(timeout=20)
    assert (process.returncode, messages) == (143, "adder-test: ended by SIGTERM\n")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("seconds", [0, 0.3])
def test_a_signal_is_not_lost_where_nothing_can_be_raised(tmp_path, seconds):
    """As in a callback of the garbage collector, which Python leaves with a message only.

    Nor where telling of that takes its time, as on a busy machine.
    """
    body = f"""
        import threading
        start = threading.Thread.start
        threading.Thread.start = lambda thread: (start(thread), time.sleep({seconds}))
        class Slow:
            def __del__(self):
                {_SAYS_SO}
                time.sleep(30)
        slow = Slow()
        del slow
        time.sleep(30)"""
    with _start(_WRITES.replace("{body}", body), tmp_path / "out") as process:
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, messages = process.communicate(timeout=20)
    assert (process.returncode, messages) == (143, "adder-test: ended by SIGTERM\n")


def test_many_signals_do_not_disturb_what_cleans_up(tmp_path):
    body = f"""
        try:
            {_SAYS_SO}
            time.sleep(60)
        finally:
            print("cleaning", flush=True)
            time.sleep(0.4)"""
    with _start(_WRITES.replace("{body}", body), tmp_path / "out") as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "cleaning\n"
        for number in SIGNALS:
            process.send_signal(number)
        _, messages = process.communicate(timeout=20)
    assert (process.returncode, messages) == (130, "adder-test: interrupted\n")
    assert os.listdir(tmp_path) == []


def test_a_signal_that_is_ignored_stays_so(tmp_path):
    def as_nohup_does():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    body = f"{_SAYS_SO}; time.sleep(0.5)"
    script = _WRITES.replace("{body}", body)
    with _start(script, tmp_path / "out", before=as_nohup_does) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        _, messages = process.communicate(timeout=20)
    assert (process.returncode, messages) == (0, "")
    assert (tmp_path / "out").read_bytes() == b"half"


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("module", ["numpy", "onnx_ir", "adder_onnx.graph"])
def test_while_modules_load(number, module):
    """With -X importtime Python says on standard error what it has imported."""
    script = "import sys; from adder_onnx.cli.start import run; sys.exit(run())"
    process = _start(script, "no.onnx", "--data", "no", options=("-X", "importtime"))
    with process:
        seen = False
        for line in process.stderr:
            seen = seen or "adder_onnx.cli._signals" in line
            if seen and line.split("|")[-1].strip().startswith(module):
                break
        process.send_signal(number)
        messages = process.stderr.read()
        process.wait(20)
    assert process.returncode == 128 + number
    rest = [line for line in messages.splitlines() if not line.startswith("import time:")]
    assert rest == [f"adder-run: {_LINES[number]}"]


@pytest.mark.parametrize("number", SIGNALS)
def test_during_a_run(number, tmp_path):
    """Whenever it comes: as the data is read, in a run, as answers are written."""
    script = "import sys; from adder_onnx.cli.start import run; sys.exit(run())"
    output = tmp_path / "answers.csv"
    model, data = DIGITS / "resnet8_digits.onnx", DIGITS / "test"
    for delay in (0.7, 1.0, 1.4):
        with _start(script, model, "--data", data, "--output", output) as process:
            time.sleep(delay)
            process.send_signal(number)
            _, messages = process.communicate(timeout=20)
        if process.returncode == 0:
            assert set(os.listdir(tmp_path)) == {"answers.csv"}
            continue
        assert (process.returncode, messages) == (128 + number, f"adder-run: {_LINES[number]}\n")
        assert os.listdir(tmp_path) in ([], ["answers.csv"])


@pytest.mark.parametrize("number", SIGNALS)
def test_once_the_command_is_done(number):
    """The interpreter's end takes a quarter of a second, in which the exit status stands."""
    script = """
import os, sys
from adder_onnx.cli.start import run
status = run()
os.kill(os.getpid(), {number})
sys.exit(status)
"""
    with _start(script.format(number=int(number)), "no.onnx", "--data", "no") as process:
        _, messages = process.communicate(timeout=20)
    assert process.returncode == 2
    assert messages.startswith("adder-run: error: ")
