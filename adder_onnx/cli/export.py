"""``adder-export``: a PyTorch checkpoint as ONNX."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from adder_onnx.cli._command import (
    check_outputs,
    comma_separated,
    file_path,
    make_parser,
    not_negative_number,
    positive,
    run_command,
)
from adder_onnx.cli._export_report import report
from adder_onnx.cli._imports import importing
from adder_onnx.cli._progress import phases
from adder_onnx.errors import DataError, ExportError
from adder_onnx.evaluation.text_files import read_text
from adder_onnx.metadata import (
    CIFAR10,
    CIFAR10_LABELS,
    IMAGENET,
    ModelMetadata,
    Preprocessing,
)

if TYPE_CHECKING:
    from torch import nn

    from adder_onnx.export.api import Exported
    from adder_onnx.export.checkpoint import Checkpoint
    from adder_onnx.export.resnet import ResNetConfig

__all__ = ["main"]

_EXAMPLES = """\
  adder-export resnet20.pth resnet20.onnx
  adder-export checkpoint.pth model.onnx --arch resnet50 --labels imagenet_classes.txt
  adder-export mine.pth mine.onnx --arch nets/mine.py:make --dataset cifar10
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
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=file_path)
    parser.add_argument("output", metavar="OUTPUT.onnx", type=file_path)
    parser.add_argument(
        "--arch",
        default="auto",
        help="name of the architecture, for example resnet20 (auto), or a function that makes a "
        "model of your own: file.py:factory or package.module:factory",
    )
    parser.add_argument(
        "--key",
        metavar="NAME",
        help="where in the checkpoint the network is, for example state_dict_ema, or what the "
        "names of its tensors begin with",
    )
    parser.add_argument(
        "--adder-class",
        metavar="CLASS",
        action="append",
        default=[],
        help="a class of adder layers that do not look like the reference's; may be repeated",
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
        "--crop",
        metavar="N",
        type=positive,
        nargs="?",
        const=0,
        help="cut N x N pixels from the centre of images, without N what the input takes",
    )
    parser.add_argument(
        "--labels", metavar="FILE", type=file_path, help="names of the classes, one per line"
    )
    batch = parser.add_mutually_exclusive_group()
    batch.add_argument(
        "--batch-size",
        metavar="N",
        type=positive,
        help="the only one that the file takes (any, if the model's code allows that)",
    )
    batch.add_argument(
        "--dynamic-batch",
        action="store_true",
        help="write nothing if the model's code does not allow any size of the batch",
    )
    parser.add_argument(
        "--external-data",
        action="store_true",
        help="write the weights to OUTPUT.onnx.data (always where they are 2 GiB or more)",
    )
    parser.add_argument("--opset", type=positive, default=18, help="of the standard operators (18)")
    parser.add_argument(
        "--rtol",
        type=not_negative_number,
        help="largest difference from PyTorch, relative to the largest logit (1e-4, or twice "
        "PyTorch's own float32 error where that is more)",
    )
    parser.add_argument(
        "--no-verify", action="store_true", help="do not compare the file with PyTorch"
    )
    return run_command(parser, _export, argv)


def _export(options: argparse.Namespace) -> None:
    _check_paths(options)
    with phases("starting PyTorch") as begin:
        metadata, key, exported = _exported(options, begin)
    report(options, metadata, key, exported)


