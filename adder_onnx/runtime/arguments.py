"""What a session is made with, checked."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from adder_onnx.errors import InputError
from adder_onnx.kernels.cpu import ARITHMETICS
from adder_onnx.runtime.onnxruntime_library import import_onnxruntime

__all__ = [
    "check_choices",
    "check_keywords",
    "check_timeout",
    "choose_options",
    "join_providers",
    "to_source",
]

_WITHOUT_MEANING = ("enable_fallback",)
"""onnxruntime's keywords that are taken, since nothing falls back here anyway."""


def to_source(given: Any) -> str | os.PathLike[str] | bytes | onnx.ModelProto:
    """Where a model is read from: a path, bytes, or one that is read.

    Raises:
        InputError: it is something else.
    """
    if isinstance(given, (bytearray, memoryview)):
        return bytes(given)
    if not isinstance(given, (str, os.PathLike, bytes, onnx.ModelProto)):
        raise InputError(
            f"path_or_bytes is of type {type(given).__name__}; expected a path, the bytes of a "
            "model, or an onnx.ModelProto"
        )
    return given


def check_keywords(unknown: Mapping[str, Any]) -> None:
    """Refuses keywords that a session does not have.

    Raises:
        InputError: there are any.
    """
    names = [name for name in unknown if name not in _WITHOUT_MEANING]
    if names:
        raise InputError(f"InferenceSession has no argument {names[0]!r}")


def check_choices(device: Any, arithmetic: Any, concurrency: Any) -> None:
    """Looks at arguments that are one of a few values.

    Raises:
        InputError: one is not.
    """
    if not isinstance(device, str):
        raise InputError(f"device is {device!r}; expected 'cpu', 'cuda', 'cuda:N' or 'auto'")
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise InputError(f"concurrency is {concurrency!r}; expected at least 1")
    if arithmetic not in ARITHMETICS:
        raise InputError(
            f"arithmetic {arithmetic!r} is unknown; choose one of {', '.join(ARITHMETICS)}"
        )


def check_timeout(seconds: Any) -> float | None:
    """A time that a run may take; None and infinity for any.

    Raises:
        InputError: it is not a number above 0.
    """
    if seconds is None:
        return None
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not is_number or not seconds > 0:
        raise InputError(f"timeout is {seconds!r}; expected a number of seconds above 0, or None")
    return None if math.isinf(seconds) else float(seconds)


def choose_options(sess_options: Any, session_options: Any) -> Any:
    """Onnxruntime's ``SessionOptions``, by the name that it has there or here; None for none.

    Raises:
        InputError: they are given twice, or are none.
    """
    if sess_options is not None and session_options is not None:
        raise InputError("sess_options and session_options are the same: give one of them")
    options = session_options if sess_options is None else sess_options
    if options is not None and not isinstance(options, import_onnxruntime().SessionOptions):
        raise InputError(
            f"session options are of type {type(options).__name__}; expected "
            "onnxruntime.SessionOptions"
        )
    return options


def join_providers(
    providers: Sequence[object] | None, options: Sequence[Mapping[str, Any]] | None
) -> list[tuple[str, Mapping[str, Any]]] | None:
    """Execution providers with their options, which may be given beside them; None for none.

    Raises:
        InputError: they are no names, pairs and dicts, or do not belong together.
    """
    if providers is None:
        if options is not None:
            raise InputError("provider_options are given without providers")
        return None
    if isinstance(providers, str) or not isinstance(providers, Sequence):
        raise InputError(f"providers is {providers!r}; expected a list of names")
    if options is not None and (
        isinstance(options, (str, Mapping))
        or not isinstance(options, Sequence)
        or len(options) != len(providers)
    ):
        raise InputError(
            f"provider_options is {options!r}; expected a list of a dict for each of the "
            f"{len(providers)} providers"
        )
    joined = []
    for i, provider in enumerate(providers):
        name, own = _pair(provider)
        if own and options is not None and options[i]:
            raise InputError(f"options of {name!r} are given in providers and in provider_options")
        chosen = own or (options[i] if options is not None else {})
        if not isinstance(name, str) or not isinstance(chosen, Mapping):
            raise InputError(
                f"providers have {provider!r}; expected names, or pairs of a name and a dict"
            )
        joined.append((name, chosen))
    return joined


def _pair(provider: object) -> tuple[Any, Any]:
    if isinstance(provider, (tuple, list)) and len(provider) == 2:
        return provider[0], provider[1]
    return provider, None
