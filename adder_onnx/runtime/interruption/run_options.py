"""onnxruntime's ``RunOptions``."""

from __future__ import annotations

from typing import Any

from adder_onnx.errors import InputError
from adder_onnx.runtime.onnxruntime_library import import_onnxruntime

__all__ = ["copy_run_options", "make_run_options"]

_ATTRIBUTES = (
    "log_severity_level",
    "log_verbosity_level",
    "logid",
    "only_execute_path_to_fetches",
    "terminate",
)

_ENTRIES = (
    "memory.enable_memory_arena_shrinkage",
    "disable_synchronize_execution_providers",
    "gpu_graph_id",
)
"""Keys that are copied: onnxruntime says what a key's value is, but not which keys there are."""


def make_run_options() -> Any:
    """Those of a run that has none of its caller's."""
    return import_onnxruntime().RunOptions()


def copy_run_options(given: Any) -> Any:
    """The same for one run alone, in which ``terminate`` can be set without ending others.

    Raises:
        InputError: they are none.
    """
    kind = import_onnxruntime().RunOptions
    if not isinstance(given, kind):
        raise InputError(
            f"run_options is of type {type(given).__name__}; expected onnxruntime.RunOptions"
        )
    options = kind()
    for name in _ATTRIBUTES:
        setattr(options, name, getattr(given, name))
    for key in _ENTRIES:
        try:
            options.add_run_config_entry(key, given.get_run_config_entry(key))
        except RuntimeError:  # it has no such key
            continue
    return options
