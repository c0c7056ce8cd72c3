"""What the commands do where a stream is closed or full, and with options out of range."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from adder_onnx.cli import bench, compile, export, inspect, quantize, run
from adder_onnx.cli._command import make_parser, one_line, print_lines, run_command

ROOT = Path(__file__).parents[1]
MODEL = "examples/digits/resnet8_digits.onnx"
DATA = "examples/digits/test"
COMMANDS = {
    "bench": bench,
    "compile": compile,
    "export": export,
    "inspect": inspect,
    "quantize": quantize,
    "run": run,
}


def _status(command, arguments):
    try:
        return command.main(arguments)
    except SystemExit as ended:
        return ended.code


def _shell(command, arguments, redirection):
    """A command as a shell starts it, with a redirection of its own."""
    code = f"import sys; from adder_onnx.cli.start import {command}; sys.exit({command}())"
    line = shlex.join([sys.executable, "-c", code, *arguments])
    return subprocess.run(
        ["bash", "-c", f"{line} {redirection}"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], [MODEL], [MODEL, "--json", "-"]])
@pytest.mark.parametrize(
    ("redirection", "why"),
    [("> /dev/full", "No space left on device"), (">&-", "Bad file descriptor")],
)
def test_standard_output_that_takes_nothing(arguments, redirection, why):
    ended = _shell("inspect", arguments, redirection)
    assert ended.returncode == 2
    assert ended.stderr == f"adder-inspect: error: cannot write to standard output: {why}\n"


def test_a_file_is_written_whole_where_standard_output_is_closed(tmp_path):
    """It must not become standard output, to which a summary is printed."""
    output = tmp_path / "report.json"
    ended = _shell("inspect", [MODEL, "--json", str(output)], ">&- <&-")
    assert ended.returncode == 2
    assert output.read_text().startswith("{")
    assert output.read_text().endswith("}\n")


@pytest.mark.parametrize("redirection", ["2> /dev/full", "2>&-", "2>&- >&- <&-"])
@pytest.mark.parametrize("arguments", [["no.onnx"], ["--nonsense"], []])
def test_standard_error_that_takes_nothing(redirection, arguments):
    ended = _shell("inspect", arguments, redirection)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", "")


def test_a_reader_that_goes_is_no_error():
    ended = _shell("inspect", [MODEL], "| head -1 >/dev/null; exit ${PIPESTATUS[0]}")
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("run", "--limit"),
        ("run", "--skip"),
        ("run", "--batch-size"),
        ("run", "--threads"),
        ("run", "--workers"),
        ("run", "--topk"),
        ("run", "--actors"),
        ("run", "--cpus-per-actor"),
        ("run", "--gpus-per-actor"),
        ("inspect", "--batch-size"),
        ("inspect", "--threads"),
        ("inspect", "--runs"),
        ("bench", "--batch-size"),
        ("bench", "--threads"),
        ("bench", "--seconds"),
        ("quantize", "--bits"),
        ("quantize", "--samples"),
        ("quantize", "--seed"),
        ("quantize", "--skip"),
        ("quantize", "--percentile"),
        ("quantize", "--max-loss"),
        ("export", "--opset"),
        ("export", "--rtol"),
        ("export", "--resize"),
        ("export", "--crop"),
        ("export", "--input-shape"),
        ("export", "--batch-size"),
        ("inspect", "--max-memory"),
        ("compile", "--batch-size"),
    ],
)
@pytest.mark.parametrize(
    "value", ["nan", "-1", "9" * 25, "9" * 5000, "1e400", "", "0x10", "\u0663"]
)
def test_numbers_out_of_range(command, option, value, tmp_path, capsys):
    positional = {
        "run": [MODEL, "--data", DATA],
        "quantize": [MODEL, str(tmp_path / "q.onnx"), "--data", DATA],
        "compile": [MODEL, str(tmp_path / "c.onnx")],
        "export": ["examples/digits/resnet8_digits.pth", str(tmp_path / "e.onnx")],
    }.get(command, [MODEL])
    if command == "bench":
        positional += ["--seconds", "0.01"]
    arguments = [str(ROOT / a) if a.startswith("examples") else a for a in positional]
    status = _status(COMMANDS[command], [*arguments, f"{option}={value}"])
    messages = capsys.readouterr().err
    # Three, in Arabic digits, is one as Python reads numbers; and a loss may be asked to be a gain.
    if status == 0 and (value == "\u0663" or (option, value) == ("--max-loss", "-1")):
        return
    assert status == 2
    assert len(messages.splitlines()) == 1
    assert len(messages) < 2500
    assert "defect" not in messages


@pytest.mark.parametrize("name", ["a\0b", "", "x" * 300, "/".join(["y" * 200] * 30)])
@pytest.mark.parametrize("place", ["model", "data", "output", "json", "labels"])
def test_paths_that_are_none(name, place, tmp_path, capsys):
    paths = {"model": str(ROOT / MODEL), "data": str(ROOT / DATA)} | {place: name}
    more = {"output": ["--output", f"{name}.csv" if name else ""], "json": ["--json", name]}
    more |= {"labels": ["--labels-csv", name]}
    status = _status(run, [paths["model"], "--data", paths["data"], *more.get(place, [])])
    messages = capsys.readouterr().err
    assert status == 2
    assert len(messages.splitlines()) == 1
    assert "defect" not in messages


@pytest.mark.parametrize("join", [" ", "="])
def test_numbers_that_begin_with_a_minus(join):
    parser = make_parser("adder-test", "", "")
    parser.add_argument("--mean")
    parser.add_argument("--scale", type=float)
    parser.add_argument("rest", nargs="*")
    seen = []
    arguments = f"--mean{join}-1,.5,-2e-3 --scale{join}-.5 -- -3 --mean -7".split()
    assert run_command(parser, seen.append, arguments) == 0
    assert (seen[0].mean, seen[0].scale) == ("-1,.5,-2e-3", -0.5)
    assert seen[0].rest == ["-3", "--mean", "-7"]


def test_a_line_that_a_terminal_shows_as_it_is():
    assert one_line("a\n b\r\n\x1b[31mred\x07 \u202eab ü\u2028c") == (
        r"a b \x1b[31mred\x07 \u202eab ü c"
    )
    assert len(one_line("x" * 100_000)) < 2500


def test_a_result_moves_no_cursor(capsys):
    print_lines(["a\tb\x1b[31m\x9b2J\x07\rc", "x\u202ey\nz  ü\u3000\u200d"])
    assert capsys.readouterr().out.splitlines() == [
        r"a\tb\x1b[31m\x9b2J\x07\rc",
        "x\\u202ey\\nz  ü\u3000\u200d",
    ]


def test_labels_of_a_stranger(tmp_path, capsys):
    model = onnx.load(ROOT / MODEL)
    labels = json.dumps([f"\x1b[2J\n{i}" for i in range(10)])
    onnx.helper.set_model_props(
        model,
        {entry.key: entry.value for entry in model.metadata_props} | {"ai.addernet.labels": labels},
    )
    onnx.save(model, tmp_path / "model.onnx")
    image = next((ROOT / DATA).rglob("*.png"))
    assert run.main([str(tmp_path / "model.onnx"), "--data", str(image)]) == 0
    output = capsys.readouterr().out
    assert len(output.splitlines()) == 5
    assert "\x1b" not in output


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "the memory does not suffice"),
        (OSError(24, "Too many open files", "a.png"), "a.png: Too many open files"),
        (OSError(5, "Input/output error"), "a file: Input/output error"),
    ],
)
def test_what_the_machine_lacks_is_no_defect(error, message, capsys):
    def command(_):
        raise error

    assert run_command(make_parser("adder-test", "", ""), command, []) == 2
    assert message in capsys.readouterr().err


def test_a_defect_is_one(capsys):
    def command(_):
        raise KeyError("x")

    assert run_command(make_parser("adder-test", "", ""), command, []) == 1
    assert "this is a defect of adder-onnx: KeyError" in capsys.readouterr().err
