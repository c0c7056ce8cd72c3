"""Models that are strange in their structure: what a message of ONNX says is changed at random.

A case is a valid small model after one to three changes. Changes keep the file readable as
protobuf; `model_bytes` has those that do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from adder_onnx.ops import DOMAIN, VERSION, function_bodies
from tests.hostile.case import Case

__all__ = ["base_models", "cases", "command_for", "mutate"]

_COUNT = 300

_INTEGERS = (-1, 0, 1, 2, 3, 5, 7, 99, 10**5, 10**9, 10**12, 2**31 - 1, 2**31, 2**62, -(2**31))
_EXTREME = (2**63 - 1, -(2**63))
_TEXTS = (
    "",
    "X",
    "Y",
    "W",
    "Relu",
    "../x",
    "/dev/zero",
    "a" * 300,
    "a\x00b",
    "a\nb",
    "é",
    "N",
    "-1",
)
_FLOATS = (0.0, -1.0, 1e38, float("inf"), float("nan"), 1e-45)

_IMAGE = (1, 3, 8, 8)


def cases(rng: np.random.Generator, folder: Path) -> Iterator[Case]:
    """Some hundred cases, whose files are written into a folder one after the other."""
    models = base_models()
    data = folder / "images.npz"
    np.savez(data, rng.standard_normal((4, *_IMAGE[1:]), dtype=np.float32))
    for number in range(_COUNT):
        base = list(models)[int(rng.integers(len(models)))]
        model = onnx.ModelProto()
        model.CopyFrom(models[base])
        done = [mutate(rng, model) for _ in range(int(_pick(rng, (1, 1, 1, 2, 3))))]
        path = folder / f"model_{number}.onnx"
        try:
            path.write_bytes(model.SerializeToString())
        except (RuntimeError, ValueError):  # what cannot be written is no file
            continue
        yield command_for(rng, f"{number} {base}: {', '.join(done)}", path, data)


def command_for(rng: np.random.Generator, name: str, model: Path, data: Path) -> Case:
    """One of the commands that take a model."""
    given = {
        "adder-inspect": (),
        "adder-run": ("--data", str(data)),
        "adder-bench": ("--seconds", "0.01"),
        "adder-quantize": (f"{model}.quantized", "--data", str(data)),
        "adder-compile": (f"{model}.compiled",),
    }
    command = list(given)[int(rng.choice(5, p=(0.35, 0.25, 0.2, 0.1, 0.1)))]
    arguments = (str(model), *given[command])
    if command == "adder-inspect":
        chance = rng.random()
        if chance < 0.3:
            arguments += ("--profile", "--runs", "1")
        elif chance < 0.5:
            arguments += ("--diff", str(model), "--data", str(data), "--limit", "1")
    if command == "adder-run" and rng.random() < 0.3:
        arguments += ("--output", f"{model}.npz")
    return Case(f"{name}; {command}", command, arguments)


def mutate(rng: np.random.Generator, model: onnx.ModelProto) -> str:
    """Changes one thing in a model; returns what."""
    while True:
        change = _CHANGES[int(rng.integers(len(_CHANGES)))]
        try:
            what = change(rng, model)
        except (TypeError, ValueError):  # the value does not fit into the field
            continue
        if what is not None:
            return f"{change.__name__.lstrip('_')} {what}"


def base_models() -> dict[str, onnx.ModelProto]:
    """Small valid models of all kinds, by name; all take an image ``X`` of [N, 3, 8, 8]."""
    return {
        "floats": _floats(),
        "integers": _integers(),
        "control flow": _control_flow(),
        "contrib": _contrib(),
        "functions": _functions(),
        "standard": _standard(),
    }


def _model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, NDArray[Any]],
    functions: list[onnx.FunctionProto] | None = None,
    bodies: bool = False,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "hostile",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", *_IMAGE[1:]])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["N", None])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    imports = [("", 18), (DOMAIN, VERSION), ("user", 1), ("com.microsoft", 1)]
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(*entry) for entry in imports],
        functions=[*(functions or ()), *(function_bodies(18) if bodies else ())],
        ir_version=10,
    )


def _adder(x: str, w: str, y: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("AdderConv", [x, w], [y], f"n_{y}", domain=DOMAIN, **attributes)


def _node(op_type: str, inputs: list[str], *outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, list(outputs), f"n_{outputs[0]}", **attributes)


def _weight(*shape: int) -> NDArray[np.float32]:
    return np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)


def _head(x: str) -> list[onnx.NodeProto]:
    return [_node("GlobalAveragePool", [x], "pooled"), _node("Flatten", ["pooled"], "Y")]


def _floats() -> onnx.ModelProto:
    return _model(
        [
            _adder("X", "W", "A", pads=[1, 1, 1, 1], strides=[1, 1], group=1),
            _node("BatchNormalization", ["A", "s", "b", "m", "v"], "B"),
            _node("Relu", ["B"], "C"),
            _adder("C", "V", "D", pads=[1, 1, 1, 1], kernel_shape=[3, 3], dilations=[1, 1]),
            _node("Add", ["D", "C"], "E"),
            _node("Clip", ["E", "zero", "six"], "F"),
            *_head("F"),
        ],
        {
            "W": _weight(4, 3, 3, 3),
            "V": _weight(4, 4, 3, 3),
            **{name: np.abs(_weight(4)) + 1 for name in ("s", "b", "m", "v")},
            "zero": np.float32(0),
            "six": np.float32(6),
        },
        bodies=True,
    )


def _integers() -> onnx.ModelProto:
    one, zero = np.float32(1), np.uint8(0)
    layer = ["w", "scale", "zero", "scales", "biases", "zero", "scale", "zero", "scale", "zero"]
    return _model(
        [
            _node("QuantizeLinear", ["X", "scale", "zero"], "Q"),
            helper.make_node(
                *("QLinearAdderConv", ["Q", *layer], ["A"], "n_A"),
                domain=DOMAIN,
                bits=8,
                clip_min=0.0,
                levels=[0, 9, 100, 255],
            ),
            _node("MaxPool", ["A"], "P", kernel_shape=[2, 2], strides=[2, 2]),
            _node("DequantizeLinear", ["P", "scale", "zero"], "D"),
            *_head("D"),
        ],
        {
            "w": np.arange(36, dtype=np.uint8).reshape(4, 3, 1, 3),
            "scale": one,
            "zero": zero,
            "scales": np.ones(4, np.float32),
            "biases": np.full(4, 300, np.float32),
        },
        bodies=True,
    )


def _control_flow() -> onnx.ModelProto:
    def branch(op_type: str) -> onnx.GraphProto:
        result = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
        return helper.make_graph([_node(op_type, ["A"], "r")], op_type, [], [result])

    types = [(TensorProto.INT64, []), (TensorProto.BOOL, []), (TensorProto.FLOAT, None)]
    names = ("i", "go_on", "carried")
    body = helper.make_graph(
        [
            _node("Identity", ["go_on"], "go_out"),
            _adder("carried", "V", "sum", pads=[1, 1, 1, 1]),
        ],
        "body",
        [helper.make_tensor_value_info(n, *t) for n, t in zip(names, types, strict=True)],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, None),
        ],
    )
    return _model(
        [
            _adder("X", "W", "A"),
            _node("If", ["yes"], "B", then_branch=branch("Relu"), else_branch=branch("Neg")),
            _node("Loop", ["three", "yes", "B"], "C", body=body),
            *_head("C"),
        ],
        {
            "W": _weight(2, 3, 3, 3),
            "V": _weight(2, 2, 3, 3),
            "yes": np.array(True),
            "three": np.array(3),
        },
    )


def _functions() -> onnx.ModelProto:
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, VERSION)]
    imports.append(helper.make_opsetid("user", 1))
    adder = _adder("x", "w", "a")
    adder.attribute.add(name="group", type=onnx.AttributeProto.INT, ref_attr_name="g")
    inner = helper.make_function(
        "user", "Inner", ["x", "w"], ["y"], [adder, _node("Relu", ["a"], "y")], imports, ["g"]
    )
    call = helper.make_node("Inner", ["x", "w"], ["t"], domain="user", g=1)
    outer = helper.make_function(
        "user", "Outer", ["x", "w"], ["y"], [call, _node("Identity", ["t"], "y")], imports
    )
    calls = [
        helper.make_node("Outer", ["X", "W"], ["A"], "first", domain="user"),
        helper.make_node("Inner", ["A", "V"], ["B"], "second", domain="user", g=2),
    ]
    constants = {"W": _weight(4, 3, 3, 3), "V": _weight(4, 2, 1, 1)}
    return _model([*calls, *_head("B")], constants, [inner, outer])


def _contrib() -> onnx.ModelProto:
    """Operators of onnxruntime's own, of which onnx knows nothing."""
    return _model(
        [
            helper.make_node(
                "FusedConv", ["X", "K"], ["A"], "n_A", domain="com.microsoft", activation="Relu"
            ),
            _adder("A", "W", "B"),
            helper.make_node("Gelu", ["B"], ["C"], "n_C", domain="com.microsoft"),
            _node("MatMul", ["C", "M"], "D"),
            *_head("D"),
        ],
        {"K": _weight(3, 3, 3, 3), "W": _weight(4, 3, 3, 3), "M": _weight(4, 4)},
    )


