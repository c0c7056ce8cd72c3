"""Compiled files, and the library that a stock onnxruntime takes our operators from.

A compiled file must answer alike in a stock onnxruntime with the library, in one without it, which
executes the function bodies, and in our own runtime.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import adder_onnx
from adder_onnx.cli.compile import main
from adder_onnx.compilation import compile, compile_model, verification
from adder_onnx.errors import InputError, MissingDependencyError, ModelError
from adder_onnx.kernels.cpu import ISA_VARIABLE, available_isas
from adder_onnx.ops import DOMAIN, ConvAttributes, function_bodies
from adder_onnx.ops.reference import adder_conv as float64_adder_conv
from adder_onnx.quantization import quantize
from tests.integer_chains import random_chain
from tests.models import (
    W1,
    W2,
    adder_conv,
    image,
    make_model,
    network,
    node,
    normalized_network,
)
from tests.pooled_models import CHANNELS, pooled_network
from tests.random_graphs import random_model

DIGITS = Path(__file__).parents[1] / "examples" / "digits"
RTOL = 2e-5
"""Of the largest magnitude in an output, or of one, where two runtimes round differently."""


@pytest.fixture(scope="session")
def library() -> str:
    try:
        return adder_onnx.get_library_path()
    except MissingDependencyError as error:
        pytest.skip(str(error))


def _run(
    model: onnx.ModelProto | str, feed: dict[str, NDArray[Any]], library: str | None = None
) -> list[NDArray[Any]]:
    return list(_session(model, library).run(None, feed))


def _session(model: onnx.ModelProto | str, library: str | None, threads: int = 2) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if library is not None:
        options.register_custom_ops_library(library)
    data = model if isinstance(model, str) else model.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _assert_close(found: list[NDArray[Any]], expected: list[NDArray[Any]], what: str) -> None:
    for a, b in zip(found, expected, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), what
        scale = max(1.0, float(np.abs(b).max(initial=0)))
        rtol = 2e-3 if b.dtype == np.float16 else RTOL
        assert np.abs(a.astype(np.float64) - b).max(initial=0) <= rtol * scale, what


def _assert_same(found: list[NDArray[Any]], expected: list[NDArray[Any]], what: str) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype, what
        np.testing.assert_array_equal(a, b, what)


def _integer_network() -> onnx.ModelProto:
    feeds = [{"X": image(2, 3, 9, 8)} for _ in range(2)]
    return quantize(network(), feeds, bits=5).model


def _pooled() -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    model = pooled_network()
    x = np.random.default_rng(3).integers(0, 256, (2, CHANNELS, 13, 12))
    return model, {"X": x.astype(np.uint8)}


def _check(model: onnx.ModelProto, feed: dict[str, NDArray[Any]], library: str, what: str) -> None:
    compiled = compile_model(model).model
    onnx.checker.check_model(compiled)
    ours = adder_onnx.InferenceSession(model.SerializeToString()).run(None, feed)
    again = adder_onnx.InferenceSession(compiled.SerializeToString())
    _assert_same(again.run(None, feed), ours, f"{what}: our runtime")
    _assert_same(_run(compiled, feed, library), ours, f"{what}: library")
    _assert_close(_run(compiled, feed), ours, f"{what}: bodies")


def test_the_network_is_one_node_that_answers_as_before(library: str) -> None:
    _check(network(), {"X": image(3, 3, 9, 8)}, library, "floats")
    _check(_integer_network(), {"X": image(3, 3, 9, 8)}, library, "integers")
    _check(*_pooled(), library, "pools")


def test_tables_of_what_enters(library: str) -> None:
    """Those of levels, and any other."""
    feed = {"X": image(3, 3, 9, 8)}
    model = quantize(normalized_network(), [feed], levels=5).model
    _check(model, feed, library, "levels")
    for tensor in model.graph.initializer:
        if tensor.name.endswith("_levels"):
            values = np.random.default_rng(1).integers(0, 256, 256, np.uint8)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    _check(model, feed, library, "any table")
    (chain,) = compile_model(model).chains
    assert chain.description is not None
    assert any(np.array_equal(array, values) for array in chain.description.operands)


@pytest.mark.parametrize("block", range(0, 60, 20))
def test_random_graphs(library: str, block: int) -> None:
    """Branches, several chains, computed weights, control flow, fixed and dynamic sizes."""
    compiled = 0
    for seed in range(block, block + 20):
        model, feed = random_model(seed)
        try:
            made = compile_model(model)
        except InputError:
            continue
        compiled += any(chain.description for chain in made.chains)
        ours = adder_onnx.InferenceSession(model.SerializeToString()).run(None, feed)
        with_library = _run(made.model, feed, library)
        _assert_close(with_library, ours, f"seed {seed}: library")
        _assert_close(_run(made.model, feed), ours, f"seed {seed}: bodies")
        again = adder_onnx.InferenceSession(made.model.SerializeToString())
        _assert_close(again.run(None, feed), ours, f"seed {seed}: our runtime")
        _assert_close(_run(model, feed, library), ours, f"seed {seed}: single nodes")
    assert compiled > 10


@pytest.mark.parametrize("seed", range(40))
def test_random_integer_chains_are_equal_to_the_bit(library: str, seed: int) -> None:
    model, feed = random_chain(seed)
    expected = _run(model, feed)
    compiled = compile_model(model).model
    _assert_same(_run(compiled, feed, library), expected, "library")
    _assert_same(_run(compiled, feed), expected, "bodies")
    _assert_same(_run(model, feed, library), expected, "single nodes")


def test_float16_becomes_float16(library: str) -> None:
    model = make_model(
        [
            adder_conv("X", "W1", "A", pads=[1, 1, 1, 1]),
            node("Relu", ["A"], "R"),
            adder_conv("R", "W2", "Y"),
        ],
        {"X": ["N", 3, "H", "W"]},
        {"Y": ["N", 20, None, None]},
        {"W1": W1.astype(np.float16), "W2": W2.astype(np.float16)},
        elem_type=TensorProto.FLOAT16,
    )
    feed = {"X": image(2, 3, 6, 7).astype(np.float16)}
    (chain,) = compile_model(model).chains
    assert chain.operator == "AdderChainFloat16_0"
    _check(model, feed, library, "float16")


def test_weights_that_are_computed_leave_the_nodes_as_they_are(library: str) -> None:
    model = make_model(
        [node("Add", ["W", "C"], "V"), adder_conv("X", "V", "Y"), adder_conv("Y", "W2", "Z")],
        {"X": ["N", 3, 8, 8], "W": [20, 3, 3, 3]},
        {"Z": ["N", 20, 4, 4]},
        {"C": W1, "W2": W2},
    )
    compiled = compile_model(model)
    assert [chain.operator for chain in compiled.chains] == ["AdderLayers0"]
    assert compiled.chains[0].description is None
    _check(model, {"X": image(2, 3, 8, 8), "W": W1}, library, "computed weights")


def test_integers_and_floats_leave_one_chain(library: str) -> None:
    """An integer value that somebody takes as it is, and somebody else as a float."""
    model = _integer_network()
    given = next(n for n in model.graph.node if n.op_type == "QLinearAdderConv")
    model.graph.node.append(helper.make_node("Identity", [given.output[0]], ["integers"]))
    model.graph.output.append(
        helper.make_tensor_value_info("integers", TensorProto.UINT8, [None] * 4)
    )
    compiled = compile_model(model)
    assert {chain.operator for chain in compiled.chains} == {"AdderChainUint8_0"}
    assert "DequantizeLinear" in {n.op_type for n in compiled.model.graph.node}
    _check(model, {"X": image(2, 3, 9, 8)}, library, "both types")


def test_more_chains_than_the_library_has_operators_for(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile, "MOST_CHAINS", 1)
    model = make_model(
        [
            adder_conv("X", "W1", "A"),
            node("Sin", ["A"], "B"),
            adder_conv("B", "W2", "C"),
            node("Sin", ["C"], "D"),
            adder_conv("D", "W2", "Y"),
        ],
        {"X": ["N", 3, 9, 9]},
        {"Y": ["N", 20, 3, 3]},
        {"W1": W1, "W2": W2},
    )
    operators = [chain.operator for chain in compile_model(model).chains]
    assert operators == ["AdderChain0", "AdderLayers0", "AdderLayers1"]
    _check(model, {"X": image(2, 3, 9, 9)}, library, "many chains")


def test_the_library_has_as_many_operators_as_are_used(library: str) -> None:
    model = compile_model(network()).model
    last = compile.MOST_CHAINS - 1
    for number, is_known in ((last, True), (last + 1, False)):
        renamed = onnx.ModelProto()
        renamed.CopyFrom(model)
        del renamed.functions[:]
        (chain,) = [n for n in renamed.graph.node if n.domain == DOMAIN]
        chain.op_type = f"AdderChain{number}"
        if is_known:
            _run(renamed, {"X": image(1, 3, 9, 8)}, library)
        else:
            with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail):
                _session(renamed, library)


def test_a_model_without_adder_nodes_is_refused() -> None:
    model = make_model([node("Relu", ["X"], "Y")], {"X": ["N"]}, {"Y": ["N"]})
    with pytest.raises(InputError, match="nothing to compile"):
        compile_model(model)


def _layer(
    dtype: type, x: NDArray[Any], w: NDArray[Any] | None, **attributes: Any
) -> onnx.ModelProto:
    elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    inputs: dict[str, Any] = {"X": [None] * 4}
    if w is None:
        inputs["W"] = [None] * 4
    return make_model(
        [adder_conv("X", "W", "Y", **attributes)],
        inputs,
        {"Y": [None] * 4},
        {} if w is None else {"W": w},
        elem_type=elem_type,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize("is_constant", [True, False])
def test_single_layers_of_all_types_and_attributes(
    library: str, dtype: type, is_constant: bool
) -> None:
    rng = np.random.default_rng(5)
    cases: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
        ((2, 3, 7, 6), (5, 3, 3, 3), {}),
        ((2, 3, 7, 6), (5, 3, 3, 2), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
        ((1, 4, 9, 8), (6, 2, 3, 3), {"group": 2, "dilations": [2, 1]}),
        ((1, 4, 9, 8), (4, 1, 3, 3), {"group": 4, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ((1, 4, 9, 8), (3, 4, 2, 2), {"auto_pad": "SAME_LOWER", "strides": [2, 3]}),
        ((1, 4, 9, 8), (3, 4, 2, 2), {"auto_pad": "VALID", "kernel_shape": [2, 2]}),
        ((0, 4, 9, 8), (3, 4, 2, 2), {}),
    ]
    for x_shape, w_shape, attributes in cases:
        x = rng.standard_normal(x_shape).astype(dtype)
        w = rng.standard_normal(w_shape).astype(dtype)
        model = _layer(dtype, x, w if is_constant else None, **attributes)
        feed = {"X": x} if is_constant else {"X": x, "W": w}
        (found,) = _run(model, feed, library)
        expected = float64_adder_conv(x, w, ConvAttributes.from_mapping(attributes))
        rtol = {np.float32: 1e-5, np.float16: 1e-3, np.float64: 1e-14}[dtype]
        assert found.dtype == dtype
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol, err_msg=str(attributes))


def _qlinear(constant: bool, z: str) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    """One QLinearAdderConv, its parameters constants or inputs; ``z`` is what its residual is."""
    rng = np.random.default_rng(7)
    values: dict[str, NDArray[Any]] = {
        "W": rng.integers(0, 256, (5, 3, 3, 3)).astype(np.uint8),
        "x_scale": np.float32(0.031),
        "x_zero_point": np.uint8(7),
        "scale": rng.uniform(0.5, 2, 5).astype(np.float32),
        "bias": rng.uniform(10, 90, 5).astype(np.float32),
        "z_scale": np.float32(0.4),
        "z_zero_point": np.uint8(100),
        "y_scale": np.float32(0.37),
        "y_zero_point": np.uint8(3),
    }
    feed = {"X": rng.integers(0, 256, (2, 3, 6, 5)).astype(np.uint8)}
    residual = {
        "none": np.uint8(0),
        "scalar": np.uint8(200),
        "image": rng.integers(0, 256, (2, 5, 4, 3)).astype(np.uint8),
    }[z]
    if z == "none":
        values["z_zero_point"] = np.uint8(0)
    feed["Z"] = np.asarray(residual)
    if not constant:
        feed |= {name: np.asarray(value) for name, value in values.items()}
    order = ("X", "W", "x_scale", "x_zero_point", "scale", "bias", "Z", "z_scale")
    names = [*order, "z_zero_point", "y_scale", "y_zero_point"]
    graph = helper.make_graph(
        [helper.make_node("QLinearAdderConv", names, ["Y"], "n", domain=DOMAIN, bits=7)],
        "g",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
            )
            for name, value in feed.items()
        ],
        [helper.make_tensor_value_info("Y", TensorProto.UINT8, [None] * 4)],
        []
        if not constant
        else [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in values.items()],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)],
        functions=function_bodies(18),
        ir_version=10,
    )
    return model, feed


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("z", ["none", "scalar", "image"])
def test_single_integer_layers(library: str, constant: bool, z: str) -> None:
    model, feed = _qlinear(constant, z)
    _assert_same(_run(model, feed, library), _run(model, feed), "library and body")


def test_what_does_not_fit_is_an_error_that_names_the_node(library: str) -> None:
    model = _layer(np.float32, image(1, 3, 5, 5), W1)
    session = _session(model, library)
    for shape, message in (
        ((1, 4, 5, 5), "node 'n_Y'.*takes 3 input channels, but the input has 4"),
        ((1, 3, 2, 5), "node 'n_Y'.*the kernel spans 3 pixels in height"),
    ):
        with pytest.raises(Exception, match=message):
            session.run(None, {"X": image(*shape)})
    compiled = compile_model(network()).model
    (chain,) = [n for n in compiled.graph.node if n.domain == DOMAIN]
    tensor = next(t for t in compiled.graph.initializer if t.name == chain.input[-1])
    compiled.graph.initializer.remove(tensor)
    compiled.graph.input.append(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
    )
    with pytest.raises(Exception, match="must be constants"):
        _session(compiled, library)


def _is_refused(model: onnx.ModelProto, library: str) -> bool:
    message = ""
    try:
        _run(model, {"X": image(1, 3, 9, 8)}, library)
    except Exception as error:
        message = str(error)
    assert not message or "adder_onnx" in message
    return bool(message)


def test_programs_that_lie_are_refused(library: str) -> None:
    """Numbers of a node's description, each replaced by others: an error, or an answer."""
    model = compile_model(_integer_network()).model
    (chain,) = [n for n in model.graph.node if n.domain == DOMAIN]
    (program,) = [a for a in chain.attribute if a.name == "program"]
    good = list(program.ints)
    refused = 0
    for at in range(len(good)):
        for wrong in (-1, 0, 1, 99, 1 << 40, -(1 << 63)):
            program.ints[:] = [*good[:at], wrong, *good[at + 1 :]]
            refused += _is_refused(model, library)
    for length in range(len(good)):
        program.ints[:] = good[:length]
        with pytest.raises(Exception, match="adder_onnx"):
            _session(model, library)
    assert refused > len(good)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_eight_threads_at_once(library: str, threads: int) -> None:
    session = _session(compile_model(network()).model, library, threads)
    batches = [image(n, 3, 9, 8) for n in (1, 2, 7, 16)]
    expected = [session.run(None, {"X": x})[0] for x in batches]
    wrong: list[int] = []

    def work() -> None:
        for _ in range(25):
            for i, x in enumerate(batches):
                if not np.array_equal(session.run(None, {"X": x})[0], expected[i]):
                    wrong.append(i)

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    ours = adder_onnx.InferenceSession(network().SerializeToString())
    for x, y in zip(batches, expected, strict=True):
        np.testing.assert_array_equal(ours.run(None, {"X": x})[0], y)


