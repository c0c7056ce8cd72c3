"""``adder-export``: a PyTorch checkpoint as ONNX."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from adder_onnx.cli._command import (
    comma_separated,
    make_parser,
    positive,
    run_command,
    write_json,
)
from adder_onnx.errors import DataError, ExportError
from adder_onnx.files import check_writable, write_atomically
from adder_onnx.metadata import (
    CIFAR10,
    CIFAR10_LABELS,
    IMAGENET,
    ModelMetadata,
    Preprocessing,
)
from adder_onnx.runtime import InferenceSession
from adder_onnx.runtime.onnxruntime_step import import_onnxruntime

if TYPE_CHECKING:
    from adder_onnx.export.resnet import ResNetConfig
    from adder_onnx.export.verification import Verification

__all__ = ["main"]

_EXAMPLES = """\
  adder-export resnet20.pth resnet20.onnx
  adder-export checkpoint.pth model.onnx --arch resnet50 --labels imagenet_classes.txt
  adder-export digits.pth digits.onnx --input-shape 1,8,8 --mean 0.3 --std 0.38
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = make_parser(
        "adder-export",
        "Writes a trained AdderNet as ONNX with AdderConv nodes, after comparing the file with "
        "PyTorch.",
        _EXAMPLES,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path)
    parser.add_argument("output", metavar="OUTPUT.onnx", type=Path)
    parser.add_argument(
        "--arch", default="auto", help="name of the architecture, for example resnet20 (auto)"
    )
    parser.add_argument(
        "--dataset",
        choices=("auto", "cifar10", "imagenet"),
        default="auto",
        help="whose preprocessing is written into the file (auto)",
    )
    shape = comma_separated(int)
    floats = comma_separated(float)
    parser.add_argument("--input-shape", metavar="C,H,W", type=shape, help="of the input")
    parser.add_argument("--mean", metavar="M,…", type=floats, help="per channel, of [0, 1]")
    parser.add_argument("--std", metavar="S,…", type=floats, help="per channel, of [0, 1]")
    parser.add_argument(
        "--resize", metavar="N", type=positive, help="scale images' shorter side to N pixels"
    )
    parser.add_argument(
        "--crop", action="store_true", help="cut H x W pixels from the centre of images"
    )
    parser.add_argument(
        "--labels", metavar="FILE", type=Path, help="names of the classes, one per line"
    )
    parser.add_argument("--opset", type=int, default=18, help="of the standard operators (18)")
    parser.add_argument(
        "--rtol",
        type=float,
        help="largest difference from PyTorch, relative to the largest logit (1e-4, or twice "
        "PyTorch's own float32 error where that is more)",
    )
    parser.add_argument(
        "--no-verify", action="store_true", help="do not compare the file with PyTorch"
    )
    return run_command(parser, _export, argv)


def _export(options: argparse.Namespace) -> None:
    check_writable(options.output)
    existing = options.output.exists() and options.checkpoint.exists()
    if existing and options.output.samefile(options.checkpoint):
        raise ExportError(f"{options.output} is the checkpoint; choose another output file")
    # torch takes seconds to import: not before the arguments are known to be right.
    from adder_onnx.export.checkpoint import read_state_dict, sha256
    from adder_onnx.export.exporter import export_model
    from adder_onnx.export.recognition import architecture_name, load_model

    model = load_model(read_state_dict(options.checkpoint), options.arch)
    config = model.config
    preprocessing, labels = _preprocessing(options, config)
    metadata = ModelMetadata(
        architecture=architecture_name(config),
        preprocessing=preprocessing,
        labels=_labels(options.labels, config.classes) if options.labels else labels,
        checkpoint_sha256=sha256(options.checkpoint),
    )
    input_shape = (preprocessing.channels, preprocessing.height, preprocessing.width)
    proto = export_model(model, input_shape, opset=options.opset, metadata=metadata.to_props())
    data = proto.SerializeToString()
    verification = None if options.no_verify else _verify(model, data, input_shape, options.rtol)
    write_atomically(options.output, data)
    _report(options, metadata, proto, len(data), verification)


