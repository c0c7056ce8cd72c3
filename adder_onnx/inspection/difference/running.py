"""Running two models on the same inputs for values inside of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from adder_onnx.errors import InputError
from adder_onnx.inspection.difference.comparison import Comparison
from adder_onnx.runtime import InferenceSession

__all__ = ["Feed", "Runner"]

Feed = Mapping[str, NDArray[Any]]

_FLOATS = {
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
}


class Runner:
    """Both models, as they run for the values of a turn."""

    def __init__(
        self,
        comparison: Comparison,
        graphs: tuple[ir.Model, ir.Model],
        wanted: Sequence[Sequence[str]],
        device: str,
        threads: int | None,
        arithmetic: str,
    ) -> None:
        self._wanted = [list(dict.fromkeys(names)) for names in wanted]
        self._sessions = [
            InferenceSession(
                _with_outputs(graph, names), device=device, threads=threads, arithmetic=arithmetic
            )
            for graph, names in zip(graphs, self._wanted, strict=True)
        ]
        self.device = self._sessions[0].device
        self._inputs = {b.name or "": a.name or "" for a, b in comparison.matching.inputs}
        for session, which, other, known in (
            (self._sessions[0], "A", "B", self._inputs.values()),
            (self._sessions[1], "B", "A", self._inputs.keys()),
        ):
            for value in session.get_inputs():
                if value.name not in known:
                    raise InputError(
                        f"model {which} has an input {value.name!r} that {other} has not: the "
                        "models cannot run on the same data"
                    )

    def run(self, feed: Feed) -> tuple[Feed, Feed]:
        """What both give for the inputs, by name."""
        second = {b: feed[a] for b, a in self._inputs.items()}
        found = []
        for which, session, given, names in zip(
            "AB", self._sessions, (feed, second), self._wanted, strict=True
        ):
            try:
                values = session.run(names, _as_taken(session, given))
            except InputError as error:
                raise InputError(f"model {which}: {error}") from error
            found.append(dict(zip(names, values, strict=True)))
        return found[0], found[1]

    def close(self) -> None:
        for session in self._sessions:
            session.close()


def _as_taken(session: InferenceSession, feed: Feed) -> dict[str, NDArray[Any]]:
    """Floats in the precision that the inputs have."""
    types = {value.name: _FLOATS.get(value.type) for value in session.get_inputs()}
    return {
        name: array.astype(types[name], copy=False)
        if types.get(name) is not None and array.dtype.kind == "f"
        else array
        for name, array in feed.items()
    }


def _with_outputs(model: ir.Model, names: Iterable[str]) -> onnx.ModelProto:
    """A model whose outputs are these values."""
    graph = model.graph
    found = {value.name: value for node in graph for value in node.outputs}
    before = list(graph.outputs)
    graph.outputs.clear()
    graph.outputs.extend(found[name] for name in names)
    proto = ir.to_proto(model)
    graph.outputs.clear()
    graph.outputs.extend(before)
    return proto
