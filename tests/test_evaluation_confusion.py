"""Which classes a model takes for which: the counts, the picture, and names in it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from adder_onnx.evaluation.confusion import Confusion, ConfusionCounter, draw_confusion
from adder_onnx.evaluation.shown_names import ClassNames
from adder_onnx.text import shorten, visible
from tests.test_pages import HOSTILE

_SVG = "{http://www.w3.org/2000/svg}"

# Texts are cut off by the element around them, which has a place and a size.
_OVERLAPS = """
() => {
  const found = [...document.querySelectorAll("text")].map((text) => {
    const cut = text.parentElement, seen = text.getBoundingClientRect();
    const [x, y, w, h] = ["x", "y", "width", "height"].map((n) => Number(cut.getAttribute(n)));
    const corners = [[x, y], [x + w, y + h]].map(([x, y]) =>
      new DOMPoint(x, y).matrixTransform(cut.parentElement.getScreenCTM()));
    const [left, right] = corners.map((p) => p.x).sort((a, b) => a - b);
    const [top, bottom] = corners.map((p) => p.y).sort((a, b) => a - b);
    return {
      left: Math.max(left, seen.left), right: Math.min(right, seen.right),
      top: Math.max(top, seen.top), bottom: Math.min(bottom, seen.bottom),
      text: text.textContent, cut: getComputedStyle(cut).overflow,
      fits: text.getComputedTextLength() <= w + 1,
    };
  }).sort((a, b) => a.top - b.top);
  const overlaps = found.filter((a) => a.cut !== "hidden" || !a.fits).map((a) => a.text);
  const {width, height} = document.querySelector("svg").getBoundingClientRect();
  for (let i = 0; i < found.length; i++) {
    const a = found[i];
    if (a.left < 0 || a.right > width || a.top < 0 || a.bottom > height) overlaps.push(a.text);
    for (let j = i + 1; j < found.length && found[j].top < a.bottom; j++) {
      const b = found[j];
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      // Lines touch: their boxes are higher than their letters.
      const most = 0.35 * Math.min(a.bottom - a.top, a.right - a.left);
      if (wide > most && high > most) overlaps.push([a.text, b.text]);
    }
  }
  return overlaps.slice(0, 10);
}
"""

_TITLE = "top-1 80.00 %  (8 of 10)"


def _pairs(
    classes: int, images: int, *, labels: int | None = None, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels and answers, of which most are right."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, labels or classes, images)
    answers = np.where(rng.random(images) < 0.7, true, rng.integers(0, classes, images))
    return true, answers


def _confusion(true: NDArray[np.int64], answers: NDArray[np.int64], classes: int) -> Confusion:
    counter = ConfusionCounter(classes)
    for first in range(0, len(true), 7):
        counter.add(true[first : first + 7], answers[first : first + 7])
    return counter.confusion()


def _matrix(true: NDArray[np.int64], answers: NDArray[np.int64], classes: int) -> list[list[int]]:
    """What is counted, by comparison."""
    return [
        [int(((true == t) & (answers == a)).sum()) for a in range(classes)] for t in range(classes)
    ]


@pytest.mark.parametrize(("classes", "images", "labels"), [(1, 3, 1), (2, 9, 2), (12, 200, 5)])
def test_counts(classes: int, images: int, labels: int) -> None:
    true, answers = _pairs(classes, images, labels=labels)
    confusion = _confusion(true, answers, classes)
    matrix = _matrix(true, answers, classes)
    assert confusion.counts.tolist() == [
        [t, a, matrix[t][a]] for t in range(classes) for a in range(classes) if matrix[t][a]
    ]
    assert confusion.images == images
    assert confusion.correct == int((true == answers).sum())

    per_class = confusion.per_class()
    assert [one.number for one in per_class] == [t for t in range(classes) if any(matrix[t])]
    for one in per_class:
        row = matrix[one.number]
        assert one.images == sum(row)
        assert one.correct == row[one.number]
        assert one.share == row[one.number] / sum(row)
        assert one.answers == sum(matrix[t][one.number] for t in range(classes))
        others = [(count, -a) for a, count in enumerate(row) if a != one.number and count]
        most = max(others, default=None)
        assert one.mistaken_for == (None if most is None else (-most[1], most[0]))

    wrong = [(-n, t, a) for t, a, n in confusion.counts.tolist() if t != a]
    assert confusion.mistakes() == [(t, a, -n) for n, t, a in sorted(wrong)]


def test_json_has_what_is_not_zero() -> None:
    true, answers = np.array([1, 1, 4]), np.array([1, 2, 4])
    confusion = _confusion(true, answers, 1000)
    counts = [[1, 1, 1], [1, 2, 1], [4, 4, 1]]
    assert confusion.as_json(None) == {"labels": None, "counts": counts}
    assert confusion.as_json("abc") == {"labels": ["a", "b", "c"], "counts": counts}


def _drawn(svg: str) -> ET.Element:
    """The picture, of which nothing can run or be fetched."""
    root = ET.fromstring(svg.encode("utf-8"))
    allowed = {"svg", "g", "rect", "path", "text", "title", "style"}
    for element in root.iter():
        assert element.tag.removeprefix(_SVG) in allowed
        for name, value in element.attrib.items():
            assert not name.lower().startswith("on")
            assert "href" not in name.lower()
            assert "url" not in value.lower()
    assert "url" not in (root.findtext(f"{_SVG}style") or "")
    assert "@import" not in svg
    return root


def _texts(root: ET.Element) -> list[str]:
    return [text.text or "" for text in root.iter(f"{_SVG}text")]


def _cells(root: ET.Element) -> dict[tuple[float, float], ET.Element]:
    """Cells by their places."""
    cells = [r for r in root.iter(f"{_SVG}rect") if r.find(f"{_SVG}title") is not None]
    return {(float(cell.get("y", "")), float(cell.get("x", ""))): cell for cell in cells}


@pytest.mark.parametrize("classes", [1, 2, 10, 30])
def test_a_small_matrix_says_its_numbers(classes: int) -> None:
    true, answers = _pairs(classes, 40 * classes)
    names = [f"kind {chr(65 + i % 26)}{i // 26}" for i in range(classes)]
    root = _drawn(draw_confusion(_confusion(true, answers, classes), names, _TITLE, "m on d"))
    matrix = _matrix(true, answers, classes)
    texts = _texts(root)
    assert [name for name in texts if name in names] == [n for n in names for _ in range(2)]
    assert texts[:2] == [_TITLE, "m on d"]
    numbers = [int(text) for text in texts if text.isdecimal()]
    assert numbers == [count for row in matrix for count in row if count]
    shares = [text for text in texts if re.fullmatch(r"\d+\.\d %", text)]
    assert shares == [f"{100 * row[t] / sum(row):.1f} %" for t, row in enumerate(matrix)]

    told = [cell.findtext(f"{_SVG}title") for _, cell in sorted(_cells(root).items())]
    expected = []
    for t, row in enumerate(matrix):
        for a, count in enumerate(row):
            what = "right" if t == a else f"taken for {names[a]}"
            percent = f"{100 * count / sum(row):.2f} %"
            if count:
                expected.append(f"{names[t]}: {count} of {sum(row)} {what} ({percent})")
    assert told == expected


def test_colours_are_by_the_share_of_the_true_class() -> None:
    """8 of 10 and 80 of 100 look alike; what is right looks unlike what is wrong."""
    true = np.repeat([0, 1], [10, 100])
    answers = np.concatenate([np.repeat([0, 1], [8, 2]), np.repeat([1, 0], [80, 20])])
    cells = _cells(_drawn(draw_confusion(_confusion(true, answers, 2), None, _TITLE, "")))
    strong, weak, also_weak, also_strong = (cell for _, cell in sorted(cells.items()))
    assert strong.get("fill-opacity") == also_strong.get("fill-opacity")
    assert weak.get("fill-opacity") == also_weak.get("fill-opacity")
    assert float(strong.get("fill-opacity", "")) > float(weak.get("fill-opacity", ""))
    kinds = [c.get("class") for c in (strong, weak, also_weak, also_strong)]
    assert kinds == ["right", "wrong", "wrong", "right"]


def _luminance(colour: NDArray[np.float64]) -> float:
    """Relative luminance by WCAG 2."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_numbers_can_be_read_on_all_colours() -> None:
    """The contrast of text and cells, light and dark, is at least that of WCAG's level AA."""
    true, answers = np.repeat([0, 1], [400, 3]), np.repeat([0, 1, 1, 0], [1, 399, 0, 3])
    svg = draw_confusion(_confusion(true, answers, 2), None, _TITLE, "")
    cells = _cells(_drawn(svg)).values()
    strengths = [float(cell.get("fill-opacity", "")) for cell in cells]
    assert max(strengths) > 0.55
    for theme in svg.split("prefers-color-scheme"):
        colours = {
            name: np.array([int(value[i : i + 2], 16) for i in (0, 2, 4)]) / 255
            for name, value in re.findall(r"--(\w+): #(\w{6})", theme)
        }
        for fill in ("right", "wrong"):
            for strength in [0, *strengths]:
                behind = strength * colours[fill] + (1 - strength) * colours["raised"]
                bright = sorted([_luminance(behind), _luminance(colours["ink"])])
                assert (bright[1] + 0.05) / (bright[0] + 0.05) >= 4.5


