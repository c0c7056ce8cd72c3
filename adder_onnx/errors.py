"""The exceptions that adder-onnx raises for what a user can mend."""

from __future__ import annotations

__all__ = [
    "AdderError",
    "BrokenDependencyError",
    "CheckpointError",
    "DataError",
    "DeviceError",
    "ExportError",
    "InputError",
    "MissingDependencyError",
    "ModelError",
    "RunTerminatedError",
    "RunTimeoutError",
]


class AdderError(Exception):
    """Base of all errors caused by what was given: a file, an argument, an array.

    The message is one line that says what is wrong, where, and what to do. The commands print it
    and exit with status 2.
    """


class ModelError(AdderError):
    """An ONNX model is unreadable, invalid, or holds something that cannot be executed."""


class CheckpointError(AdderError):
    """A checkpoint is unreadable or does not match the architecture it is loaded into."""


class ExportError(AdderError):
    """A model could not be written as ONNX, or the file written disagrees with PyTorch."""


class DataError(AdderError):
    """A data set or an image is missing, unreadable, or does not fit the model."""


class InputError(AdderError, ValueError):
    """An array or an option given to the runtime has the wrong name, shape, type or range."""


class DeviceError(AdderError):
    """The device asked for does not exist or cannot be used."""


class MissingDependencyError(AdderError, ImportError):
    """An optional package is not installed; the message names the command that installs it."""


class BrokenDependencyError(AdderError, ImportError):
    """A package is installed and cannot be imported; the message says what its import said."""


class RunTerminatedError(AdderError):
    """A run was ended from outside: by its ``RunOptions``, or since the process ends."""


class RunTimeoutError(AdderError, TimeoutError):
    """A run took longer than it was allowed to; the session can be used as before."""
