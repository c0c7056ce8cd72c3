"""No file that a command writes replaces one that it reads, or another one that it writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from adder_onnx.cli import bench, export, inspect, quantize, run

DIGITS = Path(__file__).parents[1] / "examples" / "digits"
MODEL, DATA = DIGITS / "resnet8_digits.onnx", DIGITS / "test"


def _copied(folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(MODEL.read_bytes())
    return path


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (inspect, "M --json M", "--json M would replace the model"),
        (inspect, "M --html ./M", "--html M would replace the model"),
        (inspect, "M --html L", "--html L would replace the model"),
        (inspect, "M --html A --json A", "--json A would replace the file of --html"),
        (inspect, "M --profile --trace A --html A", "--html A would replace the file of --trace"),
        (inspect, "M --diff N --html N", "--html N would replace B"),
        (bench, "M --json M", "--json M would replace M"),
        (bench, "M --html A --json A", "--json A would replace the file of --html"),
        (quantize, "M M --data D", "the output M would replace the float model"),
        (quantize, "M A --data D --html A", "--html A would replace the output"),
        (quantize, "M A --data D --json A", "--json A would replace the output"),
        (run, "M --data D --json M", "--json M would replace the model"),
        (run, "M --data D --labels-csv A --output A", "--output A would replace the table"),
        (export, "N A --json A", "--json A would replace the output"),
        (export, "N A --json N", "--json N would replace the checkpoint"),
    ],
)
def test_what_would_be_lost(main, arguments, message, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"M": "model.onnx", "N": "other.onnx", "L": "link", "A": "a.csv", "D": str(DATA)}
    for name in ("M", "N"):
        Path(names[name]).write_bytes(MODEL.read_bytes())
    Path("link").symlink_to("model.onnx")
    before = {name: Path(name).read_bytes() for name in os.listdir()}
    words = [names.get(w.removeprefix("./"), w) for w in arguments.split()]
    said = " ".join(names.get(word, word) for word in message.split())
    assert main.main(words) == 2
    error = capfd.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert {name: Path(name).read_bytes() for name in os.listdir()} == before


def test_a_device_replaces_nothing(tmp_path) -> None:
    model = _copied(tmp_path)
    assert inspect.main([str(model), "--json", os.devnull, "--html", os.devnull]) == 0
