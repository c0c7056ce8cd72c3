"""The energy of arithmetic, as papers report it.

From Horowitz, *Computing's Energy Problem (and What We Can Do About It)*, ISSCC 2014, figure 1.1.9:
picojoules of one operation in a 45 nm process at 0.9 V. Only additions and multiplications are in
that table; other operations and memory are left out, as papers on adder networks do.
"""

from __future__ import annotations

from adder_onnx.inspection.cost import Operations

__all__ = ["ADD_PICOJOULES", "MULTIPLICATION_PICOJOULES", "energy"]

ADD_PICOJOULES = {"float32": 0.9, "float16": 0.4, "int8": 0.03}
MULTIPLICATION_PICOJOULES = {"float32": 3.7, "float16": 1.1, "int8": 0.2}


def energy(operations: Operations, type_: str) -> float:
    """Microjoules of the additions and multiplications, all of them in one type."""
    picojoules = (
        operations.adds * ADD_PICOJOULES[type_]
        + operations.multiplications * MULTIPLICATION_PICOJOULES[type_]
    )
    return picojoules / 1e6
