"""Reading, validating and preparing models."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from adder_onnx.errors import ModelError
from adder_onnx.graph.loading import load_graph, read_model
from adder_onnx.ops import DOMAIN, VERSION
from tests.models import adder_conv, make_model, node

W = np.ones((4, 3, 3, 3), np.float32)


def simple() -> onnx.ModelProto:
    return make_model(
        [adder_conv("X", "W", "A"), node("Relu", ["A"], "Y")],
        {"X": ["N", 3, 8, 8]},
        {"Y": ["N", 4, 6, 6]},
        {"W": W},
    )


def test_path_and_bytes_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(simple(), path)
    assert read_model(path) == read_model(path.read_bytes()) == simple()


def test_external_data_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(simple(), path, save_as_external_data=True, size_threshold=0)
    tensor = read_model(path).graph.initializer[0]
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), W)
    (next(p for p in tmp_path.iterdir() if p != path)).unlink()
    with pytest.raises(ModelError, match="external data"):
        read_model(path)


@pytest.mark.parametrize(
    "location", ["../weights", "{folder}/weights", "link", "link/weights", "pipe"]
)
def test_external_data_of_another_folder(tmp_path: Path, location: str) -> None:
    """Never is anything read that does not lie beside the model or below."""
    (tmp_path / "weights").write_bytes(W.tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "weights" if location == "link" else tmp_path)
    os.mkfifo(folder / "pipe")
    model = simple()
    (tensor,) = model.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location.format(folder=tmp_path))
    tensor.external_data.add(key="length", value=str(W.nbytes))
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"^cannot read the external data of .*model.onnx"):
        read_model(path)


@pytest.mark.parametrize(
    "data", [b"", b"not ONNX at all", b"\x00" * 100, b"PK\x03\x04" + b"x" * 50]
)
def test_what_is_not_onnx(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"model\.onnx is not an ONNX model"):
        read_model(path)


def test_missing_truncated_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx: No such file"):
        read_model(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="cannot read"):
        read_model(tmp_path)
    data = simple().SerializeToString()
    for size in range(1, len(data) - 1, 101):
        with pytest.raises(ModelError):
            load_graph(read_model(data[:size]))


def test_invalid_model_and_contradicting_shapes() -> None:
    cyclic = simple()
    cyclic.graph.node[0].input[0] = "Y"
    with pytest.raises(ModelError, match="not valid ONNX"):
        load_graph(cyclic)
    channels = simple()
    channels.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5
    with pytest.raises(ModelError, match="takes 3 input channels, but the input has 5"):
        load_graph(channels)


def test_a_type_that_is_none() -> None:
    model = simple()
    model.graph.node[1].op_type = "Cast"
    model.graph.node[1].attribute.append(helper.make_attribute("to", 0))
    with pytest.raises(ModelError, match="Invalid tensor data type 0"):
        load_graph(model)


def test_unknown_operator_is_named() -> None:
    model = simple()
    model.graph.node[1].domain = "my.domain"
    model.graph.node[1].op_type = "Frobnicate"
    model.opset_import.append(helper.make_opsetid("my.domain", 1))
    with pytest.raises(ModelError, match=r"'n_Y' uses the operator my\.domain\.Frobnicate"):
        load_graph(model)


def test_unknown_version_of_our_domain() -> None:
    model = simple()
    for entry in model.opset_import:
        if entry.domain == DOMAIN:
            entry.version = VERSION + 1
    with pytest.raises(ModelError, match="install a newer one"):
        load_graph(model)


def test_foreign_body_is_dropped_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    ours = simple()
    with caplog.at_level(logging.WARNING):
        assert not load_graph(ours).functions
    assert not caplog.records
    foreign = simple()
    del foreign.functions[0].node[:]
    foreign.functions[0].node.append(helper.make_node("Identity", ["X"], ["Y"]))
    with caplog.at_level(logging.WARNING):
        graph = load_graph(foreign)
    assert "own body" in caplog.text
    assert [n.op_type for n in graph.graph] == ["AdderConv", "Relu"]
    without = simple()
    del without.functions[:]
    assert [n.op_type for n in load_graph(without).graph] == ["AdderConv", "Relu"]


def test_local_functions_are_inlined() -> None:
    function = helper.make_function(
        "user",
        "Block",
        ["x", "w"],
        ["y"],
        [
            helper.make_node("AdderConv", ["x", "w"], ["a"], domain=DOMAIN),
            helper.make_node("Relu", ["a"], ["y"]),
        ],
        [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, VERSION)],
    )
    model = make_model(
        [helper.make_node("Block", ["X", "W"], ["Y"], "block", domain="user")],
        {"X": ["N", 3, 8, 8]},
        {"Y": ["N", 4, 6, 6]},
        {"W": W},
        functions=[function],
    )
    graph = load_graph(model)
    assert [n.op_type for n in graph.graph] == ["AdderConv", "Relu"]
    assert not graph.functions


def test_constants_unused_nodes_and_shapes() -> None:
    model = make_model(
        [
            node("Constant", [], "W", value=onnx.numpy_helper.from_array(W)),
            adder_conv("X", "W", "Y"),
            node("Exp", ["X"], "unused"),
        ],
        {"X": ["N", 3, 8, 8]},
        {"Y": ["N", 4, 6, 6]},
    )
    graph = load_graph(model).graph
    assert [n.op_type for n in graph] == ["AdderConv"]
    assert list(graph.initializers) == ["W"]


def test_initializers_that_are_inputs_are_constants() -> None:
    model = simple()
    model.graph.input.append(helper.make_tensor_value_info("W", TensorProto.FLOAT, list(W.shape)))
    graph = load_graph(model).graph
    assert [value.name for value in graph.inputs] == ["X"]


def test_the_model_given_is_not_changed() -> None:
    model = simple()
    before: Any = model.SerializeToString(deterministic=True)
    load_graph(model)
    assert model.SerializeToString(deterministic=True) == before


def test_weights_are_checked_and_kept_out_of_the_way() -> None:
    """Large constants: one that is an input too, one that nobody uses, one of a wrong size."""
    w = np.ones((20, 20, 3, 3), np.float32)
    model = make_model(
        [adder_conv("X", "W", "Y")],
        {"X": ["N", 20, 5, 5], "W": [20, 20, 3, 3]},
        {"Y": ["N", 20, 3, 3]},
        {"W": w, "unused": w},
    )
    graph = load_graph(model).graph
    assert [value.name for value in graph.inputs] == ["X"]
    assert list(graph.initializers) == ["W"]
    constant = graph.initializers["W"].const_value
    assert constant is not None
    np.testing.assert_array_equal(constant.numpy(), w)
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]
    with pytest.raises(ModelError, match="not valid ONNX"):
        load_graph(model)
