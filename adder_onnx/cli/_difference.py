"""``adder-inspect A.onnx --diff B.onnx``: how two models differ."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from adder_onnx.cli._command import (
    file_path,
    non_negative,
    not_negative_number,
    positive,
    write_json,
)
from adder_onnx.cli._progress import phases, progress_of_unknown
from adder_onnx.errors import AdderError, InputError, ModelError
from adder_onnx.evaluation import FORMATS, SPLITS, load_inputs, open_dataset
from adder_onnx.evaluation.network import Network
from adder_onnx.evaluation.outputs import Classified, choose_output
from adder_onnx.files import write_atomically
from adder_onnx.inspection.difference import (
    Answers,
    Comparison,
    Values,
    compare_models,
    compare_values,
    print_comparison,
    to_json,
)
from adder_onnx.pages.difference import difference_page
from adder_onnx.runtime import InferenceSession
from adder_onnx.runtime.devices import resolve_device

__all__ = ["add_difference_options", "check_difference_options", "print_difference"]

_LIMIT = 32
_THRESHOLD = 20.0


def add_difference_options(parser: argparse.ArgumentParser) -> None:
    """Adds --diff and what belongs to it."""
    group = parser.add_argument_group("to compare two models")
    group.add_argument(
        "--diff",
        metavar="B.onnx",
        type=file_path,
        help="show how this model differs from the first",
    )
    group.add_argument(
        "--data",
        metavar="PATH",
        type=file_path,
        help="run both on the same images, as for adder-run, and compare the values inside",
    )
    group.add_argument("--format", choices=FORMATS, default="auto", help="of the data (auto)")
    group.add_argument(
        "--split", choices=SPLITS, default="auto", help="of the data (test or val, if there is one)"
    )
    group.add_argument(
        "--limit",
        metavar="N",
        type=positive,
        default=_LIMIT,
        help=f"images that are used, evenly spaced over the data ({_LIMIT})",
    )
    group.add_argument("--first", action="store_true", help="take the first images instead")
    group.add_argument(
        "--skip", metavar="N", type=non_negative, default=0, help="leave out the first N images"
    )
    group.add_argument(
        "--threshold",
        metavar="DB",
        type=not_negative_number,
        default=_THRESHOLD,
        help="point out the first value whose signal-to-noise ratio is below this "
        f"({_THRESHOLD:g})",
    )


def check_difference_options(options: argparse.Namespace) -> None:
    """Looks at options that do not go together.

    Raises:
        AdderError: there are some.
    """
    if options.diff is None:
        for name in ("data", "first", "skip"):
            if getattr(options, name):
                raise AdderError(f"--{name} belongs to --diff B.onnx: give that, too")
        return
    one_model = ("profile", "trace", "model_explorer", "op")
    given = [f"--{name.replace('_', '-')}" for name in one_model if getattr(options, name)]
    given += ["--sort"] * (options.sort != "order")
    if given:
        raise AdderError(f"{given[0]} shows one model: leave it out, or --diff")


def print_difference(options: argparse.Namespace, width: int) -> None:
    """Compares the models and says how they differ, in all forms that are asked for."""
    names = str(options.model), str(options.diff)
    with phases("comparing the graphs"):
        comparison = compare_models(
            options.model, options.diff, batch_size=options.batch_size, dims=dict(options.dim)
        )
    data, values = (None, None) if options.data is None else _run(options, comparison)
    result = to_json(*names, comparison, values, threshold=options.threshold, data=data)
    if options.json:
        write_json(options.json, result)
    if options.html is not None:
        write_atomically(options.html, difference_page(result).encode())
    if options.json != "-":
        text = "" if data is None else _describe(data)
        console = Console(width=width, highlight=False)
        print_comparison(
            console, *names, comparison, values, threshold=options.threshold, data=text
        )


def _run(options: argparse.Namespace, comparison: Comparison) -> tuple[dict[str, Any], Values]:
    sides = comparison.a, comparison.b
    with ExitStack() as stack:
        sessions = [
            stack.enter_context(InferenceSession(side.proto, threads=options.threads))
            for side in sides
        ]
        networks = [Network(session) for session in sessions]
        images = _Images(options, sessions[0], networks)
        answers = _answers(sessions, networks)
    with progress_of_unknown("images", images.dataset.images) as progress:
        values = compare_values(
            comparison,
            images.feeds,
            answers=answers,
            device=resolve_device(options.device).name,
            threads=options.threads,
            arithmetic=options.arithmetic,
            progress=lambda done, turns: progress(done, turns * images.dataset.images, "images"),
        )
    how = images.preprocessing
    data = {
        "dataset": images.dataset.description,
        "images": values.inputs,
        "preprocessing": None if how is None else {"of": images.preprocessing_of, **asdict(how)},
    }
    return data, values


class _Images:
    """The images that both models run on.

    Attributes:
        dataset: as many as are used.
        preprocessing: how they become inputs of both; None where the data are arrays.
        preprocessing_of: the model that says so: ``A``, or ``B`` where A does not say it.
    """

    def __init__(
        self, options: argparse.Namespace, session: InferenceSession, networks: list[Network]
    ) -> None:
        says = [network.metadata.preprocessing is not None for network in networks]
        self.preprocessing_of = "B" if says == [False, True] else "A"
        source = networks["AB".index(self.preprocessing_of)]
        self._network, self._size = networks[0], _batch_size(options.batch_size, networks)
        dataset = open_dataset(
            options.data,
            options.format,
            options.split,
            session.get_inputs(),
            source.metadata.preprocessing,
        )
        if not dataset.arrays:
            self._network.check_takes_images()
        self.preprocessing = None if dataset.arrays else source.preprocessing()
        dataset = dataset.skip(options.skip)
        # Whole batches only: what fills one up would be counted, too.
        count = max(min(options.limit, dataset.images) // self._size, 1) * self._size
        self.dataset = dataset.first(count) if options.first else dataset.limit(count)

    def feeds(self) -> Iterator[dict[str, NDArray[Any]]]:
        """Batches of inputs, by the names that A has for them."""
        for start in range(0, self.dataset.images, self._size):
            numbers = range(start, min(start + self._size, self.dataset.images))
            samples = [load_inputs(self.dataset, i, self.preprocessing) for i in numbers]
            if self._network.batch_size is not None:
                samples += [samples[-1]] * (self._size - len(samples))
            yield self._network.feed([np.stack(values) for values in zip(*samples, strict=True)])


def _batch_size(wanted: int, networks: list[Network]) -> int:
    fixed = [network.batch_size for network in networks if network.batch_size is not None]
    if len(set(fixed)) > 1:
        raise InputError(
            f"A takes batches of {fixed[0]} only, and B of {fixed[1]}: they cannot run on the "
            "same data"
        )
    return fixed[0] if fixed else wanted


def _answers(sessions: list[InferenceSession], networks: list[Network]) -> Answers | None:
    """What says the classes, where both models have an output that does, of as many classes."""
    try:
        a, b = (
            choose_output(session, network.metadata.labels)
            for session, network in zip(sessions, networks, strict=True)
        )
    except ModelError:  # a model need not tell classes
        return None
    if a.classes != b.classes:
        return None
    return Answers(a.name, b.name, partial(_classes, a), partial(_classes, b))


def _classes(classified: Classified, output: NDArray[Any]) -> NDArray[np.int64]:
    """The number of the class of each row of an output."""
    rows = output.reshape(len(output), -1)
    numbers = rows[:, 0] if classified.kind == "class numbers" else rows.argmax(axis=1)
    return numbers.astype(np.int64)


def _describe(data: dict[str, Any]) -> str:
    dataset, how = str(data["dataset"]), data["preprocessing"]
    return dataset + ("" if how is None else f", preprocessed as {how['of']} says")
