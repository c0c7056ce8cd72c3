"""Models from strangers: each fault ends in one ModelError, before it takes memory or time."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes.common import InlinePass

from adder_onnx.errors import AdderError, InputError, ModelError
from adder_onnx.graph.functions import inline_functions
from adder_onnx.graph.loading import load_graph, read_model
from adder_onnx.graph.names import Names
from adder_onnx.inspection.dimensions import assume
from adder_onnx.inspection.inputs import random_feed
from adder_onnx.kernels.cpu import place_buffers
from adder_onnx.memory import limited
from adder_onnx.runtime import InferenceSession
from adder_onnx.runtime.onnxruntime_step import one_line
from adder_onnx.text import visible
from tests.hostile import model_bytes, models
from tests.hostile.models import base_models
from tests.models import adder_conv, image, make_model, node, oracle

MEBIBYTE = 1 << 20


class _Buffer(NamedTuple):
    size: int
    first: int
    last: int


def load(model: onnx.ModelProto) -> ir.Model:
    return load_graph(read_model(model.SerializeToString()))


def float_model() -> onnx.ModelProto:
    return base_models()["floats"]


# Files.


def test_what_is_no_plain_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.onnx"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), tmp_path):
        with pytest.raises(ModelError, match=f"cannot read {path}: it is "):
            read_model(path)
    with pytest.raises(ModelError, match="cannot read"):
        read_model("a\0b.onnx")
    with pytest.raises(ModelError, match="cannot read"):
        read_model(tmp_path / ("a" * 300))


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    path.touch()
    os.truncate(path, 3 << 30)
    with pytest.raises(ModelError, match=r"3\.0 GiB, and no ONNX file has more than 2 GiB"):
        read_model(path)
    os.truncate(path, 2 * MEBIBYTE)
    with limited(MEBIBYTE), pytest.raises(ModelError, match=r"takes 2\.0 MiB of memory, more than"):
        read_model(path)


def external(tmp_path: Path, **entries: str) -> Path:
    model = float_model()
    (tmp_path / "w.bin").write_bytes(b"\0" * 1000)
    (tensor,) = [t for t in model.graph.initializer if t.name == "W"]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "w.bin", **entries}.items():
        tensor.external_data.add(key=key, value=value)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_that_fit(tmp_path: Path) -> None:
    for entries in ({"length": "432"}, {"offset": "568"}, {"offset": "8", "length": "432"}):
        graph = load_graph(read_model(external(tmp_path, **entries)))
        value = graph.graph.initializers["W"].const_value
        assert value is not None
        assert not value.numpy().any()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": "-4"}, "has the offset '-4'"),
        ({"offset": "abc"}, "has the offset 'abc'"),
        ({"offset": ""}, "has the offset ''"),
        ({"offset": "9" * 5000}, "has the offset '999"),
        ({"offset": "4611686018427387904", "length": "432"}, "exceeds file size"),
        ({"offset": "900", "length": "432"}, "exceeds available data"),
        ({"length": "-1"}, "has the length '-1'"),
        ({"length": "433"}, r"shape \[4, 3, 3, 3\] takes 432 bytes, but 433 are there"),
        ({"length": "100000000000"}, "takes 432 bytes, but 100000000000 are there"),
        ({}, "takes 432 bytes, but 1000 are there"),
        ({"location": "none.bin"}, r"none\.bin"),
        ({"location": "none.bin", "length": "432"}, "none"),
        ({"location": "a\0b"}, "external data"),
        ({"location": "a" * 300}, "external data"),
        ({"location": "/dev/zero", "length": "432"}, "external data"),
        ({"location": "../w.bin", "length": "432"}, "external data"),
        ({"location": "", "length": "432"}, "external data"),
    ],
)
def test_external_data_that_do_not_fit(
    tmp_path: Path, entries: dict[str, str], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        read_model(external(tmp_path, **entries))


def test_external_data_of_bytes_and_of_large_tensors(tmp_path: Path) -> None:
    path = external(tmp_path, length="432")
    with pytest.raises(ModelError, match=r"keeps tensor 'W' in a file of its own"):
        read_model(path.read_bytes())
    model = onnx.ModelProto.FromString(path.read_bytes())
    (tensor,) = [t for t in model.graph.initializer if t.name == "W"]
    tensor.dims[:] = [10**12]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"external data takes 3\.6 TiB of memory"):
        read_model(path)


# Messages.


def set_text(name: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        *path, field = name.split(".")
        message: Any = model
        for part in path:
            message = getattr(message, part)
            message = message[0] if hasattr(message, "extend") else message
        if hasattr(getattr(message, field), "extend"):
            getattr(message, field)[:] = ["strange_text"]
        else:
            setattr(message, field, "strange_text")

    return change


@pytest.mark.parametrize(
    "place",
    [
        *("producer_name", "producer_version", "domain", "doc_string", "graph.name"),
        *("graph.doc_string", "graph.node.name", "graph.node.op_type", "graph.node.domain"),
        *("graph.node.doc_string", "graph.node.input", "graph.node.output"),
        *("graph.node.attribute.name", "graph.node.attribute.doc_string"),
        *("graph.input.name", "graph.input.doc_string", "graph.output.name"),
        *("graph.input.type.tensor_type.shape.dim.dim_param", "graph.input.type.denotation"),
        *("graph.initializer.name", "graph.initializer.doc_string"),
        *("functions.name", "functions.domain", "functions.input", "functions.attribute"),
        *("functions.node.attribute.ref_attr_name", "opset_import.domain"),
    ],
)
def test_text_that_is_not_utf8(place: str) -> None:
    model = float_model()
    set_text(place)(model)
    data = model.SerializeToString()
    assert data.count(b"strange_text") == 1
    with pytest.raises(ModelError, match="is not UTF-8"):
        read_model(data.replace(b"strange_text", b"strange\xfftext"))


def test_metadata_that_are_not_utf8() -> None:
    model = float_model()
    model.metadata_props.add(key="strange_text", value="x")
    data = model.SerializeToString()
    with pytest.raises(ModelError, match="the key of a StringStringEntryProto in the model"):
        read_model(data.replace(b"strange_text", b"strange\xfftext"))


def test_graphs_nested_too_deeply() -> None:
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Relu", ["X"], ["y"])], "g", [], [result])
    for _ in range(26):
        branches = {"then_branch": graph, "else_branch": graph}
        # One of the branches is empty, else there were 2**26.
        branches["else_branch"] = helper.make_graph([], "e", [], [result])
        inner = helper.make_node("If", ["c"], ["y"], **branches)
        graph = helper.make_graph([inner], "g", [], [result])
    with pytest.raises(ModelError, match="nested more than 25 deep"):
        read_model(helper.make_model(graph))


@pytest.mark.parametrize("number", [0, 99, -1])
def test_types_that_onnx_does_not_know(number: int) -> None:
    def refused(change: Callable[[onnx.ModelProto], object]) -> None:
        model = float_model()
        change(model)
        with pytest.raises(ModelError, match=f"the element type {number}, which onnx does not"):
            read_model(model)

    tensor_type = helper.make_tensor_type_proto(number, [1])
    refused(lambda m: m.graph.input[0].type.CopyFrom(tensor_type))
    refused(lambda m: m.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(tensor_type)))
    refused(lambda m: m.graph.input[0].type.CopyFrom(helper.make_optional_type_proto(tensor_type)))
    refused(lambda m: m.graph.input[0].type.CopyFrom(helper.make_map_type_proto(7, tensor_type)))
    refused(lambda m: m.graph.value_info.add(name="A").type.CopyFrom(tensor_type))
    refused(lambda m: setattr(m.graph.initializer[0], "data_type", number))
    tensor = onnx.TensorProto(name="t", data_type=number)
    attribute = onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR, t=tensor)
    refused(lambda m: m.graph.node[0].attribute.append(attribute))


def test_tensors_of_another_size_than_they_say() -> None:
    def refused(message: str, **fields: Any) -> None:
        model = float_model()
        tensor = model.graph.initializer.add(name="t", data_type=TensorProto.FLOAT)
        for name, value in fields.items():
            if isinstance(value, list):
                getattr(tensor, name)[:] = value
            else:
                setattr(tensor, name, value)
        with pytest.raises(ModelError, match=message):
            read_model(model)

    refused("has 0 entries in float_data; expected 1000000000000", dims=[10**6, 10**6])
    refused("has 3 bytes; expected 4", dims=[1], raw_data=b"123")
    refused("has 4 bytes; expected 0", dims=[0], raw_data=b"1234")
    refused("has 2 entries in float_data; expected 3", dims=[3], float_data=[1, 2])
    refused("sizes are at least 0", dims=[-1], raw_data=b"")
    refused("less than 2", dims=[0, 2**62, 2**31], raw_data=b"")
    refused("has its text in raw_data", dims=[1], raw_data=b"a", data_type=TensorProto.STRING)
    refused("entries in int32_data", dims=[5], int32_data=[1], data_type=TensorProto.INT4)


def test_tensors_of_all_types_are_read() -> None:
    """Elements as bytes and as numbers, also where several share a byte."""
    model = float_model()
    for type_ in sorted(set(TensorProto.DataType.values()) - {TensorProto.UNDEFINED}):
        if type_ == TensorProto.STRING:
            values: list[Any] = ["a", "b", "c"]
        else:
            values = [0, 1, 1]
        try:
            tensor = helper.make_tensor(f"t{type_}", type_, [3], values)
        except (KeyError, TypeError, ValueError):  # helper has no such numbers
            continue
        model.graph.initializer.append(tensor)
        if type_ != TensorProto.STRING:
            raw = numpy_helper.from_array(numpy_helper.to_array(tensor), f"r{type_}")
            model.graph.initializer.append(raw)
    assert read_model(model) is model


def test_sparse_tensors_take_what_they_stand_for() -> None:
    model = float_model()
    sparse = onnx.SparseTensorProto(
        values=numpy_helper.from_array(np.ones(1, np.float32), "s"),
        indices=numpy_helper.from_array(np.array([0])),
        dims=[10**6, 10**6],
    )
    model.graph.sparse_initializer.append(sparse)
    with pytest.raises(ModelError, match=r"sparse tensor 's' takes 3\.6 TiB"):
        read_model(model)


def test_attributes_that_are_there_twice_or_refer_to_none() -> None:
    model = float_model()
    model.graph.node[0].attribute.append(model.graph.node[0].attribute[0])
    with pytest.raises(ModelError, match=r"has the attribute .* more than once"):
        read_model(model)
    model = float_model()
    model.graph.node[0].attribute[0].ref_attr_name = "outer"
    with pytest.raises(
        ModelError, match="refers to 'outer' of a function, but the node is in none"
    ):
        read_model(model)


def test_nodes_with_too_many_inputs() -> None:
    model = float_model()
    model.graph.node.add(op_type="Sum", input=["X"] * 5001, output=["sum"])
    with pytest.raises(ModelError, match=r"node 'sum' \(Sum\) has 5,001 inputs"):
        read_model(model)


# Functions.


def function(name: str, nodes: list[onnx.NodeProto], outputs: Any = ("y",)) -> onnx.FunctionProto:
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("user", 1)]
    return helper.make_function("user", name, ["x", "w"], list(outputs), nodes, imports)


def call(name: str, x: str, y: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(name, [x], [y], domain="user", **attributes)


def calling(*functions: onnx.FunctionProto) -> onnx.ModelProto:
    """A model that calls the first function on its input."""
    return helper.make_model(
        helper.make_graph(
            [call(functions[0].name, "X", "Y")],
            "g",
            [helper.make_tensor_value_info("X", TensorProto.FLOAT, [3])],
            [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [3])],
        ),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("user", 1)],
        functions=functions,
        ir_version=10,
    )


def test_functions_that_double_each_other() -> None:
    chain = [
        function(f"F{i}", [call(f"F{i + 1}", "x", "t"), call(f"F{i + 1}", "t", "y")])
        for i in range(60)
    ]
    last = function("F60", [node("Relu", ["x"], "y")])
    with pytest.raises(ModelError, match=r"would become 2\*\*60 nodes, more than 1,000,000"):
        load(calling(*chain, last))
    graph = load(calling(*chain[-4:], last))
    assert [n.op_type for n in graph.graph] == ["Relu"] * 16


def test_functions_that_call_themselves() -> None:
    one = function("A", [call("B", "x", "y")])
    two = function("B", [call("A", "x", "y")])
    with pytest.raises(ModelError, match=r"user\.\w calls itself|cyc|recurs"):
        load(calling(one, two))
    with pytest.raises(ModelError, match=r"more than once|multiple|uplicate"):
        load(calling(one, one))


def test_functions_that_nest_graphs() -> None:
    result = helper.make_tensor_value_info("t", TensorProto.FLOAT, None)
    functions = []
    for i in range(30):
        branch = helper.make_graph([call(f"F{i + 1}", "x", "t")], "b", [], [result])
        leaf = helper.make_graph([node("Relu", ["x"], "t")], "l", [], [result])
        truth = numpy_helper.from_array(np.array(True))
        nodes = [
            node("Constant", [], "c", value=truth),
            node("If", ["c"], "y", then_branch=branch, else_branch=leaf),
        ]
        functions.append(function(f"F{i}", nodes))
    functions.append(function("F30", [node("Relu", ["x"], "y")]))
    with pytest.raises(ModelError, match="nest graphs 31 deep"):
        load(calling(*functions))


def test_functions_that_multiply_weights_and_metadata() -> None:
    constant = numpy_helper.from_array(np.zeros(1 << 16, np.uint8))
    calls = [call("W", "x", f"t{i}") for i in range(500)]
    many = function("M", [*calls, node("Relu", ["x"], "y")])
    weight = function("W", [node("Constant", [], "c", value=constant), node("Relu", ["x"], "y")])
    with limited(8 * MEBIBYTE), pytest.raises(ModelError, match="functions inlined takes 31"):
        load(calling(many, weight))
    plain = function("W", [node("Relu", ["x"], "y")])
    for inner in many.node[:-1]:
        inner.metadata_props.add(key="k", value="v" * (1 << 16))
    with limited(40 * MEBIBYTE), pytest.raises(ModelError, match="functions inlined takes"):
        load(calling(many, plain))


def test_inlining_is_that_of_onnx_ir() -> None:
    """Names, too: of nodes with and without names, in graphs of nodes, called more than once."""
    result = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
    branch = helper.make_graph([call("G", "x", "r")], "b", [], [result])
    truth = numpy_helper.from_array(np.array(True))
    inner = function("G", [node("Relu", ["x"], "t"), helper.make_node("Neg", ["t"], ["y"])])
    outer = function(
        "F",
        [
            node("Constant", [], "c", value=truth),
            call("G", "x", "a"),
            call("G", "a", "n_t"),
            node("If", ["c"], "y", then_branch=branch, else_branch=branch),
        ],
    )
    outer.node[1].metadata_props.add(key="k", value="v")
    model = calling(outer, inner)
    del model.graph.node[:]
    model.graph.node.extend([call("F", "X", "t"), call("F", "t", "t_2"), call("G", "t_2", "Y")])
    ours, theirs = ir.from_proto(model), ir.from_proto(model)
    inline_functions(ours)
    InlinePass()(theirs)
    assert ir.to_proto(ours) == ir.to_proto(theirs)


@pytest.mark.parametrize("outputs", [("x", "y"), ("y", "x")])
def test_outputs_of_functions_that_are_inputs(outputs: tuple[str, str]) -> None:
    both = function("F", [node("Relu", ["x"], "y")], outputs)
    model = calling(both)
    model.graph.node[0].output[:] = ["A", "B"]
    model.graph.node.append(node("Sub", ["A", "B"], "Y"))
    x = np.array([1, -2, 3], np.float32)
    values = {"x": x, "y": np.maximum(x, 0)}
    session = InferenceSession(model.SerializeToString(), threads=1)
    (y,) = session.run(None, {"X": x})
    np.testing.assert_array_equal(y, values[outputs[0]] - values[outputs[1]])


def test_calls_that_do_not_fit() -> None:
    def refused(message: str, change: Callable[[onnx.ModelProto], object]) -> None:
        model = calling(function("F", [node("Relu", ["x"], "y")]))
        change(model)
        with pytest.raises(ModelError, match=message):
            load(model)

    refused("has 3 inputs, and the function 2", lambda m: m.graph.node[0].input.extend("XX"))
    refused("has 2 outputs, and the function 1", lambda m: m.graph.node[0].output.append("Z"))
    refused("version", lambda m: setattr(m.functions[0].opset_import[0], "version", 17))
    graph = helper.make_graph([], "g", [], [])
    attribute = helper.make_attribute("body", graph)
    refused("graph", lambda m: m.graph.node[0].attribute.append(attribute))


@pytest.mark.parametrize("inputs", [["", "V"], ["A", ""], ["A"], [], ["", ""]])
def test_calls_that_leave_out_what_the_body_needs(inputs: list[str]) -> None:
    model = base_models()["functions"]
    model.graph.node[1].input[:] = inputs
    with pytest.raises(ModelError, match="not valid ONNX"):
        load(model)


def test_names_take_no_search() -> None:
    names = Names(["a"])
    assert [names.free("a") for _ in range(100_000)][-1] == "a_100000"
    assert Names(["a", "a_1", None], first=1).numbered("a") == "a_2"
    assert Names(["a"], first=2).free("a") == "a_2"


def test_many_nodes_without_names() -> None:
    """20,000 took a minute."""
    count = 20_000
    nodes = [helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"]) for i in range(count)]
    model = make_model(nodes, {"v0": [1]}, {f"v{count}": [1]})
    graph = load_graph(read_model(model))
    assert [n.name for n in graph.graph] == [f"Relu_{i + 1}" for i in range(count)]


# Attributes and constants.


@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [
        ("Conv", {"strides": [0, 1]}),
        ("Conv", {"dilations": [1, -1]}),
        ("Conv", {"group": 0}),
        ("Conv", {"group": -(2**62)}),
        ("Conv", {"pads": [2**62, 0, 0, 0]}),
        ("ConvTranspose", {"strides": [2**62, 1]}),
        ("ConvTranspose", {"output_padding": [2**31, 1]}),
        ("MaxPool", {"kernel_shape": [0, 2]}),
        ("AveragePool", {"kernel_shape": [2, 2], "strides": [0, 0]}),
        ("SpaceToDepth", {"blocksize": 0}),
        ("DepthToSpace", {"blocksize": -1}),
    ],
)
def test_attributes_that_libraries_divide_by(op_type: str, attributes: dict[str, Any]) -> None:
    inputs = ["X", "W"] if op_type.startswith("Conv") else ["X"]
    model = make_model(
        [node(op_type, inputs, "Y", **attributes)],
        {"X": [1, 3, 8, 8]},
        {"Y": [None] * 4},
        {"W": np.ones((3, 3, 3, 3), np.float32)},
    )
    with pytest.raises(
        ModelError, match=rf"node 'n_Y' \({op_type}\): attribute \w+ is .*; expected"
    ):
        load(model)


def test_attributes_of_functions_are_looked_at_where_they_are_used() -> None:
    model = base_models()["functions"]
    model.graph.node[1].attribute[0].i = 0
    with pytest.raises(ModelError, match="attribute group is"):
        load(model)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Clip", ["X", "empty"], "Y")], "its input 1 is empty"),
        ([node("Pad", ["X", "pads", "empty"], "Y")], "its input 2 is empty"),
        ([node("RandomUniformLike", ["X"], "Y", low=1.0, high=0.0)], "no distribution"),
        ([node("RandomNormalLike", ["X"], "Y", scale=0.0)], "no distribution"),
        ([node("RandomNormalLike", ["X"], "Y", mean=float("nan"))], "no distribution"),
        ([node("Unique", ["empty"], "U", axis=0), node("Sum", ["X", "U"], "Y")], "empty"),
        (
            [helper.make_node("Split", ["X"], ["Y", "Z"], "s", num_outputs=1)],
            "num_outputs is 1; exp",
        ),
    ],
)
def test_nodes_that_end_the_process(nodes: list[onnx.NodeProto], message: str) -> None:
    model = make_model(
        nodes,
        {"X": [4]},
        {"Y": [None]},
        {"empty": np.zeros(0, np.float32), "pads": np.array([1, 1])},
    )
    with pytest.raises(ModelError, match=message):
        load(model)


def test_trip_counts_that_are_empty() -> None:
    model = base_models()["control flow"]
    (count,) = [t for t in model.graph.initializer if t.name == "three"]
    count.CopyFrom(numpy_helper.from_array(np.zeros((3, 0), np.int64), "three"))
    with pytest.raises(ModelError, match=r"node 'n_C' \(Loop\): its input 0 is empty"):
        load(model)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("scales", np.ones((4, 1), np.float32)),
        ("biases", np.ones((1, 4), np.float32)),
        ("scales", np.ones(3, np.float32)),
        ("scale", np.ones(0, np.float32)),
        ("scale", np.ones((2, 3), np.float32)),
        ("zero", np.zeros(0, np.uint8)),
        ("zero", np.zeros(2, np.uint8)),
    ],
)
def test_parameters_of_integer_nodes_of_other_shapes(
    name: str, array: np.ndarray[Any, Any]
) -> None:
    model = base_models()["integers"]
    (tensor,) = [t for t in model.graph.initializer if t.name == name]
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    try:
        session = InferenceSession(model.SerializeToString(), threads=1)
        session.run(None, {"X": image(1, 3, 8, 8)})
    except AdderError:
        pass


@pytest.mark.parametrize("names", [("C", "X"), ("X", "D"), ("C", "D")])
def test_images_and_residuals_that_are_constants(names: tuple[str, str]) -> None:
    x, z = names
    shapes = {"X": (1, 4, 8, 8), "C": (1, 4, 8, 8), "D": (1, 4, 8, 8)}
    model = make_model(
        [
            adder_conv(x, "W", "A", pads=[1, 1, 1, 1]),
            node("Add", ["A", z], "B"),
            node("Add", ["B", "X"], "Y"),
        ],
        {"X": list(shapes["X"])},
        {"Y": [None] * 4},
        {"C": image(*shapes["C"]), "D": image(*shapes["D"]), "W": image(4, 4, 3, 3)},
    )
    feed = {"X": image(*shapes["X"])}
    (y,) = InferenceSession(model, threads=1).run(None, feed)
    np.testing.assert_allclose(y, oracle(model, feed)[0], rtol=1e-5, atol=1e-4)


def test_quantized_images_that_are_constants() -> None:
    model = base_models()["integers"]
    model.graph.node[0].input[0] = "C"
    model.graph.node[-1].output[0] = "flat"
    model.graph.node.append(node("ReduceMax", ["X"], "most", keepdims=0))
    model.graph.node.append(helper.make_node("Add", ["flat", "most"], ["Y"], "sum"))
    constant_image = np.abs(image(1, 3, 8, 8)) * 10
    model.graph.initializer.append(numpy_helper.from_array(constant_image, "C"))
    (y,) = InferenceSession(model, threads=1).run(None, {"X": constant_image})
    stock = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    np.testing.assert_allclose(y, stock.run(None, {"X": constant_image})[0], rtol=1e-6)


def test_fused_convolutions_without_weights() -> None:
    model = base_models()["contrib"]
    del model.graph.node[0].input[1:]
    with pytest.raises(AdderError):
        InferenceSession(model.SerializeToString(), threads=1)


@pytest.mark.parametrize("shape", [(3,), (1, 4), ()])
def test_batch_normalization_of_other_sizes(shape: tuple[int, ...]) -> None:
    """Where onnx does not look: beside an operator that it does not know."""
    model = base_models()["contrib"]
    norm = ["B", "s", "M1", "M1", "M1"]
    model.graph.node[2].CopyFrom(node("BatchNormalization", norm, "C"))
    ones = {"s": np.ones(shape, np.float32), "M1": np.ones(4, np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in ones.items())
    with pytest.raises(AdderError):
        InferenceSession(model.SerializeToString(), threads=1)


def test_messages_of_onnxruntime_are_not_endless() -> None:
    assert one_line(ValueError("a\nb")) == "a b"
    assert len(one_line(ValueError("x" * 100_000))) == 1002


# Memory.


def test_shapes_that_take_too_much_memory() -> None:
    w = np.ones((4, 3, 3, 3), np.float32)

    def refused(message: str, shape: list[int], **attributes: Any) -> None:
        model = make_model(
            [adder_conv("X", "W", "Y", **attributes)], {"X": shape}, {"Y": [None] * 4}, {"W": w}
        )
        with pytest.raises(ModelError, match=message):
            InferenceSession(model, threads=1)

    refused(r"value 'X' of shape \[1000000000, 3, 32, 32\] takes 11", [10**9, 3, 32, 32])
    refused("value 'X' of shape", [1, 3, 10**6, 10**6])
    refused("value 'Y' of shape", [1, 3, 32, 32], pads=[10**6] * 4)
    refused(r"value 'X' has more than 2\*\*58 elements", [2**31, 3, 2**31, 2**31])


def test_a_chain_that_takes_too_much_memory() -> None:
    model = make_model(
        [adder_conv("X", "W", "A", pads=[1000] * 4), adder_conv("A", "W", "Y")],
        {"X": ["N", 3, "H", "W"]},
        {"Y": [None] * 4},
        {"W": np.ones((3, 3, 3, 3), np.float32)},
    )
    session = InferenceSession(model, threads=1)
    with (
        limited(100 * MEBIBYTE),
        pytest.raises(InputError, match="the chain of nodes 'n_A' to 'n_Y' takes"),
    ):
        session.run(None, {"X": image(1, 3, 8, 8)})
    assert session.run(None, {"X": image(1, 3, 8, 8)})[0].shape == (1, 3, 2004, 2004)


@pytest.mark.parametrize("shape", [[10**9, 3, 32, 32], [-1, 3]])
def test_random_inputs_of_strange_shapes(shape: list[int]) -> None:
    from adder_onnx.runtime import NodeArg

    with pytest.raises(InputError, match="input 'X'"):
        random_feed([NodeArg("X", "tensor(uint8)", list(shape))])


def test_dimensions_that_are_too_large() -> None:
    model = float_model()
    for arguments in ({"batch_size": 10**30}, {"batch_size": 1, "given": {"N": 2**63}}):
        with pytest.raises(InputError, match="is too large; the largest"):
            assume(model, **{"given": {}, **arguments})


def test_thousands_of_buffers_do_not_overlap() -> None:
    rng = np.random.default_rng(0)
    buffers = []
    for time in range(30_000):
        length = int(rng.integers(0, 4)) if rng.random() < 0.99 else 20_000
        buffers.append(_Buffer(int(rng.integers(0, 500)), time, time + length))
    offsets, size = place_buffers(buffers)
    assert all(offset % 16 == 0 for offset in offsets)
    assert max(o + b.size for o, b in zip(offsets, buffers, strict=True)) <= size
    for time in range(0, 30_000, 997):
        alive = sorted(
            (offset, offset + b.size)
            for offset, b in zip(offsets, buffers, strict=True)
            if b.first <= time <= b.last and b.size
        )
        assert all(a[1] <= b[0] for a, b in pairwise(alive))
    chain = [_Buffer(100, time, time + 1) for time in range(10_000)]
    assert place_buffers(chain)[1] <= 3 * 112


def test_names_do_not_move_the_cursor() -> None:
    assert visible("layer1.conv é") == "layer1.conv é"
    assert visible("a\x1b[2J\nb") == "a·[2J·b"


@pytest.mark.parametrize("generator", [models, model_bytes])
def test_generators_of_hostile_models(generator: Any, tmp_path: Path) -> None:
    found = list(generator.cases(np.random.default_rng(0), tmp_path))
    assert len(found) > 200
    assert len({case.name for case in found}) == len(found)
    again = list(generator.cases(np.random.default_rng(0), tmp_path))
    assert again == found


def test_base_models_are_valid() -> None:
    for model in base_models().values():
        session = InferenceSession(model.SerializeToString(), threads=1)
        (y,) = session.run(None, {"X": image(2, 3, 8, 8)})
        assert np.isfinite(y).all()
