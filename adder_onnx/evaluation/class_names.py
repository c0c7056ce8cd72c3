"""When two names mean the same class, and what numbers stand in names."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from adder_onnx.evaluation.imagenet import synsets, wordnet_ids

__all__ = ["EXACT", "Match", "Numbering", "match_names", "normalized", "numbering"]

EXACT = 2
"""The last tier of `match_names` that takes nothing for granted."""

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

# As tutorials and neighbouring data sets call the classes of CIFAR-10, CIFAR-100 and Fashion-MNIST.
_SYNONYMS = (
    ("airplane", "plane", "aeroplane"),
    ("automobile", "car", "auto"),
    ("truck", "lorry"),
    ("bicycle", "bike"),
    ("motorcycle", "motorbike"),
    ("couch", "sofa"),
    ("television", "tv"),
    ("telephone", "phone"),
    ("tshirttop", "tshirt"),
)
_COMMON_NAME = {name: group[0] for group in _SYNONYMS for name in group}

_IRREGULAR = {
    "children": "child",
    "geese": "goose",
    "men": "man",
    "mice": "mouse",
    "people": "person",
    "women": "woman",
}
_SHORTEST = 3
_LONGEST = 255  # as file names are; patterns are not tried on what is longer

_ACCENTS = re.compile("[\u0300-\u036f]")
_SEPARATORS = re.compile(r"[\s_\-./,;:()'’]+")
_SPACE = re.compile(r"(?<!\d) | (?!\d)")
# Longer ones are no numbers of classes, and Python refuses to read very long ones.
_NUMBER = r"[0-9]{1,18}"
_PLAIN = re.compile(f"()({_NUMBER})")
_AFTER_PREFIX = re.compile(rf"(.*[^0-9])({_NUMBER})", re.DOTALL)
_LEADING = re.compile(rf"()({_NUMBER})[\s_\-.:)]+(.*[^\W\d].*)", re.DOTALL)


@dataclass(frozen=True)
class Match:
    """A label that a name means.

    Attributes:
        label: its place among the labels.
        tier: in which of the ways of `match_names` it was found.
    """

    label: int
    tier: int


def match_names(
    names: Sequence[str], labels: Sequence[str]
) -> tuple[dict[int, Match], dict[int, list[int]]]:
    """The labels that names mean, in the first of these ways that finds one:

    0. the same text;
    1. the same WordNet id in both, as in ``n01440764`` and ``n01440764 tench``;
    2. the same but for case, accents, spaces and punctuation: ``T-shirt`` and ``tshirt``;
    3. the same digit: ``7``, ``07``, ``seven`` and ``7 - seven``;
    4. one the plural of the other: ``Dogs`` and ``dog``;
    5. one among several names separated by commas, a numbering in front left out: ``tench`` and
       ``n01440764 tench, Tinca tinca``, ``001.Black_footed_Albatross`` and ``black footed
       albatross``;
    6. the usual synonyms of CIFAR's classes: ``plane`` and ``airplane``;
    7. a WordNet id of ILSVRC2012 and one of its names: ``n01440764`` and ``tench``.

    Each way from the second on includes those before it.

    Returns:
        The matches by place of the name, and, for the names that mean several labels, these.
    """
    found: dict[int, Match] = {}
    ambiguous: dict[int, list[int]] = {}
    name_keys, label_keys = _keys(names), _keys(labels)
    for tier in range(len(name_keys)):
        by_key = defaultdict(set)
        for label, keys in enumerate(label_keys[tier]):
            for key in keys:
                by_key[key].add(label)
        for i, keys in enumerate(name_keys[tier]):
            if i in found or i in ambiguous:
                continue
            hits = set().union(*(by_key.get(key, ()) for key in keys))
            if len(hits) == 1:
                found[i] = Match(hits.pop(), tier)
            elif hits:
                ambiguous[i] = sorted(hits)
    return found, ambiguous


def _keys(names: Sequence[str]) -> list[list[set[str]]]:
    """For each tier and name the keys one of which another name must share."""
    ids = [set(wordnet_ids(name)) for name in names]
    alone = _without_numbering(names)
    tiers: list[list[set[str]]] = [[{name} for name in names], ids]
    keys: list[set[str]] = [set() for _ in names]

    def add(more: Iterable[Iterable[str]]) -> None:
        for own, new in zip(keys, more, strict=True):
            own.update(key for key in new if key)
        tiers.append([set(own) for own in keys])

    add([normalized(name)] for name in names)
    add([f"#{number}"] if (number := _digit(name)) is not None else [] for name in names)
    add(_singulars(normalized(name)) for name in names)
    whole = [set(own) for own in keys]
    add(
        [key for part in _parts(name) for key in (normalized(part), *_singulars(normalized(part)))]
        for name in alone
    )
    # Of whole names only: ImageNet's "plane, carpenter's plane" is none that flies.
    add([_COMMON_NAME[key] for key in own if key in _COMMON_NAME] for own in whole)
    known = synsets()
    add([normalized(name) for id in own if id in known for name in known[id].names] for own in ids)
    return tiers


def normalized(name: str) -> str:
    """A name without case, accents, spaces and punctuation, but for a space between two digits."""
    text = _ACCENTS.sub("", unicodedata.normalize("NFKD", name)).casefold()
    return _SPACE.sub("", _SEPARATORS.sub(" ", text))


def _digit(name: str) -> int | None:
    """The number that a name is, in digits, as a word from zero to nine, or both."""
    text = normalized(name)
    if _PLAIN.fullmatch(text):
        return int(text)
    if text in _DIGITS:
        return _DIGITS.index(text)
    return int(text[0]) if text[:1].isdecimal() and text[1:] == _DIGITS[int(text[0])] else None


def _singulars(text: str) -> list[str]:
    """What a word may be the plural of."""
    found = [_IRREGULAR[text]] if text in _IRREGULAR else []
    for ending, others in (("ies", ["y"]), ("ves", ["f", "fe"]), ("es", [""]), ("s", [""])):
        if text.endswith(ending) and not text.endswith("ss"):
            stem = text[: -len(ending)]
            found += [stem + other for other in others if len(stem + other) >= _SHORTEST]
    return found


def _parts(name: str) -> list[str]:
    for id in wordnet_ids(name):
        name = name.replace(id, " ")
    return name.split(",")


def _without_numbering(names: Sequence[str]) -> list[str]:
    """Names without the numbers in front of all of them, if these only count the names."""
    matches = [_LEADING.fullmatch(name) for name in names if len(name) <= _LONGEST]
    rests = [match[3] for match in matches if match]
    numbers = {int(match[2]) for match in matches if match}
    counted = len(names) > 1 and len(numbers) == len(set(rests)) == len(names)
    return rests if counted else list(names)


@dataclass(frozen=True)
class Numbering:
    """Numbers that stand in all of some names.

    Attributes:
        numbers: for each name; may repeat.
        bare: whether there is nothing else in the names but, perhaps, what is in front of the
            number in all of them.
    """

    numbers: tuple[int, ...]
    bare: bool


def numbering(names: Sequence[str]) -> Numbering | None:
    """The numbers of names like ``7``, ``class_7`` (all alike but for it) or ``7_cat``, if any."""
    if any(len(name) > _LONGEST for name in names):
        return None
    for pattern in (_PLAIN, _AFTER_PREFIX, _LEADING):
        matches = [match for match in map(pattern.fullmatch, names) if match]
        alike = len({match[1] for match in matches}) == 1
        several = len(names) > 1 or pattern is _PLAIN
        if len(matches) == len(names) and alike and several:
            return Numbering(tuple(int(match[2]) for match in matches), pattern is not _LEADING)
    return None
