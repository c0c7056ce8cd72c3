"""How much memory may be taken for what was given: files, models, arrays.

A file says how large what it holds will be, and may lie. Whoever allocates by such a number asks
here first, so that it ends in one error and not in a machine without memory.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adder_onnx.errors import AdderError

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

__all__ = ["describe_size", "limit", "limited", "machine_memory", "parse_size", "require"]

_SHARE = 0.5
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}

_limit: int | None = None


def machine_memory() -> int:
    """The bytes that this process can have: the machine's memory, its cgroup's, its own limit."""
    sizes = [1 << 62]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    sizes += _cgroup_limits()
    if resource is not None:
        for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
            soft, _ = resource.getrlimit(kind)
            if soft != resource.RLIM_INFINITY:
                sizes.append(soft)
    return min(sizes)


@functools.cache
def _cgroup_limits() -> list[int]:
    """Those of this process, read once: what is read in pieces asks for each of them."""
    found = []
    for path in _CGROUP_LIMITS:
        try:
            found.append(int(path.read_text()))
        except (OSError, ValueError):  # there is none, or it says "max"
            continue
    return found


def limit() -> int:
    """The bytes that one thing which is read may take: what `limited` says, else half of all."""
    return int(machine_memory() * _SHARE) if _limit is None else _limit


@contextmanager
def limited(size: int | None) -> Iterator[None]:
    """Within it `limit` is ``size`` bytes, in all threads; None leaves it as it is."""
    global _limit  # noqa: PLW0603 (it holds for the process, as the memory does)
    before = _limit
    _limit = before if size is None else size
    try:
        yield
    finally:
        _limit = before


def require(size: int, what: str, error: type[AdderError] = AdderError) -> None:
    """Refuses to take more memory than `limit` says; to be called before it is allocated.

    Args:
        size: how many bytes are about to be taken.
        what: what takes them and where, the subject of the message: ``data.npz: array 'x'``.
        error: the class of the error.

    Raises:
        AdderError: they are more than may be taken.
    """
    if size > limit():
        raise error(
            f"{what} takes {describe_size(size)} of memory, more than the "
            f"{describe_size(limit())} allowed; --max-memory allows more"
        )


def parse_size(text: str) -> int:
    """Bytes from a number with a unit: ``512M``, ``2G``, ``1.5GiB``; units are powers of 1024.

    Raises:
        ValueError: it is no such number.
    """
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?) ?([kmgt]?)(?:i?b)?", text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is not a size such as 512M or 2G")
    return int(float(match[1]) * (1 << _UNITS[match[2]]))


def describe_size(size: int) -> str:
    """Bytes for people: ``1.5 GiB``."""
    value, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    while value >= 1000 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return (
        f"{value:.0f} {units[0]}" if units[0] == "B" or value >= 100 else f"{value:.1f} {units[0]}"
    )
