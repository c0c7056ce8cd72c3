"""The real ResNet-20, in float32 and in 8 bits, after other tools have gone over its file."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnxruntime.quantization.shape_inference import quant_pre_process

import adder_onnx
from adder_onnx.cli import run
from adder_onnx.graph.plan import ChainStep
from adder_onnx.quantization import quantize
from tests.inlined import TOOLS


def preprocessed_for_quantization(model: onnx.ModelProto) -> onnx.ModelProto:
    """Onnxruntime's preparation; its symbolic shape inference does not get through the loops."""
    with tempfile.TemporaryDirectory() as folder:
        given, prepared = (str(Path(folder) / name) for name in ("given.onnx", "prepared.onnx"))
        onnx.save(model, given)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        return onnx.load(prepared)


REAL_TOOLS = {**TOOLS, "quant_pre_process": preprocessed_for_quantization}


@pytest.fixture(scope="module")
def originals(resnet20: Path, images: NDArray[np.float32]) -> dict[str, onnx.ModelProto]:
    model = onnx.load(resnet20)
    return {"float32": model, "8 bits": quantize(model, [{"input": images[:16]}]).model}


@pytest.mark.parametrize("kind", ["float32", "8 bits"])
@pytest.mark.parametrize("tool", REAL_TOOLS)
def test_all_adder_nodes_come_back(
    originals: dict[str, onnx.ModelProto], images: NDArray[np.float32], kind: str, tool: str
) -> None:
    """In one chain as before, with the same bits."""
    original = originals[kind]
    model = REAL_TOOLS[tool](original)
    assert any(node.op_type == "Loop" for node in model.graph.node)
    session = adder_onnx.InferenceSession(model.SerializeToString())
    (chain,) = [step for step in session.plan.steps if isinstance(step, ChainStep)]
    assert len(chain.nodes) == 20
    assert {node.type for node in chain.nodes} == {"uint8" if kind == "8 bits" else "float32"}
    expected = adder_onnx.InferenceSession(original.SerializeToString())
    assert len(session.plan.steps) == len(expected.plan.steps)
    results = [s.run(None, {"input": images})[0] for s in (session, expected)]
    np.testing.assert_array_equal(results[0], results[1])


def test_accuracy(
    originals: dict[str, onnx.ModelProto],
    shared: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "optimized.onnx"
    onnx.save(TOOLS["onnxruntime all"](originals["float32"]), path)
    assert run.main([str(path), "--data", str(shared / "cifar10"), "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images"] == 500
    assert abs(result["top1_correct"] - 456) <= 1


def test_one_warning_of_a_command_that_loads_a_model_more_than_once(
    originals: dict[str, onnx.ModelProto], tmp_path: Path
) -> None:
    """Of a loop that is not recognised, since its sum is an output of the model."""
    model = TOOLS["onnx_ir"](originals["float32"])
    (loop, *_) = (node for node in model.graph.node if node.op_type == "Loop")
    output = onnx.helper.make_tensor_value_info(loop.output[0], onnx.TensorProto.DOUBLE, [None] * 5)
    model.graph.output.append(output)
    onnx.save(model, tmp_path / "model.onnx")
    command = [sys.executable, "-m", "adder_onnx.cli.inspect", str(tmp_path / "model.onnx")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert "1 loop computes an adder layer in standard operators" in line
