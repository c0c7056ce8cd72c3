"""The exported file: names, attributes, types, metadata, and that it runs anywhere."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional

from adder_onnx.errors import ExportError
from adder_onnx.export import AdderConv2d
from adder_onnx.export.exporter import OPSETS, export_model
from adder_onnx.export.resnet import ResNetConfig
from adder_onnx.ops import DOMAIN, VERSION
from tests.conftest import ROOT
from tests.test_export_resnet import random_resnet

Exported = tuple[nn.Module, onnx.ModelProto]

METADATA = {"ai.addernet.architecture": "resnet8", "note": "größer"}


class Block(nn.Module):
    """All that a name or an attribute may depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = AdderConv2d(4, 6, (3, 2), (2, 1), (1, 2), (1, 3), groups=2, bias=True)
        # Equal parameters in different modules, which the exporter merges.
        self.bn1 = nn.BatchNorm2d(6)
        self.bn2 = nn.BatchNorm2d(6)
        self.left = AdderConv2d(6, 6, 1, groups=3)
        self.right = AdderConv2d(6, 6, 1, groups=3)
        self.right.load_state_dict(self.left.state_dict())
        self.twice = AdderConv2d(6, 6, 3, padding=1)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv(x))
        x = self.left(x) - 0.5 * self.right(self.bn2(x))
        x = self.twice(self.act(self.twice(x) + 40))
        return functional.relu(x + 50)


class Outer(nn.Module):
    """Another network around `Block`."""

    def __init__(self) -> None:
        super().__init__()
        layers = (nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), Block())
        self.net = nn.ModuleDict({"main": nn.Sequential(*layers)})
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net["main"](x).mean((2, 3)))  # type: ignore[no-any-return]


