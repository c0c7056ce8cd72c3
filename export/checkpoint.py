"""Reading a PyTorch checkpoint without executing any code of it."""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from adder_onnx.errors import CheckpointError
from adder_onnx.export.pickles import Record, RestrictedPickle

__all__ = ["Checkpoint", "read_checkpoint", "sha256"]

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "module")
"""Where training scripts put the model, among the optimizer's state and the like."""

_GEOMETRY = ("stride", "padding", "dilation", "groups", "kernel_size")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says of a network.

    Attributes:
        state: parameters and buffers on the CPU, by name.
        geometry: for each module of a whole pickled model that has any, its ``stride``,
            ``padding``, ``dilation``, ``groups`` and ``kernel_size``; empty for a state dict.
    """

    state: dict[str, Tensor]
    geometry: dict[str, dict[str, Any]] = field(default_factory=dict)


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a state dict or a whole model, in any format of ``torch.save`` or as safetensors.

    1. The state may lie under one of the usual keys (`_WRAPPERS`), beside an optimizer's state.
    2. A whole model, saved by ``torch.save(model)``, is read through `RestrictedPickle`: its
       classes are not imported and no code of the file or of its author runs.
    3. ``module.`` and ``_orig_mod.``, which DataParallel and torch.compile put before names, are
       removed.

    Raises:
        CheckpointError: the file is missing, is not a checkpoint, or holds no network.
    """
    loaded = _load(path)
    found = _find_network(loaded)
    if found is None:
        what = type(loaded).__name__ if not isinstance(loaded, Record) else loaded.qualified_name
        keys = f" with the keys {_some(loaded)}" if isinstance(loaded, Mapping) and loaded else ""
        raise CheckpointError(
            f"{path} holds no network but a {what}{keys}; save the model's state with "
            "torch.save(model.state_dict(), path)"
        )
    if isinstance(found, Record):
        state = dict(_tensors(found, ""))
        geometry = dict(_geometry(found, ""))
    else:
        state, geometry = dict(found), {}
    if not state:
        raise CheckpointError(f"{path} holds a network without parameters")
    prefix = _common_prefix(state)
    return Checkpoint(
        {_clean(name, prefix): tensor for name, tensor in state.items()},
        {_clean(f"{name}.", prefix).removesuffix("."): g for name, g in geometry.items()},
    )


def _load(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    if start[8:] == b"{" and start[:4] != b"PK\x03\x04":  # a length, then JSON
        try:
            return load_file(path, device="cpu")
        except (SafetensorError, ValueError, KeyError) as error:
            raise CheckpointError(f"{path} is not a safetensors file, or is truncated") from error
    if zipfile.is_zipfile(path) and _is_torchscript(path):
        raise CheckpointError(
            f"{path} is a TorchScript archive, which holds code; save the model's state with "
            "torch.save(model.state_dict(), path)"
        )
    try:
        with warnings.catch_warnings():
            # Of source code that cannot be compared, of protocols: what matters is refused below.
            warnings.simplefilter("ignore")
            return torch.load(
                path, map_location="cpu", pickle_module=RestrictedPickle, weights_only=False
            )
    except Exception as error:  # a damaged file makes the unpickler fail in any way
        raise CheckpointError(f"{path} is not a PyTorch checkpoint, or is truncated") from error


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _find_network(loaded: Any) -> Mapping[str, Tensor] | Record | None:
    if isinstance(loaded, Record):
        return loaded if "_modules" in loaded.state else None
    if not isinstance(loaded, Mapping) or not loaded:
        return None
    if all(isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items()):
        return loaded
    for key in _WRAPPERS:
        if key in loaded:
            found = _find_network(loaded[key])
            if found is not None:
                return found
    return None


def _tensors(module: Record, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a recorded module, named as in its state dict."""
    hidden = module.state.get("_non_persistent_buffers_set") or ()
    for kind in ("_parameters", "_buffers"):
        for name, value in (module.state.get(kind) or {}).items():
            if isinstance(value, Tensor) and not (kind == "_buffers" and name in hidden):
                yield f"{prefix}{name}", value
    for name, child in _children(module):
        yield from _tensors(child, f"{prefix}{name}.")


def _geometry(module: Record, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    found = {key: module.state[key] for key in _GEOMETRY if key in module.state}
    if found:
        yield prefix.removesuffix("."), found
    for name, child in _children(module):
        yield from _geometry(child, f"{prefix}{name}.")


def _children(module: Record) -> list[tuple[str, Record]]:
    children = module.state.get("_modules") or {}
    return [(str(n), c) for n, c in children.items() if isinstance(c, Record) and c is not module]


def _common_prefix(state: Mapping[str, Tensor]) -> str:
    """As many ``module.`` as all names begin with."""
    names = [name.replace("_orig_mod.", "") for name in state]
    prefix = ""
    while all(name.startswith(f"{prefix}module.") for name in names):
        prefix += "module."
    return prefix


def _clean(name: str, prefix: str) -> str:
    return name.replace("_orig_mod.", "").removeprefix(prefix)


def _some(mapping: Mapping[Any, Any]) -> str:
    names = [repr(key) for key in mapping]
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
