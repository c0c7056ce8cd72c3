"""Random graphs of integer nodes: our kernels, the NumPy reference and stock onnxruntime agree."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

import adder_onnx
from adder_onnx.compilation import compile_model
from adder_onnx.graph.plan import ChainStep
from adder_onnx.ops.reference import QLinearAdderConv
from tests.integer_chains import random_chain

COUNT, BLOCK = 60, 15


@pytest.mark.parametrize("block", range(0, COUNT, BLOCK))
def test_the_same_bits(block: int) -> None:
    for seed in range(block, block + BLOCK):
        model, feed = random_chain(seed)
        data = model.SerializeToString()
        stock = onnxruntime.InferenceSession(data)
        expected = stock.run(None, feed)
        del model.functions[:]
        reference = ReferenceEvaluator(model, new_ops=[QLinearAdderConv]).run(None, feed)
        session = adder_onnx.InferenceSession(data, threads=1 + seed % 3)
        (chain,) = session.plan.steps[1:2] if len(session.plan.steps) > 1 else session.plan.steps
        assert isinstance(chain, ChainStep)
        assert len(chain.nodes) == len(model.graph.node)
        for ours, truth, other in zip(session.run(None, feed), expected, reference, strict=True):
            np.testing.assert_array_equal(ours, truth, f"seed {seed}")
            np.testing.assert_array_equal(other, truth, f"seed {seed}")


def test_the_graphs_are_worth_the_name() -> None:
    nodes = [n for seed in range(COUNT) for n in random_chain(seed)[0].graph.node]
    assert len(nodes) > 150
    assert sum(n.input[6] != "none" for n in nodes) > 20
    values = [
        result
        for seed in range(20)
        for result in adder_onnx.InferenceSession(random_chain(seed)[0].SerializeToString()).run(
            None, random_chain(seed)[1]
        )
    ]
    assert np.mean([len(np.unique(v)) > 3 for v in values]) > 0.8


def test_only_chains_with_levels_are_described_by_the_second_version() -> None:
    """Libraries that know the first alone can read all others."""
    versions = {0: set[int](), 1: set[int]()}
    for seed in range(12):
        model, _ = random_chain(seed)
        for chain in compile_model(model).chains:
            assert chain.description is not None
            versions[seed % 2].add(chain.description.integers[0])
    assert versions == {0: {1}, 1: {2}}