@pytest.mark.parametrize("isa", available_isas())
def test_the_instruction_set_is_that_of_the_variable(
    library: str, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, feed = compile_model(network()).model, {"X": image(2, 3, 9, 8)}
    expected = _run(model, feed, library)
    monkeypatch.setenv(ISA_VARIABLE, isa)
    _assert_same(_run(model, feed, library), expected, isa)
    monkeypatch.setenv(ISA_VARIABLE, "sse9")
    with pytest.raises(Exception, match="'sse9' is unknown"):
        _session(model, library)


def test_the_real_resnet20(library: str, resnet20: Path, images: NDArray[np.float32]) -> None:
    model = onnx.load(resnet20)
    x = images[:8].astype(np.float32)
    name = model.graph.input[0].name
    integers = quantize(model, [{name: x}], calibration="minmax").model
    for kind in (model, integers):
        compiled = compile_model(kind)
        assert [len(chain.nodes) for chain in compiled.chains] == [20]
        ours = adder_onnx.InferenceSession(kind.SerializeToString()).run(None, {name: x})
        _assert_same(_run(compiled.model, {name: x}, library), ours, "library")
        (bodies,) = _run(compiled.model, {name: x[:2]})
        _assert_close([bodies], [ours[0][:2]], "bodies")


def test_the_command_writes_a_file_that_answers_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, chains = tmp_path / "compiled.onnx", tmp_path / "chains"
    model = DIGITS / "resnet8_digits.onnx"
    assert main([str(model), str(output), "--chains", str(chains), "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [chain["operator"] for chain in result["chains"]] == ["AdderChain0"]
    assert result["bytes"] == output.stat().st_size
    assert result["error"] == 0
    assert [path.name for path in chains.iterdir()] == ["AdderChain0.adder"]
    x = image(3, 1, 8, 8)
    sessions = [adder_onnx.InferenceSession(str(path)) for path in (model, output)]
    name = sessions[0].get_inputs()[0].name
    answers = [session.run(None, {name: x})[0] for session in sessions]
    np.testing.assert_array_equal(*answers)
    metadata = [s.get_modelmeta().custom_metadata_map for s in sessions]
    assert metadata[0] == metadata[1]


def test_the_command_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, output = str(DIGITS / "resnet8_digits.onnx"), tmp_path / "compiled.onnx"
    (tmp_path / "file").write_bytes(b"")
    for arguments, message in (
        ([model, model], "would replace the model"),
        ([model, str(output), "--chains", str(tmp_path / "file")], "--chains"),
        ([model, str(output), "--dim", "depth=3"], "no symbolic dimension 'depth'"),
        ([str(tmp_path / "none.onnx"), str(output)], "none.onnx"),
    ):
        assert main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    monkeypatch.setattr(verification, "_error", lambda *_: 0.5)
    assert main([model, str(output)]) == 2
    assert "differs by 5.0e-01" in capsys.readouterr().err
    assert main([model, str(output), "--no-verify"]) == 0
    with pytest.raises(ModelError):
        verification.verify(onnx.load(model), onnx.load(output), 1, {})
