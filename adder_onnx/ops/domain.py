"""The name and version of the operator set."""

from __future__ import annotations

__all__ = ["DOMAIN", "VERSION"]

DOMAIN = "ai.addernet"
VERSION = 1
