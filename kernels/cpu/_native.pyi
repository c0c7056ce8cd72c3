"""The native CPU kernels.

Arrays are NumPy, C-contiguous. Tensors are (N, C, H, W) and float32, float16 or uint8 outside a
program, (N, H, W, C padded to `padded_channels`) and float32 or uint8 inside it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

class AdderConv:
    """An adder convolution with packed weights and its epilogue.

    y = min(max(scale[m] * sum + bias[m] + residual, clip_min), clip_max), where sum is the
    operator's (negative) output.
    """

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
    ) -> None: ...

class QAdderConv:
    """A quantized adder convolution: the operator QLinearAdderConv with its constants.

    ``factor`` is x_scale * scale; ``zero_point`` is that of x and the weights.
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
    ) -> None: ...

class Program:
    """Kernels for fixed shapes over one arena; offsets and `arena_size` count floats.

    Inputs and outputs are numbered in the order in which they are added; ``type`` is theirs,
    ``float32``, ``float16`` or ``uint8``.
    """

    def __init__(self) -> None: ...
    def add_nchw_to_nhwc(
        self, input: int, type: str, shape: tuple[int, int, int, int], to: int
    ) -> None: ...
    def add_nhwc_to_nchw(
        self, from_: int, shape: tuple[int, int, int, int], output: int, type: str
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
    ) -> None: ...
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
    @property
    def arena_size(self) -> int: ...
    def run(
        self,
        arena: NDArray[np.float32],
        inputs: Sequence[NDArray[Any]],
        outputs: Sequence[NDArray[Any]],
        threads: int,
    ) -> None: ...
    def profile(
        self,
        arena: NDArray[np.float32],
        inputs: Sequence[NDArray[Any]],
        outputs: Sequence[NDArray[Any]],
        threads: int,
    ) -> list[float]:
        """Runs as `run` does; returns the seconds of each step, in the order of adding."""

def inner_loop_rate(isa: str, threads: int, seconds: float) -> float:
    """Taps per second of the bare inner loop, on so many threads at once: the kernels' bound."""

def available_isas() -> list[str]: ...
def padded_channels(channels: int) -> int: ...
