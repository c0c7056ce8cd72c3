"""All checks, and the report that they make."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import onnx

import adder_onnx
from adder_onnx.kernels.cuda.launch.selection import kernels_on
from adder_onnx.kernels.cuda.launch.variants import TYPES
from benchmarks.cuda.check.kernels import check_float, check_integers
from benchmarks.cuda.check.rates import check_distances, check_rate
from benchmarks.cuda.check.results import Check, run_checks, verdict
from benchmarks.cuda.check.sessions import (
    Digits,
    check_graphs,
    check_integer_network,
    check_network,
    check_streams,
    check_threads,
    check_torch,
)
from benchmarks.cuda.check.training import check_gradients, check_training
from benchmarks.cuda.machine import SessionMachine

__all__ = ["checks", "report"]


def checks(machine: SessionMachine) -> list[Check]:
    """All of them, in their order."""
    digits = functools.cache(Digits)  # made, and in the report if it fails, when it is needed

    def session(model: onnx.ModelProto) -> adder_onnx.InferenceSession:
        return adder_onnx.InferenceSession(model, device=machine.session_device)

    return [
        Check("kernels compile", lambda: _compile(machine)),
        *(
            Check(f"kernels, {t}, against float64", functools.partial(check_float, session, t))
            for t in TYPES
        ),
        Check("kernels, uint8, bit for bit", lambda: check_integers(session)),
        Check("kernels, gradients, against float64", lambda: check_gradients(machine)),
        Check("shipped network, float32", lambda: check_network(machine, digits())),
        Check("shipped network, 8 bits", lambda: check_integer_network(machine, digits())),
        Check("CUDA graphs on and off", lambda: check_graphs(machine, digits())),
        Check("streams", lambda: check_streams(machine, digits())),
        Check("threads", lambda: check_threads(machine, digits())),
        Check("torch", lambda: check_torch(machine, digits())),
        Check("training in torch", lambda: check_training(machine)),
        Check("sums of 8-bit differences", lambda: check_distances(machine)),
        *(
            Check(f"rate, {t}", functools.partial(check_rate, machine, t))
            for t in (*TYPES, "uint8")
        ),
    ]


def report(
    machine: SessionMachine, conditions: dict[str, Any], say: Callable[[str], None] = print
) -> bool:
    """Makes all checks, and says what they find, line by line; whether all passed.

    Args:
        machine: what is checked.
        conditions: what the report begins with.
        say: takes a line.
    """
    for name, value in conditions.items():
        text = value
        if isinstance(value, dict):
            text = ", ".join(f"{key} {version}" for key, version in value.items())
        say(f"{name}: {text}")
    results = run_checks(checks(machine), lambda result: say(str(result)))
    say(f"verdict: {verdict(results)}")
    return all(result.outcome != "FAIL" for result in results)


def _compile(machine: SessionMachine) -> str:
    kernels = kernels_on(machine.gpu.target)
    machine.gpu.prepare(kernels)
    return f"{len(kernels)} kernels for {machine.gpu.target}"
