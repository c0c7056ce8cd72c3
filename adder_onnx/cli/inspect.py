"""``adder-inspect``: what a model's graph costs, where it runs, and how long it takes."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from adder_onnx.cli._command import (
    add_arithmetic_option,
    add_dim_option,
    check_outputs,
    file_path,
    make_parser,
    positive,
    run_command,
    write_json,
)
from adder_onnx.cli._difference import (
    add_difference_options,
    check_difference_options,
    print_difference,
)
from adder_onnx.cli._progress import phases, progress_bar
from adder_onnx.errors import AdderError
from adder_onnx.files import check_writable, write_atomically
from adder_onnx.inspection.inputs import random_feed
from adder_onnx.inspection.json_report import to_json
from adder_onnx.inspection.model_explorer import COUNTS, TIMES, node_data
from adder_onnx.inspection.profile import Profile, profile
from adder_onnx.inspection.report import Report, inspect_model
from adder_onnx.inspection.tables import SORT_KEYS, print_report
from adder_onnx.inspection.trace import trace
from adder_onnx.pages.network import network_page
from adder_onnx.runtime import InferenceSession
from adder_onnx.runtime.devices import DeviceChoice, device_number, resolve_device

__all__ = ["main"]

_RUNS = 30
_PIPED_WIDTH = 160

_EXAMPLES = """\
  adder-inspect resnet20.onnx
  adder-inspect resnet50.onnx --batch-size 8 --sort taps --op AdderConv
  adder-inspect resnet20.onnx --profile --html resnet20.html
  adder-inspect resnet20.onnx --profile --threads 1 --trace trace.json
  adder-inspect resnet20.onnx --profile --model-explorer times.json
  adder-inspect segmenter.onnx --dim height=512 --dim width=512 --json -
  adder-inspect resnet20.onnx --diff resnet20_int8.onnx --data cifar-10-batches-py
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = make_parser(
        "adder-inspect",
        "Shows what each node of an ONNX model costs, how a plan executes them, with --profile how "
        "long it takes, and with --diff how another model differs.",
        _EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL.onnx", type=file_path)
    parser.add_argument(
        "--batch-size", metavar="N", type=positive, default=1, help="images that are assumed (1)"
    )
    add_dim_option(parser)
    parser.add_argument(
        "--device", default="auto", help="that the plan is for: cpu, cuda, cuda:N or auto (auto)"
    )
    parser.add_argument(
        "--threads", metavar="N", type=positive, help="that a run may use (all cores)"
    )
    add_arithmetic_option(parser)
    parser.add_argument("--sort", choices=SORT_KEYS, default="order", help="of the nodes (order)")
    parser.add_argument(
        "--op", metavar="OP", action="append", default=[], help="show nodes of this operator only"
    )
    parser.add_argument(
        "--html",
        metavar="FILE",
        type=file_path,
        help="write a page that shows the graph, what nodes cost and, with --profile, their times; "
        "with --diff, how the models differ",
    )
    parser.add_argument("--profile", action="store_true", help="time steps and adder nodes")
    parser.add_argument(
        "--runs", metavar="N", type=positive, default=_RUNS, help=f"for --profile ({_RUNS})"
    )
    parser.add_argument(
        "--trace",
        metavar="FILE",
        type=file_path,
        help="write the runs of --profile for Perfetto (ui.perfetto.dev) or chrome://tracing",
    )
    parser.add_argument(
        "--model-explorer",
        metavar="FILE",
        type=file_path,
        help="write taps, or with --profile times, as node data for Model Explorer, and the other "
        "metrics beside it: FILE.json, FILE.bytes.json, …",
    )
    add_difference_options(parser)
    return run_command(parser, _run, argv)


def _run(options: argparse.Namespace) -> None:
    check_difference_options(options)
    _check_files(options)
    if options.diff is not None:
        print_difference(options, _width())
        return
    if options.trace is not None and not options.profile:
        raise AdderError("--trace shows the runs of --profile: give that, too")
    if options.sort == "time" and not options.profile:
        raise AdderError("--sort time needs times: give --profile, too")
    # A plan for a GPU can be looked at without one; only running needs it.
    if options.profile or options.device == "auto":
        device = resolve_device(options.device)
    else:
        device = DeviceChoice(device_number(options.device))
    with phases("loading the model"):
        report = inspect_model(
            options.model,
            batch_size=options.batch_size,
            dims=dict(options.dim),
            device=device.kind,
            threads=options.threads,
        )
    _check_ops(options.op, report)
    found = _profile(options, report, device.name) if options.profile else None
    with phases("writing files"):
        result = to_json(str(options.model), report, found)
        if options.model_explorer is not None:
            metrics = node_data(report, found)
            for key, place in _node_data_places(options.model_explorer, options.profile).items():
                write_atomically(place, json.dumps(metrics[key], indent=1).encode())
        if options.html is not None:
            write_atomically(options.html, network_page(result).encode())
    if options.json:
        write_json(options.json, result)
    if options.json != "-":
        console = Console(width=_width(), highlight=False)
        print_report(console, str(options.model), report, found, sort=options.sort, ops=options.op)


def _check_files(options: argparse.Namespace) -> None:
    outputs = {"--trace": options.trace, "--html": options.html}
    if options.model_explorer is not None:
        check_writable(options.model_explorer)  # which has a name, then
        places = _node_data_places(options.model_explorer, options.profile).values()
        outputs |= {f"--model-explorer, {place.name}:": place for place in places}
    inputs = {"the model": options.model, "B": options.diff, "the data": options.data}
    check_outputs(options, outputs, inputs)


def _check_ops(ops: Sequence[str], report: Report) -> None:
    known = {node.op for node in report.nodes} | {n.op.rpartition(".")[2] for n in report.nodes}
    for op in ops:
        if op not in known:
            raise AdderError(
                f"the model has no {op}; its operators are "
                f"{', '.join(sorted({n.op.rpartition('.')[2] for n in report.nodes}))}"
            )


def _profile(options: argparse.Namespace, report: Report, device: str) -> Profile:
    with phases("making a session"):
        session = InferenceSession(
            report.model,
            device=device,
            threads=options.threads,
            arithmetic=options.arithmetic,
        )
    feed = random_feed(session.get_inputs())
    with progress_bar("runs", options.runs) as advance:
        found = profile(session, report, feed, options.runs, advance)
    if options.trace is not None:
        text = json.dumps(trace(found, session.plan.steps))
        write_atomically(options.trace, text.encode())
    return found


def _node_data_places(path: Path, profiled: bool) -> dict[str, Path]:
    """Where each metric goes, of which a file holds one: the first to the path, others beside."""
    first, *others = (*(TIMES if profiled else ()), *COUNTS)
    return {first: path} | {key: path.with_suffix(f".{key}{path.suffix}") for key in others}


def _width() -> int:
    """The terminal's; COLUMNS, or enough for most names, where there is none."""
    return shutil.get_terminal_size((_PIPED_WIDTH, 50)).columns


if __name__ == "__main__":
    sys.exit(main())
