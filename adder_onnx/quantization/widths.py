"""Widths that differ from node to node: as few bits as a bound on the loss allows."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray

from adder_onnx.errors import AdderError
from adder_onnx.graph.loading import load_graph
from adder_onnx.quantization.quantize import Quantized, fused_nodes, quantize

__all__ = ["Within", "orders_of_widths", "quantize_within"]

Feed = Mapping[str, NDArray[Any]]

LEAST, MOST = 2, 8
_MEASURED = 4
"""Bits that each node's noise is measured at."""


@dataclass(frozen=True)
class Within:
    """The result of `quantize_within`.

    Attributes:
        quantized: the model with the fewest bits that were found to do.
        loss: of it.
        tried: mean bits of a node, and the loss, of each model that was tried.
    """

    quantized: Quantized
    loss: float
    tried: tuple[tuple[float, float], ...]


def quantize_within(
    model: onnx.ModelProto,
    feeds: Callable[[], Iterable[Feed]],
    loss: Callable[[onnx.ModelProto], float],
    max_loss: float,
    *,
    exclude: Sequence[str] = (),
    seed: int = 0,
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    alone: Callable[[int, int], None] = lambda done, total: None,
) -> Within:
    """Gives each node the fewest bits with which a model's loss stays within a bound.

    Each node is quantized alone, to 4 bits, and the noise at the model's output measured. With one
    bit more a node's noise is a quarter, and the noises of all nodes add up, so that the widths
    with the least noise for a number of bits are found by giving one bit after the other to the
    node whose noise falls most. Of these widths, in which each has the one before it, the first
    one within the bound is searched by bisection, by what is measured of the loss.

    Args:
        model: with AdderConv nodes; is not changed.
        feeds: gives the calibration data; is called again for each model that is tried.
        loss: of a quantized model, on data that are not those of the calibration.
        max_loss: the bound.
        exclude: names of adder nodes that stay float.
        seed: of the output pixels that calibration draws.
        threads: for the runs; None for all cores.
        progress: is called with the number of models that are done, and an estimate of all.
        alone: before that, with the number of nodes whose sensitivity is known, and that of all.

    Raises:
        AdderError: 8 bits for all nodes lose more than the bound; or as `quantize` does.
    """
    singly = quantize(
        model,
        feeds(),
        bits=_MEASURED,
        exclude=exclude,
        sensitivity=True,
        seed=seed,
        threads=threads,
        alone=alone,
    )
    noise = {s.name: 10 ** (-s.snr / 10) if s.snr < math.inf else 0.0 for s in singly.sensitivity}
    taken = {n.name: n.x for n in fused_nodes(load_graph(model).graph, list(noise))}
    orders = orders_of_widths(noise, taken)
    rest = dict.fromkeys(singly.left, MOST)
    estimate = 2 + math.ceil(math.log2(len(orders)))
    tried: list[tuple[float, float]] = []

    def attempt(widths: Mapping[str, int]) -> tuple[Quantized, float]:
        found = quantize(
            model, feeds(), bits={**widths, **rest}, exclude=exclude, seed=seed, threads=threads
        )
        lost = loss(found.model)
        tried.append((sum(widths.values()) / len(widths), lost))
        progress(1 + len(tried), estimate)
        return found, lost

    progress(1, estimate)
    best, least = attempt(orders[-1])
    if least > max_loss:
        raise AdderError(
            f"{MOST} bits for all nodes lose {least:.3g}, more than {max_loss:g}: allow more, or "
            "calibrate with more images"
        )
    low, high = 0, len(orders) - 1  # below `low` nothing is known to do, `high` does
    while low < high:
        middle = (low + high) // 2
        found, lost = attempt(orders[middle])
        if lost <= max_loss:
            best, least, high = found, lost, middle
        else:
            low = middle + 1
    return Within(best, least, tuple(tried))


def orders_of_widths(noise: Mapping[str, float], taken: Mapping[str, str]) -> list[dict[str, int]]:
    """Widths with the least noise for each number of bits, from the fewest to the most.

    Args:
        noise: of each node, by name; in any unit, for as many bits in all nodes.
        taken: the value that each node takes: nodes that take the same have the same width.
    """
    nodes: dict[str, list[str]] = {}
    for name in noise:
        nodes.setdefault(taken[name], []).append(name)
    total = {value: sum(noise[name] for name in names) for value, names in nodes.items()}
    bits = dict.fromkeys(nodes, LEAST)
    orders = [dict.fromkeys(noise, LEAST)]
    # What the next bit takes away, for a node, is three quarters of what is left.
    heap = [(-amount / len(nodes[value]), value) for value, amount in total.items()]
    heapq.heapify(heap)
    while heap:
        gain, value = heapq.heappop(heap)
        bits[value] += 1
        if bits[value] < MOST:
            heapq.heappush(heap, (gain / 4, value))
        orders.append({name: bits[taken[name]] for name in noise})
    return orders
