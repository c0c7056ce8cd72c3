"""Native CPU kernels and the choice of the instruction set they use."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from adder_onnx.errors import InputError, MissingDependencyError

try:
    from adder_onnx.kernels.cpu._native import (
        AdderConv,
        Chain,
        ChainPlan,
        ChainProgram,
        Program,
        QAdderConv,
        ShapeError,
        StopFlag,
        available_isas,
        choose_roundings,
        inner_loop_rate,
        input_gradient,
        lookup_rate,
        most_lookup_levels,
        padded_channels,
        place_buffers,
        plan_passes,
        startable_threads,
    )
except ModuleNotFoundError as error:
    if (Path(__file__).parent / "python" / "module.cpp").exists():
        raise MissingDependencyError(
            f"adder_onnx is imported from its source folder, {Path(__file__).parents[3]}, where "
            "its native module is not built: run Python in another folder, or build it there by "
            "pip install -e '.[cpu]'"
        ) from error
    raise MissingDependencyError(
        "the native module of adder_onnx is missing: install adder-onnx again"
    ) from error

__all__ = [
    "ARITHMETICS",
    "ISA_VARIABLE",
    "AdderConv",
    "Chain",
    "ChainPlan",
    "ChainProgram",
    "Program",
    "QAdderConv",
    "ShapeError",
    "StopFlag",
    "available_isas",
    "choose_roundings",
    "inner_loop_rate",
    "input_gradient",
    "lookup_rate",
    "most_lookup_levels",
    "padded_channels",
    "place_buffers",
    "plan_passes",
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
