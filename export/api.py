"""`export_onnx`: from a PyTorch model to a verified file."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from torch import nn

from adder_onnx.errors import ExportError
from adder_onnx.export.adder_layers import convert_adder_layers
from adder_onnx.export.exporter import DEFAULT_OPSET, export_model
from adder_onnx.export.factories import bare, unwrap
from adder_onnx.export.fake_quantization.quantizer import FakeQuantizer
from adder_onnx.export.verification import (
    DoesNotRunError,
    Runner,
    Truth,
    Verification,
    as_for_inference,
    compare,
    run_pytorch,
)
from adder_onnx.export.writing import staged
from adder_onnx.files import check_writable
from adder_onnx.metadata import ModelMetadata
from adder_onnx.ops import describe_model

__all__ = ["Exported", "export_onnx", "runners"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        bytes: its size, that of external data included.
        nodes: number of nodes in its graph.
        adder_nodes: how many of them are AdderConv.
        outputs: names of its outputs.
        batch_size: the only one that it takes, or None.
        verification: how far it is from PyTorch; None where that was not asked for, or where the
            model does not run here.
        why_not_verified: why the model does not run here, or None.
        conversion: where the model does not run, how far the file is from our own conversion of it
            in PyTorch, which is no verification of that conversion; else None.
        external_data: the file beside it that holds the weights, or None.
    """

    path: Path
    bytes: int
    nodes: int
    adder_nodes: int
    outputs: tuple[str, ...]
    batch_size: int | None
    verification: Verification | None
    why_not_verified: str | None = None
    conversion: Verification | None = None
    external_data: Path | None = None


def export_onnx(
    model: nn.Module,
    path: str | Path,
    input_shape: tuple[int, int, int],
    *,
    opset: int = DEFAULT_OPSET,
    metadata: ModelMetadata | None = None,
    adder_classes: Collection[str] = (),
    batch_size: int | None = None,
    dynamic_batch: bool = False,
    external_data: bool = False,
    rtol: float | None = None,
    no_verify: bool = False,
    in_place: bool = False,
    phase: Callable[[str], None] = lambda name: None,
) -> Exported:
    """Writes a model as ONNX, after comparing the file with PyTorch.

    The model is run first as it was given. Then its adder layers become AdderConv nodes, and the
    file is compared with what the model gave, output by output, in our runtime and in onnxruntime
    by the function bodies.

    Args:
        model: maps images (N, C, H, W) to a tensor, or to several in tuples, lists, dicts or
            dataclasses, whose names or numbers become those of the outputs.
        path: where the file goes; written under another name and renamed.
        input_shape: C, H and W.
        opset: version of the standard operator set, 18 to 23.
        metadata: what the file says about itself, such as the preprocessing.
        adder_classes: names of classes of adder layers that do not look like the reference's.
        batch_size: the only one that the file is to take; None for any, if the model's code allows
            that, else 1, with a warning.
        dynamic_batch: whether that is an error instead.
        external_data: whether the weights go into a file of their own, with ``.data`` behind its
            name. They do in any case where the file would be larger than 2 GiB.
        rtol: largest difference from PyTorch in float64, relative to the largest value; by default
            as `Comparison.allowed` says.
        no_verify: leave the comparison out.
        in_place: whether the model may be changed, which saves a copy of it.
        phase: is called with the name of what is done next, which may take long.

    Returns:
        What was written, and how far it is from PyTorch.

    Raises:
        ExportError: PyTorch cannot copy, run or export the model; a layer has something that
            AdderConv has no place for; the file differs from the model; or the number of labels is
            not that of the classes. Nothing is written.
    """
    path = Path(path)
    check_writable(path)
    if any(isinstance(module, FakeQuantizer) for module in model.modules()):
        raise ExportError(
            "the model is fake-quantized: adder_onnx.export.export_quantized writes its integers"
        )
    given = unwrap(model if in_place else _copy(model))
    phase("running the model in PyTorch")
    truth, why = (None, None) if no_verify else _run_given(given, input_shape, batch_size)
    phase("converting the model")
    converted = convert_adder_layers(given, adder_classes, check=not no_verify)
    try:
        as_for_inference(converted)
    except DoesNotRunError as error:
        raise ExportError(f"PyTorch cannot run the model: {error}") from error
    props = (metadata or ModelMetadata()).to_props()
    proto = export_model(converted, input_shape, opset=opset, metadata=props, batch_size=batch_size)
    fixed = _fixed_batch(proto)
    _check_batch(fixed, batch_size, dynamic_batch)
    _check_labels(metadata, proto)
    adder_nodes = sum(node.op_type == "AdderConv" for node in proto.graph.node)
    if not adder_nodes:
        _logger.warning(
            "the file has no AdderConv node: no layer was recognised as an adder layer "
            "(--adder-class names the class of those there are)"
        )
    names = tuple(output.name for output in proto.graph.output)
    with staged(proto, path, external_data) as file:
        verification = conversion = None
        phase("comparing the file with PyTorch")
        if truth is not None:
            own = None
            if truth.why_not_float64:
                own = _run_converted(converted, input_shape, batch_size, names)
            verification = _compare(
                truth.renamed(names), own, file.source, fixed, batch_size, phase
            )
            verification.check(rtol)
        elif not no_verify:
            own = _run_converted(converted, input_shape, batch_size, names)
            conversion = _compare(own, own, file.source, fixed, batch_size, phase)
            conversion.check(rtol)
        file.doc_string = describe_model(proto, _compared(verification, conversion))
        phase("writing the file")
    if conversion is not None:
        _logger.warning(
            "NOT VERIFIED: the model as it was given does not run here (%s); the file is compared "
            "with adder-onnx's own conversion of it, which says nothing of that conversion",
            why,
        )
    return Exported(
        path=path,
        bytes=file.bytes,
        nodes=len(proto.graph.node),
        adder_nodes=adder_nodes,
        outputs=names,
        batch_size=fixed,
        verification=verification,
        why_not_verified=why,
        conversion=conversion,
        external_data=file.external_data,
    )


