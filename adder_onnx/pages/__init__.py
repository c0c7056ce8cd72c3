"""Self-contained HTML pages: what a command found, drawn from its JSON and nothing else.

A page opens offline and makes no request. Its scripts are those of ``assets/`` and no others: what
they draw comes as JSON in which no markup can begin, they make elements by their text only, and a
Content-Security-Policy lets nothing run that is not named there by its hash.
"""

from adder_onnx.pages.shell import LIBRARIES, render

__all__ = ["LIBRARIES", "render"]
