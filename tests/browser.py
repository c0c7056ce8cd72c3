"""A headless Chromium that opens pages, and what must hold of every page that we make.

Tests that use it are skipped, with the reason, where there is no Chromium or no playwright. The
browser is the system's; ADDER_ONNX_CHROMIUM names another one.
"""

import os
import shutil
from contextlib import contextmanager

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")

WIDTHS = (390, 1440)

# Rectangles of all text that is seen, each with the element that it stands in.
_OVERLAPS = """
() => {
  const clip = (rect, element) => {
    let {left, top, right, bottom} = rect;
    for (let e = element; e && e !== document.body; e = e.parentElement) {
      const style = getComputedStyle(e);
      if (style.overflow === "visible") continue;
      const box = e.getBoundingClientRect();
      left = Math.max(left, box.left); right = Math.min(right, box.right);
      top = Math.max(top, box.top); bottom = Math.min(bottom, box.bottom);
    }
    return {left, top, right, bottom};
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (texts.nextNode()) {
    const node = texts.currentNode, element = node.parentElement;
    const seen = element.checkVisibility({opacityProperty: true, visibilityProperty: true});
    if (!node.data.trim() || !seen || element.closest("script, style, title, noscript")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const rect of range.getClientRects()) {
      const part = clip(rect, element);
      if (part.right - part.left > 1 && part.bottom - part.top > 1) {
        found.push({...part, element, text: node.data.trim().slice(0, 60)});
      }
    }
  }
  found.sort((a, b) => a.top - b.top);
  const overlaps = [];
  for (let i = 0; i < found.length; i++) {
    for (let j = i + 1; j < found.length && found[j].top < found[i].bottom; j++) {
      const [a, b] = [found[i], found[j]];
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      // Lines touch: their boxes are higher than their letters.
      const most = 0.35 * Math.min(a.bottom - a.top, b.bottom - b.top);
      if (a.element !== b.element && wide > 1 && high > most) overlaps.push([a.text, b.text]);
    }
  }
  return overlaps.slice(0, 10);
}
"""


class OpenedPage:
    """A page, and what it did so far that no page may do.

    Attributes:
        page: playwright's.
        complaints: errors on the console, exceptions, and requests to anywhere.
    """

    def __init__(self, page, path):
        self.page = page
        self.complaints = []
        own = path.as_uri()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        page.on("request", lambda request: self._request(request.url, own))
        page.goto(own)

    def _console(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _request(self, url, own):
        if url != own and not url.startswith("data:"):
            self.complaints.append(f"request: {url[:200]}")

    def settle(self):
        """Waits until all that is drawn later has been drawn."""
        self.page.wait_for_function("() => !document.querySelector('[aria-busy=true]')")
        self.page.evaluate("() => new Promise(done => setTimeout(done, 150))")

    def check(self):
        """Nothing was complained of, no text lies on another, nothing sticks out sideways."""
        self.settle()
        assert self.complaints == []
        assert self.page.evaluate(_OVERLAPS) == []
        wide = self.page.evaluate("() => document.scrollingElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{wide} pixels too wide"


class Browser:
    """A browser that opens pages from files."""

    def __init__(self, browser):
        self._browser = browser

    @contextmanager
    def opened(self, path, *, width=1440, height=900, dark=False):
        """An `OpenedPage`, closed in the end; nothing can be reached from it."""
        context = self._browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            offline=True,
        )
        try:
            yield OpenedPage(context.new_page(), path)
        finally:
            context.close()


@pytest.fixture(scope="session")
def browser():
    """A `Browser`; skips where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = os.environ.get("ADDER_ONNX_CHROMIUM") or next(
        filter(None, map(shutil.which, _NAMES)), None
    )
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(_NAMES)} is installed")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield Browser(started)
        started.close()
