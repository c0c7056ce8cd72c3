"""``adder-compile``: one node for each chain, for a stock onnxruntime with our library."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import EncodeError

from adder_onnx.cli._command import (
    add_dim_option,
    check_outputs,
    file_path,
    make_parser,
    positive,
    print_lines,
    run_command,
    write_json,
)
from adder_onnx.cli._progress import phases
from adder_onnx.compilation import Compiled, CompiledChain, compile_model
from adder_onnx.compilation.chain_file import chain_file
from adder_onnx.compilation.verification import Verification, verify
from adder_onnx.errors import AdderError, ModelError
from adder_onnx.files import check_writable, write_atomically
from adder_onnx.graph.loading import read_model

__all__ = ["main"]

_EXAMPLES = """\
  adder-compile resnet20.onnx resnet20_compiled.onnx
  adder-compile unet_int8.onnx compiled.onnx --dim height=256 --dim width=256
  adder-compile resnet20.onnx compiled.onnx --chains chains
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = make_parser(
        "adder-compile",
        "Makes one node of each chain of adder nodes, which a stock onnxruntime executes as fast "
        "as adder-run with the library of adder_onnx.get_library_path(), and slowly without.",
        _EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL.onnx", type=file_path)
    parser.add_argument("output", metavar="OUTPUT.onnx", type=file_path)
    parser.add_argument(
        "--chains",
        metavar="FOLDER",
        type=file_path,
        help="write each chain as a file of its own, too, for the C interface adder_onnx.h",
    )
    parser.add_argument(
        "--no-verify",
        action="store_true",
        help="do not compare the answers of both files on random inputs",
    )
    parser.add_argument(
        "--batch-size", metavar="N", type=positive, default=1, help="for the comparison (1)"
    )
    add_dim_option(parser)
    return run_command(parser, _run, argv)


def _run(options: argparse.Namespace) -> None:
    check_outputs(options, {"the output": options.output}, {"the model": options.model})
    with phases("loading the model") as begin:
        model = read_model(options.model)
        begin("compiling")
        compiled = compile_model(model)
        data = _serialized(compiled.model, options.output)
        files = _chain_files(options, compiled)
        verification = None
        if not options.no_verify:
            begin("comparing both files")
            verification = verify(model, compiled.model, options.batch_size, dict(options.dim))
        begin("writing")
        for path, content in files.items():
            write_atomically(path, content)
        write_atomically(options.output, data)
    summary = _summarize(options, compiled, len(data), verification)
    if options.json:
        write_json(options.json, summary)
    if options.json != "-":
        print_lines(_lines(summary))


def _serialized(model: onnx.ModelProto, path: Path) -> bytes:
    try:
        data: bytes = model.SerializeToString()
    except (EncodeError, ValueError) as error:
        raise ModelError(f"{path} would have 2 GiB or more, which protobuf cannot write") from error
    return data


def _chain_files(options: argparse.Namespace, compiled: Compiled) -> dict[Path, bytes]:
    """The contents of the files of chains, by their paths."""
    folder = options.chains
    if folder is None:
        return {}
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise AdderError(f"--chains {folder}: {error.strerror}") from error
    files = {
        folder / f"{chain.operator}.adder": chain_file(chain.description)
        for chain in compiled.chains
        if chain.description is not None
    }
    for path in files:
        check_writable(path)
    return files


def _summarize(
    options: argparse.Namespace,
    compiled: Compiled,
    size: int,
    verification: Verification | None,
) -> dict[str, Any]:
    return {
        "model": str(options.model),
        "output": str(options.output),
        "bytes": size,
        "chains": [_chain(chain) for chain in compiled.chains],
        "error": None if verification is None else verification.error,
        "verified_with": None if verification is None else verification.runtime,
    }


def _chain(chain: CompiledChain) -> dict[str, Any]:
    return {
        "operator": chain.operator,
        "nodes": list(chain.nodes),
        "inputs": list(chain.inputs),
        "outputs": list(chain.outputs),
        "has_kernel": chain.description is not None,
    }


def _lines(summary: dict[str, Any]) -> list[str]:
    lines = [
        f"{chain['operator']}: {len(chain['nodes'])} nodes, {chain['nodes'][0]} to "
        f"{chain['nodes'][-1]}"
        + ("" if chain["has_kernel"] else ", one by one: the library has no operator for them")
        for chain in summary["chains"]
    ]
    runtimes = {
        "library": "a stock onnxruntime with the library",
        "ours": "adder-onnx, since this one has no operators for other onnxruntimes",
        None: "",
    }
    lines.append(f"{summary['output']}: {summary['bytes']:,} bytes")
    if summary["error"] is not None:
        lines.append(
            f"largest difference from the model: {summary['error']:.1e} of the largest output, "
            f"in {runtimes[summary['verified_with']]}"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
