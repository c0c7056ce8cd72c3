"""Reading checkpoints: what is one, what is not, and that none is ever executed."""

from __future__ import annotations

import hashlib
import pickle
import random
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adder_onnx.errors import CheckpointError
from adder_onnx.export.checkpoint import read_state_dict, sha256

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
    assert_refused(path, "tensors only", "state_dict()")
    assert not marker.exists()
    # The file does what it is here for where it is let.
    if by == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert marker.exists()


def test_whole_module(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(Net(), path)
    assert_refused(path, "torch.save(model.state_dict(), path)")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.pth"
    torch.jit.save(torch.jit.script(Net()), path)
    assert_refused(path, "not a PyTorch checkpoint")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([torch.zeros(2)], ["list", "expected a state dict"]),
        (torch.zeros(2), ["Tensor", "expected a state dict"]),
        (3, ["int", "expected a state dict"]),
        ({}, ["empty"]),
        (OrderedDict(), ["empty"]),
        ({"a": torch.zeros(1), "epoch": 3}, ["'epoch' is a int", "state_dict()"]),
        ({"state_dict": dict(STATE), "epoch": 3}, ["'state_dict' is a dict", "state_dict()"]),
        ({"a": torch.zeros(1), 5: torch.zeros(1)}, ["entry 5"]),
        ({"a\nb": "c"}, ["'a\\nb' is a str"]),
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
