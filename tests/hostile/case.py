"""What a command is given that it must refuse, or take, without harm."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One call of a command.

    Attributes:
        name: says what is wrong with what it is given.
        command: for example ``adder-run``.
        arguments: of the command line.
        limits: of the process, by the names that `resource` has for them: ``RLIMIT_NOFILE``. That
            of memory, ``RLIMIT_AS``, comes on top of what the process has when it begins.
        signal: the number of one that is sent, and after how many seconds.
        unprivileged: whether it runs as a user who may read and write little, where root runs it
            and that user may read the code.
    """

    name: str
    command: str
    arguments: tuple[str, ...]
    limits: tuple[tuple[str, int], ...] = ()
    signal: tuple[int, float] | None = None
    unprivileged: bool = False
