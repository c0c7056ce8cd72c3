"""float32 convolutions of torch in full precision, whatever is set."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["full_float32"]

_lock = threading.Lock()


@contextmanager
def full_float32() -> Iterator[None]:
    """Within it cuDNN multiplies float32 as it is.

    By default it rounds factors to TF32, of 11 bits.

    torch keeps this setting at three levels, each of which follows the one above unless it has been
    set itself. Only those are set here that stand in the way, from above, so that afterwards all is
    as before: also that a level follows another one.
    """
    above: Any = torch.backends
    convolutions = above.cudnn.conv
    # One thread at a time, so that each finds, and puts back, what the user has set.
    with _lock:
        changed = []
        for level in (above, above.cudnn, convolutions):
            before = level.fp32_precision
            if convolutions.fp32_precision == "tf32" and (level is above or before == "tf32"):
                changed.append((level, before))
                level.fp32_precision = "ieee"
        try:
            yield
        finally:
            for level, before in changed:
                level.fp32_precision = before