def logits_of(model: nn.Module, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        return model(torch.from_numpy(images)).numpy()  # type: ignore[no-any-return]


def noise(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def run(model: onnx.ModelProto, images: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """All outputs in an onnxruntime that knows nothing of our operators."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"input": images})  # type: ignore[no-any-return]


def make_outer() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Outer().eval()


@pytest.fixture(scope="module")
def resnet() -> Exported:
    model = random_resnet(ResNetConfig("cifar", "basic", (1, 2), (4, 6), 10))
    return model, export_model(model, (3, 12, 16), metadata=METADATA)


@pytest.fixture(
    scope="module",
    params=[
        opset if opset in (18, 23) else pytest.param(opset, marks=pytest.mark.slow)
        for opset in OPSETS
    ],
)
def outer(request: pytest.FixtureRequest) -> Exported:
    """`Outer` in each opset."""
    model = make_outer()
    return model, export_model(model, (3, 9, 8), opset=request.param)


def nodes_by_name(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {node.name: node for node in model.graph.node}


def test_nodes_of_a_resnet_are_named_after_its_modules(resnet: Exported) -> None:
    names = {name: node.op_type for name, node in nodes_by_name(resnet[1]).items()}
    expected = {"conv1": "Conv", "relu": "Relu"}
    for block in ("layer1.0", "layer2.0", "layer2.1"):
        for i in (1, 2):
            expected[f"{block}.conv{i}"] = "AdderConv"
            expected[f"{block}.bn{i}"] = "BatchNormalization"
        expected[f"{block}.Add"] = "Add"
        expected[f"{block}.relu"] = "Relu"
        expected[f"{block}.relu_1"] = "Relu"
    expected["layer2.0.downsample.0"] = "AdderConv"
    expected["layer2.0.downsample.1"] = "BatchNormalization"
    expected |= {"avgpool": "ReduceMean", "fc": "Conv", "Reshape": "Reshape"}
    assert names == expected


def test_initializers_have_the_names_of_the_parameters(resnet: Exported) -> None:
    model, proto = resnet
    state = model.state_dict()
    named = {i.name: onnx.numpy_helper.to_array(i) for i in proto.graph.initializer}
    adders = {name for name in state if name.endswith(".adder")}
    assert adders <= named.keys()
    for name in named.keys() & state.keys():
        if name not in ("conv1.weight", "fc.weight"):  # these hold a batch normalisation as well
            np.testing.assert_array_equal(named[name], state[name].numpy())


def test_values_are_named_after_their_nodes(resnet: Exported) -> None:
    *inner, last = resnet[1].graph.node
    assert [list(node.output) for node in inner] == [[f"{node.name}_output"] for node in inner]
    assert list(last.output) == ["logits"]


def test_no_name_is_given_twice(outer: Exported) -> None:
    graph = outer[1].graph
    nodes = Counter(node.name for node in graph.node)
    values = Counter(
        [v.name for v in graph.input]
        + [i.name for i in graph.initializer]
        + [name for node in graph.node for name in node.output]
    )
    infos = Counter(v.name for v in (*graph.input, *graph.output, *graph.value_info))
    for names in (nodes, values, infos):
        assert names.most_common(1)[0][1] == 1
        assert "" not in names


def test_adder_nodes_are_named_by_the_path_of_their_module(outer: Exported) -> None:
    """Whether nested, with merged parameters, or called twice."""
    adders = [node.name for node in outer[1].graph.node if node.op_type == "AdderConv"]
    block = "net.main.2"
    assert adders == [
        f"{block}.conv",
        f"{block}.left",
        f"{block}.right",
        f"{block}.twice",
        f"{block}.twice_1",
    ]


def test_other_nodes_are_named_by_module_and_operator(outer: Exported) -> None:
    names = {name: node.op_type for name, node in nodes_by_name(outer[1]).items()}
    block = "net.main.2"
    for name, op_type in {
        "net.main.0": "Conv",
        f"{block}.conv.Add": "Add",  # the bias
        f"{block}.bn1": "BatchNormalization",
        f"{block}.bn2": "BatchNormalization",
        f"{block}.act": "Relu",
        f"{block}.Relu": "Relu",
        f"{block}.Sub": "Sub",
        "head": "Gemm",
    }.items():
        assert names.get(name) == op_type, (name, names)


def test_model_that_is_a_single_layer() -> None:
    """The logits are then (batch, filters, 1, 1): nothing depends on a network around the layer."""
    model = AdderConv2d(2, 3, 4, bias=True).eval()
    proto = export_model(model, (2, 4, 4))
    assert [node.name for node in proto.graph.node] == ["AdderConv", "Add"]
    images = noise(2, 2, 4, 4)
    np.testing.assert_allclose(run(proto, images)[0], logits_of(model, images), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "net.main.2.conv",
            {"dilations": [1, 3], "group": 2, "kernel_shape": [3, 2], "pads": [1, 2, 1, 2]}
            | {"strides": [2, 1]},
        ),
        ("net.main.2.left", {"group": 3, "kernel_shape": [1, 1]}),
        ("net.main.2.twice_1", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ],
)
def test_all_attributes_are_written_out(
    outer: Exported, name: str, expected: dict[str, Any]
) -> None:
    node = nodes_by_name(outer[1])[name]
    assert node.domain == DOMAIN
    assert {a.name: helper.get_attribute_value(a) for a in node.attribute} == {
        "auto_pad": b"NOTSET",
        "dilations": [1, 1],
        "group": 1,
        "pads": [0, 0, 0, 0],
        "strides": [1, 1],
        **expected,
    }


def test_versions(outer: Exported, request: pytest.FixtureRequest) -> None:
    opset = request.node.callspec.params["outer"]
    proto = outer[1]
    assert proto.ir_version == 10
    assert {o.domain: o.version for o in proto.opset_import} == {"": opset, DOMAIN: VERSION}
    assert proto.producer_name == "adder-onnx"


def test_default_opset_is_18(resnet: Exported) -> None:
    assert {o.domain: o.version for o in resnet[1].opset_import} == {"": 18, DOMAIN: VERSION}


def test_function_body_is_there(outer: Exported, request: pytest.FixtureRequest) -> None:
    opset = request.node.callspec.params["outer"]
    (function,) = outer[1].functions
    assert (function.domain, function.name) == (DOMAIN, "AdderConv")
    assert {o.domain: o.version for o in function.opset_import} == {"": opset}


def test_network_without_adder_layers_needs_no_function() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten()).eval()
    proto = export_model(model, (2, 3, 3))
    assert not proto.functions
    images = noise(3, 2, 3, 3)
    np.testing.assert_allclose(
        run(proto, images)[0], logits_of(model, images), rtol=1e-5, atol=1e-6
    )


def test_checker_accepts_the_file(outer: Exported) -> None:
    onnx.checker.check_model(outer[1], full_check=True)


@pytest.mark.parametrize("batch", [1, 3])
def test_stock_onnxruntime_equals_pytorch(outer: Exported, batch: int) -> None:
    model, proto = outer
    images = noise(batch, 3, 9, 8)
    expected = logits_of(model, images)
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(run(proto, images)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 3])
def test_resnet_in_stock_onnxruntime_equals_pytorch(resnet: Exported, batch: int) -> None:
    model, proto = resnet
    images = noise(batch, 3, 12, 16)
    expected = logits_of(model, images)
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(run(proto, images)[0], expected, rtol=1e-4, atol=1e-4)


def test_inputs_and_outputs(resnet: Exported) -> None:
    graph = resnet[1].graph
    assert [describe(v) for v in graph.input] == [
        ("input", TensorProto.FLOAT, ["batch", 3, 12, 16])
    ]
    assert [describe(v) for v in graph.output] == [("logits", TensorProto.FLOAT, ["batch", 10])]


def describe(value: onnx.ValueInfoProto) -> tuple[str, int, list[int | str]]:
    tensor = value.type.tensor_type
    dims = [d.dim_param or d.dim_value for d in tensor.shape.dim]
    return value.name, tensor.elem_type, dims


def test_every_value_has_the_type_and_shape_that_it_has_in_onnxruntime(resnet: Exported) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(resnet[1])
    infos = {v.name: v for v in (*proto.graph.value_info, *proto.graph.output)}
    names = [name for node in proto.graph.node for name in node.output]
    assert set(names) <= infos.keys()
    del proto.graph.output[:]
    proto.graph.output.extend(infos[name] for name in names)
    for name, array in zip(names, run(proto, noise(3, 3, 12, 16)), strict=True):
        _, elem_type, dims = describe(infos[name])
        assert helper.tensor_dtype_to_np_dtype(elem_type) == array.dtype, name
        assert dims[0] == "batch", name
        assert [3, *dims[1:]] == list(array.shape), name


def test_every_value_of_every_opset_has_a_type_and_a_shape(outer: Exported) -> None:
    graph = outer[1].graph
    infos = {v.name: describe(v) for v in (*graph.value_info, *graph.output)}
    for node in graph.node:
        for name in node.output:
            _, elem_type, dims = infos[name]
            assert elem_type != TensorProto.UNDEFINED, name
            assert dims, name
            assert all(dims), name


def test_metadata_is_what_was_given_and_no_more(resnet: Exported) -> None:
    entries = [(e.key, e.value) for e in resnet[1].metadata_props]
    assert sorted(entries) == sorted(METADATA.items())


def test_nothing_of_pytorch_or_of_this_machine_is_in_the_file(
    resnet: Exported, outer: Exported
) -> None:
    for _, proto in (resnet, outer):
        content = proto.SerializeToString()
        for trace in (
            str(ROOT).encode(),
            b"/home",
            b"site-packages",
            b"stack_trace",
            b".py",
            b"torch",
        ):
            assert trace not in content, trace
        graph = proto.graph
        assert not proto.doc_string
        assert not graph.metadata_props
        parts = (*graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info)
        for part in (graph, *parts):
            own = getattr(part, "op_type", "") == "AdderConv"
            assert part.doc_string.startswith("Adder layer" if own else ""), part.name
            assert bool(part.doc_string) == own, part.name
            assert not part.metadata_props, part.name
    assert not outer[1].metadata_props


def test_network_is_left_as_it_was(resnet: Exported) -> None:
    model = resnet[0]
    fresh = random_resnet(ResNetConfig("cifar", "basic", (1, 2), (4, 6), 10))
    for name, value in fresh.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)
    assert not model.training


@pytest.mark.parametrize("opset", [-1, 0, 17, 24, 99])
def test_unknown_opset(opset: int) -> None:
    with pytest.raises(ExportError, match=f"opset {opset} is not known; choose 18 to 23"):
        export_model(nn.Identity(), (1, 2, 2), opset=opset)


@pytest.mark.parametrize(
    ("make", "shape", "words"),
    [
        (lambda: AdderConv2d(3, 4, 3), (1, 8, 8), "does not fit the input"),
        (lambda: AdderConv2d(3, 4, 3), (3, 2, 8), "spans 3 pixels in height"),
        (lambda: nn.Conv2d(3, 4, 3), (1, 8, 8), "3 channels"),
        (nn.Identity, (3, 10**9, 10**9), "overflow"),
    ],
)
def test_input_shape_that_does_not_fit(
    make: Callable[[], nn.Module],
    shape: tuple[int, int, int],
    words: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export")]
    for logger in loggers:
        caplog.set_level(logging.INFO, logger.name)
        monkeypatch.setattr(logger, "handlers", [caplog.handler])
    with pytest.raises(ExportError) as caught:
        export_model(nn.Sequential(make(), nn.Flatten()).eval(), shape)
    message = str(caught.value)
    assert message.startswith(f"PyTorch cannot export the model with inputs of {shape}: ")
    assert words in message
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert [logger.level for logger in loggers] == [logging.INFO, logging.INFO]