def _exported(
    options: argparse.Namespace, begin: Callable[[str], None]
) -> tuple[ModelMetadata, str, Exported]:
    """Writes the file; what it says of itself, the checkpoint's key, and what was written."""
    # torch takes seconds to import: not before the arguments are known to be right.
    with importing():
        from adder_onnx.export.api import export_onnx
        from adder_onnx.export.checkpoint import read_checkpoint, sha256
        from adder_onnx.export.recognition import architecture_name, load_model

    begin("reading the checkpoint")
    checkpoint = read_checkpoint(options.checkpoint, options.key)
    model: nn.Module
    config: ResNetConfig | None
    if ":" in options.arch:
        model = _own_model(options.arch, checkpoint)
        architecture, config = options.arch.rpartition(":")[2], None
    else:
        resnet = load_model(checkpoint, options.arch)
        model, architecture, config = resnet, architecture_name(resnet.config), resnet.config
    preprocessing, labels = _preprocessing(options, config)
    if options.labels:
        labels = _labels(options.labels)
        if config is not None and len(labels) != config.classes:
            raise DataError(
                f"{options.labels} has {len(labels)} labels; the network has {config.classes} "
                "classes"
            )
    metadata = ModelMetadata(
        architecture=architecture,
        preprocessing=preprocessing,
        labels=labels,
        checkpoint_sha256=sha256(options.checkpoint),
    )
    exported = export_onnx(
        model,
        options.output,
        (preprocessing.channels, preprocessing.height, preprocessing.width),
        opset=options.opset,
        metadata=metadata,
        adder_classes=options.adder_class,
        batch_size=options.batch_size,
        dynamic_batch=options.dynamic_batch,
        external_data=options.external_data,
        rtol=options.rtol,
        no_verify=options.no_verify,
        in_place=True,
        phase=begin,
    )
    return metadata, checkpoint.key, exported


def _check_paths(options: argparse.Namespace) -> None:
    """Nothing is to be overwritten by something else, nor to fail after minutes of work."""
    inputs = {"the checkpoint": options.checkpoint, "the labels": options.labels}
    check_outputs(options, {"the output": options.output}, inputs)


def _own_model(factory: str, checkpoint: Checkpoint) -> nn.Module:
    """A model of the user's with the checkpoint's parameters."""
    from adder_onnx.export.factories import make_model
    from adder_onnx.export.recognition import apply_state, check_state
    from adder_onnx.export.state_dicts import fit

    model = make_model(factory)
    state = fit(checkpoint.state, model.state_dict())
    check_state(model, state, f"the model of {factory}")
    apply_state(model, state)
    return model


def _preprocessing(
    options: argparse.Namespace, config: ResNetConfig | None
) -> tuple[Preprocessing, tuple[str, ...] | None]:
    """The preprocessing and the class labels, from the data set and the options.

    ``config`` tells the data set of a known network; None for a model of the user's.
    """
    name = options.dataset
    if name == "auto" and config is not None and config.in_channels == 3:
        if config.stem == "imagenet":
            name = "imagenet"
        elif config.classes == len(CIFAR10_LABELS):
            name = "cifar10"
    given = {k: getattr(options, k) for k in ("mean", "std", "resize") if getattr(options, k)}
    if options.crop is not None:
        given["crop"] = True
        if options.crop:
            given |= {"height": options.crop, "width": options.crop}
    if options.input_shape:
        if len(options.input_shape) != 3:
            raise ExportError(f"--input-shape has {len(options.input_shape)} numbers; expected 3")
        if options.crop and options.input_shape[1:] != (options.crop, options.crop):
            raise ExportError(
                f"--crop {options.crop} contradicts --input-shape "
                f"{','.join(map(str, options.input_shape))}: the window is the input"
            )
        given |= dict(zip(("channels", "height", "width"), options.input_shape, strict=True))
    fits = config is None or config.classes == len(CIFAR10_LABELS)
    labels = CIFAR10_LABELS if name == "cifar10" and fits else None
    if name != "auto":
        preprocessing = replace({"cifar10": CIFAR10, "imagenet": IMAGENET}[name], **given)
    else:
        missing = [
            option
            for option, key in (("--input-shape", "channels"), ("--mean", "mean"), ("--std", "std"))
            if key not in given
        ]
        if missing:
            what = (
                "a model of one's own"
                if config is None
                else f"a network with {config.in_channels} input channels and {config.classes} "
                "classes"
            )
            raise ExportError(
                f"cannot tell what data {what} was trained on: give {', '.join(missing)}, or "
                "--dataset"
            )
        preprocessing = Preprocessing(**given)
    if config is not None and preprocessing.channels != config.in_channels:
        raise ExportError(
            f"the network takes {config.in_channels} channels, the preprocessing gives "
            f"{preprocessing.channels}: set --input-shape, --mean and --std"
        )
    return preprocessing, labels


def _labels(path: Path) -> tuple[str, ...]:
    return tuple(line.strip() for line in read_text(path).splitlines() if line.strip())


if __name__ == "__main__":
    sys.exit(main())
