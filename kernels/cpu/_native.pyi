"""The native CPU kernels.

Arrays are NumPy, C-contiguous. Tensors are (N, C, H, W) and float32, float16 or uint8 outside a
program, (N, H, W, C padded to `padded_channels`) and float32 or uint8 inside it.

Everything is checked before memory is taken, read or written by it. What does not fit raises
ValueError: a size or offset that is negative, or so large that sizes of memory would overflow;
shapes that do not belong together; an array that is not aligned to its elements, or shares memory
with one that is written; an unknown name. What is no argument at all raises TypeError: arrays of
another number of dimensions or another fixed element type, not contiguous, or read-only where they
are written; numbers beyond 64 bits, 32 for ``threads``. Where there is no memory, MemoryError is
raised. ``isa`` is one of `available_isas`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

class AdderConv:
    """An adder convolution with packed weights and its epilogue.

    y = min(max(scale[m] * sum + bias[m] + residual, clip_min), clip_max), where sum is the
    operator's (negative) output. ``arithmetic`` is ``fast`` or ``exact``; docs/precision.md says
    what each computes. Weights that are not finite, or larger than 2**100, are always ``exact``.

    Raises:
        ValueError: there is no channel or kernel position, ``group`` does not divide the filters,
            strides or dilations are not positive, or there is not one scale and bias per filter.
    """

    @property
    def arithmetic(self) -> str:
        """The form that is used, after a look at the weights."""

    def __init__(
        self,
        weights: NDArray[np.float32],
        scale: NDArray[np.float32],
        bias: NDArray[np.float32],
        clip_min: float,
        clip_max: float,
        strides: tuple[int, int],
        dilations: tuple[int, int],
        group: int,
        isa: str,
        arithmetic: str = "fast",
    ) -> None: ...

class QAdderConv:
    """A quantized adder convolution: the operator QLinearAdderConv with its constants.

    ``factor`` is x_scale * scale; ``zero_point`` is that of x and the weights. ``x_values``,
    ascending, are all that x holds, where that is known; then there is no residual.

    Raises:
        ValueError: as for `AdderConv`; a zero point is no uint8, ``bits`` are not 2 to 8,
            ``y_scale`` is not positive and finite, ``clip_min`` is NaN, ``levels`` are not as the
            operator has them, or a filter has so many taps that their sum may not fit into int32.
    """

    def __init__(
        self,
        weights: NDArray[np.uint8],
        zero_point: int,
        factor: NDArray[np.float32],
        bias: NDArray[np.float32],
        z_scale: float,
        z_zero_point: int,
        y_scale: float,
        y_zero_point: int,
        clip_min: float,
        bits: int,
        strides: tuple[int, int],
        dilations: tuple[int, int],
        group: int,
        isa: str,
        levels: Sequence[int] = (),
        x_values: Sequence[int] = (),
    ) -> None: ...
    @property
    def has_lookups(self) -> bool:
        """Whether its sums come from tables."""

class StopFlag:
    """Ends a run early; `set` may be called from any thread."""

    def __init__(self) -> None: ...
    def set(self) -> None: ...
    @property
    def is_set(self) -> bool: ...

class Program:
    """Kernels for fixed shapes over one block of memory.

    A batch is run in passes of a few images, each on one thread, as long as all threads have one;
    the rest in one pass that all threads share. Offsets are those of a pass and count floats, as
    `arena_size` does. Inputs and outputs are numbered in the order in which they are added.

    A step reads what a step before it has written at the same offset, in the same shape and type;
    in a program of one pass also what no step has written, which is the caller's. It writes beside
    what it reads, but may write where its residual is. Once a program has been run, nothing can be
    added.

    Args:
        batch: images of every step; a program of one pass may have steps of fewer.
        pass_: images of a pass.

    Raises:
        ValueError: ``batch`` is negative, or ``pass_`` not positive. So does whatever is added, and
            adds nothing, where a size, offset, geometry, type or number breaks a rule.
    """

    def __init__(self, batch: int, pass_: int) -> None: ...
    def add_nchw_to_nhwc(
        self,
        input: int,
        shape: tuple[int, int, int, int],
        to: int,
        outside: str,
        inside: str,
        quantization: tuple[float, int, int] | None = None,
        table: bytes | None = None,
    ) -> None:
        """Types are those of the input and of the kernels' tensor.

        A ``quantization``, (scale, zero point, largest integer), makes float32 uint8; a
        ``table`` of 256 bytes says what each of these becomes.
        """

    def add_nhwc_to_nchw(
        self,
        from_: int,
        shape: tuple[int, int, int, int],
        output: int,
        outside: str,
        inside: str,
        quantization: tuple[float, int, int] | None = None,
    ) -> None: ...
    def add_adder_conv(
        self,
        conv: AdderConv,
        batch: int,
        in_size: tuple[int, int],
        out_size: tuple[int, int],
        pad_begin: tuple[int, int],
        x: int,
        z: int,
        y: int,
    ) -> None:
        """Offsets: of the input, the residual, negative if there is none, and the output.

        ``out_size`` is at least what fits without padding at the end; more is such padding.
        """

    def add_qadder_conv(
        self,
        conv: QAdderConv,
        batch: int,
        in_size: tuple[int, int],
        out_size: tuple[int, int],
        pad_begin: tuple[int, int],
        x: int,
        z: int,
        y: int,
    ) -> None: ...
    def add_max_pool(
        self,
        channels: int,
        kernel: tuple[int, int],
        strides: tuple[int, int],
        dilations: tuple[int, int],
        batch: int,
        in_size: tuple[int, int],
        out_size: tuple[int, int],
        pad_begin: tuple[int, int],
        x: int,
        y: int,
    ) -> None:
        """Max pooling of uint8. Padding does not count; a window of padding alone gives 0."""

    def arena_size(self, threads: int) -> int:
        """The float32 elements that a run needs.

        Raises:
            ValueError: ``threads`` is not positive.
        """

    def scratch_size(self, threads: int) -> int:
        """A bound on the bytes that a run takes beside its arena.

        Most are for rows of inputs that are copied with their padding: many, where pads or
        dilations are large.

        Raises:
            ValueError: ``threads`` is not positive.
        """

    def run(
        self,
        arena: NDArray[np.float32],
        inputs: Sequence[NDArray[Any]],
        outputs: Sequence[NDArray[Any]],
        threads: int,
        stop: StopFlag | None = None,
    ) -> None:
        """Runs all steps, on at most so many threads.

        Once ``stop`` is set the rest is left out: the outputs hold anything.

        Raises:
            ValueError: the arena is too small, an array has not the shape or type of its port, is
                not aligned, or an output shares memory with any other array, or an input with the
                arena.
            MemoryError: there is not as much memory as `scratch_size` says.
        """

    def profile(
        self,
        arena: NDArray[np.float32],
        inputs: Sequence[NDArray[Any]],
        outputs: Sequence[NDArray[Any]],
        threads: int,
        stop: StopFlag | None = None,
    ) -> list[float]:
        """Runs as `run` does; returns the seconds of each step, in the order of adding.

        Raises:
            ValueError, MemoryError: as `run` does.
        """

def most_lookup_levels(isa: str) -> int:
    """The most levels that an input may have whose taps an instruction set's kernels look up."""

