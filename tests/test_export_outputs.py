"""Models that give several tensors, in whatever they give them."""

from __future__ import annotations

import json
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import adder_onnx
from adder_onnx.cli import export
from adder_onnx.errors import ExportError
from adder_onnx.export import AdderConv2d, export_onnx
from adder_onnx.export.outputs import named_outputs

Pair = namedtuple("Pair", "boxes scores")


@dataclass
class Found:
    boxes: Tensor
    scores: Tensor | None
    more: list[Tensor]


@dataclass
class Outer:
    found: Found


A, B, C = (torch.full((1,), float(i)) for i in range(3))


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (A, {"logits": A}),
        ((A,), {"logits": A}),
        ([A], {"logits": A}),
        ((A, None), {"logits": A}),
        ((A, B), {"output_0": A, "output_1": B}),
        ((None, A, B), {"output_1": A, "output_2": B}),
        ([A, (B, C)], {"output_0": A, "output_1.0": B, "output_1.1": C}),
        ({"out": A}, {"out": A}),
        ({"b": A, "a": [B, None, C]}, {"b": A, "a.0": B, "a.2": C}),
        (OrderedDict(x=A, y={"z": B}), {"x": A, "y.z": B}),
        ({"input": A, "": B}, {"input_output": A, "output": B}),
        ({0: A, 1: B}, {"output_0": A, "output_1": B}),
        ({"a.b": A, "a": {"b": B}}, {"a.b": A, "a.b_1": B}),
        (Pair(A, B), {"boxes": A, "scores": B}),
        (Found(A, None, [B, C]), {"boxes": A, "more.0": B, "more.1": C}),
        (Outer(Found(A, B, [])), {"found.boxes": A, "found.scores": B}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_names(result: Any, expected: dict[str, Tensor]) -> None:
    found = named_outputs(result)
    assert [*found] == [*expected]
    assert all(found[name] is tensor for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "gives no tensor but a NoneType"),
        ((), "gives no tensor but a tuple"),
        (3, "gives a int; expected tensors"),
        ({"a": A, "loss": 0.5}, "gives a float as its output 'loss'"),
        ((A, "text"), "gives a str as its output 'output_1'"),
        (object(), "gives a object;"),
    ],
)
def test_what_is_no_tensor(result: Any, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        named_outputs(result)


class Net(nn.Module):
    """A detector with two heads behind an adder layer."""

    def __init__(self, give: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.body = AdderConv2d(3, 8, 3, 2, 1)
        self.boxes, self.scores = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 2, 1)
        self.give = give

    def forward(self, x: Tensor) -> Any:
        y = self.body(x)
        return self.give(self.boxes(y), self.scores(y), x)


@pytest.mark.parametrize(
    ("give", "names"),
    [
        (lambda b, s, x: (b, s), ["output_0", "output_1"]),
        (lambda b, s, x: {"scores": s, "boxes": b}, ["scores", "boxes"]),
        (lambda b, s, x: {"scores": s, "levels": [b, b + 1]}, ["scores", "levels.0", "levels.1"]),
        (lambda b, s, x: Pair(b, s), ["boxes", "scores"]),
        (lambda b, s, x: Found(b, None, [s]), ["boxes", "more.0"]),
        (lambda b, s, x: (b, x), ["output_0", "output_1"]),
        (lambda b, s, x: (b, b, s), ["output_0", "output_1", "output_2"]),
        (
            lambda b, s, x: {"a": s, "best": s.flatten(1).argmax(1), "any": s > 0},
            ["a", "best", "any"],
        ),
        (
            lambda b, s, x: {"scores.weight": s, "body_output": b},
            ["scores.weight_output", "body_output_output"],
        ),
        (lambda b, s, x: {"out": s}, ["out"]),
    ],
    ids=[
        "tuple",
        "dict",
        "nested",
        "named tuple",
        "dataclass",
        "input",
        "same",
        "types",
        "taken",
        "one",
    ],
)
def test_all_outputs_are_exported_and_compared(
    give: Callable[[Tensor, Tensor, Tensor], Any], names: list[str], tmp_path: Path
) -> None:
    model, path = Net(give).eval(), tmp_path / "net.onnx"
    done = export_onnx(model, path, (3, 16, 16))
    assert [*done.outputs] == names
    assert done.verification is not None
    assert [*done.verification.outputs] == names
    x = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        expected = named_outputs(model(x))
    for session in (adder_onnx.InferenceSession(path), onnxruntime.InferenceSession(path)):
        got = session.run(None, {"input": x.numpy()})
        for y, truth in zip(got, expected.values(), strict=True):
            assert np.asarray(y).dtype == truth.numpy().dtype
            np.testing.assert_allclose(y, truth.numpy(), rtol=1e-4, atol=1e-3)


def test_wrong_output_of_two_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adder_onnx.export import api

    model = Net(lambda b, s, x: {"scores": s, "boxes": b}).eval()
    real = api.export_model

    def spoilt(*arguments: Any, **options: Any) -> Any:
        proto = real(*arguments, **options)
        (bias,) = (t for t in proto.graph.initializer if t.name == "boxes.bias")
        bias.raw_data = (np.frombuffer(bias.raw_data, np.float32) + 1).tobytes()
        return proto

    monkeypatch.setattr(api, "export_model", spoilt)
    with pytest.raises(
        ExportError, match=r"^boxes: the file in .* differs from PyTorch by 1, more"
    ):
        export_onnx(model, tmp_path / "net.onnx", (3, 16, 16))
    assert not list(tmp_path.iterdir())


def test_report_of_several_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "from tests.test_export_outputs import Net\n"
    code += "def make(): return Net(lambda b, s, x: {'scores': s, 'boxes': b})\n"
    (tmp_path / "two.py").write_text(code)
    torch.save(Net(lambda b, s, x: b).state_dict(), tmp_path / "net.pth")
    arguments = [str(tmp_path / "net.pth"), str(tmp_path / "net.onnx")]
    arguments += ["--arch", f"{tmp_path}/two.py:make", "--input-shape", "3,16,16"]
    arguments += ["--mean", "0,0,0", "--std", "1,1,1"]
    assert export.main([*arguments, "--json", str(tmp_path / "net.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "outputs: scores, boxes" in lines
    for name in ("scores", "boxes"):
        assert any(line.startswith(f"{name}: largest difference from PyTorch") for line in lines)
    result = json.loads((tmp_path / "net.json").read_text())
    assert result["outputs"] == ["scores", "boxes"]
    assert result["verification"]["outputs"].keys() == {"scores", "boxes"}


def test_model_that_gives_something_else(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="gives a int as its output 'size'"):
        export_onnx(Net(lambda b, s, x: {"b": b, "size": 3}), tmp_path / "n.onnx", (3, 16, 16))
