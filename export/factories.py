"""Models that a user's own code makes."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TextIO

import torch
from torch import nn
from torch.nn.utils import prune

from adder_onnx.errors import ExportError

__all__ = ["bare", "make_model", "unwrap"]


def make_model(factory: str) -> nn.Module:
    """The model that a factory makes, out of what it may be wrapped in (see `unwrap`).

    The user's code sees a command line without arguments, and what it prints goes to standard
    error.

    Args:
        factory: ``package.module:function`` or ``path/file.py:function``, whose folder can be
            imported from meanwhile. The function, or class, is called without arguments.

    Raises:
        ExportError: there is no such file, module or function, it fails, or gives no model.
    """
    where, _, name = factory.rpartition(":")
    if not where or not name.isidentifier():
        raise ExportError(
            f"{factory!r} names no factory; expected package.module:function or file.py:function"
        )
    path = Path(where)
    is_file = path.suffix == ".py"
    if is_file and not os.path.isfile(path):
        raise ExportError(f"{path} does not exist")
    printed = io.StringIO()
    try:
        with _as_a_script(where, path.resolve().parent if is_file else Path.cwd(), printed):
            module = _import_file(path.resolve()) if is_file else importlib.import_module(where)
            model = getattr(module, name)()
    except SystemExit as error:
        last = (printed.getvalue().strip().splitlines() or [f"exit status {error.code!r}"])[-1]
        raise ExportError(
            f"{factory} ends the program when it is imported or called ({last.strip()}): put what "
            'is no definition under if __name__ == "__main__"'
        ) from error
    except Exception as error:  # the user's code may raise anything
        raise ExportError(f"{factory} failed: {type(error).__name__}: {error}") from error
    sys.stderr.write(printed.getvalue())
    if not isinstance(model, nn.Module):
        raise ExportError(f"{factory} gave a {type(model).__name__}; expected a torch.nn.Module")
    return unwrap(model)


def unwrap(model: nn.Module) -> nn.Module:
    """Takes a model, and the modules in it, out of what only distributes, averages or compiles.

    That is ``DataParallel``, ``DistributedDataParallel``, ``AveragedModel`` and what
    ``torch.compile`` gives. What is pruned becomes plain, as in a checkpoint that was cleaned.

    Raises:
        ExportError: a module is TorchScript, which has no Python code to trace.
    """
    model = bare(model)
    for path, module in list(model.named_modules()):
        if isinstance(module, torch.jit.ScriptModule):
            raise ExportError(
                f"module {path or 'the model'!r} is TorchScript; give the Python code it came from"
            )
        module._compiled_call_impl = None  # of Module.compile
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
        for name, child in list(module._modules.items()):
            if child is not None:
                module._modules[name] = bare(child)
    return model


def bare(model: nn.Module) -> nn.Module:
    """A model out of what it is wrapped in itself; the modules in it stay as they are."""
    while (inner := _inner(model)) is not None:
        model = inner
    return model


def _inner(model: nn.Module) -> nn.Module | None:
    wrappers = (
        nn.DataParallel,
        nn.parallel.DistributedDataParallel,
        torch.optim.swa_utils.AveragedModel,
    )
    inner = model.module if isinstance(model, wrappers) else getattr(model, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else None


def _import_file(path: Path) -> ModuleType:
    """Imports a file under its own name, or under another where that is taken."""
    name = path.stem
    found = sys.modules.get(name)
    if found is not None and getattr(found, "__file__", None) == str(path):
        return found
    if found is not None or not name.isidentifier() or name in sys.stdlib_module_names:
        name = f"_adder_onnx_factory_{abs(hash(path)):x}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where classes look for the module that they are from
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def _as_a_script(name: str, folder: Path, output: TextIO) -> Iterator[None]:
    """Runs what is within it as a program without arguments that prints to ``output``."""
    arguments = sys.argv
    sys.argv = [name]
    sys.path.insert(0, str(folder))
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            yield
    finally:
        sys.argv = arguments
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