def test_answers_that_are_no_label_are_one_column() -> None:
    """A model of 1000 classes, data of two of them."""
    true = np.array([3, 3, 3, 700, 700])
    answers = np.array([3, 999, 5, 700, 3])
    root = _drawn(draw_confusion(_confusion(true, answers, 1000), None, _TITLE, ""))
    texts = _texts(root)
    assert [t for t in texts if t in ("3", "700")] == ["3", "3", "700", "700"]
    assert "other classes" in texts
    told = [cell.findtext(f"{_SVG}title") for _, cell in sorted(_cells(root).items())]
    assert told == [
        "3: 1 of 3 right (33.33 %)",
        "3: 2 of 3 taken for other classes (66.67 %)",
        "700: 1 of 2 taken for 3 (50.00 %)",
        "700: 1 of 2 right (50.00 %)",
    ]
    assert "other classes" not in draw_confusion(_confusion(true, true, 1000), None, _TITLE, "")


@pytest.mark.parametrize("classes", [31, 100, 101, 1000])
def test_a_large_matrix_lists_the_most_frequent_confusions(classes: int) -> None:
    true, answers = _pairs(classes, 20 * classes)
    names = [f"kind {i}." for i in range(classes)]
    confusion = _confusion(true, answers, classes)
    svg = draw_confusion(confusion, names, _TITLE, "")
    assert len(svg) < 2_000_000
    texts = _texts(_drawn(svg))
    (t, a, count) = confusion.mistakes()[0]
    first = texts.index("taken for another most often") + 1
    prefix = [f"{t} ", f"{a} "] if classes > 100 else ["", ""]
    assert texts[first : first + 4] == [
        str(count),
        f"{prefix[0]}kind {t}.",
        "→",
        f"{prefix[1]}kind {a}.",
    ]
    assert texts.count("→") >= 12
    assert (texts.count("kind 17.") >= 2) == (classes <= 100)


