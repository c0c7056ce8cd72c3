"""What all pages share: one HTML file with styles, scripts and data inside."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

__all__ = ["LIBRARIES", "render"]

LIBRARIES = {
    "d3": ("d3.min.js", "d3.LICENSE"),
    "plot": ("plot.umd.min.js", "plot.LICENSE"),
    "dagre": ("dagre.min.js", "dagre.LICENSE"),
}
"""Libraries that a page may ask for: code and licence in ``assets/vendor/``.

``plot`` needs ``d3`` before it.
"""

_SOURCE_MAP = re.compile(r"^//# sourceMappingURL=.*$", re.MULTILINE)

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="adder-onnx">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main></main>
<noscript>This page is drawn by its scripts, which the browser does not run.</noscript>
<script type="application/json" id="data">{data}</script>
{scripts}
</body>
</html>
"""


def render(
    title: str, data: object, *, scripts: Sequence[str], libraries: Sequence[str] = ()
) -> str:
    """A page.

    Args:
        title: of the page; any text.
        data: what its scripts draw, which find it as ``adder.data``: what JSON can hold, without
            infinities and NaN. Texts in it may be anything.
        scripts: of the page itself, as paths in ``assets/``, run in this order after ``base.js``. A
            style sheet beside a script, with the same name, comes along.
        libraries: keys of `LIBRARIES`.

    Returns:
        The HTML, to be written as UTF-8.

    Raises:
        ValueError: the data hold a number that JSON has not.
    """
    code = [_library(name) for name in libraries]
    code += [_asset(name) for name in ("base.js", *scripts)]
    styles = [_asset("base.css")]
    styles += [_asset(name) for name in map(_style_of, scripts) if _exists(name)]
    sources = " ".join(f"'sha256-{_hash(text)}'" for text in code)
    policy = (
        f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    # Without "<", the data can neither end their element nor begin a comment in it.
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return _PAGE.format(
        policy=policy,
        title=html.escape(title.encode("utf-8", "replace").decode()),
        style="\n".join(styles),
        data=text,
        scripts="\n".join(f"<script>{text}</script>" for text in code),
    )


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _style_of(script: str) -> str:
    return script.removesuffix(".js") + ".css"


def _library(name: str) -> str:
    code, licence = LIBRARIES[name]
    # Who copies a page copies the library, and its licence asks to come along.
    return f"/*\n{_asset(f'vendor/{licence}')}*/\n" + _SOURCE_MAP.sub("", _asset(f"vendor/{code}"))


def _exists(name: str) -> bool:
    return files(__package__).joinpath("assets", *name.split("/")).is_file()


@cache
def _asset(name: str) -> str:
    return files(__package__).joinpath("assets", *name.split("/")).read_text("utf-8")
