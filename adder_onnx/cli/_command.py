"""What all commands share: options, exit status, messages, JSON."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from adder_onnx import __version__
from adder_onnx.cli._output import ReaderGoneError, standard_output
from adder_onnx.cli._signals import INTERRUPTED, Interruption, describe
from adder_onnx.errors import AdderError
from adder_onnx.files import check_writable, replaces, write_atomically
from adder_onnx.kernels.cpu import ARITHMETICS
from adder_onnx.memory import limited, parse_size
from adder_onnx.runtime.onnxruntime_library import print_nothing

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

__all__ = [
    "add_dim_option",
    "check_outputs",
    "comma_separated",
    "file_path",
    "make_parser",
    "non_negative",
    "not_negative_number",
    "one_line",
    "path_or_uri",
    "percent",
    "positive",
    "print_lines",
    "run_command",
    "seconds",
    "write_json",
]

_DEFECT = 1
_BAD_INPUT = 2

_LARGEST = 2**31 - 1
_LONGEST_MESSAGE = 2000
_MOVES_CURSOR = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Control characters, and those that change the direction of text."""

_NUMBERS = re.compile(r"-[\d.][\d.,e+-]*", re.IGNORECASE)


class _Parser(argparse.ArgumentParser):
    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        """Prints help and version; argparse itself ignores that this may fail."""
        (sys.stderr if file is None else file).write(message)

    def error(self, message: str) -> NoReturn:
        """One line, as for all bad input; argparse itself prints the usage, too."""
        _say(f"{self.prog}: error: {one_line(message)} (--help shows how)")
        sys.exit(_BAD_INPUT)


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
        "--json",
        metavar="FILE",
        type=_destination,
        help="write the result as JSON; - is standard output",
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


