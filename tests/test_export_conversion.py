"""Models of others: factories, layers that look like the reference's, and `export_onnx`."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import adder_onnx
from adder_onnx.cli import export
from adder_onnx.errors import AdderError, ExportError
from adder_onnx.export import AdderConv2d, export_onnx
from adder_onnx.export.adder_layers import convert_adder_layers
from adder_onnx.export.factories import make_model
from adder_onnx.metadata import ModelMetadata

ADDER = """
import torch
from torch import nn

class adder2d(nn.Module):
    def __init__(self, c, m, k, stride=1, padding=0, bias=False):
        super().__init__()
        self.stride, self.padding, self.kernel_size, self.bias = stride, padding, k, bias
        self.adder = nn.Parameter(torch.randn(m, c, k, k))
        if bias:
            self.b = nn.Parameter(torch.randn(m))
    def forward(self, x):
        height = (x.shape[2] + 2 * self.padding - self.kernel_size) // self.stride + 1
        columns = nn.functional.unfold(x, self.kernel_size, 1, self.padding, self.stride)
        out = -(self.adder.flatten(1)[None, :, :, None] - columns[:, None]).abs().sum(2)
        out = out.view(x.shape[0], -1, height, out.shape[2] // height)
        return out + self.b.view(1, -1, 1, 1) if self.bias else out
"""

NET = """
import adder
from torch import nn

class Part(nn.Module):
    def __init__(self, c, m, **options):
        super().__init__()
        self.inner = nn.ModuleDict({"conv": adder.adder2d(c, m, 3, **options)})
        self.bn = nn.BatchNorm2d(m)
    def forward(self, x):
        return self.bn(self.inner["conv"](x)).relu()

class Net(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.first = Part(3, 6, padding=1)
        self.rest = nn.Sequential(Part(6, 8, stride=2, bias=True), adder.adder2d(8, 8, 1))
        self.fc = nn.Linear(8, classes)
    def forward(self, x):
        return self.fc(self.rest(self.first(x)).mean((2, 3)) / 10)

def net(**options):
    return Net(**options)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    """A folder with the code and a checkpoint; what was imported from it is forgotten after."""
    (tmp_path / "adder.py").write_text(ADDER)
    (tmp_path / "mynet.py").write_text(NET)
    before = set(sys.modules)
    torch.manual_seed(0)
    model = make_model(f"{tmp_path / 'mynet.py'}:net").train()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        model(torch.randn(16, 3, 9, 9))
    torch.save(model.state_dict(), tmp_path / "net.pth")
    yield tmp_path
    for name in set(sys.modules) - before:
        if name in ("adder", "mynet"):
            del sys.modules[name]


def load(folder: Path) -> nn.Module:
    model = make_model(f"{folder / 'mynet.py'}:net")
    model.load_state_dict(torch.load(folder / "net.pth"))
    return model.eval()


def test_layers_are_converted_wherever_they_are(folder: Path) -> None:
    model = load(folder)
    x = torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        before = model(x)
        names = list(model.state_dict())
        converted = convert_adder_layers(model)
        torch.testing.assert_close(converted(x), before, rtol=1e-4, atol=1e-4)
    assert list(converted.state_dict()) == names
    layers = {n: m for n, m in converted.named_modules() if isinstance(m, AdderConv2d)}
    assert list(layers) == ["first.inner.conv", "rest.0.inner.conv", "rest.1"]
    assert layers["rest.0.inner.conv"].stride == (2, 2)
    assert layers["first.inner.conv"].padding == (1, 1)


def test_a_layer_by_itself_is_converted(folder: Path) -> None:
    layer = convert_adder_layers(load(folder).rest[1])  # type: ignore[index, union-attr]
    assert isinstance(layer, AdderConv2d)


def test_layer_with_a_padding_that_is_no_number() -> None:
    layer = AdderConv2d(1, 1, 3)

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.adder, self.stride, self.padding = layer.adder, 1, "same"

    with pytest.raises(ExportError, match=r"odd\.padding is 'same'"):
        convert_adder_layers(nn.ModuleDict({"odd": Odd()}))


def test_own_model_from_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = folder / "net.onnx"
    arguments = [str(folder / "net.pth"), str(output), "--arch", f"{folder / 'mynet.py'}:net"]
    shape = ["--input-shape", "3,9,9", "--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2"]
    (folder / "labels.txt").write_text("\ufeffa\nb\n\nc\nd\n", encoding="utf-8")
    labels = ["--labels", str(folder / "labels.txt")]
    assert export.main([*arguments, *shape, *labels]) == 0
    assert "net, 3 AdderConv nodes" in capsys.readouterr().out
    x = torch.randn(3, 3, 9, 9)
    with torch.no_grad():
        expected = load(folder).double()(x.double()).numpy()
    session = adder_onnx.InferenceSession(output)
    np.testing.assert_allclose(
        session.run(None, {"input": x.numpy()})[0], expected, rtol=1e-4, atol=1e-4
    )
    metadata = ModelMetadata.from_props(session.metadata)
    assert metadata.labels == ("a", "b", "c", "d")
    assert metadata.architecture == "net"


def test_package_module_factory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert isinstance(make_model("mynet:Net"), nn.Module)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("nowhere.py:net", "does not exist"),
        ("{folder}/mynet.py:nothing", "has no attribute 'nothing'"),
        ("no.such.package:net", "No module named 'no'"),
        ("{folder}/broken.py:net", "SyntaxError"),
        ("{folder}/mynet.py:", "names no factory"),
        ("{folder}/mynet.py:adder", "failed: TypeError"),
        ("{folder}/other.py:make", "gave a int"),
        ("{folder}/other.py:other_net", "missing from the checkpoint"),
    ],
)
def test_factories_that_do_not_work(
    folder: Path, factory: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.py").write_text("def net(:\n")
    (folder / "other.py").write_text(
        "from torch import nn\ndef make(): return 3\ndef other_net(): return nn.Linear(2, 2)\n"
    )
    output = folder / "net.onnx"
    arch = factory.format(folder=folder)
    shape = ["--input-shape", "3,9,9", "--mean", "0,0,0", "--std", "1,1,1"]
    assert export.main([str(folder / "net.pth"), str(output), "--arch", arch, *shape]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not output.exists()


def test_own_model_needs_to_say_what_it_takes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arch = f"{folder / 'mynet.py'}:net"
    arguments = [str(folder / "net.pth"), str(folder / "net.onnx"), "--arch", arch]
    assert export.main(arguments) == 2
    assert "--input-shape, --mean, --std" in capsys.readouterr().err
    assert export.main([*arguments, "--dataset", "cifar10"]) == 2
    assert "there are 10 labels; the network has 4 classes" in capsys.readouterr().err


def test_crop_takes_a_size(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arch = f"{folder / 'mynet.py'}:net"
    output = folder / "net.onnx"
    arguments = [str(folder / "net.pth"), str(output), "--arch", arch, "--no-verify"]
    values = ["--mean", "0,0,0", "--std", "1,1,1", "--input-shape", "3,9,9"]
    assert export.main([*arguments, *values, "--resize", "12", "--crop", "9"]) == 0
    props = adder_onnx.InferenceSession(output).metadata
    how = ModelMetadata.from_props(props).preprocessing
    assert how is not None
    assert (how.resize, how.crop, how.height, how.width) == (12, True, 9, 9)
    assert export.main([*arguments, *values, "--crop", "8"]) == 2
    assert "--crop 8 contradicts --input-shape 3,9,9" in capsys.readouterr().err


def test_export_onnx_from_python(folder: Path) -> None:
    model = load(folder).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    exported = export_onnx(model, folder / "net.onnx", (3, 9, 9))
    assert exported.adder_nodes == 3
    assert exported.bytes == (folder / "net.onnx").stat().st_size
    assert exported.verification is not None
    (logits,) = exported.verification.outputs.values()
    assert set(logits.errors) == {"adder-onnx", "onnxruntime"}
    onnx.checker.check_model(str(folder / "net.onnx"), full_check=True)
    # The model that was given is as before.
    assert model.training
    assert not any(isinstance(m, AdderConv2d) for m in model.modules())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)


def test_layer_that_only_looks_like_one_is_found_out(folder: Path) -> None:
    """It has the right names, but squares; the file is compared with what it computes."""

    class Square(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.adder = nn.Parameter(torch.randn(4, 3, 1, 1))
            self.stride, self.padding = 1, 0

        def forward(self, x: Tensor) -> Tensor:
            return -((x[:, None] - self.adder[None]) ** 2).sum(2)

    model = nn.Sequential(Square(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ExportError, match="differs from PyTorch"):
        export_onnx(model, folder / "net.onnx", (3, 9, 9))
    assert not (folder / "net.onnx").exists()


def test_model_that_does_not_run_here_is_compared_after_conversion(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class OnGpu(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.adder = nn.Parameter(torch.randn(4, 3, 1, 1))
            self.stride, self.padding = 1, 0

        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no CUDA")

    model = nn.Sequential(OnGpu(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    exported = export_onnx(model, folder / "net.onnx", (3, 9, 9))
    assert "NOT VERIFIED: the model as it was given does not run here (RuntimeError: no CUDA)" in (
        caplog.text
    )
    assert exported.why_not_verified == "RuntimeError: no CUDA"
    assert exported.verification is None  # our own conversion is no judge of itself
    assert exported.conversion is not None
    assert exported.conversion.passes()


def test_rtol_and_no_verify(folder: Path) -> None:
    model = load(folder)
    with pytest.raises(AdderError, match="--rtol 1e-12"):
        export_onnx(model, folder / "net.onnx", (3, 9, 9), rtol=1e-12)
    assert not (folder / "net.onnx").exists()
    exported = export_onnx(model, folder / "net.onnx", (3, 9, 9), no_verify=True)
    assert exported.verification is None


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile], ids=["parallel", "compiled"])
def test_wrapped_model_from_python(wrap: Any, folder: Path) -> None:
    done = export_onnx(wrap(load(folder)), folder / "net.onnx", (3, 9, 9))
    assert done.verification is not None
    assert done.adder_nodes == 3


def test_model_whose_train_and_float_give_nothing_back(folder: Path) -> None:
    class Forgetful(nn.Sequential):
        def train(self, mode: bool = True) -> None:  # type: ignore[override]
            super().train(mode)

        def _apply(self, *arguments: Any, **options: Any) -> None:  # type: ignore[override]
            super()._apply(*arguments, **options)

    done = export_onnx(Forgetful(load(folder)), folder / "net.onnx", (3, 9, 9))
    assert done.verification is not None
    assert done.verification.why_not_float64 is None


def test_model_that_cannot_be_copied(folder: Path) -> None:
    model = load(folder)
    model.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(ExportError, match=r"cannot be copied .*lock.*in_place=True"):
        export_onnx(model, folder / "net.onnx", (3, 9, 9))
    done = export_onnx(model, folder / "net.onnx", (3, 9, 9), in_place=True)
    assert done.verification is not None
    assert "cannot be copied" in str(done.verification.why_not_float64)


def test_model_of_two_inputs(folder: Path) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    with pytest.raises(ExportError, match="missing"):
        export_onnx(Two(), folder / "net.onnx", (3, 9, 9))


def test_model_that_is_random(folder: Path) -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) + torch.randn(x.shape[0], 1)

    with pytest.raises(ExportError, match="differs from PyTorch"):
        export_onnx(Noisy(), folder / "net.onnx", (3, 9, 9))


def test_model_that_changes_its_input(folder: Path) -> None:
    class Doubles(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(2).flatten(1)

    done = export_onnx(Doubles(), folder / "net.onnx", (3, 9, 9))
    assert done.verification is not None
    assert done.verification.outputs["logits"].pytorch_float32 == 0


class Mixed(nn.Module):
    """Half in float16, with or without the code that takes both together."""

    def __init__(self, casts: bool) -> None:
        super().__init__()
        self.first = AdderConv2d(3, 4, 3)
        self.second = nn.Conv2d(4, 2, 1).half()
        self.casts = casts

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.second(y.half() if self.casts else y).float().mean((2, 3))  # type: ignore[no-any-return]


@pytest.mark.parametrize("casts", [True, False])
def test_model_of_two_precisions(casts: bool, folder: Path) -> None:
    model = Mixed(casts)
    done = export_onnx(model, folder / "net.onnx", (3, 9, 9))
    assert done.verification is not None
    x = torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        expected = (model if casts else model.float())(x).numpy()
    (got,) = adder_onnx.InferenceSession(folder / "net.onnx").run(None, {"input": x.numpy()})
    np.testing.assert_allclose(got, expected, rtol=1e-2)


def test_output_without_an_axis_for_images(folder: Path) -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean()

    assert export_onnx(Mean(), folder / "net.onnx", (3, 9, 9)).verification is not None


def test_what_pytorch_prints_is_no_result(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It prints graphs where it cannot trace."""

    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ExportError, match="PyTorch cannot export the model"):
        export_onnx(Branches(), folder / "net.onnx", (3, 9, 9))
    assert capfd.readouterr() == ("", "")