def _standard() -> onnx.ModelProto:
    return _model(
        [
            _node("Conv", ["X", "K"], "A", pads=[1, 1, 1, 1], kernel_shape=[3, 3], group=1),
            _node("AveragePool", ["A"], "B", kernel_shape=[2, 2], strides=[2, 2]),
            _node("Constant", [], "shape", value=numpy_helper.from_array(np.array([0, 3, 4, 4]))),
            _node("Reshape", ["B", "shape"], "C"),
            _node("Split", ["C"], "D", "E", axis=2, num_outputs=2),
            _node("Concat", ["D", "E"], "F", axis=3),
            _node("Transpose", ["F"], "G", perm=[0, 1, 3, 2]),
            _node("Pad", ["G", "pads"], "H"),
            _node("ConvTranspose", ["H", "T"], "I", strides=[2, 2]),
            _node("Resize", ["I", "", "scales"], "J"),
            _adder("J", "W", "L", auto_pad="SAME_UPPER"),
            *_head("L"),
        ],
        {
            "K": _weight(3, 3, 3, 3),
            "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
            "T": _weight(3, 3, 2, 2),
            "scales": np.array([1, 1, 0.5, 0.5], np.float32),
            "W": _weight(4, 3, 3, 3),
        },
    )


# The changes. Each returns what it did, or None where the model has nothing of the kind.


