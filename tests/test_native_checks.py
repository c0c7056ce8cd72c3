"""What the native kernels refuse, whoever calls them: by a Python exception, before any harm."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from adder_onnx.kernels.cpu import (
    AdderConv,
    Program,
    QAdderConv,
    available_isas,
    choose_roundings,
    inner_loop_rate,
    input_gradient,
    padded_channels,
)

ISA = "scalar"
HUGE = (2**40, 2**62, 2**63 - 1)
FLOATS = ("float32", "float32")
BYTES = ("uint8", "uint8")


def float_conv(
    shape: tuple[int, ...] = (4, 2, 3, 3),
    *,
    strides: Any = (1, 1),
    dilations: Any = (1, 1),
    group: Any = 1,
    **others: Any,
) -> AdderConv:
    ones = np.ones(shape[0], np.float32)
    weights = others.get("weights", np.ones(shape, np.float32))
    scale, bias = others.get("scale", ones), others.get("bias", ones)
    isa = others.get("isa", ISA)
    return AdderConv(weights, scale, bias, -math.inf, math.inf, strides, dilations, group, isa)


def byte_conv(
    shape: tuple[int, ...] = (4, 2, 3, 3), *, group: int = 1, strides: Any = (1, 1), **others: Any
) -> QAdderConv:
    ones = np.ones(shape[0], np.float32)
    isa = others.pop("isa", ISA)
    numbers = {
        "zero_point": 0,
        "factor": ones,
        "bias": ones,
        "z_scale": 1.0,
        "z_zero_point": 0,
        "y_scale": 1.0,
        "y_zero_point": 0,
        "clip_min": 0.0,
        "bits": 8,
    } | others
    return QAdderConv(np.ones(shape, np.uint8), *numbers.values(), strides, (1, 1), group, isa)


def unaligned(array: NDArray[Any]) -> NDArray[Any]:
    """The same, one byte beside where its elements belong."""
    memory = np.empty(array.nbytes + 1, np.uint8)
    moved = memory[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    array = array.copy()
    array.flags.writeable = False
    return array


# Convolutions


@pytest.mark.parametrize("make", [float_conv, byte_conv])
@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"group": 0}, "groups is not positive"),
        ({"group": -1}, "negative"),
        ({"group": 3}, "multiple of group"),
        *(({"group": n}, "too large|multiple of group") for n in HUGE),
        ({"strides": (0, 1)}, "at least 1"),
        ({"strides": (1, -1)}, "at least 1"),
        ({"strides": (2**63 - 1, 1)}, "too large"),
        ({"strides": (1, 2**62)}, "too large"),
        ({"shape": (4, 0, 3, 3)}, "at least one channel"),
        ({"shape": (4, 2, 0, 3)}, "at least one position"),
        ({"shape": (4, 2, 3, 0)}, "at least one position"),
        ({"shape": (0, 2**20, 2**20, 2**18)}, "too large"),
        ({"bias": np.ones(5, np.float32)}, "one value per filter"),
    ],
)
def test_what_is_no_convolution(
    make: Callable[..., Any], arguments: dict[str, Any], what: str
) -> None:
    with pytest.raises(ValueError, match=what):
        make(**arguments)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"dilations": (0, 1)}, "at least 1"),
        ({"dilations": (1, 2**62)}, "too large"),
        ({"weights": unaligned(np.ones((4, 2, 3, 3), np.float32))}, "aligned"),
        ({"scale": unaligned(np.ones(4, np.float32))}, "aligned"),
        ({"bias": unaligned(np.ones(4, np.float32))}, "aligned"),
        ({"scale": np.ones(0, np.float32)}, "one value per filter"),
        ({"isa": "sse9"}, "'sse9' is unknown or not available"),
        ({"isa": ""}, "'' is unknown or not available"),
    ],
)
def test_what_is_no_float_convolution(arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        float_conv(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"weights": np.ones((4, 2, 3, 3), ">f4")},
        {"weights": np.ones((4, 2, 3, 3), np.float64)},
        {"weights": np.ones((4, 2, 3, 6), np.float32)[..., ::2]},
        {"weights": np.broadcast_to(np.float32(1), (4, 2, 3, 3))},
        {"weights": np.ones((4, 2, 9), np.float32)},
        {"weights": None},
        {"weights": [[[[1.0]]]]},
        {"scale": np.ones((4, 1), np.float32)},
        {"scale": np.ones(8, np.float32)[::2]},
        {"strides": (1.5, 1)},
        {"strides": (1, 1, 1)},
        {"group": 2**63},
        {"group": -(2**63) - 1},
        {"isa": None},
    ],
)
def test_what_is_no_argument_of_a_convolution(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        float_conv(**arguments)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"zero_point": -1}, "zero point must be 0 to 255"),
        ({"zero_point": 256}, "zero point must be 0 to 255"),
        ({"z_zero_point": 256}, "zero point must be 0 to 255"),
        ({"y_zero_point": -1}, "zero point must be 0 to 255"),
        ({"bits": 1}, "bits must be 2 to 8"),
        ({"bits": 2**31 - 1}, "bits must be 2 to 8"),
        *(({"y_scale": scale}, "scale must be positive") for scale in (0, -1, math.nan, math.inf)),
        ({"clip_min": math.nan}, "lower bound is not a number"),
        ({"shape": (1, 2**23 + 2**16, 1, 1)}, "may not fit into int32"),
    ],
)
def test_what_is_no_quantized_convolution(arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        byte_conv(**arguments)


def test_the_longest_sum_of_integers() -> None:
    """All taps differ by 255, and as many of them as fit into int32."""
    taps = (2**31 - 1) // 255
    conv = byte_conv((1, taps, 1, 1), factor=np.full(1, -1e-7, np.float32))
    program = Program(1, 1)
    x, y = np.full((1, taps, 1, 1), 255, np.uint8), np.zeros((1, 1, 1, 1), np.uint8)
    at = padded_channels(taps) // 4
    program.add_nchw_to_nhwc(0, (1, taps, 1, 1), 0, *BYTES)
    program.add_qadder_conv(conv, 1, (1, 1), (1, 1), (0, 0), 0, -1, at)
    program.add_nhwc_to_nchw(at, (1, 1, 1, 1), 0, *BYTES)
    program.run(np.zeros(program.arena_size(1), np.float32), [x], [y], 1)
    assert y.item() == round(taps * 254 * 1e-7 + 1)


def test_filters_may_be_none_at_all() -> None:
    program = Program(1, 1)
    program.add_nchw_to_nhwc(0, (1, 2, 5, 5), 0, *FLOATS)
    program.add_adder_conv(float_conv((0, 2, 3, 3)), 1, (5, 5), (3, 3), (0, 0), 0, -1, 400)
    program.add_nhwc_to_nchw(400, (1, 0, 3, 3), 0, *FLOATS)
    x = np.zeros((1, 2, 5, 5), np.float32)
    for threads in (1, 3):
        arena = np.zeros(program.arena_size(threads), np.float32)
        program.run(arena, [x], [np.zeros((1, 0, 3, 3), np.float32)], threads)


# Programs


@pytest.mark.parametrize(
    ("batch", "images"),
    [(-1, 1), (1, 0), (1, -1), *((n, 1) for n in HUGE[1:]), *((1, n) for n in HUGE[1:])],
)
def test_what_is_no_program(batch: int, images: int) -> None:
    with pytest.raises(ValueError, match=r"at least one|too large"):
        Program(batch, images)


def with_input(shape: tuple[int, int, int, int] = (1, 2, 5, 5), types: Any = FLOATS) -> Program:
    program = Program(shape[0], max(shape[0], 1))
    program.add_nchw_to_nhwc(0, shape, 0, *types)
    return program


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        ((1, -1, 5, 5), "negative"),
        ((1, 2, 5, -(2**63)), "negative"),
        ((2, 2, 5, 5), "larger batch"),
        *(((1, n, 5, 5), "too large") for n in HUGE[1:]),
        *(((1, 2, n, 2**20), "too large") for n in HUGE),
        ((1, 2**32, 2**32, 1), "too large"),
        ((1, 0, 2**40, 2**40), "too large"),
        ((0, 2**40, 2**40, 1), "too large"),
    ],
)
def test_what_is_no_image(shape: Any, what: str) -> None:
    program = with_input()
    with pytest.raises(ValueError, match=what):
        program.add_nchw_to_nhwc(1, shape, 1000, *FLOATS)
    with pytest.raises(ValueError, match=what):
        program.add_nhwc_to_nchw(1000, shape, 0, *FLOATS)
    assert program.arena_size(1) == 400


@pytest.mark.parametrize("offset", [-1, -(2**63), 2**62, 2**63 - 1])
def test_what_is_no_offset(offset: int) -> None:
    program = with_input()
    what = "offset is negative" if offset < 0 else "too large"
    with pytest.raises(ValueError, match=what):
        program.add_nchw_to_nhwc(1, (1, 2, 5, 5), offset, *FLOATS)
    with pytest.raises(ValueError, match=what):
        program.add_nhwc_to_nchw(offset, (1, 2, 5, 5), 0, *FLOATS)
    for x, y in ((offset, 400), (0, offset)):
        with pytest.raises(ValueError, match=what):
            program.add_adder_conv(float_conv(), 1, (5, 5), (3, 3), (0, 0), x, -1, y)
    if offset > 0:
        with pytest.raises(ValueError, match="too large"):
            program.add_adder_conv(float_conv(), 1, (5, 5), (3, 3), (0, 0), 0, offset, 400)
    assert program.arena_size(1) == 400


@pytest.mark.parametrize("number", [-1, 0, 2, 2**63 - 1])
def test_ports_are_numbered_in_their_order(number: int) -> None:
    program = with_input()
    program.add_nhwc_to_nchw(0, (1, 2, 5, 5), 0, *FLOATS)
    with pytest.raises(ValueError, match="order of their numbers"):
        program.add_nchw_to_nhwc(number, (1, 2, 5, 5), 400, *FLOATS)
    with pytest.raises(ValueError, match="order of their numbers"):
        program.add_nhwc_to_nchw(0, (1, 2, 5, 5), number, *FLOATS)


@pytest.mark.parametrize(
    ("outside", "inside", "quantization"),
    [
        ("float32", "float16", None),
        ("float32", "uint8", None),
        ("uint8", "float32", None),
        ("uint8", "float32", (1.0, 0, 255)),
        ("float16", "uint8", (1.0, 0, 255)),
        ("float32", "float32", (1.0, 0, 255)),
        ("float32", "uint8", (0.0, 0, 255)),
        ("float32", "uint8", (math.nan, 0, 255)),
        ("float32", "uint8", (1.0, -1, 255)),
        ("float32", "uint8", (1.0, 256, 255)),
        ("float32", "uint8", (1.0, 0, -1)),
        ("float32", "uint8", (1.0, 0, 256)),
        ("float64", "float32", None),
        ("", "", None),
    ],
)
def test_what_is_no_conversion(outside: str, inside: str, quantization: Any) -> None:
    program = with_input()
    with pytest.raises(ValueError, match=r"."):
        program.add_nchw_to_nhwc(1, (1, 2, 5, 5), 400, outside, inside, quantization)
    with pytest.raises(ValueError, match=r"."):
        program.add_nhwc_to_nchw(0, (1, 2, 5, 5), 0, outside, inside, quantization)


@pytest.mark.parametrize(
    ("outside", "inside", "quantization", "table"),
    [
        ("float32", "uint8", (1.0, 0, 255), bytes(255)),
        ("float32", "uint8", (1.0, 0, 255), bytes(257)),
        ("float32", "uint8", (1.0, 0, 255), b""),
        ("uint8", "uint8", None, bytes(256)),
        ("float32", "float32", None, bytes(256)),
    ],
)
def test_what_is_no_table(outside: str, inside: str, quantization: Any, table: bytes) -> None:
    with pytest.raises(ValueError, match="table"):
        with_input().add_nchw_to_nhwc(1, (1, 2, 5, 5), 400, outside, inside, quantization, table)


def sizes(**others: Any) -> tuple[Any, ...]:
    """Of a valid step with a kernel of 3 by 3 on 5 by 5, but for others."""
    valid = {"batch": 1, "in_size": (5, 5), "out_size": (3, 3), "pad_begin": (0, 0)}
    return tuple((valid | others).values())


@pytest.mark.parametrize(
    ("geometry", "what"),
    [
        (sizes(batch=-1), "negative"),
        (sizes(batch=2), "larger batch"),
        (sizes(batch=2**63 - 1), "larger batch"),
        (sizes(in_size=(-5, 5)), "negative"),
        (sizes(in_size=(5, 2**62)), "too large"),
        (sizes(out_size=(3, -3)), "negative"),
        (sizes(out_size=(2, 3)), "too small: 3 fit"),
        (sizes(out_size=(3, 2)), "too small: 3 fit"),
        (sizes(out_size=(0, 3)), "too small: 3 fit"),
        (sizes(pad_begin=(1, 0)), "too small: 4 fit"),
        *((sizes(out_size=(n, 3)), "too large") for n in HUGE[1:]),
        (sizes(pad_begin=(-1, 0)), "negative"),
        (sizes(pad_begin=(0, -(2**63))), "negative"),
        *((sizes(pad_begin=(n, n)), "too large|too small") for n in HUGE),
        (sizes(in_size=(4, 5)), "not a tensor that a step before"),
    ],
)
def test_what_does_not_fit_a_kernel(geometry: Any, what: str) -> None:
    program = with_input()
    with pytest.raises(ValueError, match=what):
        program.add_adder_conv(float_conv(), *geometry, 0, -1, 400)
    program = with_input(types=BYTES)
    with pytest.raises(ValueError, match=what):
        program.add_qadder_conv(byte_conv(), *geometry, 0, -1, 100)
    with pytest.raises(ValueError, match=what):
        program.add_max_pool(2, (3, 3), (1, 1), (1, 1), *geometry, 0, 100)
    assert program.arena_size(1) == 100


@pytest.mark.parametrize(
    ("pool", "what"),
    [
        ((-1, (3, 3), (1, 1), (1, 1)), "negative"),
        ((2**62, (3, 3), (1, 1), (1, 1)), "too large"),
        ((3, (0, 3), (1, 1), (1, 1)), "at least one position"),
        ((3, (3, -1), (1, 1), (1, 1)), "at least one position"),
        ((3, (3, 3), (0, 1), (1, 1)), "at least 1"),
        ((3, (3, 3), (1, 1), (1, 0)), "at least 1"),
        *((((2, (n, 3), (1, 1), (1, 1))), "too large") for n in HUGE[1:]),
        *((((2, (3, 3), (n, 1), (1, 1))), "too large") for n in HUGE[1:]),
        *((((2, (3, 3), (1, 1), (1, n))), "too large") for n in HUGE[1:]),
        ((17, (3, 3), (1, 1), (1, 1)), "not a tensor that a step before"),
    ],
)
def test_what_is_no_pooling(pool: Any, what: str) -> None:
    program = with_input(types=BYTES)
    with pytest.raises(ValueError, match=what):
        program.add_max_pool(*pool, *sizes(), 0, 1000)


def test_steps_read_what_steps_before_have_written() -> None:
    def refuses(add: Callable[[], None]) -> None:
        with pytest.raises(ValueError, match="not a tensor that a step before"):
            add()

    program = with_input((1, 2, 5, 5))
    other = "not a tensor that a step before it has written"
    three = float_conv((4, 3, 3, 3))
    refuses(lambda: program.add_adder_conv(three, *sizes(), 0, -1, 400))  # channels
    refuses(lambda: program.add_adder_conv(float_conv(), *sizes(), 16, -1, 800))  # place
    refuses(lambda: program.add_qadder_conv(byte_conv(), *sizes(), 0, -1, 400))  # type
    refuses(lambda: program.add_nhwc_to_nchw(0, (1, 2, 5, 4), 0, *FLOATS))  # width
    refuses(lambda: program.add_adder_conv(float_conv(), *sizes(), 0, 0, 400))  # of a residual
    program.add_adder_conv(float_conv(), *sizes(), 0, -1, 400)
    program.add_nchw_to_nhwc(1, (1, 2, 1, 1), 384, *FLOATS)  # into the end of the input
    with pytest.raises(ValueError, match=other):
        program.add_adder_conv(float_conv(), *sizes(), 0, -1, 800)
    program.add_nhwc_to_nchw(400, (1, 4, 3, 3), 0, *FLOATS)


def test_a_step_overlaps_no_input() -> None:
    program = with_input()
    for y in (0, 16, 399):
        with pytest.raises(ValueError, match="overlaps its input"):
            program.add_adder_conv(float_conv(), *sizes(), 0, -1, y)
    program.add_adder_conv(float_conv(), *sizes(), 0, -1, 400)
    for y in (384, 416):
        with pytest.raises(ValueError, match="overlaps a part of its residual"):
            program.add_adder_conv(float_conv((4, 4, 1, 1)), *sizes(in_size=(3, 3)), 700, 400, y)


def test_a_residual_may_be_where_the_output_is() -> None:
    results = []
    for y in (400, 800):
        program = with_input()
        program.add_nchw_to_nhwc(1, (1, 4, 3, 3), 400, *FLOATS)
        program.add_adder_conv(float_conv(), *sizes(), 0, 400, y)
        program.add_nhwc_to_nchw(y, (1, 4, 3, 3), 0, *FLOATS)
        x = np.arange(50, dtype=np.float32).reshape(1, 2, 5, 5)
        z = np.arange(36, dtype=np.float32).reshape(1, 4, 3, 3)
        results.append(np.zeros_like(z))
        arena = np.full(program.arena_size(2), np.nan, np.float32)
        program.run(arena, [x, z], results[-1:], 2)
    np.testing.assert_array_equal(results[0], results[1])


def test_memory_of_the_caller() -> None:
    """A program of one pass may read what no step has written, others not."""
    program = Program(2, 2)
    program.add_adder_conv(float_conv(), *sizes(batch=2), 0, -1, 800)
    program.add_nhwc_to_nchw(800, (2, 4, 3, 3), 0, *FLOATS)
    y = np.zeros((2, 4, 3, 3), np.float32)
    program.run(np.ones(program.arena_size(1), np.float32), [], [y], 1)
    assert (y == 1).all()
    with pytest.raises(ValueError, match="what no step before it has written"):
        Program(2, 1).add_adder_conv(float_conv(), *sizes(batch=2), 0, -1, 800)


def test_batches_of_steps() -> None:
    program = Program(3, 2)
    with pytest.raises(ValueError, match="steps of different batches"):
        program.add_nchw_to_nhwc(0, (2, 1, 1, 1), 0, *FLOATS)
    program = Program(3, 3)
    program.add_nchw_to_nhwc(0, (2, 1, 1, 1), 0, *FLOATS)
    with pytest.raises(ValueError, match="larger batch"):
        program.add_nchw_to_nhwc(1, (4, 1, 1, 1), 100, *FLOATS)


def test_images_of_nothing_are_run_at_once() -> None:
    for shape in ((2**50, 0, 1, 1), (2**50, 1, 0, 1), (1, 0, 2**25, 2**25)):
        program = Program(shape[0], 1)
        program.add_nchw_to_nhwc(0, shape, 0, *FLOATS)
        program.add_nhwc_to_nchw(0, shape, 0, *FLOATS)
        x, y = np.empty(shape, np.float32), np.empty(shape, np.float32)
        for threads in (1, 2):
            program.run(np.empty(program.arena_size(threads), np.float32), [x], [y], threads)
    Program(2**50, 1).run(np.empty(0, np.float32), [], [], 2)


def test_a_stride_that_is_not_taken_may_be_large() -> None:
    """Of one output pixel, the stride says nothing: nothing is sized by it."""
    x = np.ones((1, 2, 5, 5), np.float32)
    for kernel, stride in (((3, 3), 2**40), ((1, 1), 2**40)):
        program = with_input()
        conv = float_conv((4, 2, *kernel), strides=(1, stride))
        program.add_adder_conv(conv, *sizes(out_size=(6 - kernel[0], 1)), 0, -1, 400)
        program.add_nhwc_to_nchw(400, (1, 4, 6 - kernel[0], 1), 0, *FLOATS)
        y = np.zeros((1, 4, 6 - kernel[0], 1), np.float32)
        program.run(np.zeros(program.arena_size(1), np.float32), [x], [y], 1)
        assert (y == 1).all()


@pytest.mark.parametrize(
    ("strides", "dilations", "out_size", "pad_begin"),
    [
        ((2**52, 1), (1, 1), (1, 3), (0, 0)),
        ((1, 2**52), (1, 1), (3, 1), (0, 0)),
        ((1, 1), (2**30, 2**30), (5, 5), (2**30, 2**30)),
    ],
)
def test_sizes_that_only_kernels_have(
    strides: Any, dilations: Any, out_size: Any, pad_begin: Any
) -> None:
    """Of the padded image, and of what a task reads: tensors are small."""
    conv = float_conv(strides=strides, dilations=dilations)
    with pytest.raises(ValueError, match="too large"):
        with_input().add_adder_conv(
            conv, *sizes(out_size=out_size, pad_begin=pad_begin), 0, -1, 400
        )


def test_an_output_too_large_by_its_filters() -> None:
    conv = float_conv((2**16, 2, 1, 1))
    with pytest.raises(ValueError, match="too large"):
        with_input().add_adder_conv(conv, *sizes(out_size=(2**20, 2**20)), 0, -1, 400)


def test_memory_for_rows_is_told_and_its_lack_survived() -> None:
    """Far dilated taps, all in the padding, whose rows are copied: tens of terabytes of them."""
    far = 2**20
    conv = float_conv((4, 2, 3, 3), dilations=(far, far))
    program = with_input()
    geometry = sizes(out_size=(5, 5), pad_begin=(far, far))
    program.add_adder_conv(conv, *geometry, 0, -1, 400)
    assert program.scratch_size(1) > (2 * far) ** 2 * 2 * 4
    program.add_nhwc_to_nchw(400, (1, 4, 5, 5), 0, *FLOATS)
    x, y = np.ones((1, 2, 5, 5), np.float32), np.ones((1, 4, 5, 5), np.float32)
    for threads in (1, 2):
        arena = np.zeros(program.arena_size(threads), np.float32)
        with pytest.raises(MemoryError):
            program.run(arena, [x], [y], threads)
    small = with_input()
    small.add_adder_conv(float_conv(), *sizes(out_size=(5, 5), pad_begin=(1, 1)), 0, -1, 400)
    assert 7 * 7 * 2 * 4 < small.scratch_size(1) < 20_000
    assert small.scratch_size(2) <= 2 * small.scratch_size(1)


def test_nothing_is_added_to_a_program_that_has_run() -> None:
    program = with_input()
    x, arena = np.zeros((1, 2, 5, 5), np.float32), np.zeros(400, np.float32)
    program.run(arena, [x], [], 1)
    with pytest.raises(ValueError, match="nothing can be added"):
        program.add_nhwc_to_nchw(0, (1, 2, 5, 5), 0, *FLOATS)
    program.run(arena, [x], [], 1)


def test_objects_that_were_not_made() -> None:
    with pytest.warns(RuntimeWarning, match="uninitialized"), pytest.raises(TypeError):
        Program.__new__(Program).arena_size(1)
    for conv in (None, byte_conv()):
        with pytest.raises(TypeError):
            with_input().add_adder_conv(conv, *sizes(), 0, -1, 400)  # type: ignore[arg-type]


# Runs


class Run:
    """A run of a program with an input and two outputs, valid but for what is changed."""

    def __init__(self) -> None:
        self.program = with_input()
        for number in (0, 1):
            self.program.add_nhwc_to_nchw(0, (1, 2, 5, 5), number, *FLOATS)
        self.arena = np.zeros(self.program.arena_size(2), np.float32)
        self.inputs: Any = [np.ones((1, 2, 5, 5), np.float32)]
        self.outputs: Any = [np.zeros((1, 2, 5, 5), np.float32) for _ in range(2)]
        self.threads: Any = 2

    def __call__(self) -> None:
        self.program.run(self.arena, self.inputs, self.outputs, self.threads)

    def profile(self) -> list[float]:
        return self.program.profile(self.arena, self.inputs, self.outputs, self.threads)


def change(**changes: Any) -> Callable[[Run], None]:
    def apply(run: Run) -> None:
        for name, value in changes.items():
            setattr(run, name, value(run) if callable(value) else value)

    return apply


def window(array: NDArray[np.float32], first: int = 0) -> NDArray[np.float32]:
    """An array of the right shape in the memory of another."""
    return array.reshape(-1)[first : first + 50].reshape(1, 2, 5, 5)


@pytest.mark.parametrize(
    ("apply", "what"),
    [
        (change(inputs=[]), "wrong number of inputs"),
        (change(inputs=lambda r: r.inputs * 2), "wrong number of inputs"),
        (change(outputs=lambda r: r.outputs[:1]), "wrong number of outputs"),
        (change(inputs=lambda r: [r.inputs[0].reshape(2, 1, 5, 5)]), "wrong size"),
        (change(inputs=lambda r: [r.inputs[0].reshape(50)]), "wrong size"),
        (change(inputs=lambda r: [r.inputs[0].reshape(1, 1, 2, 5, 5)]), "wrong size"),
        (change(inputs=[np.ones((1, 2, 5, 4), np.float32)]), "wrong size"),
        (change(inputs=[np.ones((1, 2, 5, 5), np.int32)]), "wrong element type"),
        (change(inputs=[np.ones((1, 2, 5, 5), np.float64)]), "wrong element type"),
        (change(inputs=[np.ones((1, 2, 5, 5), bool)]), "wrong element type"),
        (change(inputs=[np.ones((1, 2, 5, 5), np.complex64)]), "wrong element type"),
        (change(inputs=lambda r: [unaligned(r.inputs[0])]), "aligned"),
        (change(outputs=lambda r: [r.outputs[0], unaligned(r.outputs[1])]), "aligned"),
        (change(arena=lambda r: unaligned(r.arena)), "aligned"),
        (change(arena=lambda r: r.arena[:-1]), "arena is too small"),
        (change(arena=np.zeros(0, np.float32)), "arena is too small"),
        (change(threads=0), "threads must be at least 1"),
        (change(threads=-(2**31)), "threads must be at least 1"),
        (change(inputs=lambda r: [window(r.arena, 350)]), "shares memory"),
        (change(outputs=lambda r: [r.outputs[0], window(r.arena, 350)]), "shares memory"),
        (change(outputs=lambda r: [r.inputs[0], r.outputs[1]]), "shares memory"),
        (change(outputs=lambda r: r.outputs[:1] * 2), "shares memory"),
    ],
)
def test_what_cannot_be_run(apply: Callable[[Run], None], what: str) -> None:
    run = Run()
    apply(run)
    with pytest.raises(ValueError, match=what):
        run()
    with pytest.raises(ValueError, match=what):
        run.profile()


@pytest.mark.parametrize(
    "apply",
    [
        change(inputs=None),
        change(inputs=[None]),
        change(inputs=[[1.0]]),
        change(inputs=lambda r: [r.inputs[0].transpose(0, 1, 3, 2)]),
        change(inputs=lambda r: [r.inputs[0].astype(object)]),
        change(inputs=lambda r: [r.inputs[0].astype(">f4")]),
        change(outputs=lambda r: [r.outputs[0], read_only(r.outputs[1])]),
        change(outputs=lambda r: [r.outputs[0], r.outputs[1].transpose(0, 1, 3, 2)]),
        change(arena=lambda r: read_only(r.arena)),
        change(arena=lambda r: r.arena.astype(np.float64)),
        change(arena=lambda r: r.arena[None]),
        change(arena=lambda r: np.zeros(2 * r.arena.size, np.float32)[::2]),
        change(threads=2**31),
        change(threads=1.5),
    ],
)
def test_what_is_no_argument_of_a_run(apply: Callable[[Run], None]) -> None:
    run = Run()
    apply(run)
    with pytest.raises(TypeError):
        run()
    with pytest.raises(TypeError):
        run.profile()


def test_arrays_may_lie_side_by_side() -> None:
    run = Run()
    memory = np.ones(550, np.float32)
    run.arena = memory[:400]
    run.inputs = [read_only(window(memory, 400))]
    run.outputs = [window(memory, 450), window(memory, 500)]
    memory[450:] = 0
    run()
    assert (memory[450:] == 1).all()


def test_threads_beyond_all_bounds() -> None:
    run = Run()
    run.threads = 2**31 - 1
    before = threading.active_count()
    run()
    assert (run.outputs[0] == 1).all()
    assert threading.active_count() == before
    for threads in (0, -1):
        with pytest.raises(ValueError, match="threads must be at least 1"):
            run.program.arena_size(threads)
        with pytest.raises(ValueError, match="threads must be at least 1"):
            run.program.scratch_size(threads)


# Functions


class Gradient:
    """A valid gradient but for what is changed."""

    def __init__(self) -> None:
        self.x = np.ones((2, 4, 5, 5), np.float32)
        self.weights = np.ones((6, 2, 3, 3), np.float32)
        self.grad_y = np.ones((2, 6, 3, 3), np.float32)
        self.grad_x = np.zeros_like(self.x)
        self.strides: Any = (1, 1)
        self.pad_begin: Any = (0, 0)
        self.dilations: Any = (1, 1)
        self.group = 2
        self.isa = ISA
        self.threads = 2

    def __call__(self) -> None:
        input_gradient(**vars(self))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"threads": 0}, "threads"),
        ({"isa": "sse9"}, "unknown"),
        ({"group": 0}, "groups"),
        ({"group": 4}, "multiple of group"),
        ({"group": 1}, "do not fit together"),
        *(({"group": n}, "multiple of group") for n in HUGE),
        ({"strides": (0, 1)}, "at least 1"),
        ({"dilations": (1, 0)}, "at least 1"),
        ({"pad_begin": (-1, 0)}, "negative"),
        ({"pad_begin": (1, 0)}, "too small"),
        *(({"pad_begin": (0, n)}, "too large|too small") for n in HUGE),
        *(({"dilations": (n, 1)}, "too large") for n in HUGE[1:]),
        ({"strides": (2**62, 1)}, "too large"),
        ({"grad_y": np.ones((2, 6, 2, 3), np.float32)}, "too small"),
        ({"grad_y": np.ones((1, 6, 3, 3), np.float32)}, "do not fit together"),
        ({"grad_y": np.ones((2, 4, 3, 3), np.float32)}, "do not fit together"),
        ({"weights": np.ones((6, 4, 3, 3), np.float32)}, "do not fit together"),
        ({"weights": np.ones((6, 2, 0, 3), np.float32)}, "at least one position"),
        ({"grad_x": np.ones((2, 4, 5, 4), np.float32)}, "has not the input's shape"),
        ({"grad_x": lambda g: g.x}, "shares memory"),
        ({"grad_x": lambda g: unaligned(g.x)}, "aligned"),
        ({"x": lambda g: unaligned(g.x)}, "aligned"),
    ],
)
def test_what_is_no_gradient(changes: dict[str, Any], what: str) -> None:
    gradient = Gradient()
    gradient()
    for name, value in changes.items():
        setattr(gradient, name, value(gradient) if callable(value) else value)
    with pytest.raises(ValueError, match=what):
        gradient()


def test_gradients_of_nothing_are_there_at_once() -> None:
    gradient = Gradient()
    gradient.x = gradient.grad_x = np.empty((2**40, 4, 5, 0), np.float32)
    gradient.grad_y = np.empty((2**40, 6, 3, 0), np.float32)
    gradient()


def test_gradient_of_no_filters() -> None:
    gradient = Gradient()
    gradient.group = 1
    gradient.weights = np.empty((0, 4, 3, 3), np.float32)
    gradient.grad_y = np.empty((2, 0, 2**24, 2**20), np.float32)
    gradient.grad_x[:] = 1
    gradient()
    assert (gradient.grad_x == 0).all()


class Roundings:
    """A valid choice of roundings but for what is changed."""

    def __init__(self) -> None:
        self.x = np.arange(20, dtype=np.uint8).reshape(2, 10)
        self.weights = np.full((3, 2), 5, np.uint8)
        self.steps = np.ones((3, 2), np.int8)
        self.missing = np.arange(30, dtype=np.float32).reshape(3, 10)
        self.parts = 2
        self.sweeps = 2
        self.threads = 2

    def __call__(self) -> None:
        choose_roundings(**vars(self))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"threads": 0}, "threads"),
        ({"sweeps": -1}, "sweeps"),
        ({"parts": 0}, "parts"),
        ({"parts": 11}, "parts"),
        ({"parts": 2**63 - 1}, "parts"),
        ({"x": np.zeros((2, 0), np.uint8), "missing": np.zeros((3, 0), np.float32)}, "parts"),
        (
            {"x": np.zeros((2, 300), np.uint8), "missing": np.zeros((3, 300), np.float32)}
            | {"parts": 257},
            "parts",
        ),
        ({"x": np.zeros((1, 10), np.uint8)}, "do not fit together"),
        ({"weights": np.zeros((3, 1), np.uint8)}, "do not fit together"),
        ({"steps": np.zeros((2, 2), np.int8)}, "do not fit together"),
        ({"missing": np.zeros((3, 9), np.float32)}, "do not fit together"),
        ({"steps": np.full((3, 2), 2, np.int8)}, "leads out of uint8"),
        ({"steps": np.full((3, 2), -128, np.int8)}, "leads out of uint8"),
        ({"weights": np.full((3, 2), 255, np.uint8)}, "leads out of uint8"),
        ({"missing": lambda r: unaligned(r.missing)}, "aligned"),
        ({"steps": lambda r: r.weights.view(np.int8), "weights": np.ones((3, 2), np.uint8)}, ""),
    ],
)
def test_what_is_no_choice_of_roundings(changes: dict[str, Any], what: str) -> None:
    roundings = Roundings()
    for name, value in changes.items():
        setattr(roundings, name, value(roundings) if callable(value) else value)
    with pytest.raises(ValueError, match=what or "leads out of uint8"):
        roundings()


def test_roundings_share_no_memory() -> None:
    memory = np.ones(6, np.uint8)
    roundings = Roundings()
    roundings.weights, roundings.steps = memory.reshape(3, 2), memory.view(np.int8).reshape(3, 2)
    with pytest.raises(ValueError, match="share memory"):
        roundings()


def test_roundings_end_where_nothing_moves() -> None:
    roundings = Roundings()
    roundings.sweeps = 2**31 - 1
    roundings()
    few = Roundings()
    few.sweeps = 50
    few()
    np.testing.assert_array_equal(roundings.weights, few.weights)


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf, 1e9])
def test_time_of_an_inner_loop(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds"):
        inner_loop_rate("float32", ISA, 1, seconds)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("float32", ISA, 0, 0.01), "threads"),
        (("uint8", ISA, 10**9, 0.01), "threads"),
        (("float16", ISA, 1, 0.01), "float32 and uint8"),
        (("float64", ISA, 1, 0.01), "element type"),
        (("float32", "sse9", 1, 0.01), "unknown"),
        (("float32", ISA, 1, 0.01, "slow"), "arithmetic"),
    ],
)
def test_what_is_no_inner_loop(arguments: Any, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        inner_loop_rate(*arguments)


@pytest.mark.parametrize("channels", [-1, -(2**63), 2**62, 2**63 - 1])
def test_channels_that_cannot_be_padded(channels: int) -> None:
    with pytest.raises(ValueError, match=r"negative|too large"):
        padded_channels(channels)


@pytest.mark.parametrize("isa", available_isas())
def test_quotients_of_infinite_values(isa: str) -> None:
    """Where the output's scale is so large that its bounds are infinite, results keep theirs."""
    bias = np.array([np.inf, -np.inf, 3e38, 0], np.float32)
    for bits, zero_point in ((8, 0), (8, 7), (4, 7), (4, 255)):
        conv = byte_conv(
            (4, 1, 1, 1),
            factor=np.zeros(4, np.float32),
            bias=bias,
            y_scale=1e37,
            y_zero_point=zero_point,
            clip_min=-math.inf,
            bits=bits,
            isa=isa,
        )
        program = Program(1, 1)
        program.add_nchw_to_nhwc(0, (1, 1, 1, 1), 0, *BYTES)
        program.add_qadder_conv(conv, 1, (1, 1), (1, 1), (0, 0), 0, -1, 16)
        program.add_nhwc_to_nchw(16, (1, 4, 1, 1), 0, *BYTES)
        y = np.zeros((1, 4, 1, 1), np.uint8)
        x = np.zeros((1, 1, 1, 1), np.uint8)
        program.run(np.zeros(program.arena_size(1), np.float32), [x], [y], 1)
        top = 2**bits - 1
        expected = np.clip([math.inf, -math.inf, 30 + zero_point, zero_point], 0, top)
        np.testing.assert_array_equal(y.reshape(-1), expected)
