"""Runs a case in a child process, which time and memory bound."""

from __future__ import annotations

import faulthandler
import gc
import importlib
import os
import pkgutil
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import adder_onnx
from adder_onnx import memory
from adder_onnx.cli._signals import ending_at_once
from tests.hostile.case import Case

__all__ = ["COMMANDS", "MEMORY", "SECONDS", "Outcome", "load_commands", "run_cases"]

SECONDS = 20
"""What a case may take."""

MEMORY = 512 << 20
"""What a command is told that it may take, as by --max-memory."""

_FENCE = 4 << 30
"""Address space that a child may have beyond its parent's: where it ends, all ends."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NOBODY = 65534
_LONGEST = 20_000

COMMANDS = (
    "adder-bench",
    "adder-compile",
    "adder-export",
    "adder-inspect",
    "adder-quantize",
    "adder-run",
)

_SYSTEM = [("dev",), ("proc",), ("sys",), ()]

Main = Callable[[list[str]], int]


@dataclass(frozen=True)
class Outcome:
    """How a case has ended.

    Attributes:
        case: which.
        status: the exit status; the negative number of a signal that ended the process, as
            `subprocess` has it; None where its time was up.
        seconds: that it took.
        peak: bytes that it took, those beyond its parent's.
        messages: what it wrote to standard error.
        output: the beginning of what it wrote to standard output.
        left: files that are there since, or have changed, of those that its arguments name, and
            temporary ones beside them.
    """

    case: Case
    status: int | None
    seconds: float
    peak: int
    messages: str
    output: str
    left: tuple[str, ...]


@dataclass
class _Running:
    case: Case
    process: int
    since: float
    pipes: tuple[int, int]
    text: tuple[bytearray, bytearray]
    before: dict[Path, tuple[int, int]]
    scratch: tempfile.TemporaryDirectory[str]
    own: int
    is_signalled: bool = False


def load_commands() -> dict[str, Main]:
    """Each command's ``main``, with all that a case may import: each child would import it anew."""
    own = (module.name for module in pkgutil.walk_packages(adder_onnx.__path__, "adder_onnx."))
    for module in ("torch", "onnxscript", "onnxruntime", "rich._emoji_codes", *own):
        importlib.import_module(module)
    with suppress(ImportError, OSError):
        importlib.import_module("cupy")
    import torch
    from PIL import Image

    Image.init()

    torch.set_num_threads(1)  # a child that has only one of its parent's threads waits for others
    gc.freeze()  # else a child's collections copy all of its parent's objects
    name = "adder_onnx.cli.{}"
    return {
        c: importlib.import_module(name.format(c.removeprefix("adder-"))).main for c in COMMANDS
    }


def run_cases(
    cases: Iterable[Case],
    mains: dict[str, Main],
    jobs: int = 1,
    seconds: float = SECONDS,
) -> Iterator[Outcome]:
    """Runs cases, some at a time, and gives what came of each, in the order in which they end."""
    running: list[_Running] = []
    rest = iter(cases)
    is_over = False
    while running or not is_over:
        while len(running) < jobs and not is_over:
            case = next(rest, None)
            if case is None:
                is_over = True
            else:
                running.append(_start(case, mains[case.command]))
        ended = [(r, o) for r in running if (o := _ended(r, seconds)) is not None]
        for one, outcome in ended:
            running.remove(one)
            yield outcome
        if not ended:
            time.sleep(0.002)


