"""SVG as text: elements, and text that stays in its place whatever it is."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from rich.cells import cell_len

__all__ = ["element", "text", "wide"]

_CHARACTER = 0.602
"""How wide a character of the usual fonts of equal widths is, by their size."""

_HEIGHT = 1.4
_BASELINE = 1.05


def wide(characters: int, size: float) -> float:
    """How wide so many characters are in a font of equal widths of that size."""
    return characters * _CHARACTER * size


def element(name: str, *content: str, **attributes: object) -> str:
    """An element whose content is SVG already; ``class_`` and ``font_size`` are attributes, too.

    Numbers are rounded to hundredths, which is finer than what can be seen.
    """
    given = "".join(
        f" {key.rstrip('_').replace('_', '-')}={quoteattr(_value(value))}"
        for key, value in attributes.items()
    )
    return f"<{name}{given}>{''.join(content)}</{name}>" if content else f"<{name}{given}/>"


def _value(value: object) -> str:
    return f"{round(value, 2):.10g}" if isinstance(value, float) else str(value)


def text(
    content: str,
    x: float,
    y: float,
    *,
    width: float,
    size: float,
    anchor: str = "start",
    upwards: bool = False,
    **attributes: object,
) -> str:
    """One line of any text, cut off where it would leave its box, in a font of equal widths.

    Args:
        content: what it says.
        x: of its left end; of its right end or middle if the anchor is ``end`` or ``middle``.
        y: of the middle of the line.
        width: of the box.
        size: of the font.
        anchor: where x is.
        upwards: whether it runs from below to above: then y is of its lower end, x of the middle.
        **attributes: others of the element ``text``.
    """
    if not content.isascii():  # characters of other fonts have other widths
        cells = min(wide(cell_len(content), size), width)
        attributes |= {"textLength": cells, "lengthAdjust": "spacingAndGlyphs"}
    ahead = {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    height = _HEIGHT * size
    line = element(
        "text",
        escape(content),
        x=ahead,
        y=_BASELINE * size,
        font_size=size,
        text_anchor=anchor,
        **attributes,
    )
    left, top = (0.0, 0.0) if upwards else (x, y)
    box = element("svg", line, x=left - ahead, y=top - height / 2, width=width, height=height)
    if not upwards:
        return box
    return element("g", box, transform=f"translate({_value(x)} {_value(y)}) rotate(-90)")
