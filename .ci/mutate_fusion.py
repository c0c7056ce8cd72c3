"""Breaks each guard of the fusing rules once and shows that a test notices.

    python .ci/mutate_fusion.py [--part I/N]

changes adder_onnx/graph/fusion.py and adder_node.py, one guard at a time, or every Nth of them from
the Ith on, and runs tests/test_graph_fusion.py. Exit status 1 where a change goes unnoticed.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator

from mutation import ROOT, Mutant, try_mutants

FUSION = ROOT / "adder_onnx" / "graph" / "fusion.py"
NODE = ROOT / "adder_onnx" / "graph" / "adder_node.py"

GUARDS = [
    (FUSION, "len(uses) != 1 or output.is_graph_output()", "output.is_graph_output()"),
    (FUSION, "len(uses) != 1 or output.is_graph_output()", "len(uses) != 1"),
    (FUSION, 'if consumer.domain in ("", "ai.onnx") else None', "if True else None"),
    (FUSION, "rule is None or consumer.graph is not graph", "rule is None"),
    (FUSION, "not epilogue.is_affine or training", "training"),
    (FUSION, "not epilogue.is_affine or training", "not epilogue.is_affine"),
    (FUSION, 'get_int("training_mode", 0) or len(node.outputs) > 1', 'get_int("training_mode", 0)'),
    (FUSION, 'get_int("training_mode", 0) or len(node.outputs) > 1', "get_int('x', 0)"),
    (FUSION, "if any(p is None or p.shape != epilogue.scale.shape for p in", "if any(() for p in"),
    (FUSION, "factor is None or not epilogue.is_affine", "factor is None"),
    (FUSION, "factor is None or not epilogue.is_affine", "not epilogue.is_affine"),
    (FUSION, "    if not epilogue.is_affine:\n        return None\n", ""),
    (FUSION, "if addend is not None:", "if False:"),
    (FUSION, "constant(other) is not None or not _same_shape(other, output)", "False"),
    (FUSION, "constant(other) is not None or not _same", "not _same"),
    (FUSION, "return None if epilogue.is_clipped else (", "return ("),
    (FUSION, "    if epilogue.is_clipped:\n        return None\n", ""),
    (FUSION, "bound is None or bound.size != 1", "bound is None"),
    (FUSION, "bound is None or bound.size != 1", "False"),
    (FUSION, "array is None or array.shape not in", "array is None or () in"),
    (FUSION, "((filters, 1, 1), (1, filters, 1, 1))", "((filters, 1, 1),)"),
    (FUSION, "((filters, 1, 1), (1, filters, 1, 1))", "((1, filters, 1, 1),)"),
    (FUSION, " or a.shape.rank() != b.shape.rank()", ""),
    (FUSION, "x == y and not (isinstance(x, ir.SymbolicDim) and x.value is None)", "x == y"),
    (FUSION, "x == y and not (isinstance(x, ir.SymbolicDim) and x.value is None)", "True"),
    (NODE, "not (self.has_residual or self.is_clipped)", "not self.has_residual"),
    (NODE, "not (self.has_residual or self.is_clipped)", "not self.is_clipped"),
    (NODE, "self.clip_min > -math.inf or self.clip_max < math.inf", "self.clip_max < math.inf"),
    (NODE, "self.clip_min > -math.inf or self.clip_max < math.inf", "self.clip_min > -math.inf"),
]


def mutants() -> Iterator[Mutant]:
    for path, guard, broken in GUARDS:
        text = path.read_text()
        if text.count(guard) != 1:
            sys.exit(f"{path.name}: {guard!r} is there {text.count(guard)} times, not once")
        yield Mutant(path, text.replace(guard, broken), f"{guard!r} -> {broken!r}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", metavar="I/N", default="0/1")
    first, step = map(int, parser.parse_args().part.split("/"))
    chosen = itertools.islice(mutants(), first, None, step)
    sys.exit(try_mutants(chosen, ["tests/test_graph_fusion.py"]) > 0)
