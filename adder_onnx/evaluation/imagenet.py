"""The 1000 classes of ILSVRC2012: their WordNet ids, their numbers and their names."""

from __future__ import annotations

import functools
import importlib.resources
import re
from dataclasses import dataclass

__all__ = ["CLASSES", "Synset", "is_wordnet_id", "kit_order", "synsets", "wordnet_ids"]

CLASSES = 1000

_TABLE = "ilsvrc2012.txt"
_WORDNET_ID = re.compile(r"(?<![0-9A-Za-z])n[0-9]{8}(?![0-9A-Za-z])")


@dataclass(frozen=True)
class Synset:
    """A class of ILSVRC2012.

    Attributes:
        id: its WordNet id, for example ``n01440764``.
        number: its place among all ids in sorted order, which is how networks number it, from 0.
        kit_number: its ILSVRC2012_ID in the challenge's development kit, from 1.
        names: what WordNet calls it, for example ``tench`` and ``Tinca tinca``.
    """

    id: str
    number: int
    kit_number: int
    names: tuple[str, ...]


def is_wordnet_id(name: str) -> bool:
    """Whether a name is the WordNet id of a noun, as ImageNet's folders are called."""
    return _WORDNET_ID.fullmatch(name) is not None


def wordnet_ids(name: str) -> list[str]:
    """The WordNet ids in a name, such as ``n02085620-Chihuahua``."""
    return _WORDNET_ID.findall(name)


@functools.cache
def synsets() -> dict[str, Synset]:
    """The classes by WordNet id, in sorted order."""
    table = importlib.resources.files("adder_onnx.evaluation").joinpath(_TABLE)
    rows = [
        line.split("\t")
        for line in table.read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    return {
        id: Synset(id, number, int(kit_number), tuple(names.split(", ")))
        for number, (id, kit_number, names) in enumerate(rows)
    }


@functools.cache
def kit_order() -> tuple[str, ...]:
    """The WordNet ids in the order of the development kit: the first has the ILSVRC2012_ID 1."""
    return tuple(sorted(synsets(), key=lambda id: synsets()[id].kit_number))