def _start(case: Case, main: Main) -> _Running:
    # Pipes, since a limit of files' sizes holds for what is written to standard error, too.
    (messages, messages_end), (output, output_end) = os.pipe(), os.pipe()
    # The child waits for it until what it takes by itself has been measured.
    measured, measured_end = os.pipe()
    scratch = tempfile.TemporaryDirectory(prefix="hostile-")
    Path(scratch.name).chmod(0o777)
    before = _state(case)
    since = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    # A signal waits until the child is ready for it, as a command is that has begun.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    process = os.fork()
    if process == 0:
        os.read(measured, 1)
        os.close(measured)
        os.close(measured_end)
        _be_the_command(case, main, scratch.name, messages_end, output_end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    own = _memory(process)[1]
    os.write(measured_end, b"1")
    for end in (measured, measured_end, messages_end, output_end):
        os.close(end)
    for pipe in (messages, output):
        os.set_blocking(pipe, False)
    text = (bytearray(), bytearray())
    return _Running(case, process, since, (messages, output), text, before, scratch, own)


def _be_the_command(case: Case, main: Main, folder: str, messages: int, output: int) -> None:
    """In the child: becomes a command as a shell starts it, and ends."""
    status = 250
    try:
        faulthandler.disable()  # that of a test, which would print more
        os.setsid()
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(messages, 2)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        for name, value in (("RLIMIT_CORE", 0), ("RLIMIT_AS", _FENCE), *case.limits):
            number = getattr(resource, name)
            limit = value + _memory("self")[0] if name == "RLIMIT_AS" else value
            resource.setrlimit(number, (limit, limit))
        if case.unprivileged and os.geteuid() == 0 and _is_public():
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)  # one may be ignored, as nohup has it
        ending_at_once(case.command)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        sys.argv = [case.command, *case.arguments]
        with memory.limited(MEMORY):
            status = main(list(case.arguments))
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 251
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:
            status = status or 120
        os._exit(status)


def _is_public() -> bool:
    """Whether other users may read this code and Python's, without which they can run nothing."""
    files = [Path(file).resolve() for file in (__file__, os.__file__, importlib.__file__)]
    files.append(Path(sys.prefix).resolve() / "lib")
    return all(place.stat().st_mode & 0o001 for file in files for place in file.parents)


def _memory(process: int | str) -> tuple[int, int]:
    """A process's address space, and what of it lies in memory."""
    size, resident, *_ = Path(f"/proc/{process}/statm").read_text().split()
    return int(size) * resource.getpagesize(), int(resident) * resource.getpagesize()


def _ended(running: _Running, seconds: float) -> Outcome | None:
    """What came of a case; None while it runs."""
    _read(running)
    case, taken = running.case, time.monotonic() - running.since
    if case.signal is not None and not running.is_signalled and taken >= case.signal[1]:
        running.is_signalled = True
        os.kill(running.process, case.signal[0])
    process, raw, usage = os.wait4(running.process, os.WNOHANG)
    status: int | None
    if process != 0:
        status = os.waitstatus_to_exitcode(raw)
    elif taken > seconds:
        os.killpg(running.process, signal.SIGKILL)
        _, _, usage = os.wait4(running.process, 0)
        status = None
    else:
        return None
    _read(running)
    for pipe in running.pipes:
        os.close(pipe)
    after = _state(case)
    left = tuple(sorted(str(p) for p in after if after[p] != running.before.get(p)))
    running.scratch.cleanup()
    return Outcome(
        case,
        status,
        taken,
        max((usage.ru_maxrss << 10) - running.own, 0),
        *(text[:_LONGEST].decode(errors="backslashreplace") for text in running.text),
        left,
    )


def _read(running: _Running) -> None:
    for pipe, text in zip(running.pipes, running.text, strict=True):
        with suppress(BlockingIOError):
            while data := os.read(pipe, 1 << 16):
                text.extend(data)


def _state(case: Case) -> dict[Path, tuple[int, int]]:
    """Size and time of change of the files named in arguments, and of temporary ones beside."""
    state = {}
    for argument in case.arguments:
        path = Path(argument)
        if "\0" in argument or not path.is_absolute() or path.parts[1:2] in _SYSTEM:
            continue
        try:
            folder = path.parent.iterdir() if path.parent.is_dir() else iter(())
            beside = [p for p in folder if p.name.startswith(f".{path.name[:100]}.")]
            for file in (path, *beside):
                if file.is_file() or file in beside:
                    info = file.lstat()
                    state[file] = (info.st_size, info.st_mtime_ns)
        except OSError:
            continue
    return state
