"""Cutting graphs, and the plans made of the parts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
import pytest

from adder_onnx.graph.adder_node import is_adder_node, mark_adder_nodes
from adder_onnx.graph.loading import load_graph
from adder_onnx.graph.partition import Part, node_inputs, partition
from adder_onnx.graph.plan import ChainStep, ConversionStep, OnnxruntimeStep, make_plan
from adder_onnx.kernels.cpu import place_buffers
from tests.models import adder_conv, make_model, node

W = np.ones((3, 3, 1, 1), np.float32)
SHAPE = ["N", 3, 4, 4]


class _Buffer(NamedTuple):
    size: int
    first: int
    last: int


def random_graph(seed: int) -> ir.Model:
    """A random DAG of adder nodes and standard nodes, some of them joining two values."""
    rng = np.random.default_rng(seed)
    values, nodes = ["X0", "X1"], []
    for i in range(int(rng.integers(1, 10))):
        picked = [str(v) for v in rng.choice(values, 2)]
        kind = rng.integers(3)
        if kind == 0:
            nodes.append(adder_conv(picked[0], "W", f"v{i}"))
        else:
            nodes.append(
                node("Exp", picked[:1], f"v{i}") if kind == 1 else node("Sub", picked, f"v{i}")
            )
        values.append(f"v{i}")
    used = {name for n in nodes for name in n.input}
    outputs = [v for v in values if v not in used and v[0] == "v"]
    return load_graph(
        make_model(nodes, {"X0": SHAPE, "X1": SHAPE}, dict.fromkeys(outputs, SHAPE), {"W": W})
    )


def parts_of(model: ir.Model) -> list[Part]:
    mark_adder_nodes(model.graph)
    return partition(model.graph)


def fewest_parts(graph: ir.Graph, models: list[Part] | None = None) -> tuple[int, int]:
    """The fewest sub-models, and with these the fewest chains, by trying all sequences of parts.

    A sequence of parts is a row of ever larger sets of nodes that contain what their nodes wait
    for; a part is what one set adds to the one before, all of one kind. Where ``models`` are given,
    the sub-models are these.
    """
    nodes = list(graph)
    number = {n: i for i, n in enumerate(nodes)}
    waits = [
        sum({1 << number[p] for v in node_inputs(n) if (p := v.producer()) is not None})
        for n in nodes
    ]
    kind = [sum(1 << i for i, n in enumerate(nodes) if is_adder_node(n) == k) for k in (0, 1)]
    allowed = None if models is None else [sum(1 << number[n] for n in m.nodes) for m in models]
    everything = (1 << len(nodes)) - 1
    closed = [
        s
        for s in range(everything + 1)
        if all(waits[i] & ~s == 0 for i in range(len(nodes)) if s >> i & 1)
    ]
    best = {0: (0, 0)}
    for done in closed:  # a superset has the larger number
        for more in closed:
            added = more & ~done
            if done & ~more or not added or done not in best:
                continue
            count, chains = best[done]
            if added & ~kind[0] == 0 and (allowed is None or added in allowed):
                cost = (count + 1, chains)
            elif added & ~kind[1] == 0:
                cost = (count, chains + 1)
            else:
                continue
            best[more] = min(best.get(more, cost), cost)
    return best[everything]


@pytest.mark.parametrize("seed", range(150))
def test_parts_are_complete_ordered_and_as_few_as_possible(seed: int) -> None:
    model = random_graph(seed)
    parts = parts_of(model)
    nodes = [n for part in parts for n in part.nodes]
    assert sorted(map(id, nodes)) == sorted(map(id, model.graph))
    seen: set[ir.Node] = set()
    for part in parts:
        assert {is_adder_node(n) for n in part.nodes} == {part.is_chain}
        for n in part.nodes:
            producers = {v.producer() for v in node_inputs(n)} - {None}
            assert producers <= seen | set(part.nodes)
            assert producers <= seen | {p for p in part.nodes if nodes.index(p) < nodes.index(n)}
        seen.update(part.nodes)
    models = [part for part in parts if not part.is_chain]
    assert len(models) == fewest_parts(model.graph)[0]
    assert len(parts) - len(models) == fewest_parts(model.graph, models)[1]


def test_standard_nodes_beside_a_chain_join_the_next_sub_model() -> None:
    model = make_model(
        [
            adder_conv("X", "W", "A"),
            node("Exp", ["X"], "B"),
            node("Sub", ["A", "B"], "Y"),
        ],
        {"X": SHAPE},
        {"Y": SHAPE},
        {"W": W},
    )
    parts = parts_of(load_graph(model))
    assert [(p.is_chain, len(p.nodes)) for p in parts] == [(True, 1), (False, 2)]


def test_an_adder_node_that_can_wait_joins_a_later_chain() -> None:
    model = make_model(
        [
            adder_conv("X", "W", "A"),
            node("Exp", ["X"], "B"),
            adder_conv("B", "W", "C"),
            node("Sub", ["A", "C"], "Y"),
        ],
        {"X": SHAPE},
        {"Y": SHAPE},
        {"W": W},
    )
    parts = parts_of(load_graph(model))
    assert [(p.is_chain, len(p.nodes)) for p in parts] == [(False, 1), (True, 2), (False, 1)]


def test_values_captured_by_a_subgraph_are_inputs() -> None:
    branch = {}
    for name, op_type in (("then_branch", "Exp"), ("else_branch", "Neg")):
        body = make_model([node(op_type, ["A"], "out")], {"A": SHAPE}, {"out": SHAPE}).graph
        del body.input[:]
        branch[name] = body
    cond = np.array(True)
    model = make_model(
        [adder_conv("X", "W", "A"), node("If", ["cond"], "Y", **branch)],
        {"X": SHAPE},
        {"Y": SHAPE},
        {"W": W, "cond": cond},
    )
    plan = make_plan(load_graph(model))
    assert [type(s) for s in plan.steps] == [
        ConversionStep,
        ChainStep,
        ConversionStep,
        OnnxruntimeStep,
    ]
    last = plan.steps[-1]
    assert isinstance(last, OnnxruntimeStep)
    assert last.inputs == ("A",)


def test_plan_of_a_residual_network_is_one_chain() -> None:
    model = make_model(
        [
            node("Conv", ["X", "K"], "S"),
            adder_conv("S", "W", "A"),
            node("Relu", ["A"], "B"),
            adder_conv("B", "W", "C"),
            node("Add", ["C", "S"], "D"),
            node("Relu", ["D"], "E"),
            node("GlobalAveragePool", ["E"], "Y"),
        ],
        {"X": SHAPE},
        {"Y": ["N", 3, 1, 1]},
        {"W": W, "K": W},
    )
    plan = make_plan(load_graph(model))
    stem, entry, chain, exit_, head = plan.steps
    assert isinstance(stem, OnnxruntimeStep)
    assert (stem.inputs, stem.outputs, stem.nodes) == (("X",), ("S",), ("n_S",))
    assert entry == ConversionStep("S", to_kernels=True)
    assert isinstance(chain, ChainStep)
    assert [n.name for n in chain.nodes] == ["n_A", "n_C"]
    assert (chain.nodes[1].residual, chain.nodes[1].y) == ("S", "E")
    assert exit_ == ConversionStep("E", to_kernels=False)
    assert isinstance(head, OnnxruntimeStep)
    assert head.outputs == ("Y",)
    unfused = make_plan(load_graph(model), fuse=False)
    assert sum(isinstance(s, ChainStep) for s in unfused.steps) == 2
    assert sum(isinstance(s, OnnxruntimeStep) for s in unfused.steps) == 3


@pytest.mark.parametrize("seed", range(40))
def test_buffers_in_use_together_do_not_overlap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    buffers = []
    for _ in range(int(rng.integers(1, 30))):
        first = int(rng.integers(0, 20))
        buffers.append(_Buffer(int(rng.integers(0, 1000)), first, first + int(rng.integers(0, 6))))
    offsets, size = place_buffers(buffers)
    occupied: dict[int, Any] = {}
    for time in range(30):
        block = np.zeros(size, int)
        for buffer, offset in zip(buffers, offsets, strict=True):
            assert offset % 16 == 0
            if buffer.first <= time <= buffer.last:
                block[offset : offset + buffer.size] += 1
                assert offset + buffer.size <= size
        assert (block <= 1).all()
        occupied[time] = block.sum()
    assert size >= max(occupied.values())


def test_buffers_that_are_done_with_are_used_again() -> None:
    """A chain of equal layers needs two buffers, however long it is."""
    buffers = [_Buffer(160, t, t + 1) for t in range(20)]
    assert place_buffers(buffers)[1] == 320
    assert place_buffers([]) == ([], 0)
