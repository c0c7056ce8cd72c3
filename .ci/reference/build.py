"""Builds the reference from the docstrings of what is public.

    python .ci/reference/build.py FOLDER

A warning of pdoc is an error, and so is a link within the pages to what is not there.
"""

from __future__ import annotations

import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

MODULES = (
    "adder_onnx",
    "adder_onnx.errors",
    "adder_onnx.memory",
    "adder_onnx.runtime",
    "adder_onnx.metadata",
    "adder_onnx.evaluation",
    "adder_onnx.quantization",
    "adder_onnx.compilation",
    "adder_onnx.inspection",
    "adder_onnx.inspection.profile",
    "adder_onnx.ray",
    "adder_onnx.ops",
    "adder_onnx.export",
    "adder_onnx.export.resnet",
)
"""What is public is in their ``__all__``."""

_HIDDEN = ("adder_onnx.export.adder_conv2d", "adder_onnx.quantization.quantize")
"""Modules that are called as what they have in them, which alone is public."""


def main(folder: Path) -> int:
    """Builds all pages; returns the exit status."""
    import pdoc

    import adder_onnx
    import adder_onnx.ray

    for module in (adder_onnx, adder_onnx.ray):
        for name in module.__all__:  # pdoc does not ask for what is imported when it is asked for
            getattr(module, name)
    pdoc.render.configure(
        docformat="google",
        show_source=False,
        template_directory=Path(__file__).parent,
        footer_text=f"adder-onnx {adder_onnx.__version__}",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdoc.pdoc(*MODULES, *(f"!{name}$" for name in _HIDDEN), output_directory=folder)
    broken = broken_links(folder)
    for link in broken:
        print(link, file=sys.stderr)
    return 1 if broken else 0


def broken_links(folder: Path) -> list[str]:
    """Links between pages whose target is not there, as ``page: link``."""
    pages = {path: _Page(path) for path in sorted(folder.rglob("*.html"))}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            name, place = urldefrag(unquote(link))
            if ":" in name:
                continue
            target = pages.get((path.parent / name).resolve() if name else path)
            if target is None or (place and place not in target.places):
                broken.append(f"{path.relative_to(folder)}: {link}")
    return broken


class _Page(HTMLParser):
    """The links of a page, and the places that links may lead to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key == "href" and tag == "a" and value:
                self.links.append(value)
            elif key in ("id", "name") and value:
                self.places.add(value)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
