"""Options that no command can take, and those that it can."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np

from tests.hostile.case import Case
from tests.hostile.child import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits"

_VALUES = (
    *(
        "",
        " ",
        "-",
        "--",
        "-1",
        "0",
        "1",
        "2",
        "3",
        "auto",
        "nan",
        "inf",
        "-inf",
        "1e308",
        "1e-320",
    ),
    *("9" * 10, "9" * 30, "9" * 5000, "0x10", "1_0", "٣", "½", "1,2", "1,,2", ",", "1," * 1000),
    *(
        "a=1",
        "N=9999999999",
        "batch=-1",
        "=3",
        "\0",
        "a\0b",
        "a\nb",
        "\x1b[31m",
        "\udcff",
        "\u202e",
    ),
    *("/", ".", "..", "/dev/null", "/dev/zero", "/proc/self/mem", "x" * 300, "y/" * 3000, "~", "*"),
    *("cpu", "cuda", "cuda:99999999999999999999", "cuda:-1", "cpu,cpu", "os:system", "x.py:f"),
    *(
        "resnet20",
        "cifar10",
        "train",
        "npz",
        "imagefolder",
        "mse",
        "exact",
        "512M",
        "1",
        "0G",
        "9T",
    ),
)


def options_of(command: str) -> list[str]:
    """The options that a command has, as its parser names them."""
    module = importlib.import_module(f"adder_onnx.cli.{command.removeprefix('adder-')}")
    seen: list[argparse.ArgumentParser] = []
    with mock.patch.object(module, "run_command", lambda parser, *_: seen.append(parser) or 0):
        module.main([])
    actions = seen[0]._actions
    return [a.option_strings[-1] for a in actions if a.option_strings]


def cases(rng: np.random.Generator, folder: Path) -> Iterator[Case]:
    """Some options of a command, each with a value of any kind."""
    for i in range(100_000):
        command = COMMANDS[int(rng.integers(len(COMMANDS)))]
        known = options_of(command)
        words = list(_positional(command, folder, i))
        for _ in range(int(rng.integers(1, 4))):
            option = known[int(rng.integers(len(known)))]
            value = _VALUES[int(rng.integers(len(_VALUES)))]
            words += [f"{option}={value}"] if rng.random() < 0.5 else [option, value]
        if rng.random() < 0.1:
            words[int(rng.integers(len(words)))] = _VALUES[int(rng.integers(len(_VALUES)))]
        shown = " ".join(word[:40] for word in words[2:])
        yield Case(f"options {shown!r}", command, tuple(words))


def _positional(command: str, folder: Path, i: int) -> tuple[str, ...]:
    model, data = str(DIGITS / "resnet8_digits.onnx"), str(DIGITS / "test")
    return {
        "adder-bench": (model, "--seconds=0.01"),
        "adder-compile": (model, str(folder / f"{i}.onnx")),
        "adder-export": (str(DIGITS / "resnet8_digits.pth"), str(folder / f"{i}.onnx")),
        "adder-inspect": (model,),
        "adder-quantize": (model, str(folder / f"{i}.onnx"), "--data", data, "--samples=4"),
        "adder-run": (model, "--data", data, "--limit=4"),
    }[command]