def _dots(root: ET.Element) -> dict[tuple[float, float], str]:
    """The cells of a large matrix by their places, and whether they are right or wrong."""
    return {
        (float(y), float(x)): path.get("class", "")
        for path in root.iter(f"{_SVG}path")
        for x, y in re.findall(r"M(\S+) (\S+?)h", path.get("d", ""))
    }


@pytest.mark.parametrize("classes", [101, 1000])
def test_a_large_matrix_has_all_its_cells(classes: int) -> None:
    true, answers = _pairs(classes, 30 * classes)
    present = sorted(set(true.tolist()))
    confusion = _confusion(true, answers, classes)
    dots = _dots(_drawn(draw_confusion(confusion, None, _TITLE, "")))
    others = [int(a) for a in answers if a not in present]
    assert not others
    rows, columns = (sorted({place[i] for place in dots}) for i in range(2))
    found = {(rows.index(y), columns.index(x), kind) for (y, x), kind in dots.items()}
    assert found == {
        (present.index(t), present.index(a), "right" if t == a else "wrong")
        for t, a, _ in confusion.counts.tolist()
    }


def test_beyond_1000_classes_several_share_a_cell() -> None:
    true = np.arange(2500)
    root = _drawn(draw_confusion(_confusion(true, (true + 3) % 2500, 2500), None, _TITLE, ""))
    assert len({y for y, _ in _dots(root)}) == 834
    assert "the model's answer, by number of class, 3 to a cell" in _texts(root)


