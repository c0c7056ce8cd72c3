"""Reading a PyTorch checkpoint without executing any code of it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from adder_onnx import memory
from adder_onnx.errors import AdderError, CheckpointError
from adder_onnx.export.other_files import what_it_is
from adder_onnx.export.pickled_network import PickledModule, is_module, modules_of, tensors_of
from adder_onnx.export.pickles import Record
from adder_onnx.export.state_dicts import clean, listed
from adder_onnx.export.torch_files import read_torch_file
from adder_onnx.files import check_readable

__all__ = ["Checkpoint", "read_checkpoint", "sha256"]

_logger = logging.getLogger(__name__)

_KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "params", "weights")
"""Where training scripts put the network, those that are taken first coming first."""

_NOT_NETWORKS = ("optim", "sched", "scaler", "amp", "callback", "hyper_parameters", "args", "rng")
"""What keys of things contain that are kept beside a network and hold tensors, too."""

_AVERAGES = ("ema", "averag", "swa", "shadow")
"""What keys of running averages contain, which are not taken unless they are all there is."""

_DEPTH = 4
_SAFETENSORS_START = 9
_LONGEST_HEADER = 16 << 20
_FLOAT_BYTES = 4
_MOST_TENSORS = 100_000
_LONGEST_NAME = 1000


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says of a network.

    Attributes:
        state: parameters and buffers on the CPU, by name.
        modules: the modules of a whole pickled network, by path; empty for a state dict.
        key: where in the file they were, joined by dots; empty where they are the whole file.
    """

    state: dict[str, Tensor]
    modules: dict[str, PickledModule] = field(default_factory=dict)
    key: str = ""


def read_checkpoint(path: Path, key: str | None = None) -> Checkpoint:
    """Reads a state dict or a whole model: of ``torch.save``, ``pickle.dump`` or as safetensors.

    1. The network may lie under a key, with others beside it: an optimizer's state, running
       averages of the parameters, a second network. Of several the one under the most usual key is
       taken (`_KEYS`), running averages only where there is nothing else, and a message says which;
       where no key is usual they are ambiguous. ``key`` chooses.
    2. A whole model, saved by ``torch.save(model)``, is read as records (`unpickle`): its
       classes are not imported and no code of the file or of its author runs.
    3. Names are cleaned of what tools add to them (`clean`).

    Args:
        path: the file.
        key: of the network in the file, joined by dots, or what the names of its tensors begin
            with.

    Raises:
        CheckpointError: the file is missing, is not a checkpoint, holds no network, or several; or
            it, or the network, is larger than the memory that may be taken.
    """
    loaded = _load(path)
    networks = dict(_networks(loaded, ""))
    where, prefix = _choose(path, loaded, networks, key)
    found = networks[where]
    if isinstance(found, Record):
        state, modules = dict(tensors_of(found)), modules_of(found)
    else:
        state, modules = dict(found), {}
    if not state:
        raise CheckpointError(f"{path} holds a network without parameters")
    _check_names(path, state)
    # In float32, and whole: tensors of a file may lie in one another.
    sizes = [tensor.numel() * max(tensor.itemsize, _FLOAT_BYTES) for tensor in state.values()]
    memory.require(sum(sizes), f"{path}: the network", CheckpointError)
    state = clean(state)
    if prefix:
        state = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    return Checkpoint(state, modules, where or (key or ""))


def _check_names(path: Path, state: Mapping[str, Tensor]) -> None:
    longest = max(map(len, state))
    if len(state) > _MOST_TENSORS or longest > _LONGEST_NAME:
        raise CheckpointError(
            f"{path} holds {len(state)} tensors with names of up to {longest} characters; a "
            f"network has at most {_MOST_TENSORS} and {_LONGEST_NAME}"
        )


