"""Random inputs for a model, to time it with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import InputError
from adder_onnx.memory import require
from adder_onnx.runtime import NodeArg

__all__ = ["random_feed"]

_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{f"tensor({sign}int{n})": f"{sign}int{n}" for sign in ("", "u") for n in (8, 16, 32, 64)},
}


def random_feed(inputs: Sequence[NodeArg], seed: int = 0) -> dict[str, NDArray[Any]]:
    """An array for each input: standard normal floats, zeros for integers and booleans.

    Integers are often indices or shapes, for which zero is the likeliest to be valid.

    Args:
        inputs: of the model, with numbers for all sizes.
        seed: of the random numbers.

    Returns:
        The arrays by name, as `adder_onnx.InferenceSession.run` takes them.

    Raises:
        InputError: a size or a type is not known, or an input takes more memory than is allowed.
    """
    rng = np.random.default_rng(seed)
    feed: dict[str, NDArray[Any]] = {}
    for value in inputs:
        unknown = [str(dim) for dim in value.shape if not isinstance(dim, int)]
        if unknown:
            raise InputError(
                f"input {value.name!r} has shape {value.shape}: give numbers for its dimensions, "
                f"such as --dim {unknown[0]}=224"
            )
        if value.type not in _TYPES:
            raise InputError(f"input {value.name!r} is {value.type}; random values need a number")
        dtype = np.dtype(_TYPES[value.type])
        shape = [int(dim) for dim in value.shape]  # type: ignore[arg-type]
        if min(shape, default=0) < 0:
            raise InputError(f"input {value.name!r} has shape {shape}; sizes are at least 0")
        # Normal values are float64 at first.
        require(math.prod(shape) * 8, f"input {value.name!r} of shape {shape}", InputError)
        is_float = dtype.kind == "f"
        feed[value.name] = (
            rng.standard_normal(shape).astype(dtype) if is_float else np.zeros(shape, dtype)
        )
    return feed
