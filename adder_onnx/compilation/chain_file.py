"""Files of single chains, which ``libadder_onnx`` opens without onnxruntime.

``kernels/library/chain_file.h`` says what is in them.
"""

from __future__ import annotations

import struct

import numpy as np

from adder_onnx.runtime.chain_description import ChainDescription

__all__ = ["chain_file"]

_MAGIC = b"ADDERCH1"
_TYPES = {"float32": 0, "uint8": 2}


def chain_file(description: ChainDescription) -> bytes:
    """The bytes of such a file, of a chain without computed weights."""
    counts = (len(description.integers), len(description.floats), len(description.operands))
    parts = [
        _MAGIC,
        struct.pack("<3q", *counts),
        np.array(description.integers, "<i8").tobytes(),
        _padded(np.array(description.floats, "<f4").tobytes()),
    ]
    for array in description.operands:
        assert array is not None
        header = (_TYPES[str(array.dtype)], array.ndim, *array.shape)
        parts.append(struct.pack(f"<{len(header)}q", *header))
        parts.append(_padded(array.astype(array.dtype.newbyteorder("<")).tobytes()))
    return b"".join(parts)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 8)
