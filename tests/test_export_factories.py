"""Models that a user's own code makes, whatever that code does on the way."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.testing import assert_close

from adder_onnx.cli import export
from adder_onnx.errors import ExportError
from adder_onnx.export import api
from adder_onnx.export.factories import make_model, unwrap
from tests import models
from tests.checkpoints import State

CODE = """
import sys, torch
from torch import nn
from adder_onnx.export import AdderConv2d

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(AdderConv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.fc = nn.Linear(4, 2)
    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)) / 20)

def plain(): return Net()
def parallel(): return nn.DataParallel(Net())
def compiled(): return torch.compile(Net())
def both(): return torch.compile(nn.DataParallel(Net()))
def averaged(): return torch.optim.swa_utils.AveragedModel(Net())
def compiled_in_place():
    net = Net()
    net.compile()
    return net
def features_parallel():
    net = Net()
    net.features = nn.DataParallel(net.features)
    return net
def features_compiled():
    net = Net()
    net.features = torch.compile(net.features)
    return net
def prints():
    print("making it")
    return Net()
def exits(): sys.exit("no GPU found")
def quits(): raise SystemExit
def scripted(): return torch.jit.script(nn.Linear(2, 2))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    before = set(sys.modules)
    (tmp_path / "somenet.py").write_text(CODE)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def state(folder: Path) -> State:
    torch.manual_seed(0)
    return make_model(f"{folder}/somenet.py:plain").state_dict()


NOTHING = models.make_model(
    [models.node("Identity", ["input"], "logits")], {"input": ["N", 2]}, {"logits": ["N", 2]}
)
"""In the place of a model that need not be converted."""

FACTORIES = [
    "plain",
    "parallel",
    "compiled",
    "both",
    "averaged",
    "compiled_in_place",
    "features_parallel",
    "features_compiled",
]


@pytest.mark.parametrize("factory", FACTORIES)
def test_what_is_wrapped_comes_out(factory: str, folder: Path) -> None:
    model = make_model(f"{folder}/somenet.py:{factory}")
    assert model.state_dict().keys() == state(folder).keys()
    assert type(model).__name__ == "Net"
    assert model(torch.zeros(2, 3, 4, 4)).shape == (2, 2)


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("prefix", ["", "module.", "features.module."])
def test_checkpoint_of_one_wrapping_in_a_model_of_another(
    factory: str,
    prefix: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The model that is converted has the checkpoint's weights; one of each kind is converted."""
    named = state(folder)
    if prefix == "features.module.":
        named = {n.replace("features.", prefix): t for n, t in named.items()}
    else:
        named = {prefix + n: t for n, t in named.items()}
    torch.save(named, folder / "net.pth")
    arguments = [str(folder / "net.pth"), str(folder / "net.onnx"), "--no-verify"]
    arguments += ["--arch", f"{folder}/somenet.py:{factory}"]
    arguments += ["--input-shape", "3,6,6", "--mean", "0,0,0", "--std", "1,1,1"]
    given: list[nn.Module] = []

    def export_model(model: nn.Module, *shape: Any, **options: Any) -> onnx.ModelProto:
        given.append(model)
        return exported(model, *shape, **options) if prefix == "" else NOTHING

    exported = api.export_model
    monkeypatch.setattr(api, "export_model", export_model)
    assert export.main(arguments) == 0, capsys.readouterr().err
    assert_close(given[0].state_dict(), state(folder), rtol=0, atol=0)


def test_pruned_model_takes_a_pruned_checkpoint(folder: Path) -> None:
    model = make_model(f"{folder}/somenet.py:plain")
    names = model.state_dict().keys()
    prune.identity(model.get_submodule("features.0"), "adder")  # type: ignore[no-untyped-call]
    prune.identity(model.get_submodule("fc"), "weight")  # type: ignore[no-untyped-call]
    assert unwrap(model).state_dict().keys() == names


def test_torchscript_is_refused(folder: Path) -> None:
    with pytest.raises(ExportError, match="is TorchScript; give the Python code"):
        make_model(f"{folder}/somenet.py:scripted")


def test_what_a_factory_prints_is_no_result(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_model(f"{folder}/somenet.py:prints")
    assert capsys.readouterr() == ("", "making it\n")


@pytest.mark.parametrize(
    ("code", "factory", "reason"),
    [
        ("", "exits", "no GPU found"),
        ("", "quits", "exit status None"),
        ("import sys\nsys.exit(3)\n", "make", "exit status 3"),
        (
            "import argparse\np = argparse.ArgumentParser()\n"
            "p.add_argument('--data', required=True)\np.parse_args()\n",
            "make",
            "error: the following arguments are required: --data",
        ),
    ],
    ids=["calls exit", "raises", "at import", "needs arguments"],
)
def test_factory_that_ends_the_program(
    code: str, factory: str, reason: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if code:
        (folder / "somenet.py").write_text(code)
    torch.save({"a": torch.zeros(1)}, folder / "net.pth")
    arguments = [str(folder / "net.pth"), str(folder / "net.onnx")]
    arguments += ["--arch", f"{folder}/somenet.py:{factory}"]
    assert export.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "ends the program when it is imported or called" in line
    assert reason in line


def test_file_that_parses_arguments_sees_none(folder: Path) -> None:
    code = "import argparse\np = argparse.ArgumentParser()\np.add_argument('--lr', default=0.1)\n"
    code += "args = p.parse_args()\nfrom torch import nn\ndef make(): return nn.Linear(2, 3)\n"
    (folder / "train.py").write_text(code)
    before = sys.argv
    sys.argv = ["adder-export", "net.pth", "net.onnx"]
    try:
        assert isinstance(make_model(f"{folder}/train.py:make"), nn.Linear)
        assert sys.argv == ["adder-export", "net.pth", "net.onnx"]
    finally:
        sys.argv = before


@pytest.mark.parametrize("name", ["types", "json", "random", "adder_onnx", "my-net", "net.v2"])
def test_file_whose_name_is_taken_or_no_name(name: str, folder: Path) -> None:
    """A module of that name is there already, or no module can have it."""
    other = sys.modules.get(name)
    (folder / f"{name}.py").write_text("from torch import nn\ndef make(): return nn.Linear(2, 3)\n")
    assert isinstance(make_model(f"{folder}/{name}.py:make"), nn.Linear)
    assert sys.modules.get(name) is other


def test_two_files_of_one_name(folder: Path) -> None:
    for i in (3, 4):
        path = folder / str(i)
        path.mkdir()
        code = f"from torch import nn\ndef make(): return nn.Linear(2, {i})\n"
        (path / "twin.py").write_text(code)
    models = [make_model(f"{folder}/{i}/twin.py:make") for i in (3, 4)]
    assert [model.out_features for model in models] == [3, 4]


def test_module_beside_the_file_can_be_imported(folder: Path) -> None:
    (folder / "helper.py").write_text("from torch import nn\nlayer = nn.Linear(2, 5)\n")
    (folder / "uses.py").write_text("def make():\n    import helper\n    return helper.layer\n")
    model = make_model(f"{folder}/uses.py:make")
    assert isinstance(model(torch.zeros(1, 2)), Tensor)
    assert str(folder) not in sys.path
