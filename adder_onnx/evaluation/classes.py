"""Which of a model's classes are those of a data set.

The number of a class means something only together with the list that it counts, and a data set's
list is seldom the model's. These rules find the model's number for each class of a data set, or
refuse; nothing is guessed without saying so.

1. ``--class-map FILE`` says it, and wins (`class_map`).
2. Where the model has labels and the classes have names, they are matched by name, in the ways of
   `match_names`: each class that has images must mean one label, and no two the same. If one means
   none or several, the set is refused.
3. Names that are all WordNet ids of ILSVRC2012 have its numbers, which are their places in sorted
   order, in a model that counts so: one whose 1000 labels are named like them in that order, or
   one of 1000 classes without labels.
4. Labels that are 0, 1, 2, … in their places (or class_0, class_1, …) say only how many there are:
   if no class is called like one of them, it is as if the model had none.
5. Classes that are called by a number, or all alike but for a number, and not as any label, are
   taken in numeric order. If there are as many as the model has, they are these, whether counted
   from 0 or from 1; if fewer, there must be a 0, and the numbers are the model's. It is a guess
   where torchvision's ImageFolder, which sorts numbers as text (0, 1, 10, 2, …), would count
   otherwise, and where numbers are left out. Two of the same number (1 and 01) are refused. If the
   labels are alike but for a number as well, these numbers are matched.
6. Other names, where the model has no labels, are counted in sorted order, as ImageFolder does, if
   there are as many as the model has classes: a guess. With a model of 1000 classes, and names that
   are all of ILSVRC2012, the guess is that they have its numbers.
7. Numbers that a data set is published with (CIFAR's) are those of a model without labels that has
   as many classes; MNIST's, whose classes are called 0 to 9, also of a model with other labels,
   since other data sets come in its files.
8. Numbers without names (in arrays, in lists) are the model's. They must be below its number of
   classes. If they could be its labels as well, and these are numbers in other places, they are
   refused.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from adder_onnx.errors import DataError
from adder_onnx.evaluation.class_names import EXACT, Numbering, match_names, numbering
from adder_onnx.evaluation.imagenet import CLASSES, synsets, wordnet_ids

__all__ = ["Classes", "Matching", "match_classes", "match_numbers", "quoted"]

_SHOWN = 8
_WIDEST = 60
_DIGITS = re.compile(r"[0-9]{1,9}\Z")
_ADVICE = "--class-map FILE says which is which"


@dataclass(frozen=True)
class Classes:
    """The classes that a model tells apart.

    Attributes:
        count: how many.
        labels: a name for each, if the model says them.
    """

    count: int
    labels: Sequence[str] | None


@dataclass(frozen=True)
class Matching:
    """How a data set's classes were found among a model's.

    Attributes:
        how: for people, such as ``by name``.
        guess: whether it may be wrong.
    """

    how: str
    guess: bool = False


_Matched = tuple[dict[int, int], Matching]
"""The model's number for each class that has images, by its number, and how it was found."""


