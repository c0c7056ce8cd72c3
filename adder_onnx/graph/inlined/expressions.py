"""Integers that depend on sizes nobody knows yet, in a form in which equal ones look equal.

An expression is a constant plus multiples of atoms. An atom is a size (a dimension of a value, a
loop's counter), or a quotient, remainder or maximum of expressions that cannot be simplified. Atoms
are numbered in the order in which they are first met, so that comparing two expressions is quick
however deep they are nested. Two expressions that are equal as objects are equal for all sizes; the
converse is not promised.

Quotients and remainders are those of ONNX ``Div`` and ``Mod`` on integers, by positive constants.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

__all__ = ["Algebra", "Expression", "UnknownValueError"]

_LARGEST = 2**62
"""Beyond it ONNX's own integers may overflow; sizes are far below."""


class UnknownValueError(Exception):
    """A value cannot be written as an expression, or not in a form that is understood here."""


@dataclass(frozen=True)
class Expression:
    """``constant`` plus the sum of ``coefficient * atom``.

    Attributes:
        constant: the constant part.
        terms: (number of an atom, coefficient) in ascending order; no coefficient is 0.
    """

    constant: int = 0
    terms: tuple[tuple[int, int], ...] = ()

    @property
    def is_constant(self) -> bool:
        return not self.terms


class Algebra:
    """Arithmetic on expressions; those of two algebras must not meet."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[Hashable, ...], int] = {}
        self._keys: list[tuple[Hashable, ...]] = []

    def atom(self, *key: Hashable) -> Expression:
        """The atom of a key: the same for the same key."""
        number = self._numbers.setdefault(key, len(self._keys))
        if number == len(self._keys):
            self._keys.append(key)
        return Expression(0, ((number, 1),))

    def as_multiple(self, a: Expression) -> tuple[int, tuple[Hashable, ...]] | None:
        """Coefficient and key of an expression that is a multiple of one atom."""
        if a.constant or len(a.terms) != 1:
            return None
        number, coefficient = a.terms[0]
        return coefficient, self._keys[number]

    def add(self, a: Expression, b: Expression) -> Expression:
        terms = dict(a.terms)
        for number, coefficient in b.terms:
            terms[number] = terms.get(number, 0) + coefficient
        return _checked(a.constant + b.constant, terms)

    def subtract(self, a: Expression, b: Expression) -> Expression:
        return self.add(a, self.multiply(b, Expression(-1)))

    def multiply(self, a: Expression, b: Expression) -> Expression:
        if a.is_constant:
            a, b = b, a
        if not b.is_constant:
            raise UnknownValueError("a product of two sizes")
        factor = b.constant
        return _checked(a.constant * factor, {n: c * factor for n, c in a.terms})

    def divide(self, a: Expression, b: Expression) -> Expression:
        divisor = _positive(b)
        if divisor == 1:
            return a
        if a.is_constant:  # towards zero, as in C
            quotient = abs(a.constant) // divisor
            return Expression(quotient if a.constant >= 0 else -quotient)
        return self.atom("quotient", a, divisor)

    def remainder(self, a: Expression, b: Expression) -> Expression:
        divisor = _positive(b)
        if divisor == 1:
            return Expression()
        if a.is_constant:
            return Expression(a.constant % divisor)
        return self.atom("remainder", a, divisor)

    def maximum(self, a: Expression, b: Expression) -> Expression:
        difference = self.subtract(a, b)
        if difference.is_constant:
            return a if difference.constant >= 0 else b
        first, second = sorted((a, b), key=lambda e: (e.constant, e.terms))
        return self.atom("maximum", first, second)


def _positive(divisor: Expression) -> int:
    if not divisor.is_constant or divisor.constant < 1:
        raise UnknownValueError("a division by something else than a positive constant")
    return divisor.constant


def _checked(constant: int, terms: dict[int, int]) -> Expression:
    if any(abs(number) > _LARGEST for number in (constant, *terms.values())):
        raise UnknownValueError("an integer that is too large")
    return Expression(constant, tuple(sorted((n, c) for n, c in terms.items() if c)))