def _load(path: Path) -> Any:
    try:
        if not path.is_dir():
            size = check_readable(path, CheckpointError)
            memory.require(size, str(path), CheckpointError)
            if _is_safetensors(path):
                return _load_safetensors(path)
        other = what_it_is(path)
        if other is not None:
            raise CheckpointError(f"{path} is not a PyTorch checkpoint but {other}")
        return read_torch_file(path)
    except AdderError:
        raise
    except MemoryError as error:
        raise CheckpointError(f"{path}: there is not enough memory to read it") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged file makes the unpickler fail in any way
        raise CheckpointError(f"{path} is not a PyTorch checkpoint, or is truncated") from error


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_SAFETENSORS_START - 1), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"a header of {length} bytes")
        return load_file(path, device="cpu")
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path} is not a safetensors file, or is truncated") from error


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(_SAFETENSORS_START)
    return start[8:] == b"{" and start[:4] != b"PK\x03\x04"  # a length, then JSON


_Network = Mapping[str, Any] | Record


def _networks(
    value: Any, key: str, depth: int = _DEPTH, seen: set[int] | None = None
) -> Iterator[tuple[str, _Network]]:
    """All networks in a value, each with where it is."""
    seen = set() if seen is None else seen
    if id(value) in seen or depth < 0:
        return
    seen.add(id(value))
    if isinstance(value, Record):
        if is_module(value):
            yield key, value
            return
        value = value.state
    if not isinstance(value, Mapping):
        return
    if _is_state(value):
        yield key, value
        return
    for name, item in value.items():
        if (
            isinstance(name, str)
            and len(name) <= _LONGEST_NAME
            and not any(word in name.lower() for word in _NOT_NETWORKS)
        ):
            yield from _networks(item, f"{key}.{name}" if key else name, depth - 1, seen)


def _is_state(value: Mapping[Any, Any]) -> bool:
    """Whether it is a state dict: tensors by name, and nothing else."""
    return bool(value) and all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items()
    )


def _choose(
    path: Path, loaded: Any, networks: Mapping[str, _Network], key: str | None
) -> tuple[str, str]:
    """Which network is meant, and with what the names of its tensors begin."""
    if not networks:
        what = type(loaded).__name__ if not isinstance(loaded, Record) else loaded.qualified_name
        keys = f" with the keys {listed(loaded)}" if isinstance(loaded, Mapping) and loaded else ""
        raise CheckpointError(
            f"{path} holds no network but a {what}{keys}{_odd(loaded)}; save the model's state "
            "with torch.save(model.state_dict(), path)"
        )
    if key is not None:
        return _by_key(path, networks, key)
    if len(networks) == 1:
        return next(iter(networks)), ""
    plain = [n for n in networks if not any(word in n.lower() for word in _AVERAGES)]
    usual = sorted(
        (n for n in plain if _last(n) in _KEYS), key=lambda n: (_KEYS.index(_last(n)), n.count("."))
    )
    candidates = usual[:1] or plain or list(networks)
    if len(candidates) > 1:
        raise CheckpointError(
            f"{path} holds several networks: choose one by --key, of {listed(networks)}"
        )
    others = [n for n in networks if n != candidates[0]]
    _logger.warning(
        "%s holds several networks: %r is taken; --key takes another, of %s",
        path,
        candidates[0],
        listed(others),
    )
    return candidates[0], ""


def _odd(loaded: Any) -> str:
    """What among the tensors of a state dict is none."""
    if not isinstance(loaded, Mapping) or not any(isinstance(v, Tensor) for v in loaded.values()):
        return ""
    odd = next(
        (f"{k!r} is a {type(v).__name__}" for k, v in loaded.items() if not isinstance(v, Tensor)),
        "",
    )
    return odd and f", of which {odd}"


def _by_key(path: Path, networks: Mapping[str, _Network], key: str) -> tuple[str, str]:
    found = [n for n in networks if n == key] or [n for n in networks if _last(n) == key]
    if len(found) == 1:
        return found[0], ""
    prefix = key.rstrip(".") + "."
    within = [
        n
        for n, network in networks.items()
        if not isinstance(network, Record) and any(name.startswith(prefix) for name in network)
    ]
    if len(within) == 1 and not found:
        return within[0], prefix
    raise CheckpointError(
        f"{path} has {'several networks' if found or within else 'no network'} under --key {key}; "
        f"those it has are under {listed(networks)}"
    )


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def sha256(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal.

    Raises:
        CheckpointError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()
