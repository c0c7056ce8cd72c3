"""One integer adder convolution with its constants on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import InputError
from adder_onnx.kernels.cuda.launch.device import Device, Launch
from adder_onnx.kernels.cuda.launch.integer_epilogue import IntegerEpilogue
from adder_onnx.kernels.cuda.launch.layout import padded_channels
from adder_onnx.kernels.cuda.launch.params import INTEGER_CONV_ARGS, PACK_ARGS
from adder_onnx.kernels.cuda.launch.variants import integer_direct, integer_pack

__all__ = ["IntegerAdderConv"]

_MAX_SIZE = 1 << 31
_MAX_DIRECT_BLOCKS = 1 << 20
_PADDING = 32

_Pair = tuple[int, int]


class IntegerAdderConv:
    """Packed weights, epilogue, and the kernel that is chosen for them: a QLinearAdderConv.

    Args:
        device: where.
        weight: (M, C/group, kH, kW), uint8.
        x_zero_point: of the input and the weight: what padding is.
        scale: (M,), float32, of the sum, the input's scale in it.
        bias: (M,), float32.
        epilogue: what follows.
        strides: vertical, horizontal.
        dilations: vertical, horizontal.
        group: number of groups.
    """

    def __init__(
        self,
        device: Device,
        weight: NDArray[np.uint8],
        x_zero_point: int,
        scale: NDArray[np.float32],
        bias: NDArray[np.float32],
        epilogue: IntegerEpilogue,
        strides: _Pair,
        dilations: _Pair,
        group: int,
    ) -> None:
        filters, group_in, *kernel = weight.shape
        self.channels, self.filters = group_in * group, filters
        self.kernel = (kernel[0], kernel[1])
        self.strides, self.dilations = strides, dilations
        self._args = np.zeros((), INTEGER_CONV_ARGS)
        self._set(group_in=group_in, group_out=filters // group)
        self._set(kernel_h=kernel[0], kernel_w=kernel[1])
        self._set(stride_h=strides[0], stride_w=strides[1])
        self._set(dilation_h=dilations[0], dilation_w=dilations[1])
        self._set(x_row=padded_channels(self.channels, "uint8"))
        self._set(y_row=padded_channels(filters, "uint8"))
        self._set(**epilogue.fields())
        constants = {
            "weights": self._pack(device, weight),
            "scale": device.upload(np.ascontiguousarray(scale, np.float32)),
            "bias": device.upload(np.ascontiguousarray(bias, np.float32)),
            "zeros": device.upload(np.full(_PADDING, x_zero_point, np.uint8)),
        }
        self._set(**{name: device.pointer(array) for name, array in constants.items()})
        self._constants = constants

    def launch(self, batch: int, in_size: _Pair, out_size: _Pair, pad_begin: _Pair) -> Launch:
        """The launch for one shape; its fields ``x``, ``y`` and ``z`` are addresses, 0 for no z.

        Args:
            batch: N.
            in_size: height and width of x.
            out_size: height and width of y.
            pad_begin: pads above and to the left.

        Raises:
            InputError: the tensors are too large for 32-bit indices.
        """
        pixels = batch * out_size[0] * out_size[1]
        spans = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        reach = (max(in_size[0], spans[0]) * in_size[1] + spans[1]) * int(self._args["x_row"])
        if pixels >= _MAX_SIZE or reach >= _MAX_SIZE:
            raise InputError(
                f"{batch} images of {list(in_size)} with {self.channels} channels are too large "
                "for the CUDA kernels, which index with 32 bits: use a smaller batch"
            )
        args = self._args.copy()
        args["pixels"] = pixels
        args["in_h"], args["in_w"] = in_size
        args["out_h"], args["out_w"] = out_size
        args["pad_top"], args["pad_left"] = pad_begin
        kernel = integer_direct()
        blocks = min(-(-pixels * self.filters // kernel.threads), _MAX_DIRECT_BLOCKS)
        return Launch(kernel, (blocks, 1, 1), args, self._constants)

    def _set(self, **fields: float) -> None:
        for name, value in fields.items():
            self._args[name] = value

    def _pack(self, device: Device, weight: NDArray[np.uint8]) -> Any:
        """The packed weights; sets the fields that describe them."""
        filters, group_in, height, width = weight.shape
        # All filters side by side, by single taps: as one group, whatever the groups are.
        words, row = height * width * group_in, filters
        args = np.zeros((), PACK_ARGS)
        args["group"], args["group_in"], args["group_out"] = 1, group_in, filters
        args["kernel_size"], args["words_per_position"] = height * width, group_in
        args["weight_words"], args["weight_row"] = words, row
        self._set(weight_words=words, weight_row=row)
        packed = device.empty((words * row,), np.uint8)
        raw = device.upload(weight)
        kernel = integer_pack(words=False)
        blocks = min(-(-words * row // kernel.threads), _MAX_DIRECT_BLOCKS)
        Launch(kernel, (blocks, 1, 1), args).run(
            device, weights=device.pointer(raw), packed=device.pointer(packed)
        )
        return packed