def _pick(rng: np.random.Generator, options: Any) -> Any:
    return options[int(rng.integers(len(options)))] if len(options) else None


def _all_messages(message: Any) -> list[Any]:
    found, stack = [], [message]
    while stack:
        message = stack.pop()
        found.append(message)
        for field, value in message.ListFields():
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                stack += value if hasattr(value, "extend") else [value]
    return found


def _nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [m for m in _all_messages(model) if isinstance(m, onnx.NodeProto)]


def _value(rng: np.random.Generator, field: Any, old: Any) -> Any:
    """A strange value for a field."""
    if field.type == FieldDescriptor.TYPE_STRING:
        return _pick(rng, _TEXTS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _pick(rng, (b"", b"\xff", b"SAME_UPPER", bytes(old)[:-1], bytes(old) * 2))
    if isinstance(old, float):
        return _pick(rng, _FLOATS)
    options = _INTEGERS + _EXTREME if rng.random() < 0.3 else tuple(range(-2, 30))
    return int(_pick(rng, options))


def _field(rng: np.random.Generator, model: onnx.ModelProto) -> str | None:
    """Any field of any message."""
    message = _pick(rng, _all_messages(model))
    found = [f for f in message.ListFields() if f[0].type != FieldDescriptor.TYPE_MESSAGE]
    chosen = _pick(rng, found)
    if chosen is None:
        return None
    field, value = chosen
    if not hasattr(value, "extend"):
        new = _value(rng, field, value)
        setattr(message, field.name, new)
    else:
        index = int(rng.integers(len(value)))
        new = _value(rng, field, value[index])
        value[index] = new
    return f"{type(message).__name__}.{field.name} = {str(new)[:20]!r}"


def _repeated(rng: np.random.Generator, model: onnx.ModelProto) -> str | None:
    """An element of a list: gone, there twice, or in another place."""
    message = _pick(rng, _all_messages(model))
    lists = [(f, v) for f, v in message.ListFields() if hasattr(v, "extend")]
    chosen = _pick(rng, lists)
    if chosen is None:
        return None
    field, values = chosen
    index = int(rng.integers(len(values)))
    how = _pick(rng, ("remove", "repeat", "move"))
    element = values[index]
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        copy = type(element)()
        copy.CopyFrom(element)
        element = copy
    if how != "repeat":
        del values[index]
    if how != "remove":
        values.insert(int(rng.integers(len(values) + 1)), element)
    return f"{how} {type(message).__name__}.{field.name}[{index}]"


def _clear(rng: np.random.Generator, model: onnx.ModelProto) -> str | None:
    message = _pick(rng, _all_messages(model))
    chosen = _pick(rng, message.ListFields())
    if chosen is None:
        return None
    message.ClearField(chosen[0].name)
    return f"{type(message).__name__}.{chosen[0].name}"


def _attribute(rng: np.random.Generator, model: onnx.ModelProto) -> str | None:
    """An attribute of a node: another number, type or length; or one more."""
    node = _pick(rng, _nodes(model))
    if node is None:
        return None
    attribute = _pick(rng, node.attribute)
    names = ("strides", "pads", "dilations", "group", "kernel_shape", "axis", "to", "perm", "value")
    name = attribute.name if attribute is not None and rng.random() < 0.8 else _pick(rng, names)
    numbers = [int(_pick(rng, _INTEGERS)) for _ in range(int(rng.integers(0, 5)))]
    value = _pick(rng, (numbers, numbers[:1] and numbers[0], "SAME_UPPER", "strange", 0.5))
    kept = [a for a in node.attribute if a.name != name]
    made = helper.make_attribute(name, value, attr_type=7 if value == [] else None)
    del node.attribute[:]
    node.attribute.extend([*kept, made])
    return f"{node.op_type}.{name} = {value}"


def _rewire(rng: np.random.Generator, model: onnx.ModelProto) -> str | None:
    """An input or output of a node, or of the graph, has the name of another value."""
    nodes = _nodes(model)
    names = [name for node in nodes for name in (*node.input, *node.output)] + ["", "unknown"]
    node = _pick(rng, nodes)
    values = None if node is None else _pick(rng, (node.input, node.output))
    if not values:
        return None
    index = int(rng.integers(len(values)))
    old, values[index] = values[index], _pick(rng, names)
    return f"{node.op_type} {old!r} -> {values[index]!r}"


def _operator(rng: np.random.Generator, model: onnx.ModelProto) -> str | None:
    """A node has another operator, with attributes that it knows and strange numbers in them."""
    node = _pick(rng, _nodes(model))
    if node is None:
        return None
    schema = _pick(rng, _SCHEMAS)
    node.op_type, node.domain = schema.name, schema.domain
    if rng.random() < 0.8:
        del node.attribute[:]
        for name, attribute in schema.attributes.items():
            value = _attribute_value(rng, attribute)
            if value is not None and (attribute.required or rng.random() < 0.4):
                node.attribute.append(helper.make_attribute(name, value))
    names = [tensor.name for tensor in model.graph.initializer] + ["X", *node.input]
    count = int(rng.integers(schema.min_input, min(schema.max_input, schema.min_input + 3) + 1))
    del node.input[:]
    node.input.extend(_pick(rng, names) for _ in range(count))
    return schema.name


def _attribute_value(rng: np.random.Generator, attribute: Any) -> Any:
    kind = attribute.type.name
    small = tuple(range(-3, 4))
    numbers = small if rng.random() < 0.7 else _INTEGERS
    if kind == "INT":
        return int(_pick(rng, numbers))
    if kind == "INTS":
        return [int(_pick(rng, numbers)) for _ in range(int(rng.integers(1, 5)))]
    if kind == "FLOAT":
        return float(_pick(rng, _FLOATS))
    if kind == "STRING":
        return _pick(rng, ("constant", "linear", "SAME_UPPER", "strange", ""))
    if kind == "TENSOR":
        return numpy_helper.from_array(_constant(rng))
    return None


def _constant(rng: np.random.Generator) -> NDArray[Any]:
    shape = [int(n) for n in rng.integers(0, 4, int(rng.integers(0, 5)))]
    dtype = _pick(rng, (np.float32, np.int64, np.uint8, np.bool_, np.float16, np.int32, np.float64))
    numbers = rng.choice(np.array((-1, 0, 1, 2, 3, 10**12, 2**62)), size=shape)
    with np.errstate(all="ignore"):
        return np.asarray(numbers).astype(dtype)


def _initializer(rng: np.random.Generator, model: onnx.ModelProto) -> str | None:
    """A constant of another shape and type, well-formed or not."""
    tensor = _pick(rng, model.graph.initializer)
    if tensor is None:
        return None
    name, array = tensor.name, _constant(rng)
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    if rng.random() < 0.3:
        tensor.dims[:] = [int(_pick(rng, _INTEGERS)) for _ in range(int(rng.integers(0, 5)))]
    return f"{name} {array.dtype} {list(tensor.dims)}"


def _reshaped(rng: np.random.Generator, model: onnx.ModelProto) -> str | None:
    """A constant with the same elements in another shape."""
    tensor = _pick(rng, model.graph.initializer)
    if tensor is None:
        return None
    count = int(np.prod([int(d) for d in tensor.dims]))
    tensor.dims[:] = _pick(rng, ([count], [1, count], [count, 1, 1, 1], [1] * 6 + [count]))
    return f"{tensor.name} {list(tensor.dims)}"


def _shape(rng: np.random.Generator, model: onnx.ModelProto) -> str | None:
    """An input, or output, of the graph has another shape or type."""
    value = _pick(rng, [*model.graph.input, *model.graph.output])
    if value is None:
        return None
    if rng.random() < 0.3:
        value.type.CopyFrom(_strange_type(rng))
        return f"{value.name}: a strange type"
    rank = int(_pick(rng, (0, 1, 2, 3, 4, 4, 4, 5, 10)))
    dims = [_pick(rng, (None, "N", 1, 3, 8, *_INTEGERS)) for _ in range(rank)]
    value.type.CopyFrom(
        helper.make_tensor_type_proto(int(_pick(rng, (1, 1, 2, 7, 8, 9, 10, 11, 16, 22))), dims)
    )
    return f"{value.name} {dims}"


def _strange_type(rng: np.random.Generator) -> onnx.TypeProto:
    tensor = helper.make_tensor_type_proto(int(_pick(rng, (0, 1, 8, 99, -1))), [1])
    return _pick(  # type: ignore[no-any-return]
        rng,
        (
            tensor,
            onnx.TypeProto(),
            helper.make_sequence_type_proto(tensor),
            helper.make_optional_type_proto(helper.make_sequence_type_proto(tensor)),
            helper.make_map_type_proto(int(_pick(rng, (7, 8, 1, 99))), tensor),
            helper.make_sparse_tensor_type_proto(1, [3, 3]),
        ),
    )


def _large_constant(rng: np.random.Generator, model: onnx.ModelProto) -> str:
    """A small node that makes a large constant, which is added to the output."""
    size = int(_pick(rng, (10**10, 10**12, 2**62)))
    small = numpy_helper.from_array
    op_type = _pick(rng, ("ConstantOfShape", "Expand", "Tile", "Range", "OneHot"))
    integers = {"size": [size], "one": 1, "zero": 0, "huge": size, "two": [1]}
    for name, value in integers.items():
        model.graph.initializer.append(small(np.array(value), f"large_{name}"))
    model.graph.initializer.append(small(np.array([0, 1], np.float32), "large_values"))
    inputs = {
        "ConstantOfShape": ["large_size"],
        "Expand": ["large_two", "large_size"],
        "Tile": ["large_two", "large_size"],
        "Range": ["large_zero", "large_huge", "large_one"],
        "OneHot": ["large_two", "large_huge", "large_values"],
    }[op_type]
    nodes = [
        _node(op_type, inputs, "large"),
        _node("ReduceMax", ["large"], "large_max", keepdims=0),
        _node("Cast", ["large_max"], "large_float", to=1),
        _node("Add", ["X", "large_float"], "large_X"),
    ]
    for node in model.graph.node:
        node.input[:] = ["large_X" if name == "X" else name for name in node.input]
    kept = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *kept])
    return f"{op_type} {size}"