def _compared(verification: Verification | None, conversion: Verification | None) -> str:
    """How far the file is from PyTorch, in a sentence."""
    found = verification or conversion
    if found is None:
        return "Exported without a comparison with PyTorch."
    worst = max(found.outputs.values(), key=lambda output: output.relative_error)
    with_what = "its conversion" if verification is None else "PyTorch"
    return (
        f"Compared with {with_what} in {worst.reference} on noise: the largest difference is "
        f"{max(worst.errors.values()):.2g}, of values up to {worst.scale:.3g}."
    )


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(bare(model))
    except Exception as error:  # of an attribute that refuses
        raise ExportError(
            f"the model cannot be copied ({type(error).__name__}: {error}): let it be changed, by "
            "in_place=True"
        ) from error


def _run_given(
    model: nn.Module, input_shape: tuple[int, int, int], batch_size: int | None
) -> tuple[Truth | None, str | None]:
    """What the model gives, or why it does not run."""
    try:
        return run_pytorch(model, input_shape, batch_size), None
    except DoesNotRunError as error:  # layers of others may need a GPU
        return None, str(error)


def _run_converted(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    batch_size: int | None,
    names: Sequence[str],
) -> Truth:
    try:
        return run_pytorch(model, input_shape, batch_size).renamed(names)
    except DoesNotRunError as error:
        raise ExportError(f"PyTorch cannot run the model: {error}") from error


def _fixed_batch(proto: onnx.ModelProto) -> int | None:
    size = proto.graph.input[0].type.tensor_type.shape.dim[0]
    return size.dim_value if size.HasField("dim_value") else None


def _check_batch(fixed: int | None, asked_for: int | None, dynamic: bool) -> None:
    if fixed is None or asked_for is not None:
        return
    if dynamic:
        raise ExportError(
            "the model's code makes the size of the batch a constant, so that it cannot be dynamic "
            "(--dynamic-batch): use x.shape[0] as it is, not int(x.shape[0]), and no loop over "
            "images"
        )
    _logger.warning(
        "the model's code makes the size of the batch a constant: the file takes %d image at a "
        "time (--batch-size fixes another number)",
        fixed,
    )


def _check_labels(metadata: ModelMetadata | None, proto: onnx.ModelProto) -> None:
    labels = metadata.labels if metadata is not None else None
    shapes = [[d.dim_value for d in o.type.tensor_type.shape.dim] for o in proto.graph.output]
    classes = [shape[1] for shape in shapes if len(shape) == 2]
    if labels is not None and classes and len(labels) not in classes:
        raise ExportError(f"there are {len(labels)} labels; the network has {classes[0]} classes")


def _compare(
    truth: Truth,
    own: Truth | None,
    source: bytes | Path,
    fixed: int | None,
    batch_size: int | None,
    phase: Callable[[str], None],
) -> Verification:
    """Compares the file with a truth, whose rounding ``own`` tells where it does not itself."""
    rounding = (own or truth).rounding()
    if fixed == 1 and batch_size is None:
        truth = truth.of_one_image()
    return compare(truth, runners(source), rounding, phase)


def runners(source: bytes | Path) -> dict[str, Runner]:
    """The file in our runtime and in onnxruntime by the function bodies."""
    # The one place where exporting needs the runtime; it imports nothing of ours in return.
    from adder_onnx.runtime import InferenceSession, RunControl
    from adder_onnx.runtime.onnxruntime_library import import_onnxruntime
    from adder_onnx.runtime.threads import available_cores

    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    options.log_severity_level = 3  # shapes that differ from the declared ones are compared below
    sessions = {
        "adder-onnx": InferenceSession(source, arithmetic="exact"),  # what is judged is the file
        "onnxruntime": onnxruntime.InferenceSession(
            source, options, providers=["CPUExecutionProvider"]
        ),
    }

    def runner(session: Any) -> Runner:
        names = [output.name for output in session.get_outputs()]

        def run(images: NDArray[Any]) -> dict[str, NDArray[Any]]:
            control = RunControl(apart=True)  # it may be interrupted in onnxruntime, too
            feed = {"input": images}
            values = control.call(lambda: session.run(names, feed, control.options))
            return dict(zip(names, values, strict=True))

        return run

    return {name: runner(session) for name, session in sessions.items()}
