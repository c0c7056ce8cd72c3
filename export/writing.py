"""Writing a model once it is found right, with its weights in it or in a file beside it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx

from adder_onnx.errors import AdderError, ExportError
from adder_onnx.files import open_atomically, usual_mode

__all__ = ["MAX_BYTES", "Staged", "staged"]

MAX_BYTES = (1 << 31) - (1 << 24)
"""Weights of a model in one file: protobuf writes less than 2 GiB; the rest is for the graph."""

_THRESHOLD = 1024
"""Bytes of a tensor from which on it is worth a place in a file beside the model."""


@dataclass
class Staged:
    """A model that is ready to be written.

    Attributes:
        source: what a session can open: its bytes, or a file of another name.
        bytes: the size of all that will be written, and of all that was.
        external_data: the file beside the model that will hold the weights, or None.
        doc_string: what the model says of itself; may be set as long as it is not written.
    """

    source: bytes | Path
    bytes: int
    external_data: Path | None = None
    doc_string: str = ""


@contextmanager
def staged(model: onnx.ModelProto, path: Path, external_data: bool) -> Iterator[Staged]:
    """Within it a model can be tried; it is written when that ends without an error.

    Args:
        model: its weights may be gone afterwards.
        path: where it goes.
        external_data: whether the weights go into a file of their own even where they need not.

    Raises:
        AdderError: a file cannot be written; nothing is left behind.
    """
    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if not external_data and weights <= MAX_BYTES:
        data = model.SerializeToString()
        result = Staged(data, len(data))
        yield result
        with open_atomically(path) as file:
            file.write(data)
            file.write(_added(result))
        return
    if path.exists() and not path.is_file():
        raise ExportError(f"cannot write {path}: external data need a file beside the model")
    target = Path(os.path.realpath(path))
    beside = target.with_name(f"{target.name}.data")
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
            temporary = Path(folder) / target.name
            onnx.save_model(
                model,
                temporary,
                save_as_external_data=True,
                location=beside.name,
                size_threshold=_THRESHOLD,
            )
            places = {Path(folder) / beside.name: beside, temporary: target}
            # No tensor may be large enough for a file of its own.
            places = {source: place for source, place in places.items() if source.exists()}
            for source in places:
                _flush(source)
                source.chmod(usual_mode())
            size = sum(source.stat().st_size for source in places)
            result = Staged(temporary, size, beside if len(places) > 1 else None)
            yield result
            with temporary.open("ab") as file:
                file.write(_added(result))
            _flush(temporary)
            # The model last: until then the one of before is there.
            for source, place in places.items():
                source.replace(place)
    except OSError as error:
        raise AdderError(f"cannot write {path}: {error.strerror or error}") from error


def _added(staged: Staged) -> bytes:
    """What is written behind a model: protobuf merges the messages that follow each other."""
    data: bytes = onnx.ModelProto(doc_string=staged.doc_string).SerializeToString()
    staged.bytes += len(data)
    return data


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