def _external(rng: np.random.Generator, model: onnx.ModelProto) -> str | None:
    """A constant in another file, which is not there or not what it should be."""
    tensor = _pick(rng, model.graph.initializer)
    if tensor is None:
        return None
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    places = ("images.npz", "model_0.onnx", "none", "..", "", "/dev/zero", "a\x00b", "a" * 300, ".")
    for key, values in (
        ("location", places),
        ("offset", ("0", "4", "-4", "abc", "", "9" * 30, "1e3")),
        ("length", ("16", "0", "-1", "abc", "9" * 18)),
        ("checksum", ("0", "")),
        ("strange", ("",)),
    ):
        if rng.random() < 0.7:
            tensor.external_data.add(key=key, value=_pick(rng, values))
    return f"{tensor.name} {[entry.value[:20] for entry in tensor.external_data]}"


def _sparse(rng: np.random.Generator, model: onnx.ModelProto) -> str | None:
    """A constant that is sparse."""
    tensor = _pick(rng, model.graph.initializer)
    if tensor is None:
        return None
    values = numpy_helper.from_array(np.ones(2, np.float32), tensor.name)
    indices = numpy_helper.from_array(np.array(_pick(rng, ([0, 1], [5, 2], [-1, 10**12]))), "i")
    dims = [int(_pick(rng, (*range(5), *_INTEGERS))) for _ in range(int(rng.integers(1, 5)))]
    model.graph.initializer.remove(tensor)
    model.graph.sparse_initializer.append(
        onnx.SparseTensorProto(values=values, indices=indices, dims=dims)
    )
    return f"{tensor.name} {dims}"


