"""The file of ``--class-map``, which says what the classes of a data set are in a model.

It has one of these forms:

* two columns, the name of a class of the data set, then the model's class, by number from 0 or by
  label, separated by tabs, semicolons, commas or white space, with a header or without;
* one column: the data set's names in the order of the model's numbers, one for each of these;
* ImageNet's ``LOC_synset_mapping.txt``, a WordNet id and the names of a class in each line: as many
  lines as the model has classes, in the order of its numbers;
* JSON: an object from names to numbers or labels, as ``class_to_idx`` of torchvision, or from
  numbers to names, as ``imagenet_class_index.json``, or an array of names in the model's order.

The file may say more than the data set has, but nothing twice.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adder_onnx.errors import DataError
from adder_onnx.evaluation.class_names import match_names, normalized
from adder_onnx.evaluation.classes import Classes, quoted
from adder_onnx.evaluation.text_files import Row, read_lines, read_text, split_columns

__all__ = ["read_class_map"]

_LONGEST_LABEL = 10_000
_INTEGER = re.compile(r"[0-9]{1,18}")
_SYNSET_LINE = re.compile(r"(n[0-9]{8})\s+(?![0-9]+$)(\S.*)")


@dataclass(frozen=True)
class _Entry:
    """What the file says of a name.

    Attributes:
        place: where it says so, for messages.
        value: the model's class: its number, or what may be a number or a label.
    """

    place: str
    value: int | str


_Entries = dict[str, list[_Entry]]


def read_class_map(path: Path, names: Sequence[str], model: Classes) -> list[int]:
    """The model's number for each class of a data set.

    Args:
        path: the file.
        names: of the classes.
        model: its classes.

    Raises:
        DataError: the file cannot be read, says something twice or of a class that the model does
            not have, leaves a class out, or makes two of them one.
    """
    entries = _read(path, names, model)
    by_key = defaultdict(set)
    for name in entries:
        by_key[normalized(name)].add(name)
    numbers: list[int] = []
    by_number: dict[int, str] = {}
    missing = []
    for name in names:
        alike = by_key[normalized(name)]
        said = entries.get(name) or (entries[min(alike)] if len(alike) == 1 else [])
        found = {_number(path, entry, model) for entry in said}
        if not found:
            missing.append(name)
            continue
        if len(found) > 1:
            raise DataError(
                f"{path} has several classes called {name!r}: {said[0].place} and {said[1].place}"
            )
        number = found.pop()
        if number in by_number:
            raise DataError(
                f"{path}, {said[0].place}: {name!r} is the model's class {number}, and so is "
                f"{by_number[number]!r}"
            )
        by_number[number] = name
        numbers.append(number)
    if missing:
        raise DataError(f"{path} does not say what the classes {quoted(missing)} are")
    return numbers


def _read(path: Path, names: Sequence[str], model: Classes) -> _Entries:
    text = read_text(path)
    if text.lstrip()[:1] in ("{", "["):
        return _from_json(path, text, names, model)
    lines = read_lines(path)
    synsets = [match for line in lines if (match := _SYNSET_LINE.fullmatch(line.text))]
    if len(lines) == len(synsets) == model.count:
        return _several(
            (i, f"line {line.number}", [match[1], *match[2].split(",")])
            for i, (line, match) in enumerate(zip(lines, synsets, strict=True))
        )
    if len(lines) == len(synsets):
        rows = [Row(line.number, m.groups()) for line, m in zip(lines, synsets, strict=True)]
    else:
        rows = split_columns(path, lines)
    texts = [line.text for line in lines]
    if set(names) <= set(texts) or all(len(row.fields) == 1 for row in rows):
        return _in_order(path, texts, [f"line {line.number}" for line in lines], model)
    entries: _Entries = {}
    for row in rows:
        place = f"line {row.number}"
        if len(row.fields) != 2:
            raise DataError(
                f"{path}, {place}: expected two columns, the data set's name of a class and the "
                f"model's number or label; found {len(row.fields)}"
            )
        name, value = row.fields
        _add(path, entries, name, _Entry(place, value))
        if _INTEGER.fullmatch(value):
            _number(path, entries[name][0], model)
    return entries


def _from_json(path: Path, text: str, names: Sequence[str], model: Classes) -> _Entries:
    try:
        pairs = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(pairs, _Pairs):
        if not all(isinstance(name, str) for name in pairs):
            raise DataError(f"{path}: expected an array of names, or an object")
        return _in_order(path, pairs, [f"entry {i}" for i in range(len(pairs))], model)
    values = [value for _, value in pairs]
    lists = any(isinstance(value, list) for value in values)
    keys = {key for key, _ in pairs}
    texts = all(isinstance(value, str) for value in values)
    if lists or (texts and all(map(_INTEGER.fullmatch, keys)) and not keys & set(names)):
        return _several(_names_of(path, key, value, model) for key, value in pairs)
    entries: _Entries = {}
    for key, value in pairs:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise DataError(
                f"{path}, {key!r}: expected the number of a class, or its label; found {value!r}"
            )
        _add(path, entries, key, _Entry(repr(key), value))
        if isinstance(value, int):
            _number(path, entries[key][0], model)
    return entries


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with all its keys, also those that it has twice."""


