"""Expressions of sizes: their normal form keeps the meaning, and overflows are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adder_onnx.graph.inlined.expressions import Algebra, Expression, UnknownValueError

OPERATIONS = ("add", "subtract", "multiply", "divide", "remainder", "maximum")


def by_c(operation: str, a: int, b: int) -> int:
    """Integer arithmetic as ONNX has it: Div towards zero, Mod with the divisor's sign."""
    if operation == "divide":
        return abs(a) // b * (1 if a >= 0 else -1)
    if operation == "remainder":
        return a - b * (a // b)
    if operation == "maximum":
        return max(a, b)
    return {"add": a + b, "subtract": a - b, "multiply": a * b}[operation]


def evaluate(algebra: Algebra, expression: Expression, sizes: dict[str, int]) -> int:
    total = expression.constant
    for number, coefficient in expression.terms:
        multiple = algebra.as_multiple(Expression(0, ((number, 1),)))
        assert multiple is not None
        _, (kind, *arguments) = multiple
        if kind == "size":
            value = sizes[str(arguments[0])]
        else:
            a, b = (
                evaluate(algebra, v, sizes) if isinstance(v, Expression) else int(str(v))
                for v in arguments
            )
            name = {"quotient": "divide"}.get(str(kind), str(kind))
            value = by_c(name, a, b)
        total += coefficient * value
    return total


TREES = st.recursive(
    st.integers(-5, 5) | st.sampled_from(["h", "w"]),
    lambda inner: st.tuples(st.sampled_from(OPERATIONS), inner, inner),
    max_leaves=12,
)


def build(algebra: Algebra, tree: Any, sizes: dict[str, int]) -> tuple[Expression, int]:
    """The tree's expression and its value."""
    if isinstance(tree, int):
        return Expression(tree), tree
    if isinstance(tree, str):
        return algebra.atom("size", tree), sizes[tree]
    operation, left, right = tree
    (a, x), (b, y) = build(algebra, left, sizes), build(algebra, right, sizes)
    return getattr(algebra, operation)(a, b), by_c(operation, x, y)


@given(tree=TREES, h=st.integers(0, 40), w=st.integers(0, 40))
def test_the_normal_form_means_the_same(tree: Any, h: int, w: int) -> None:
    algebra, sizes = Algebra(), {"h": h, "w": w}
    # What the algebra accepts divides by positive constants only.
    try:
        expression, value = build(algebra, tree, sizes)
    except (UnknownValueError, ZeroDivisionError):
        return
    assert evaluate(algebra, expression, sizes) == value


def test_equal_expressions_look_equal() -> None:
    a = Algebra()
    h, w, one, two = a.atom("size", "h"), a.atom("size", "w"), Expression(1), Expression(2)
    assert a.add(h, w) == a.add(w, h)
    assert a.subtract(a.add(h, one), h) == one
    assert a.divide(a.subtract(a.add(h, two), one), two) == a.divide(a.add(one, h), two)
    assert a.divide(h, two) != a.divide(w, two)
    assert a.divide(h, one) == h
    assert a.remainder(h, one) == Expression()
    assert a.maximum(h, w) == a.maximum(w, h)
    assert a.maximum(a.add(h, one), h) == a.add(h, one)
    assert a.as_multiple(a.multiply(h, two)) == (2, ("size", "h"))
    assert a.as_multiple(a.add(h, one)) is a.as_multiple(a.add(h, w)) is None


@pytest.mark.parametrize("operation", ["divide", "remainder"])
@pytest.mark.parametrize("divisor", [Expression(0), Expression(-2), Algebra().atom("size", "w")])
def test_only_positive_constants_divide(operation: str, divisor: Expression) -> None:
    algebra = Algebra()
    with pytest.raises(UnknownValueError):
        getattr(algebra, operation)(algebra.atom("size", "h"), divisor)


def test_products_of_sizes_and_overflows_are_unknown() -> None:
    algebra = Algebra()
    h = algebra.atom("size", "h")
    with pytest.raises(UnknownValueError):
        algebra.multiply(h, h)
    with pytest.raises(UnknownValueError):
        algebra.multiply(h, Expression(2**63))
    number = algebra.add(Expression(2**61), Expression(2**61))
    with pytest.raises(UnknownValueError):
        algebra.add(number, number)