def test_a_column_of_others_in_a_large_matrix() -> None:
    true = np.arange(200)
    answers = np.where(true == 7, 555, true)
    root = _drawn(draw_confusion(_confusion(true, answers, 1000), None, _TITLE, ""))
    dots = _dots(root)
    assert len(dots) == 200
    rightmost = max(dots, key=lambda place: place[1])
    assert dots[rightmost] == "wrong"
    assert sorted(y for y, _ in dots).index(rightmost[0]) == 7
    assert "other classes" in _texts(root)


def test_hostile_names_are_text() -> None:
    true, answers = _pairs(len(HOSTILE), 300)
    svg = draw_confusion(_confusion(true, answers, len(HOSTILE)), HOSTILE, HOSTILE[0], HOSTILE[5])
    texts = _texts(_drawn(svg))
    assert max(map(len, texts)) <= 120
    assert len(svg) < 200_000
    assert not re.search("[\x00-\x08\u202a-\u202e\u2066-\u2069]", svg)


@pytest.mark.parametrize("classes", [1, 2, 10, 30, 31, 100, 101, 1000])
@pytest.mark.parametrize("names", ["plain", "hostile"])
def test_no_text_lies_on_another(browser, tmp_path: Path, classes: int, names: str) -> None:  # type: ignore[no-untyped-def]
    few = HOSTILE if names == "hostile" else ["W" * 60, "cat", "great white shark"]
    given = [few[i % len(few)] for i in range(classes + 50)]
    true, answers = _pairs(classes + 50, 2000 + 20 * classes, labels=classes)
    confusion = _confusion(true, answers, classes + 50)
    svg = draw_confusion(confusion, given, _TITLE, "a model of a long name " * 20)
    width = int(re.findall(r'width="(\d+)"', svg)[0])
    page = tmp_path / "page.html"
    body = svg.partition("?>\n")[2]
    page.write_text(f'<meta charset="utf-8"><body style="margin:0">{body}</body>', "utf-8")
    with browser.opened(page, width=width) as opened:
        opened.settle()
        assert opened.complaints == []
        assert opened.page.evaluate(_OVERLAPS) == []


def test_dark_and_light_differ(browser, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "matrix.svg"
    path.write_text(draw_confusion(_confusion(*_pairs(4, 50), 4), None, _TITLE, ""), "utf-8")
    colours = []
    for dark in (False, True):
        with browser.opened(path, dark=dark) as opened:
            script = "() => getComputedStyle(document.querySelector('.paper')).fill"
            colours.append(opened.page.evaluate(script))
            assert opened.complaints == []
    assert colours == ["rgb(255, 255, 255)", "rgb(20, 23, 28)"]


@pytest.mark.parametrize(
    ("text", "cells", "shown"),
    [
        ("cat", 3, "cat"),
        ("great white shark", 9, "grea…hark"),
        ("great white shark", 8, "gre…hark"),
        ("x" * 10_000, 5, "xx…xx"),
        ("a\nb\u202ec\ud800", 10, "a·b·c·"),
        ("日本語日本", 6, "日…本"),
        ("日本語", 6, "日本語"),
        ("", 5, ""),
        ("a" * 9 + "\n" * 9, 18, "a" * 9 + "·" * 9),
    ],
)
def test_shorten(text: str, cells: int, shown: str) -> None:
    assert shorten(text, cells) == shown


def test_visible_keeps_what_can_be_seen() -> None:
    text = "Käse, שלום 日本 \U0001f980 <&\"'>"
    assert visible(text) == text


def test_names_of_classes_are_unlike_each_other() -> None:
    called = ClassNames(["crane", "dog", "crane", "", " "])
    assert [called[i] for i in range(5)] == ["crane (0)", "dog", "crane (2)", "(3)", "(4)"]
    assert ClassNames(None)[7] == "7"
