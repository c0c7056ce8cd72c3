"""What libraries print that are not written in Python."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["stderr_logged"]

_logger = logging.getLogger(__name__)


@contextmanager
def stderr_logged(who: str) -> Iterator[None]:
    """Within it, what native code writes to standard error is logged, line by line, at the end.

    Args:
        who: writes it.
    """
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    with tempfile.TemporaryFile() as file:
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            for line in file.read().decode(errors="replace").splitlines():
                _logger.info("%s: %s", who, line)
