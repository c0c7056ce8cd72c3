"""What is public is documented: everything that it takes, gives and raises, under names that exist.

The pages themselves are built by .ci/build-docs, which refuses links to what is not there.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import re
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

from tests.conftest import ROOT

pytest.importorskip("torch", reason="adder_onnx.export needs it")

SECTIONS = ("Args", "Attributes", "Raises", "Returns", "Shapes", "Yields")
NOTHING = ("None", "NoReturn")


def _builder() -> ModuleType:
    path = ROOT / ".ci" / "reference" / "build.py"
    if not path.exists():
        pytest.skip("the source distribution has no .ci")
    spec = importlib.util.spec_from_file_location("reference_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _modules() -> list[ModuleType]:
    return [importlib.import_module(name) for name in _builder().MODULES]


def _public() -> Iterator[tuple[str, Any]]:
    """The qualified names in ``__all__`` of the modules, and what they are."""
    for module in _modules():
        for name in module.__all__:
            yield f"{module.__name__}.{name}", getattr(module, name)


def _classes() -> Iterator[tuple[str, type]]:
    yield from ((name, thing) for name, thing in _public() if inspect.isclass(thing))


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that a class itself has."""
    for name, member in vars(cls).items():
        function = member.fget if isinstance(member, property) else member
        function = getattr(function, "__func__", function)  # of a classmethod
        if not name.startswith("_") and inspect.isfunction(function):
            yield name, function


def _functions() -> Iterator[tuple[str, FunctionType]]:
    for name, thing in _public():
        if inspect.isfunction(thing):
            yield name, inspect.unwrap(thing)
        elif inspect.isclass(thing):
            yield from ((f"{name}.{member}", value) for member, value in _members(thing))


def _doc(thing: Any) -> str:
    return inspect.cleandoc(thing.__doc__ or "")


def _section(doc: str, name: str) -> str | None:
    found = re.search(rf"^{name}:\n((?:(?:    .*)?(?:\n|$))+)", doc, re.MULTILINE)
    return None if found is None else textwrap.dedent(found[1])


def _listed(section: str | None) -> list[str]:
    """The names that a section says something of."""
    return re.findall(r"^\*{0,2}([\w.]+): \S", section or "", re.MULTILINE)


def _parameters(function: Any) -> list[str]:
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.name not in ("self", "cls") and p.kind not in kinds]


def _not_said(doc: str, names: list[str], section: str) -> list[str]:
    """Those of the names that neither the section nor the text says anything of.

    Of a single one the first line may do.
    """
    text = _section(doc, section)
    if text is not None:
        return [name for name in names if name not in _listed(text)]
    return [name for name in names if f"``{name}``" not in doc and len(names) > 1]


def test_the_package_names_all_public_modules() -> None:
    doc = _doc(importlib.import_module("adder_onnx"))
    assert tuple(re.findall(r"^\| `([\w.]+)` \|", doc, re.MULTILINE)) == _builder().MODULES


def test_everything_public_says_what_it_is() -> None:
    silent = [module.__name__ for module in _modules() if not module.__doc__]
    for name, thing in _public():
        if inspect.isclass(thing):
            generated = dataclasses.is_dataclass(thing) and _doc(thing).startswith(
                f"{thing.__name__}("
            )
            silent += [name] if generated or not vars(thing).get("__doc__") else []
        elif inspect.isfunction(thing):
            silent += [] if thing.__doc__ else [name]
        else:
            silent += [] if _is_said(*name.rsplit(".", 1)) else [name]
    silent += [name for name, function in _functions() if not function.__doc__]
    assert silent == []


def _is_said(module: str, name: str) -> bool:
    """Whether there is a docstring under a constant, or its module's says what it is."""
    found = importlib.import_module(module)
    if f"`{name}`" in _doc(found):
        return True
    body = ast.parse(inspect.getsource(found)).body
    return any(
        isinstance(constant, ast.Assign)
        and getattr(constant.targets[0], "id", "") == name
        and isinstance(text, ast.Expr)
        for constant, text in pairwise(body)
    )


