"""Imports without the garbage collector, which takes a quarter of their time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["importing"]


@contextmanager
def importing() -> Iterator[None]:
    """A context for imports of large packages.

    They make objects by the hundred thousand, all of which stay: time and again the collector would
    go through them, and find nothing. It is left as it was before.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
