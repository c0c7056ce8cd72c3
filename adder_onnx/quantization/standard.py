"""Quantization of standard nodes, by onnxruntime's own tool."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from adder_onnx.dependencies import import_failure
from adder_onnx.errors import ModelError

__all__ = ["quantize_standard_nodes"]

_OPS = ("Conv", "Gemm", "MatMul")


def quantize_standard_nodes(
    model: onnx.ModelProto, feeds: Iterable[Mapping[str, NDArray[Any]]]
) -> onnx.ModelProto:
    """Quantizes Conv, Gemm and MatMul to 8 bits, as QDQ nodes, weights per channel.

    Weights use 7 of them: on processors without VNNI onnxruntime adds two products up in 16 bits,
    where those of 8-bit weights do not fit and saturate unseen.

    Args:
        model: is not changed; its adder nodes are left as they are.
        feeds: inputs that activation ranges are found on.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        BrokenDependencyError: its quantization cannot be imported.
        ModelError: onnxruntime cannot quantize the model.
    """
    try:
        from onnxruntime import quantization
    except (ImportError, OSError) as error:
        install = 'pip install "adder-onnx[cpu]"'
        raise import_failure(error, "onnxruntime", install) from error
    names = [n.name for n in model.graph.node if n.op_type in _OPS and n.domain in ("", "ai.onnx")]
    if not names:
        return model
    remaining: Iterator[Mapping[str, NDArray[Any]]] = iter(feeds)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, NDArray[Any]] | None:
            feed = next(remaining, None)
            return None if feed is None else dict(feed)

    with tempfile.TemporaryDirectory() as folder, _silence():
        source, target = Path(folder, "float.onnx"), Path(folder, "quantized.onnx")
        onnx.save(model, source)
        try:
            quantization.quantize_static(
                source,
                target,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                reduce_range=True,
                nodes_to_quantize=names,
            )
        except Exception as error:  # its errors have no common base but Exception
            raise ModelError(
                "onnxruntime cannot quantize the standard nodes: " + " ".join(str(error).split())
            ) from error
        result = onnx.load(target)
    del result.metadata_props[:]
    result.metadata_props.extend(model.metadata_props)
    result.producer_name = model.producer_name
    return result


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The tool advises on the root logger to prepare models, which ours are."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
