"""Layers of few levels by table lookups give what the operator's definition gives, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

import adder_onnx
from adder_onnx.errors import AdderError
from adder_onnx.kernels.cpu import ISA_VARIABLE, available_isas, most_lookup_levels
from adder_onnx.quantization import quantize
from adder_onnx.runtime import native_step
from tests.integer_chains import random_chain
from tests.models import image

DIGITS = Path(__file__).parents[1] / "examples" / "digits" / "resnet8_digits.onnx"
VARIABLE = "ADDER_ONNX_LOOKUPS"
Feed = dict[str, NDArray[Any]]


@pytest.fixture(params=available_isas())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(ISA_VARIABLE, request.param)
    return str(request.param)


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Which layers took lookups, of all chains that are made."""
    found: list[bool] = []
    make = native_step.NativeChain

    def made(*arguments: Any) -> Any:
        chain = make(*arguments)
        found.extend(chain.lookups)
        return chain

    monkeypatch.setattr(native_step, "NativeChain", made)
    return found


def _stock(model: onnx.ModelProto, feed: Feed) -> list[NDArray[Any]]:
    """By the function bodies, in onnxruntime."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, feed))


def _ours(model: onnx.ModelProto, feed: Feed, threads: int = 1) -> list[NDArray[Any]]:
    return list(
        adder_onnx.InferenceSession(model.SerializeToString(), threads=threads).run(None, feed)
    )


@pytest.mark.parametrize("few", [2, 4, 8, 9])
def test_random_chains(
    few: int, isa: str, lookups: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "always")
    for seed in range(20, 32):
        model, feed = random_chain(seed, few=few)
        expected = _stock(model, feed)
        for threads in (1, 3):
            for found, right in zip(_ours(model, feed, threads), expected, strict=True):
                np.testing.assert_array_equal(found, right, err_msg=f"seed {seed}")
    assert any(lookups) == (few <= most_lookup_levels(isa))


def test_a_quantized_network(
    isa: str, lookups: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose first layer has its few levels from a table, and residuals of few levels."""
    original = onnx.load(DIGITS)
    (size,) = (i.type.tensor_type.shape.dim for i in original.graph.input)
    shape = (3, *(d.dim_value for d in size[1:]))
    feed = {original.graph.input[0].name: image(*shape)}
    model = quantize(original, [feed], levels=most_lookup_levels(isa)).model
    lookups.clear()
    monkeypatch.setenv(VARIABLE, "never")
    expected = _ours(model, feed)
    assert not any(lookups)
    lookups.clear()
    monkeypatch.setenv(VARIABLE, "always")
    for found, right in zip(_ours(model, feed), expected, strict=True):
        np.testing.assert_array_equal(found, right)
    assert sum(lookups) > len(lookups) / 2


def test_levels_of_instruction_sets(isa: str) -> None:
    assert most_lookup_levels(isa) == {"avx2": 4, "avx512": 4}.get(isa, 8)


def test_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = random_chain(20, few=4)
    monkeypatch.setenv(VARIABLE, "sometimes")
    with pytest.raises(AdderError, match="ADDER_ONNX_LOOKUPS is 'sometimes'; expected auto"):
        adder_onnx.InferenceSession(model.SerializeToString())
