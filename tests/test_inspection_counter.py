"""Counts of standard nodes beside those of an independent counter, onnx-tool.

docs/inspect.md explains where the two differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from adder_onnx.inspection.cost import Operations
from adder_onnx.inspection.report import inspect_model
from benchmarks.networks import twin

onnx_tool = pytest.importorskip("onnx_tool")


def separable(channels: int, filters: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU6(),
        nn.Conv2d(channels, filters, 1),
        nn.ReLU6(),
    )


def mobile() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.ReLU(),
        separable(16, 32, 1),
        separable(32, 64, 2),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 100),
        nn.Softmax(-1),
    )


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(64, 64) for _ in range(4))
        self.mlp = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.q(x) @ self.k(x).transpose(1, 2)
        x = x + self.o(torch.softmax(scores / 8, -1) @ self.v(x))
        return x + self.mlp(x)


# What onnx-tool counts, from our counts of an operator's nodes and the elements they give.
SAME: dict[str, Callable[[Operations, int], int]] = {
    "Conv": lambda o, n: o.adds,
    "Gemm": lambda o, n: o.adds,
    "MatMul": lambda o, n: o.adds,
    "Add": lambda o, n: o.adds,
    "Relu": lambda o, n: o.other,
    "Clip": lambda o, n: o.other,
    "ReduceMean": lambda o, n: o.adds + o.multiplications,
    "MaxPool": lambda o, n: o.other + n,
    "Div": lambda o, n: 4 * o.other,
    "Softmax": lambda o, n: 36 * n,
    "Transpose": lambda o, n: 0,
    "Reshape": lambda o, n: 0,
}


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: twin("resnet20"), (1, 3, 32, 32)),
        (lambda: twin("resnet50"), (1, 3, 224, 224)),
        (mobile, (1, 3, 64, 64)),
        (Attention, (2, 10, 64)),
    ],
    ids=["resnet20", "resnet50", "mobile", "attention"],
)
def test_counts_agree(
    make: Callable[[], nn.Module], shape: tuple[int, ...], tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    torch.manual_seed(0)
    program = torch.onnx.export(
        make().eval(), (torch.randn(shape),), dynamo=True, opset_version=18, verbose=False
    )
    assert program is not None
    program.save(path)
    model = onnx_tool.Model(str(path))
    model.graph.shape_infer(None)
    model.graph.profile()
    theirs: Counter[str] = Counter()
    for node in model.graph.nodemap.values():
        theirs[node.op_type] += int(node.macs[0])
    report = inspect_model(path)
    assert not report.not_counted
    ours: dict[str, Operations] = {}
    elements: Counter[str] = Counter()
    for found in report.nodes:
        assert found.cost.operations is not None
        ours[found.op] = ours.get(found.op, Operations()) + found.cost.operations
        size = 1
        for dim in found.outputs[0].assumed_shape or ():
            assert isinstance(dim, int)
            size *= dim
        elements[found.op] += size
    for op, count in theirs.items():
        if op in ours:  # constants are no nodes for us
            assert SAME[op](ours[op], elements[op]) == count, op
    assert sum(theirs.values()) > 0
