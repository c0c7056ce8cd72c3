"""What to say where a package that is needed cannot be imported."""

from __future__ import annotations

from adder_onnx.errors import BrokenDependencyError, MissingDependencyError

__all__ = ["import_failure"]


def import_failure(
    error: ImportError | OSError, package: str, install: str, title: str | None = None
) -> BrokenDependencyError | MissingDependencyError:
    """What to raise where importing a package fails.

    Args:
        error: how it failed.
        package: the module that was imported.
        install: the command that installs it.
        title: what the message calls it, perhaps with what it is for, if not by its name.
    """
    title = title or package
    if isinstance(error, ModuleNotFoundError) and error.name == package:
        return MissingDependencyError(f"{title} is not installed: {install}")
    reason = " ".join(str(error).split()) or type(error).__name__
    return BrokenDependencyError(f"{title} is installed and cannot be imported: {reason}")