def lookup_rate(isa: str, levels: int, threads: int, seconds: float) -> float:
    """As `inner_loop_rate`, of lookups for inputs of so many levels; 0 where there are none."""

def inner_loop_rate(
    type: str, isa: str, threads: int, seconds: float, arithmetic: str = "fast"
) -> float:
    """Taps per second of the bare inner loop, on so many threads at once: the kernels' bound.

    ``type`` is ``float32``, in one of its two arithmetics, or ``uint8``.

    Raises:
        ValueError: a name is unknown, ``threads`` are not 1 to 1024, or ``seconds`` not more than 0
            and at most 3600.
    """

def input_gradient(
    x: NDArray[np.float32],
    weights: NDArray[np.float32],
    grad_y: NDArray[np.float32],
    grad_x: NDArray[np.float32],
    strides: tuple[int, int],
    pad_begin: tuple[int, int],
    dilations: tuple[int, int],
    group: int,
    isa: str,
    threads: int,
) -> None:
    """Writes the gradient of an adder convolution with respect to its input to ``grad_x``.

    It is the sum over filters and kernel positions of HardTanh(w - x) * grad_y (Chen et al., CVPR
    2020, equation 7). ``x`` and ``grad_x`` are (N, C, H, W), ``weights`` (M, C/group, kH, kW),
    ``grad_y`` (N, M, oH, oW). The result does not depend on ``threads``.

    Raises:
        ValueError: shapes do not fit together, strides, pads, dilations, ``group`` or ``threads``
            are not valid, or ``grad_x`` shares memory with another array.
    """