def match_classes(
    what: str, names: Sequence[str], used: Collection[int], model: Classes, *, published: bool
) -> _Matched:
    """The model's numbers for classes with names, by rules 2 to 7.

    Args:
        what: the data set, for messages.
        names: of its classes, in the order of its own numbers.
        used: the numbers that occur.
        model: its classes.
        published: whether the data set comes with those numbers, which otherwise only count the
            names.

    Raises:
        DataError: the rules do not tell.
    """
    if len(used) > model.count:
        raise DataError(f"{what} has images of {len(used)} classes, the model only {model.count}")
    known = synsets()
    ids = [own[0] if len(own) == 1 else "" for own in map(wordnet_ids, names)]
    if all(id in known for id in ids) and len(set(ids)) == len(ids) and _counts_imagenet(model):
        how = "by WordNet id, in the order of ILSVRC2012"
        return {i: known[ids[i]].number for i in used}, Matching(how)
    labels = model.labels
    matched = None if labels is None else _by_name(what, names, used, labels)
    if matched is not None:
        return matched
    unlabelled = labels is None or _only_count(labels)
    numbers = None if all(ids) else numbering(names)
    others = None if labels is None or unlabelled else numbering(labels)
    if numbers is not None and numbers.bare and others is not None and others.bare:
        return _by_numbers_of_both(what, names, used, numbers, labels or (), others)
    if not published and numbers is not None and (unlabelled or numbers.bare):
        return _by_numbers(what, names, numbers, model)
    digits = numbers is not None and numbers == Numbering(tuple(range(len(names))), bare=True)
    if labels is not None and not unlabelled and not digits:
        raise DataError(_unmatched(what, [names[i] for i in sorted(used)], labels))
    if published and len(names) == model.count:
        return {i: i for i in used}, Matching("by number")
    if not published and model.count == CLASSES and not all(ids):
        found, _ = match_names(names, [", ".join(synset.names) for synset in known.values()])
        if len(found) == len({match.label for match in found.values()}) == len(names):
            how = "by the names of ILSVRC2012, whose order the model is taken to have"
            return {i: found[i].label for i in used}, Matching(how, guess=True)
    if published or len(names) != model.count:
        raise DataError(
            f"{what} has {len(names)} classes and the model {model.count}, and "
            + ("the model has no labels to match them by" if unlabelled else "other labels")
            + f": {_ADVICE}"
        )
    places = {name: place for place, name in enumerate(sorted(names))}
    how = "in sorted order, as torchvision's ImageFolder counts them"
    return {i: places[names[i]] for i in used}, Matching(how, guess=True)


def match_numbers(
    what: str, used: Collection[int], span: tuple[int, int], model: Classes
) -> Matching:
    """Checks by rule 8 that numbers without names are those of the model's classes.

    Args:
        what: the data set, for messages.
        used: the numbers that occur.
        span: the lowest and the highest number in the list that they come from.
        model: its classes.

    Raises:
        DataError: they are not, or may mean something else.
    """
    lowest, highest = span
    if highest >= model.count:
        message = (
            f"{what} has the label {highest}, but the model distinguishes {model.count} classes, "
            f"0 to {model.count - 1}"
        )
        if (lowest, highest) == (1, model.count):
            message += ": if these labels count from 1, subtract 1, or say so with --class-map FILE"
        raise DataError(message)
    labels = {int(label): i for i, label in enumerate(model.labels or ()) if _DIGITS.match(label)}
    elsewhere = [n for n in sorted(used) if labels.get(n, n) != n]
    if elsewhere and all(n in labels for n in used):
        n = elsewhere[0]
        raise DataError(
            f"{what} has the label {n}, which may be the model's class number {n} or its class "
            f"{str(n)!r}, which has the number {labels[n]}: {_ADVICE}"
        )
    return Matching("by number")


def quoted(names: Iterable[str]) -> str:
    """A list for a message, of a few names and how many more there are."""
    listed = list(names)
    shown = ", ".join(repr(textwrap.shorten(name, _WIDEST)) for name in listed[:_SHOWN])
    more = len(listed) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _counts_imagenet(model: Classes) -> bool:
    """Whether a model is taken to have the classes of ILSVRC2012 in sorted order.

    Labels are worded in many ways, and some wordings stand for two classes: half of the labels
    must be a name of the class in their place, and the others no name of any.
    """
    if model.count != CLASSES or model.labels is None or _only_count(model.labels):
        return model.count == CLASSES
    found, ambiguous = match_names(list(synsets()), model.labels)
    labels = {place: [match.label] for place, match in found.items()} | ambiguous
    in_place = {place for place, own in labels.items() if place in own}
    return 2 * len(in_place) >= CLASSES and all(in_place.issuperset(own) for own in labels.values())


