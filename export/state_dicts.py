"""Names of a state dict's tensors, and what tools add to them."""

from __future__ import annotations

import itertools
import logging
import re
import reprlib
from collections.abc import Iterable, Mapping

from torch import Tensor

from adder_onnx.errors import CheckpointError
from adder_onnx.export.adder_layers import BOOKKEEPING

__all__ = ["clean", "fit", "is_counter", "listed", "network_in"]

_logger = logging.getLogger(__name__)

_SHOWN = 5
_LONGEST_SHOWN = 120
_AVERAGED = "n_averaged"
_ORIGINAL, _MASK = "_orig", "_mask"
# Weights of a loss and the state of metrics are no part of a network, wherever they are kept.
_BESIDE = re.compile(r"\.?(\w*(loss|criterion|metric|accuracy)\w*|\w+_acc|acc)(\..*)?")


def clean(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without what tools add to it.

    1. ``total_ops`` and ``total_params``, which counters of operations leave, and ``n_averaged`` of
       AveragedModel are left out.
    2. ``_orig_mod.``, of ``torch.compile``, goes out of all names, and ``module.``, of DataParallel
       and AveragedModel, as often as all names begin with it.
    3. What is pruned, ``x_orig`` and ``x_mask``, becomes ``x``, their product.
    """
    kept = {n: t for n, t in state.items() if _last(n) not in (*BOOKKEEPING, _AVERAGED)}
    prefix = _common_prefix(kept)
    named = {_plain(name, prefix): tensor for name, tensor in kept.items()}
    result: dict[str, Tensor] = {}
    for name, tensor in named.items():
        base = name.removesuffix(_ORIGINAL)
        mask = named.get(base + _MASK) if base != name else None
        if mask is not None and mask.shape == tensor.shape:
            result[base] = tensor * mask.to(tensor.dtype)
        elif not (name.endswith(_MASK) and name.removesuffix(_MASK) + _ORIGINAL in named):
            result[name] = tensor
    return result


def network_in(state: Mapping[str, Tensor], first: str) -> tuple[dict[str, Tensor], str]:
    """The part of a state dict that has a parameter called ``first``.

    Returns:
        The part under names without prefix, and the prefix, which ends in a dot or is empty.

    Raises:
        CheckpointError: there are several, or tensors beside it that may be part of the network.
    """
    prefixes = [name.removesuffix(first) for name in state if name.endswith(f".{first}")]
    if first in state or not prefixes:
        return dict(state), ""
    if len(prefixes) > 1:
        raise CheckpointError(_several(prefixes))
    return _within(state, prefixes[0]), prefixes[0]


def fit(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A cleaned state dict under the names that a model expects, as far as they can be matched.

    Names are compared as they are, or else without the ``module.`` of inner DataParallel; and
    without a prefix that one side has in front of all names.

    Raises:
        CheckpointError: there are several networks that fit, or tensors beside the network's that
            may be part of it.
    """
    prefix = _common_prefix(expected)
    wanted = {_plain(name, prefix): name for name in expected}
    best, most = dict(state), 0
    for inner in ("", "module."):
        ours = {_without(name, inner): tensor for name, tensor in state.items()}
        theirs = {_without(name, inner): original for name, original in wanted.items()}
        if not ours or not theirs or len(ours) < len(state) or len(theirs) < len(wanted):
            continue
        if theirs.keys().isdisjoint(ours):
            ours = _inside(ours, {name: expected[full] for name, full in theirs.items()})
            above = _above(theirs, next(iter(ours)))
            ours = {above + name: tensor for name, tensor in ours.items()}
        matched = len(theirs.keys() & ours.keys())
        if matched > most:
            best, most = {theirs.get(name, name): tensor for name, tensor in ours.items()}, matched
    return best


def _inside(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The one part of a state dict that has all these names and shapes, behind a prefix."""

    def is_whole(prefix: str) -> bool:
        return all(
            prefix + name in state and state[prefix + name].shape == tensor.shape
            for name, tensor in expected.items()
            if not is_counter(name)
        )

    first = next(iter(expected))
    prefixes = [name.removesuffix(first) for name in state if name.endswith(f".{first}")]
    whole = [prefix for prefix in prefixes if is_whole(prefix)]
    if len(whole) > 1:
        raise CheckpointError(_several(whole))
    return _within(state, whole[0]) if whole else dict(state)


def _several(prefixes: Iterable[str]) -> str:
    return (
        "the checkpoint holds several networks: choose one by --key, of "
        f"{listed(prefix.rstrip('.') for prefix in prefixes)}"
    )


def _without(name: str, part: str) -> str:
    return name.replace(part, "") if part else name


def _above(names: Iterable[str], first: str) -> str:
    """What names have in front of ``first``, if one of them ends in it and no other does."""
    prefixes = [name.removesuffix(first) for name in names if name.endswith(f".{first}")]
    return prefixes[0] if len(prefixes) == 1 else ""


def _within(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    outside = [name for name in state if not name.startswith(prefix)]
    beside = [name for name in outside if not _BESIDE.fullmatch(name)]
    if outside and not beside:
        _logger.warning("left out, being no part of the network: %s", listed(outside))
    if beside:
        raise CheckpointError(
            f"beside the network under {prefix.rstrip('.')!r} the checkpoint holds "
            f"{listed(beside)}, which may be part of it: --key {prefix.rstrip('.')} takes that "
            "network alone, --arch file.py:factory a model with all of it"
        )
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}


def is_counter(name: str) -> bool:
    """Whether a tensor counts batches or operations, which changes nothing in evaluation mode."""
    return "num_batches" in name or _last(name) in BOOKKEEPING


def listed(names: Iterable[object]) -> str:
    """The first five names, as far as they have the length of names."""
    shown = [_shown(name) for name in itertools.islice(names, _SHOWN + 1)]
    return ", ".join(shown[:_SHOWN]) + (", …" if len(shown) > _SHOWN else "")


def _shown(name: object) -> str:
    text = repr(name[:_LONGEST_SHOWN]) if isinstance(name, str) else reprlib.repr(name)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _common_prefix(names: Iterable[str]) -> str:
    """As many ``module.`` as all names begin with."""
    plain = [name.replace("_orig_mod.", "") for name in names]
    prefix = ""
    while plain and all(name.startswith(f"{prefix}module.") for name in plain):
        prefix += "module."
    return prefix


def _plain(name: str, prefix: str) -> str:
    return name.replace("_orig_mod.", "").removeprefix(prefix)


def _last(name: str) -> str:
    return name.rpartition(".")[2]
