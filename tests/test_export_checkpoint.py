"""Reading checkpoints: what is one, what is not, and that none is ever executed."""

from __future__ import annotations

import hashlib
import pickle
import random
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from adder_onnx import InferenceSession
from adder_onnx.cli import export
from adder_onnx.errors import CheckpointError
from adder_onnx.export.checkpoint import read_checkpoint, sha256
from adder_onnx.export.recognition import load_model
from adder_onnx.export.resnet import ResNet, ResNetConfig

STATE = OrderedDict(
    {
        "conv1.weight": torch.arange(6.0).reshape(2, 3),
        "bn1.num_batches_tracked": torch.tensor(7),
        "half": torch.ones(3, dtype=torch.float16),
    }
)


class Opener:
    """Opens a file for writing when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)  # type: ignore[no-any-return]


def read_state_dict(path: Path) -> dict[str, Tensor]:
    return read_checkpoint(path).state


def assert_refused(path: Path, *words: str) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(CheckpointError) as caught:
            read_state_dict(path)
    assert not warned  # it would be a second line on standard error
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_state_dict(tmp_path: Path, prefix: str, zipped: bool) -> None:
    path = tmp_path / "net.pth"
    named = {prefix + name: value for name, value in STATE.items()}
    torch.save(named, path, _use_new_zipfile_serialization=zipped)
    state = read_state_dict(path)
    assert list(state) == list(STATE)
    for name, value in state.items():
        torch.testing.assert_close(value, STATE[name], rtol=0, atol=0)
        assert value.dtype == STATE[name].dtype


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_state_dict_by_pickle(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "net.pkl"
    path.write_bytes(pickle.dumps({"state_dict": STATE}, protocol))
    state = read_state_dict(path)
    for name, value in STATE.items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=0)


def test_state_dict_of_a_module_with_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    net = nn.DataParallel(Net())
    torch.save(net.state_dict(), path)
    assert list(read_state_dict(path)) == ["fc.weight", "fc.bias"]


def test_prefix_of_some_names_only_is_part_of_them(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"module.a": torch.zeros(1), "b": torch.zeros(1)}, path)
    assert list(read_state_dict(path)) == ["module.a", "b"]


def test_file_that_is_not_there(tmp_path: Path) -> None:
    assert_refused(tmp_path / "net.pth", "No such file")


def test_folder(tmp_path: Path) -> None:
    assert_refused(tmp_path, "Is a directory")


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"hello world\n", b"<html>not found</html>\n", b"layer1.0 0.5 0.25\n" * 9],
    ids=["empty", "zero", "text", "html", "table"],
)
def test_file_of_another_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    assert_refused(path, "not a PyTorch checkpoint")


@pytest.mark.parametrize("numbers", [1, 40_000])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_truncated_file(tmp_path: Path, zipped: bool, numbers: int) -> None:
    path = tmp_path / "net.pth"
    state = {**STATE, "fc.weight": torch.zeros(numbers)}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in {*range(0, len(whole), len(whole) // 40), len(whole) - 1}:
        path.write_bytes(whole[:length])
        assert_refused(path, "not a PyTorch checkpoint")


def test_damaged_file_is_read_or_refused(tmp_path: Path) -> None:
    """The unpickler raises errors of many kinds over a damaged file; none may come through."""
    path = tmp_path / "net.pth"
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    rng = random.Random(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[rng.randrange(len(whole))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            read_state_dict(path)
        except CheckpointError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("by", ["torch", "torch legacy", "pickle"])
def test_code_in_a_file_is_not_run(tmp_path: Path, by: str) -> None:
    path, marker = tmp_path / "net.pth", tmp_path / "executed"
    state = {**STATE, "extra": Opener(marker)}
    if by == "pickle":
        path.write_bytes(pickle.dumps(state, 2))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=by == "torch")
    assert_refused(path)
    assert not marker.exists()
    # The file does what it is here for where it is let.
    if by == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert marker.exists()


REFERENCE = """
import torch
from torch import nn