def test_what_is_taken() -> None:
    missing = {
        name: _not_said(_doc(function), _parameters(function), "Args")
        for name, function in _functions()
        if function.__annotations__.get("return") != "NoReturn"
    }
    for name, cls in _classes():
        if inspect.isfunction(vars(cls).get("__init__")) and not dataclasses.is_dataclass(cls):
            missing[name] = _not_said(_doc(cls), _parameters(cls.__init__), "Args")
    assert {name: those for name, those in missing.items() if those} == {}


def test_nothing_is_said_of_what_is_not_taken() -> None:
    surplus = {
        name: set(_listed(_section(_doc(function), "Args")))
        - set(inspect.signature(function).parameters)
        for name, function in _functions()
    }
    assert {name: those for name, those in surplus.items() if those} == {}


def test_what_is_given() -> None:
    """By a section where there is one for what is taken; otherwise the first line says it."""
    missing = [
        name
        for name, function in _functions()
        if function.__annotations__.get("return", "None") not in NOTHING
        and _section(_doc(function), "Args")
        and not (_section(_doc(function), "Returns") or _section(_doc(function), "Yields"))
    ]
    assert missing == []


def test_what_is_raised() -> None:
    missing = {
        name: [error for error in _raised(function) if error not in _doc(function)]
        for name, function in _functions()
    }
    assert {name: those for name, those in missing.items() if those} == {}


def _raised(function: FunctionType) -> list[str]:
    """The classes that a function itself raises by their names."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    raised = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    called = [node.func for node in raised if isinstance(node, ast.Call)]
    return [node.id for node in called if isinstance(node, ast.Name) and node.id[0].isupper()]


def test_what_a_record_holds() -> None:
    missing = {
        name: _not_said(_doc(cls), [field.name for field in dataclasses.fields(cls)], "Attributes")
        for name, cls in _classes()
        if dataclasses.is_dataclass(cls)
    }
    assert {name: those for name, those in missing.items() if those} == {}


def test_sections_are_those_that_there_are() -> None:
    odd = {
        name: set(re.findall(r"^([A-Z]\w+):$", _doc(thing), re.MULTILINE)) - set(SECTIONS)
        for name, thing in [*_functions(), *_classes()]
    }
    assert {name: those for name, those in odd.items() if those} == {}


def test_names_in_the_text_are_those_of_something() -> None:
    """In single backticks, as those that pages link where the name is public."""
    broken = []
    modules = {module.__name__: module for module in _modules()}
    for name, thing in [*_functions(), *_classes(), *modules.items()]:
        places = [module for key, module in modules.items() if f"{name}.".startswith(f"{key}.")]
        owner, _, _ = getattr(thing, "__qualname__", "").partition(".")
        places += [getattr(module, owner) for module in places if hasattr(module, owner)]
        for reference in re.findall(r"(?<!`)`([A-Za-z_][\w.]*)`(?!`)", _doc(thing)):
            if reference not in modules and not _is_among(reference, modules, places):
                broken.append(f"{name}: {reference}")
    assert broken == []


def _is_among(reference: str, modules: dict[str, ModuleType], places: list[Any]) -> bool:
    """Whether a name is that of something public, or of a part of one of the places."""
    return any(_has(place, reference) for place in places) or any(
        reference.startswith(f"{name}.") and _has(module, reference.removeprefix(f"{name}."))
        for name, module in modules.items()
    )


def _has(place: Any, reference: str) -> bool:
    first, _, rest = reference.partition(".")
    fields = getattr(place, "__dataclass_fields__", {})
    names = getattr(place, "__all__", None) or [*dir(place), *fields]
    return first in names and (not rest or _has(getattr(place, first), rest))


def test_links_to_what_is_not_there_are_found(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.html").write_text(
        """<a href="#here" id="here"></a> <a href="https://example.org/x"></a>
        <a href="deep/b.html#there"></a> <a href="#nowhere"></a> <a href="deep/c.html"></a>"""
    )
    (tmp_path / "deep" / "b.html").write_text(
        """<p id="there"></p> <a href="../a.html#here"></a> <a href="../a.html#there"></a>"""
    )
    assert _builder().broken_links(tmp_path) == [
        "a.html: #nowhere",
        "a.html: deep/c.html",
        "deep/b.html: ../a.html#there",
    ]
