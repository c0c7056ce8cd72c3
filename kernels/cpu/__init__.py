"""Native CPU kernels and the choice of the instruction set they use."""

from __future__ import annotations

import functools
import os

from adder_onnx.errors import InputError
from adder_onnx.kernels.cpu._native import (
    AdderConv,
    Program,
    QAdderConv,
    StopFlag,
    available_isas,
    choose_roundings,
    inner_loop_rate,
    input_gradient,
    padded_channels,
    startable_threads,
)

__all__ = [
    "ARITHMETICS",
    "ISA_VARIABLE",
    "AdderConv",
    "Program",
    "QAdderConv",
    "StopFlag",
    "available_isas",
    "choose_roundings",
    "inner_loop_rate",
    "input_gradient",
    "padded_channels",
    "select_isa",
    "startable_threads",
]

ARITHMETICS = ("fast", "exact")

ISA_VARIABLE = "ADDER_ONNX_CPU_ISA"


@functools.cache
def _check_isa(name: str | None) -> str:
    available = available_isas()
    if not name:
        return available[-1]
    if name not in available:
        raise InputError(
            f"{ISA_VARIABLE}={name}: this machine's levels are {', '.join(available)}; unset the "
            "variable or set it to one of these"
        )
    return name


def select_isa() -> str:
    """The instruction set to use: ``$ADDER_ONNX_CPU_ISA`` if set, else the highest there is.

    Raises:
        InputError: the variable names a level that is unknown or that this machine lacks.
    """
    return _check_isa(os.environ.get(ISA_VARIABLE))
