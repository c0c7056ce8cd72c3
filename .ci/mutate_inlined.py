"""Breaks each guard of the reading of inlined bodies once and shows that a test notices.

    python .ci/mutate_inlined.py [--part I/N] [MODULE…]

changes the modules of adder_onnx/graph/inlined, or every Nth of them from the Ith on: the
condition of one `require` becomes true, or that of one ``if`` before a ``raise`` becomes false, at
a time; runs the tests in which the guard stops something, and exits with status 1 where a change
goes unnoticed.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutation import ROOT, Mutant, stopped_tests, try_mutants

FOLDER = ROOT / "adder_onnx" / "graph" / "inlined"
TESTS = {
    "expressions": ["expressions"],
    "geometry": ["layer", "operands"],
    "integers": ["integers", "levels"],
    "layer": ["layer", "operands"],
    "loop": ["loop"],
    "matching": ["levels", "loop", "operands"],
    "operands": ["operands"],
    "operators": ["values"],
    "output_tables": ["levels"],
    "restoration": ["restoration"],
    "values": ["values"],
}
"""Which of tests/test_inlined_*.py notice what is broken in a module."""


def conditions(tree: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    """Each guard's condition, and what lets everything pass."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "require":
                yield node.args[0], "True"
        elif isinstance(node, ast.If) and isinstance(node.body[0], ast.Raise):
            yield node.test, "False"


def mutants(path: Path, tests: Sequence[str]) -> Iterator[Mutant]:
    """Each with the tests in which its guard stops something: only they can notice."""
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    starts = [sum(map(len, lines[:i])) for i in range(len(lines))]
    places = []
    for condition, passing in conditions(ast.parse(text)):
        assert condition.end_lineno is not None
        assert condition.end_col_offset is not None
        start = starts[condition.lineno - 1] + condition.col_offset
        end = starts[condition.end_lineno - 1] + condition.end_col_offset
        places.append((start, end, condition.lineno, passing))
    places.sort()
    probed, done = "", 0
    for guard, (start, end, _, passing) in enumerate(places):
        probed += f"{text[done:start]}_ask({guard})(({text[start:end]}), {passing})"
        done = end
    stopped = stopped_tests(Mutant(path, probed + text[done:], "nothing"), tests)
    for guard, (start, end, line, passing) in enumerate(places):
        broken = text[:start] + passing + text[end:]
        what = f"{line}: {text[start:end]} -> {passing}"
        yield Mutant(path, broken, what, stopped.get(guard, ()))


def main() -> int:
    def of(module: str) -> list[Mutant]:
        tests = [f"tests/test_inlined_{name}.py" for name in TESTS[module]]
        return list(mutants(FOLDER / f"{module}.py", tests))

    parser = argparse.ArgumentParser()
    parser.add_argument("--part", metavar="I/N", default="0/1")
    parser.add_argument("modules", metavar="MODULE", nargs="*")
    options = parser.parse_args()
    first, step = map(int, options.part.split("/"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        every = list(pool.map(of, (options.modules or list(TESTS))[first::step]))
    return int(try_mutants(itertools.chain(*every), []) > 0)


if __name__ == "__main__":
    sys.exit(main())
