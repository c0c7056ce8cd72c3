"""Reading a PyTorch checkpoint without executing any code of it."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from adder_onnx.errors import CheckpointError

__all__ = ["read_state_dict", "sha256"]

_PREFIX = "module."


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The parameters and buffers in a checkpoint, on the CPU, by name.

    A ``module.`` before all names, which ``torch.nn.DataParallel`` leaves, is removed. The file is
    read with ``torch.load(weights_only=True)``, which builds tensors and containers only.

    Raises:
        CheckpointError: the file is missing, is not a checkpoint, or holds no state dict.
    """
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        with warnings.catch_warnings():
            # Of pickle protocols and TorchScript: what cannot be read is refused below.
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is not a PyTorch checkpoint of tensors only; save the model's state with "
            "torch.save(model.state_dict(), path)"
        ) from error
    except Exception as error:  # a damaged file makes the unpickler fail in any way
        raise CheckpointError(f"{path} is not a PyTorch checkpoint, or is truncated") from error
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path} holds a {type(loaded).__name__}; expected a state dict")
    if not loaded:
        raise CheckpointError(f"{path} holds an empty state dict")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path} is not a state dict: entry {name!r} is a {type(value).__name__}; save "
                "the model's state with torch.save(model.state_dict(), path)"
            )
    if all(name.startswith(_PREFIX) for name in loaded):
        return {name[len(_PREFIX) :]: value for name, value in loaded.items()}
    return dict(loaded)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