def _calls(rng: np.random.Generator, model: onnx.ModelProto) -> str:
    """Functions that call themselves, or so many that the nodes are countless, or nest deeply."""
    how = _pick(rng, ("circle", "doubling", "nested"))
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("user", 1)]
    for i in range(40):
        callee = f"F{(i + 1) % 40}" if how == "circle" or i < 39 else "Relu"
        domain = "user" if callee != "Relu" else ""
        calls = [
            helper.make_node(callee, ["x"], ["t"], domain=domain),
            helper.make_node(callee, ["t"], ["y"], domain=domain),
        ]
        if how == "nested":
            result = helper.make_tensor_value_info("t", TensorProto.FLOAT, None)
            branch = helper.make_graph(calls[:1], "branch", [], [result])
            truth = numpy_helper.from_array(np.array(True))
            calls = [
                _node("Constant", [], "c", value=truth),
                _node("If", ["c"], "y", then_branch=branch, else_branch=branch),
            ]
        model.functions.append(helper.make_function("user", f"F{i}", ["x"], ["y"], calls, imports))
    for node in model.graph.node:
        node.input[:] = ["called_X" if name == "X" else name for name in node.input]
    kept = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("F0", ["X"], ["called_X"], domain="user"))
    model.graph.node.extend(kept)
    return str(how)


def _version(rng: np.random.Generator, model: onnx.ModelProto) -> str:
    number = int(_pick(rng, (-1, 0, 1, 5, 7, 11, 13, 17, 22, 26, 99, 10**9, 2**62)))
    if rng.random() < 0.3:
        model.ir_version = number
        return f"of the IR {number}"
    entry = _pick(rng, model.opset_import)
    if entry is None:
        return "none"
    entry.version = number
    return f"of {entry.domain!r} {number}"


_SCHEMAS = [
    schema
    for schema in onnx.defs.get_all_schemas()
    if schema.domain == "" and not schema.deprecated
]

_CHANGES: tuple[Callable[[np.random.Generator, onnx.ModelProto], str | None], ...] = (
    *(_field, _field, _field, _repeated, _repeated, _clear, _attribute, _attribute, _rewire),
    *(_operator, _operator, _initializer, _reshaped, _shape, _large_constant, _external, _sparse),
    *(_calls, _version),
)
