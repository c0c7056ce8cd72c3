"""Breaks each guard of the reading of inlined bodies once and shows that a test notices.

    python .ci/mutate_inlined.py [MODULE…]

changes the modules of adder_onnx/graph/inlined: the condition of one `require` becomes
true, or that of one ``if`` before a ``raise`` becomes false, at a time; runs the tests,
and exits with status 1 where a change goes unnoticed.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from mutation import ROOT, Mutant, try_mutants

FOLDER = ROOT / "adder_onnx" / "graph" / "inlined"
TESTS = {
    "expressions": ["expressions"],
    "geometry": ["layer", "operands"],
    "integers": ["integers"],
    "layer": ["layer", "operands"],
    "loop": ["loop"],
    "matching": ["loop", "operands"],
    "operands": ["operands"],
    "operators": ["values"],
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


def mutants(path: Path) -> Iterator[Mutant]:
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    starts = [sum(map(len, lines[:i])) for i in range(len(lines))]
    for condition, passing in conditions(ast.parse(text)):
        assert condition.end_lineno is not None
        assert condition.end_col_offset is not None
        start = starts[condition.lineno - 1] + condition.col_offset
        end = starts[condition.end_lineno - 1] + condition.end_col_offset
        broken = text[:start] + passing + text[end:]
        yield Mutant(path, broken, f"{condition.lineno}: {text[start:end]} -> {passing}")


def main() -> int:
    survivors = 0
    for module in sys.argv[1:] or TESTS:
        tests = [f"test_inlined_{name}.py" for name in TESTS[module]]
        survivors += try_mutants(mutants(FOLDER / f"{module}.py"), tests)
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
