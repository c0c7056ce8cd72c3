"""What a command is doing, on standard error where that is a terminal, and nothing elsewhere.

All of it appears after half a second only, so that nothing flickers where a command is quick, and
is gone at the end. Messages that are logged meanwhile stand above it.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.file_proxy import FileProxy
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["phases", "progress_bar", "progress_of_unknown"]

_DELAY = 0.5
"""Seconds until something is shown."""


@contextmanager
def phases(first: str) -> Iterator[Callable[[str], None]]:
    """A spinner with the name of what is done, of which nobody knows how much it is.

    Args:
        first: name of the first phase.

    Yields:
        A function that takes the name of the next one.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with _shown(columns, first, None) as (progress, task):
        yield lambda name: progress.update(task, description=name)


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar; gives a function to advance it."""
    with _shown(_bar(), what, total) as (progress, task):
        yield lambda count: progress.advance(task, count)


@contextmanager
def progress_of_unknown(what: str, guess: int) -> Iterator[Callable[[int, int, str], None]]:
    """One whose work is only guessed, and may have several parts.

    Args:
        what: name of the first part.
        guess: how much it is.

    Yields:
        A function that takes what is done, of how much, which is 0 where that stays unknown, and of
        what.
    """
    with _shown(_bar(), what, guess) as (progress, task):
        yield lambda done, total, what: progress.update(
            task, completed=done, total=total or guess, description=what
        )


def _bar() -> tuple[ProgressColumn, ...]:
    return (
        SpinnerColumn(),  # it moves where the next step takes long
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )


@contextmanager
def _shown(
    columns: tuple[ProgressColumn, ...], what: str, total: int | None
) -> Iterator[tuple[Progress, TaskID]]:
    is_terminal = sys.stderr.isatty()  # FORCE_COLOR makes rich call anything a terminal
    # What imports and libraries print may be caught meanwhile: nothing is told to go by the way of
    # this, which would be in effect longer than that.
    progress = Progress(
        *columns,
        console=Console(file=sys.stderr),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not is_terminal,
    )
    task = progress.add_task(what, total=total)
    if not is_terminal:
        yield progress, task
        return
    with _logged_above(progress.console), _started_late(progress):
        yield progress, task


@contextmanager
def _started_late(progress: Progress) -> Iterator[None]:
    """Starts it after a while, if it is needed then."""
    lock, over = threading.Lock(), threading.Event()

    def start() -> None:
        with lock:
            if not over.is_set():
                progress.start()

    timer = threading.Timer(_DELAY, start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with lock:
            over.set()
            if progress.live.is_started:
                progress.stop()


@contextmanager
def _logged_above(console: Console) -> Iterator[None]:
    """Messages for standard error go by the console, which knows what it has drawn there."""
    handlers = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr
    ]
    proxy = FileProxy(console, sys.stderr)
    before = [handler.stream for handler in handlers]
    for handler in handlers:
        handler.setStream(proxy)
    try:
        yield
    finally:
        for handler, stream in zip(handlers, before, strict=True):
            handler.setStream(stream)