def _only_count(labels: Sequence[str]) -> bool:
    found = numbering(labels)
    return found is not None and found.bare and found.numbers == tuple(range(len(labels)))


def _by_name(
    what: str, names: Sequence[str], used: Collection[int], labels: Sequence[str]
) -> _Matched | None:
    """Rule 2; None if no name means a label."""
    own = sorted(used)
    found, ambiguous = match_names([names[i] for i in own], labels)
    if not found and not ambiguous:
        return None
    for place, several in ambiguous.items():
        raise DataError(
            f"the class {names[own[place]]!r} of {what} may be any of the model's "
            f"{quoted(labels[label] for label in several)}, which have the numbers "
            f"{', '.join(map(str, several))}: {_ADVICE}"
        )
    missing = [names[i] for place, i in enumerate(own) if place not in found]
    if missing:
        raise DataError(_unmatched(what, missing, labels))
    by_label: dict[int, str] = {}
    for place, match in sorted(found.items()):
        name = names[own[place]]
        if match.label in by_label:
            raise DataError(
                f"the classes {by_label[match.label]!r} and {name!r} of {what} both are the "
                f"model's {labels[match.label]!r}: {_ADVICE}"
            )
        by_label[match.label] = name
    inferred = sorted(
        f"{by_label[match.label]} is {labels[match.label]}"
        for match in found.values()
        if match.tier > EXACT
    )
    how = "by name"
    if inferred:
        how += f" ({'; '.join(inferred[:3])}{'; …' if len(inferred) > 3 else ''})"
    return {own[place]: match.label for place, match in found.items()}, Matching(how)


def _unmatched(what: str, names: Sequence[str], labels: Sequence[str]) -> str:
    return (
        f"{what} has the classes {quoted(names)}, which the model does not have; its labels are "
        f"{quoted(labels)}: {_ADVICE}"
    )


def _by_numbers_of_both(
    what: str,
    names: Sequence[str],
    used: Collection[int],
    found: Numbering,
    labels: Sequence[str],
    others: Numbering,
) -> _Matched:
    """Rule 5 where labels, too, are alike but for a number, in other places: class_1, class_2, …"""
    places = {number: place for place, number in enumerate(others.numbers)}
    own = {found.numbers[i] for i in used}
    if len(places) < len(labels) or len(own) < len(used) or not own <= places.keys():
        raise DataError(_unmatched(what, [names[i] for i in sorted(used)], labels))
    result = {i: places[found.numbers[i]] for i in used}
    return result, Matching("by the numbers in names and labels")


def _by_numbers(what: str, names: Sequence[str], found: Numbering, model: Classes) -> _Matched:
    """Rule 5."""
    by_number: dict[int, str] = {}
    for name, number in zip(names, found.numbers, strict=True):
        if number in by_number:
            raise DataError(
                f"the classes {by_number[number]!r} and {name!r} of {what} have the same number: "
                f"{_ADVICE}"
            )
        by_number[number] = name
    ordered = sorted(by_number)
    if len(names) == model.count:
        result = {i: ordered.index(number) for i, number in enumerate(found.numbers)}
        left_out = ordered[0] > 1 or ordered[-1] - ordered[0] >= len(names)
        guess = left_out or [by_number[number] for number in ordered] != sorted(names)
    elif len(names) < model.count and ordered[0] == 0 and ordered[-1] < model.count:
        result = dict(enumerate(found.numbers))
        # Of all the model's classes, so called: with leading zeros, text sorts as numbers do.
        width = max(len(zeros) for zeros in re.findall("0+", by_number[0]))
        guess = width < len(str(model.count - 1))
    else:
        raise DataError(
            f"{what} has {len(names)} classes, {quoted(by_number[number] for number in ordered)}, "
            f"and the model {model.count}, which these numbers do not fit, or may count from 0 or "
            f"from 1: {_ADVICE}"
        )
    how = "by the numbers in their names"
    return result, Matching(f"{how}, in numeric order" if guess else how, guess)