def _preprocessing(
    options: argparse.Namespace, config: ResNetConfig
) -> tuple[Preprocessing, tuple[str, ...] | None]:
    """The preprocessing and the class labels, from the data set and the options."""
    name = options.dataset
    if name == "auto" and config.in_channels == 3:
        if config.stem == "imagenet":
            name = "imagenet"
        elif config.classes == len(CIFAR10_LABELS):
            name = "cifar10"
    given = {k: getattr(options, k) for k in ("mean", "std", "resize") if getattr(options, k)}
    if options.crop:
        given["crop"] = True
    if options.input_shape:
        if len(options.input_shape) != 3:
            raise ExportError(f"--input-shape has {len(options.input_shape)} numbers; expected 3")
        given |= dict(zip(("channels", "height", "width"), options.input_shape, strict=True))
    labels = CIFAR10_LABELS if name == "cifar10" and config.classes == 10 else None
    if name != "auto":
        preprocessing = replace({"cifar10": CIFAR10, "imagenet": IMAGENET}[name], **given)
    else:
        missing = [
            option
            for option, key in (("--input-shape", "height"), ("--mean", "mean"), ("--std", "std"))
            if key not in given
        ]
        if missing:
            raise ExportError(
                f"cannot tell what data a network with {config.in_channels} input channels and "
                f"{config.classes} classes was trained on: give {', '.join(missing)}, or --dataset"
            )
        preprocessing = Preprocessing(**given)
    if preprocessing.channels != config.in_channels:
        raise ExportError(
            f"the network takes {config.in_channels} channels, the preprocessing gives "
            f"{preprocessing.channels}: set --input-shape, --mean and --std"
        )
    return preprocessing, labels


def _labels(path: Path, classes: int) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    labels = tuple(line.strip() for line in lines if line.strip())
    if len(labels) != classes:
        raise DataError(f"{path} has {len(labels)} labels; the network has {classes} classes")
    return labels


def _verify(
    model: Any, data: bytes, input_shape: tuple[int, int, int], rtol: float | None
) -> Verification:
    """Compares the file with PyTorch, in our runtime and in onnxruntime by the function bodies."""
    from adder_onnx.export.verification import verify

    ours = InferenceSession(data)
    stock = import_onnxruntime().InferenceSession(data, providers=["CPUExecutionProvider"])

    def runner(session: Any) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
        return lambda images: session.run(["logits"], {"input": images})[0]

    result = verify(model, input_shape, {"adder-onnx": runner(ours), "onnxruntime": runner(stock)})
    if not result.passes(rtol):
        worst = max(result.errors, key=lambda name: result.errors[name])
        raise ExportError(
            f"the file in {worst} differs from PyTorch by {result.errors[worst]:.2g}, more than "
            + ("the" if rtol is None else f"--rtol {rtol:g} of the largest logit, the")
            + f" {result.allowed(rtol):.2g} allowed with logits up to {result.scale:.3g}; nothing "
            "was written"
        )
    return result


def _report(
    options: argparse.Namespace,
    metadata: ModelMetadata,
    proto: onnx.ModelProto,
    size: int,
    verification: Verification | None,
) -> None:
    adder_nodes = sum(node.op_type == "AdderConv" for node in proto.graph.node)
    result: dict[str, Any] = {
        "checkpoint": str(options.checkpoint),
        "output": str(options.output),
        "bytes": size,
        "opset": options.opset,
        "adder_nodes": adder_nodes,
        "nodes": len(proto.graph.node),
        "metadata": metadata.to_props(),
        "verification": verification
        and {
            "largest_logit": verification.scale,
            "errors": verification.errors,
            "pytorch_float32_error": verification.pytorch_float32,
        },
    }
    if options.json:
        write_json(options.json, result)
    if options.json == "-":
        return
    print(
        f"{options.output}: {metadata.architecture}, {adder_nodes} AdderConv nodes of "
        f"{len(proto.graph.node)}, {size / 1e6:.2f} MB, opset {options.opset}"
    )
    if verification is None:
        print("not compared with PyTorch (--no-verify)")
        return
    print(f"largest difference from PyTorch in float64 (largest logit {verification.scale:.3g}):")
    errors = {**verification.errors, "PyTorch in float32": verification.pytorch_float32}
    for name, error in errors.items():
        print(f"  {name:<20}{error:.2g}")


if __name__ == "__main__":
    sys.exit(main())
