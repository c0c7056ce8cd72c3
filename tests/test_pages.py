"""The shell of all pages: nothing but its own scripts runs, whatever the data say."""

import hashlib
import re
from importlib.resources import files

import pytest

from adder_onnx import pages
from adder_onnx.pages.shell import LIBRARIES
from tests.browser import WIDTHS

HOSTILE = [
    "</title><script>document.title = 'run'</script>",
    "</script><script>document.title = 'run'</script>",
    "<!--<script>",
    "<img src=x onerror=\"document.title='run'\">",
    "\"'`${document.title = 'run'}`'\"",
    "javascript:document.title='run'",
    "x" * 10_000,
    "\u202egnirts sdrawkcab\u202c",
    "שלום عالم",
    "\u0000\u0007\r\n\t",
    "\ud800",
    "\u2028\u2029",
    "𝒳" * 50 + "é" * 50,
]


@pytest.fixture
def hostile_page(tmp_path):
    """A page with all hostile texts as title, heading, names in a table, and figures."""
    rows = [
        {"name": text, "number": i, "even": i if i % 2 == 0 else None}
        for i, text in enumerate(HOSTILE)
    ]
    text = pages.render(HOSTILE[0], {"rows": rows}, scripts=["../../../tests/pages/names.js"])
    path = tmp_path / "page.html"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
def test_hostile_names_neither_run_nor_break_anything(browser, hostile_page, width, dark):
    with browser.opened(hostile_page, width=width, dark=dark) as opened:
        opened.check()
        assert opened.page.title() == HOSTILE[0]
        assert opened.page.locator("tbody tr").count() == len(HOSTILE)
        assert opened.page.locator("script").count() == 3  # the data, base.js, names.js
        opened.page.get_by_role("button", name="number").click()
        first = opened.page.locator("tbody tr").first
        assert first.locator("td").nth(1).inner_text() == str(len(HOSTILE) - 1)


@pytest.mark.parametrize("order", ["descending", "ascending"])
def test_rows_without_a_value_come_last(browser, hostile_page, order):
    with browser.opened(hostile_page) as opened:
        heading = opened.page.get_by_role("columnheader", name="even")
        for _ in range(2 if order == "ascending" else 1):
            heading.get_by_role("button").click()
        assert heading.get_attribute("aria-sort") == order
        shown = opened.page.locator("tbody tr td:last-child").all_inner_texts()
    even = [str(i) for i in range(0, len(HOSTILE), 2)]
    expected = even if order == "ascending" else even[::-1]
    assert shown == expected + ["–"] * (len(HOSTILE) - len(even))


def test_a_script_that_is_not_the_pages_own_does_not_run(browser, tmp_path):
    text = pages.render("title", {}, scripts=[])
    path = tmp_path / "page.html"
    path.write_text(text.replace("</body>", "<script>document.title = 'run'</script></body>"))
    with browser.opened(path) as opened:
        opened.settle()
        assert opened.page.title() == "title"
        assert any("Content Security Policy" in said for said in opened.complaints)


def test_infinity_is_no_json():
    with pytest.raises(ValueError, match="JSON"):
        pages.render("title", {"snr": float("inf")}, scripts=[])


@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_are_those_of_the_table(library):
    """What README.md says of their origin holds for what lies there."""
    folder = files("adder_onnx.pages").joinpath("assets", "vendor")
    code, licence = LIBRARIES[library]
    row = next(
        line for line in folder.joinpath("README.md").read_text().splitlines() if code in line
    )
    assert (
        re.search(r"[0-9a-f]{64}", row)[0]
        == hashlib.sha256(folder.joinpath(code).read_bytes()).hexdigest()
    )
    assert licence in row
    assert "ermission" in folder.joinpath(licence).read_text()


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_page_carries_the_licence_of_what_it_carries(library):
    names = ["d3", library] if library == "plot" else [library]
    text = pages.render("title", {}, scripts=[], libraries=names)
    licence = (
        files("adder_onnx.pages").joinpath("assets", "vendor", LIBRARIES[library][1]).read_text()
    )
    assert licence in text
    assert "sourceMappingURL" not in text
