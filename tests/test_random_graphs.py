"""Random models in our runtime and in stock onnxruntime, which executes the function bodies.

`make test` tries the first 150 seeds; ``ADDER_ONNX_RANDOM_GRAPHS=150-1150 pytest
tests/test_random_graphs.py`` those from 150 on, below 1150.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import numpy as np
import onnxruntime
import pytest

import adder_onnx
from adder_onnx.graph.plan import ChainStep, OnnxruntimeStep
from tests.random_graphs import random_model

FIRST, END = map(int, os.environ.get("ADDER_ONNX_RANDOM_GRAPHS", "0-150").split("-"))
BLOCK = 25
TOLERANCE = 2e-5
"""Of the largest magnitude in an output, or of one; sums are float32 here, double there."""


def stock(data: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def describe(values: list[Any]) -> list[tuple[str, str, list[Any]]]:
    return [(value.name, value.type, value.shape) for value in values]


@pytest.mark.parametrize("block", range(FIRST, END, BLOCK))
def test_random_graphs(block: int) -> None:
    for seed in range(block, min(block + BLOCK, END)):
        model, feed = random_model(seed)
        data = model.SerializeToString()
        reference = stock(data)
        expected = reference.run(None, feed)
        for fuse, threads in ((True, 1), (True, 2), (False, 2)):
            session = adder_onnx.InferenceSession(data, fuse=fuse, threads=threads)
            results = session.run(None, feed)
            assert describe(session.get_inputs()) == describe(reference.get_inputs())
            for ours, theirs in zip(session.get_outputs(), reference.get_outputs(), strict=True):
                assert (ours.name, ours.type) == (theirs.name, theirs.type)
                for a, b in zip(ours.shape, theirs.shape, strict=True):
                    assert a is None or b is None or a == b
            for value, result, truth in zip(model.graph.output, results, expected, strict=True):
                where = f"seed {seed}, output {value.name}, fuse={fuse}, threads={threads}"
                assert result.shape == truth.shape, where
                assert result.dtype == truth.dtype, where
                assert np.isfinite(truth).all(), where
                scale = max(1.0, float(np.abs(truth).max(initial=0)))
                error = float(np.abs(result - truth).max(initial=0))
                assert error <= TOLERANCE * scale, f"{where}: {error} of {scale}"


def test_the_graphs_are_worth_the_name() -> None:
    """All operators occur, chains of several nodes, several sub-models, fused epilogues."""
    operators: Counter[str] = Counter()
    chains, models, fused, residuals, weights = [], [], 0, 0, 0
    for seed in range(100):
        model, _ = random_model(seed)
        operators.update(node.op_type for node in model.graph.node)
        plan = adder_onnx.InferenceSession(model.SerializeToString()).plan
        steps = [s for s in plan.steps if isinstance(s, ChainStep)]
        chains += [len(s.nodes) for s in steps]
        models.append(sum(isinstance(s, OnnxruntimeStep) for s in plan.steps))
        fused += sum(len(n.fused) for s in steps for n in s.nodes)
        residuals += sum(n.residual is not None for s in steps for n in s.nodes)
        weights += sum(isinstance(n.weight, str) for s in steps for n in s.nodes)
    wanted = (
        "AdderConv Conv BatchNormalization Relu Add Mul Concat Split MaxPool AveragePool Reshape "
        "Transpose Sigmoid Clip If Loop Block GlobalAveragePool"
    )
    assert set(wanted.split()) <= set(operators)
    assert max(chains) >= 4
    assert max(models) >= 3
    assert fused >= 100
    assert residuals >= 5
    assert weights >= 5