def _names_of(path: Path, key: str, value: Any, model: Classes) -> tuple[int, str, Sequence[str]]:
    """A class of the model and what it is called: ``"0": ["n01440764", "tench"]``."""
    names = value if isinstance(value, list) else [value]
    if not _INTEGER.fullmatch(key) or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"{path}, {key!r}: expected names of the data set's classes as keys and the model's "
            "numbers or labels as values, or numbers as keys and names as values"
        )
    return _number(path, _Entry(repr(key), int(key)), model), repr(key), names


def _several(classes: Iterable[tuple[int, str, Sequence[str]]]) -> _Entries:
    """Entries of classes that have several names, and may share some of them."""
    entries: _Entries = {}
    for number, place, names in classes:
        for name in names:
            entries.setdefault(name.strip(), []).append(_Entry(place, number))
    return entries


def _in_order(path: Path, names: Sequence[str], places: Sequence[str], model: Classes) -> _Entries:
    if len(names) != model.count:
        raise DataError(
            f"{path} has {len(names)} names; expected one for each of the model's {model.count} "
            "classes, or in a second column the model's class"
        )
    entries: _Entries = {}
    for number, (name, place) in enumerate(zip(names, places, strict=True)):
        _add(path, entries, name, _Entry(place, number))
    return entries


def _add(path: Path, entries: _Entries, name: str, entry: _Entry) -> None:
    if name in entries:
        raise DataError(
            f"{path}, {entry.place}: {name!r} is there again, after {entries[name][0].place}"
        )
    entries[name] = [entry]


def _number(path: Path, entry: _Entry, model: Classes) -> int:
    """The number of the model's class that an entry names."""
    value, labels = entry.value, model.labels or ()
    place = f"{path}, {entry.place}"
    if isinstance(value, str) and len(value) > _LONGEST_LABEL:
        raise DataError(f"{place}: a label of {len(value)} characters")
    if isinstance(value, str) and not _INTEGER.fullmatch(value):
        found, ambiguous = match_names([value], labels)
        if ambiguous:
            raise DataError(
                f"{place}: {value!r} may be any of the model's classes "
                f"{', '.join(map(str, ambiguous[0]))}: give the number"
            )
        if not found:
            raise DataError(
                f"{place}: {value!r}, but the model has no "
                + (
                    f"such label: they are {quoted(labels)}"
                    if labels
                    else "labels: give its number"
                )
            )
        return found[0].label
    number = int(value)
    if not 0 <= number < model.count:
        raise DataError(f"{place}: {number}, but the model's classes are 0 to {model.count - 1}")
    if isinstance(value, str) and value in labels and labels[number] != value:
        raise DataError(
            f"{place}: {value!r} may be the model's class number {value} or its class of that "
            "label: say it by number in JSON"
        )
    return number