def choose_roundings(
    x: NDArray[np.uint8],
    weights: NDArray[np.uint8],
    steps: NDArray[np.int8],
    missing: NDArray[np.float32],
    parts: int,
    sweeps: int,
    threads: int,
    stop: StopFlag | None = None,
) -> None:
    """Moves weights by their steps where that makes a layer's sums err less.

    For each filter the variance of ``missing`` falls, in each part of the samples, by coordinate
    descent: ``sweeps`` times over all taps, in their order. The result does not depend on
    ``threads``.

    Args:
        x: (taps, samples), integers of the input.
        weights: (filters, taps), integers; changed.
        steps: (filters, taps), -1, 0 or 1: the other integer that a weight may be, less the one
            that it is; changed.
        missing: (filters, samples), what the sums should be, less ``sum |x - w|``; changed.
        parts: into how many ranges the samples are divided; at most as many as there are, and 256.
        sweeps: how often each weight is visited.
        threads: to use.
        stop: once it is set, the rest is left out.

    Raises:
        ValueError: shapes do not fit together, a step is none, numbers are not valid, or arrays
            share memory.
    """

class ShapeError(ValueError):
    """Images do not fit a layer of a chain; the message names it."""

class ChainPlan:
    """What a chain keeps for images and computed weights of fixed sizes and a number of threads."""

    @property
    def input_shapes(self) -> list[tuple[int, int, int, int]]:
        """(N, C, H, W), in the order of the entries."""
    @property
    def arena_bytes(self) -> int:
        """What a run takes for all its channels-last tensors."""
    @property
    def arenas(self) -> int:
        """Arenas that are kept at the moment: as many as have run at the same time, 8 at most."""

class ChainProgram:
    """A chain made for images of fixed sizes and a number of threads."""

    @property
    def output_shapes(self) -> list[tuple[int, int, int, int]]:
        """(N, M, oH, oW), in the order of the exits."""

class Chain:
    """A chain of layers with the conversions around it, for images of any size.

    ``integers`` and ``floats`` describe it as kernels/cpu/chain/description.h says; ``operands``
    are the weights, scales and biases, which are copied; None is the weight of an AdderConv that
    comes with each run. ``labels`` name the layers in messages.

    Raises:
        ValueError: the description is not valid, or the kernels do not take what it says.
    """

    def __init__(
        self,
        integers: Sequence[int],
        floats: Sequence[float],
        operands: Sequence[NDArray[np.float32] | NDArray[np.uint8] | None],
        labels: Sequence[str],
        isa: str,
        arithmetic: str,
    ) -> None: ...
    def program(
        self,
        shapes: Sequence[tuple[int, int, int, int]],
        threads: int,
        approve: Callable[[int], None] | None,
        weights: Sequence[NDArray[np.float32]],
    ) -> ChainProgram:
        """The program for inputs of these shapes, by a plan that is kept, as sixteen are, or made.

        ``approve`` is called once for a plan, with the bytes that a run will take before they are
        taken, and may raise. ``weights`` are those that come with the run, (M, C/group, kH, kW),
        in the order of their layers. They are copied.

        Raises:
            ShapeError: the shapes do not fit a layer.
            ValueError: weights do not fit their layers, or sizes are too large.
        """
    @property
    def lookups(self) -> list[bool]:
        """Which of the layers take their sums from tables."""
    def plans(self) -> list[ChainPlan]:
        """Those that are kept, the one used last at the end."""
    def run(
        self,
        program: ChainProgram,
        inputs: Sequence[NDArray[Any]],
        outputs: Sequence[NDArray[Any]],
        stop: StopFlag | None = None,
    ) -> None:
        """Runs one of its programs. Once ``stop`` is set, what the outputs hold is unspecified."""
    def profile(
        self,
        program: ChainProgram,
        inputs: Sequence[NDArray[Any]],
        outputs: Sequence[NDArray[Any]],
        stop: StopFlag | None = None,
    ) -> list[float]:
        """Runs it, and gives the seconds of each conversion and layer, in their order."""

def plan_passes(
    shapes: Sequence[tuple[int, int, int, int]], bytes: Sequence[int], threads: int
) -> tuple[int, int, int]:
    """How the images of a batch go through a chain.

    Args:
        shapes: of all its tensors.
        bytes: that one image of each takes, channels-last.
        threads: that share the passes.

    Returns:
        The images of all tensors, the largest number where they differ; the images that go through
        together; and the passes that have memory at the same time.
    """

def place_buffers(buffers: Sequence[tuple[int, int, int]]) -> tuple[list[int], int]:
    """Places buffers in one block of memory so that no two in use at the same time overlap.

    Args:
        buffers: size in elements, first and last step of use of each.

    Returns:
        The offset of each, a multiple of 16 elements, and the size of the block.
    """

def available_isas() -> list[str]: ...
def startable_threads(wanted: int) -> int:
    """How many of so many threads can be had at the same time; they are started, and ended."""

def padded_channels(channels: int) -> int:
    """The number of channels that so many take inside a program.

    Raises:
        ValueError: it is negative, or no such number.
    """