def _destination(text: str) -> str:
    return str(file_path(text))


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

    0 for done, 2 for a problem with what was given (one line on standard error), 1 for a defect,
    128 and its number for a signal.

    Raises:
        SystemExit: argparse has printed the help, or refuses the arguments; its code is the status.
    """
    interruption = Interruption()
    options = None
    try:
        with interruption.watched(), standard_output():
            words = _with_numbers_joined(sys.argv[1:] if argv is None else argv)
            for word in words:
                if re.fullmatch(r"--[\w-]+=--", word):  # argparse takes the value away
                    parser.error(f"argument {word[:-3]}: -- is no value")
            options = parser.parse_args(words)
            _log(parser.prog, verbose=options.verbose)
            _run(command, options)
    except ReaderGoneError:
        return 0
    except SystemExit:  # argparse's, which has said what there is to say
        raise
    except BaseException as error:
        if options is not None and options.verbose:
            logging.getLogger(__name__).info("details", exc_info=True)
        return _status_of(error, parser.prog, interruption.number)
    return 0


def _log(program: str, *, verbose: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_Once())
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format=f"{program}: %(levelname)s: %(message)s",
        handlers=[handler],
    )
    logging.raiseExceptions = False  # a full standard error is no reason to fail


def _run(command: Callable[[argparse.Namespace], None], options: argparse.Namespace) -> None:
    check_outputs(options, {}, {})
    print_nothing()
    with limited(options.max_memory):
        command(options)


def check_outputs(
    options: argparse.Namespace,
    outputs: Mapping[str, str | Path | None],
    inputs: Mapping[str, str | Path | None],
) -> None:
    """Finds out before the work that files can be written, and that none replaces another.

    Args:
        options: of the command, of which --json is looked at, too.
        outputs: what is written, by what the message calls it, such as ``--html``; None where
            nothing is.
        inputs: what is read, by what the message calls it, such as ``the model``.

    Raises:
        AdderError: a file cannot be written, or would replace another.
    """
    taken = {what: Path(path) for what, path in inputs.items() if path is not None}
    for what, name in {**outputs, "--json": options.json}.items():
        if name is None or (what, name) == ("--json", "-"):
            continue
        path = Path(name)
        check_writable(path)
        for other, its in taken.items():
            if replaces(path, its):
                of = f"the file of {other}" if other.startswith("--") else other
                raise AdderError(f"{what} {path} would replace {of}: choose another name")
        taken[what] = path


def _status_of(error: BaseException, program: str, signal_number: int | None) -> int:
    """Says what ended a command; returns its exit status.

    Args:
        error: what was raised, by a signal perhaps, and made another error on its way.
        program: the command's name.
        signal_number: of the signal that came.
    """
    if signal_number is None and isinstance(error, KeyboardInterrupt):
        signal_number = signal.SIGINT  # the caller's, where the command is told of none
    if signal_number is not None:
        _say(f"{program}: {describe(signal_number)}")
        return INTERRUPTED + signal_number
    if isinstance(error, AdderError):
        _say(f"{program}: error: {one_line(str(error))}")
        return _BAD_INPUT
    if isinstance(error, MemoryError):
        _say(
            f"{program}: error: the memory does not suffice; a smaller --batch-size or fewer "
            "--threads may, where the command has them"
        )
        return _BAD_INPUT
    if isinstance(error, OSError):
        where = "a file" if error.filename is None else os.fsdecode(error.filename)
        _say(f"{program}: error: {one_line(where)}: {error.strerror or one_line(str(error))}")
        return _BAD_INPUT
    if not isinstance(error, Exception):
        raise error
    _say(
        f"{program}: this is a defect of adder-onnx: {type(error).__name__}: "
        f"{one_line(str(error))} (-v shows where)"
    )
    return _DEFECT


def _say(line: str) -> None:
    """A line on standard error, if that can be written."""
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def _with_numbers_joined(argv: Sequence[str]) -> list[str]:
    """``--mean=-1,2`` for ``--mean -1,2``, where argparse takes the numbers for an option."""
    words: list[str] = []
    for word in argv:
        if "--" in words:  # what follows are no options
            words.append(word)
        elif words and re.fullmatch(r"--\w[\w-]*", words[-1]) and _NUMBERS.fullmatch(word):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def write_json(destination: str, result: dict[str, Any]) -> None:
    """Writes a result to a file, or to standard output for ``-``."""
    # In ASCII, which every encoding of standard output has, and names that are not Unicode too.
    text = json.dumps(result, indent=2) + "\n"
    if destination == "-":
        sys.stdout.write(text)
    else:
        write_atomically(Path(destination), text.encode())


def print_lines(lines: Iterable[str]) -> None:
    """Prints a result for people; a name from a file says nothing to a terminal."""
    for line in lines:
        print(_MOVES_CURSOR.sub(lambda found: ascii(found[0])[1:-1], line))


def one_line(message: str) -> str:
    """A message on one line that a terminal shows as it is; names in files may hold anything."""
    line = " ".join(message.split())
    if len(line) > _LONGEST_MESSAGE:
        line = f"{line[: _LONGEST_MESSAGE // 2]} … {line[-_LONGEST_MESSAGE // 2 :]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def positive(text: str) -> int:
    """An integer of at least 1, for argparse."""
    return _integer(text, 1)


def non_negative(text: str) -> int:
    """An integer of at least 0, for argparse."""
    return _integer(text, 0)


def _integer(text: str, least: int) -> int:
    value = int(text) if len(text) < 100 else _LARGEST + 1
    if not least <= value <= _LARGEST:
        side = f"at least {least}" if value < least else f"at most {_LARGEST}"
        raise argparse.ArgumentTypeError(f"{text} is not {side}")
    return value


def not_negative_number(text: str) -> float:
    """A finite number of at least 0, for argparse."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 0")
    return value


def percent(text: str) -> float:
    """A number from -100 to 100, for argparse."""
    value = float(text)
    if not -100 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not a number from -100 to 100")
    return value


def file_path(text: str) -> Path:
    """A path, for argparse."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a path")
    return Path(text)


def path_or_uri(text: str) -> Path | str:
    """A path, or a URI such as ``s3://bucket/folder`` as it is, for argparse."""
    scheme, found, _ = text.partition("://")
    return text if found and scheme.isalnum() and "\0" not in text else file_path(text)


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
