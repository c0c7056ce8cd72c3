"""What all commands share: options, exit status, messages, progress, JSON."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from adder_onnx import __version__
from adder_onnx.errors import AdderError
from adder_onnx.files import check_writable, write_atomically
from adder_onnx.kernels.cpu import ARITHMETICS
from adder_onnx.memory import limited, parse_size
from adder_onnx.runtime.onnxruntime_library import print_nothing

__all__ = [
    "add_dim_option",
    "comma_separated",
    "make_parser",
    "non_negative",
    "one_line",
    "positive",
    "progress_bar",
    "run_command",
    "seconds",
    "write_json",
]

_DEFECT = 1
_BAD_INPUT = 2
_INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for all bad input; argparse itself prints the usage, too."""
        self.exit(_BAD_INPUT, f"{self.prog}: error: {one_line(message)} (--help shows how)\n")


def make_parser(name: str, description: str, examples: str) -> argparse.ArgumentParser:
    """A parser with the options that every command has."""
    parser = _Parser(
        prog=name,
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="more messages; tracebacks with errors"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write the result as JSON; - is standard output"
    )
    parser.add_argument(
        "--max-memory",
        metavar="SIZE",
        type=_size,
        help="what a model, a checkpoint or data may take, such as 512M or 2G (half of the "
        "machine's memory)",
    )
    return parser


def add_dim_option(parser: argparse.ArgumentParser) -> None:
    """Adds --dim NAME=N, which may be repeated: ``options.dim`` is a list of pairs."""
    parser.add_argument(
        "--dim",
        metavar="NAME=N",
        type=_dimension,
        action="append",
        default=[],
        help="a number for another symbolic dimension of the inputs; may be repeated",
    )


def add_arithmetic_option(parser: argparse.ArgumentParser) -> None:
    """Adds --arithmetic: ``options.arithmetic`` is one of ARITHMETICS."""
    parser.add_argument(
        "--arithmetic",
        choices=ARITHMETICS,
        default="fast",
        help="of float sums on a CPU: fast, or exact, which is slower (fast)",
    )


def _dimension(text: str) -> tuple[str, int]:
    name, _, number = text.rpartition("=")
    if not name or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=NUMBER")
    return name, int(number)


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


class _Once(logging.Filter):
    """Lets each message through once: a command may load a model several times."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        is_new = message not in self._seen
        self._seen.add(message)
        return is_new


def run_command(
    parser: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None,
) -> int:
    """Parses arguments and runs a command; returns the exit status.

    0 for done, 2 for a problem with what was given (one line on standard error), 1 for a defect.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files and classes may hold what the terminal's encoding does not.
        sys.stdout.reconfigure(errors="backslashreplace")
    options = parser.parse_args(argv)
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_Once())
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING,
        format=f"{parser.prog}: %(levelname)s: %(message)s",
        handlers=[handler],
    )
    try:
        if options.json is not None and options.json != "-":
            check_writable(Path(options.json))
        print_nothing()
        with limited(options.max_memory):
            command(options)
        sys.stdout.flush()
        status = 0
    except AdderError as error:
        if options.verbose:
            logging.getLogger(__name__).info("details", exc_info=True)
        print(f"{parser.prog}: error: {one_line(str(error))}", file=sys.stderr)
        status = _BAD_INPUT
    except BrokenPipeError:
        # The reader of standard output has gone; nothing may be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        status = _INTERRUPTED
    except Exception as error:
        if options.verbose:
            logging.getLogger(__name__).exception("details")
        print(
            f"{parser.prog}: this is a defect of adder-onnx: {type(error).__name__}: "
            f"{one_line(str(error))} (-v shows where)",
            file=sys.stderr,
        )
        status = _DEFECT
    return status


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, if that is a terminal; gives a function to advance it."""
    with _bar(what, total) as (progress, task):
        yield lambda count: progress.advance(task, count)


@contextmanager
def progress_of_unknown(what: str, guess: int) -> Iterator[Callable[[int, int], None]]:
    """One whose work is only guessed; gives a function that takes what is done, and of how much.

    That is 0 where it stays unknown.
    """
    with _bar(what, guess) as (progress, task):
        yield lambda done, total: progress.update(task, completed=done, total=total or guess)


@contextmanager
def _bar(what: str, total: int) -> Iterator[tuple[Progress, TaskID]]:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    disable = not sys.stderr.isatty()  # FORCE_COLOR makes rich call anything a terminal
    with Progress(*columns, console=console, transient=True, disable=disable) as progress:
        yield progress, progress.add_task(what, total=total)


def write_json(destination: str, result: dict[str, Any]) -> None:
    """Writes a result to a file, or to standard output for ``-``."""
    # In ASCII, which every encoding of standard output has, and names that are not Unicode too.
    text = json.dumps(result, indent=2) + "\n"
    if destination == "-":
        sys.stdout.write(text)
    else:
        write_atomically(Path(destination), text.encode())


def one_line(message: str) -> str:
    """A message without line breaks, which names in files may have."""
    return " ".join(message.split())


def positive(text: str) -> int:
    """An integer of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def non_negative(text: str) -> int:
    """An integer of at least 0, for argparse."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not at least 0")
    return value


def seconds(text: str) -> float:
    """A time above 0, for argparse."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def comma_separated(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """Values separated by commas, for argparse."""

    def parse(text: str) -> tuple[Any, ...]:
        try:
            return tuple(kind(part) for part in text.split(","))
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error

    return parse