class adder2d(nn.Module):
    def __init__(self, c, m, k, stride=1, padding=0, bias=False):
        super().__init__()
        self.stride, self.padding, self.input_channel = stride, padding, c
        self.output_channel, self.kernel_size, self.bias = m, k, bias
        self.adder = nn.Parameter(torch.randn(m, c, k, k))
        if bias:
            self.b = nn.Parameter(torch.zeros(m))
    def forward(self, x):
        n = x.shape[0]
        columns = nn.functional.unfold(x, self.kernel_size, 1, self.padding, self.stride)
        w = self.adder.flatten(1)
        out = -(w[None, :, :, None] - columns[:, None]).abs().sum(2)
        side = int(out.shape[2] ** 0.5)
        out = out.view(n, -1, side, side)
        return out + self.b.view(1, -1, 1, 1) if self.bias else out

class BasicBlock(nn.Module):
    def __init__(self, c, m, stride=1, downsample=None):
        super().__init__()
        self.conv1, self.bn1 = adder2d(c, m, 3, stride, 1), nn.BatchNorm2d(m)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = adder2d(m, m, 3, 1, 1), nn.BatchNorm2d(m)
        self.downsample, self.stride = downsample, stride
    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))

class ResNet(nn.Module):
    def __init__(self, first_stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, first_stride, 1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(BasicBlock(8, 8))
        down = lambda c, m: nn.Sequential(adder2d(c, m, 1, 2), nn.BatchNorm2d(m))
        self.layer2 = nn.Sequential(BasicBlock(8, 16, 2, down(8, 16)))
        self.layer3 = nn.Sequential(BasicBlock(16, 16, 2, down(16, 16)))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc, self.bn2 = nn.Conv2d(16, 10, 1, bias=False), nn.BatchNorm2d(10)
    def forward(self, x):
        x = self.layer1(self.relu(self.bn1(self.conv1(x))))
        return self.bn2(self.fc(self.avgpool(self.layer3(self.layer2(x))))).flatten(1)
"""

TRAIN_AND_SAVE = """
import sys, torch
from torch import nn
import somebody.nets as nets

def train_and_save(path, first_stride, wrapping, how):
    torch.manual_seed(0)
    net = nets.ResNet(first_stride)
    wrapped = nn.DataParallel(net) if wrapping == "parallel" else net
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
    x = torch.randn(8, 3, 16, 16)
    nn.functional.cross_entropy(wrapped(x), torch.arange(8)).backward()
    optimizer.step()
    what = {"net": wrapped, "optimizer": optimizer.state_dict(), "epoch": 1}
    torch.save(
        what if how == "among others" else wrapped,
        path,
        _use_new_zipfile_serialization=how != "legacy",
    )
    net.eval()
    torch.save({"x": x, "y": net(x).detach()}, path + ".truth")

for path, first_stride, wrapping, how in zip(*[iter(sys.argv[1:])] * 4):
    train_and_save(path, int(first_stride), wrapping, how)
"""

WAYS = [
    (1, "bare", "zip"),
    (2, "parallel", "zip"),
    (2, "bare", "legacy"),
    (1, "parallel", "among others"),
]
"""The first stride, the wrapping, and how it is saved."""


@pytest.fixture(scope="module")
def trained_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str, str], Path]:
    """Trained one step and saved by another process, from a package that is gone afterwards."""
    folder = tmp_path_factory.mktemp("elsewhere")
    package = folder / "code" / "somebody"
    package.mkdir(parents=True)
    (package / "nets.py").write_text(REFERENCE)
    paths = {way: folder / f"ResNet20-AdderNet{i}" for i, way in enumerate(WAYS)}
    words = [word for way, path in paths.items() for word in (path, *way)]
    command = [sys.executable, "-c", TRAIN_AND_SAVE, *map(str, words)]
    subprocess.run(command, cwd=folder / "code", check=True)
    shutil.rmtree(folder / "code")
    return paths


@pytest.mark.parametrize("way", WAYS[:2], ids=str)
def test_whole_module_is_exported(
    tmp_path: Path,
    trained_elsewhere: dict[tuple[int, str, str], Path],
    way: tuple[int, str, str],
) -> None:
    path = trained_elsewhere[way]
    output = tmp_path / "net.onnx"
    assert export.main([str(path), str(output), "--input-shape", "3,16,16"]) == 0
    truth = torch.load(f"{path}.truth")
    (logits,) = InferenceSession(output).run(None, {"input": truth["x"]})
    torch.testing.assert_close(logits, truth["y"], rtol=1e-4, atol=1e-4)
    assert "somebody" not in sys.modules


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_whole_module_without_its_author_s_code(
    trained_elsewhere: dict[tuple[int, str, str], Path], way: tuple[int, str, str]
) -> None:
    path = trained_elsewhere[way]
    checkpoint = read_checkpoint(path)
    assert checkpoint.modules["layer2.0.conv1"].attributes["stride"] == 2
    model = load_model(checkpoint)
    truth = torch.load(f"{path}.truth")
    with torch.no_grad():
        torch.testing.assert_close(model(truth["x"]), truth["y"], rtol=1e-4, atol=1e-4)
    assert "somebody" not in sys.modules


def test_whole_module_of_our_own(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    config = ResNetConfig("cifar", "basic", (1, 1, 1), (4, 8, 8), 10)
    net = ResNet(config).eval()
    torch.save(net, path)
    state = read_state_dict(path)
    assert list(state) == list(net.state_dict())
    for name, value in net.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=0)


def test_code_in_a_whole_module_is_not_run(tmp_path: Path) -> None:
    """Among attributes, in hooks, as a parameter's class: nothing in the file is called."""
    path, marker = tmp_path / "net.pth", tmp_path / "executed"
    net = Net()
    net.note = Opener(marker)  # type: ignore[assignment]
    net._forward_hooks[0] = Opener(marker)  # type: ignore[assignment]
    torch.save({"net": net, "extra": [Opener(marker)]}, path)
    assert list(read_state_dict(path)) == ["fc.weight", "fc.bias"]
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_state_dict_among_others(tmp_path: Path, key: str) -> None:
    path = tmp_path / "net.pth"
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], 0.1, momentum=0.9)
    torch.save({"epoch": 3, key: dict(STATE), "optimizer": optimizer.state_dict()}, path)
    assert list(read_state_dict(path)) == list(STATE)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_compiled_models(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "net.pth"
    torch.save({prefix + name: value for name, value in STATE.items()}, path)
    assert list(read_state_dict(path)) == list(STATE)


def test_checkpoint_from_a_gpu(tmp_path: Path) -> None:
    """Its pickle names the device; it is read on machines that have none."""
    path = tmp_path / "net.pth"
    torch.save(dict(STATE), path)
    moved = tmp_path / "cuda.pth"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(moved, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("data.pkl"):
                assert data.count(b"X\x03\x00\x00\x00cpu") >= 1
                data = data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
            new.writestr(name, data)
    with pytest.raises(RuntimeError, match=r"torch\.cuda\.is_available\(\) is False"):
        torch.load(moved)
    state = read_state_dict(moved)
    torch.testing.assert_close(state["conv1.weight"], STATE["conv1.weight"])


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file({f"module.{n}": v.contiguous() for n, v in STATE.items()}, path)
    state = read_state_dict(path)
    assert set(state) == set(STATE)
    for name, value in STATE.items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=0)
    whole = path.read_bytes()
    for length in (9, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert_refused(path, "not a safetensors file")


def test_module_without_parameters(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(nn.ReLU(), path)
    assert_refused(path, "without parameters")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.pth"
    torch.jit.save(torch.jit.script(Net()), path)
    assert_refused(path, "TorchScript")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([torch.zeros(2)], ["a list", "state_dict()"]),
        (torch.zeros(2), ["a Tensor", "state_dict()"]),
        (3, ["a int", "state_dict()"]),
        ({}, ["a dict"]),
        (OrderedDict(), ["a OrderedDict"]),
        ({"a": torch.zeros(1), "epoch": 3}, ["keys 'a', 'epoch'", "state_dict()"]),
        ({"a": torch.zeros(1), 5: torch.zeros(1)}, ["keys 'a', 5"]),
        ({"a\nb": "c"}, ["holds no network"]),
        ({"net": {"a": "b"}, "model": 3}, ["keys 'net', 'model'"]),
        (np.float64(1), ["numpy"]),
    ],
)
def test_other_values(tmp_path: Path, value: object, words: list[str]) -> None:
    path = tmp_path / "net.pth"
    torch.save(value, path)
    assert_refused(path, *words)


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    content = random.Random(0).randbytes((1 << 21) + 5)
    path.write_bytes(content)
    assert sha256(path) == hashlib.sha256(content).hexdigest()
