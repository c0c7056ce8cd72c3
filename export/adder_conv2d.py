"""`AdderConv2d`, a PyTorch layer, and its operator, which torch.export keeps in one piece."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from adder_onnx.export.layer import pytorch
from adder_onnx.export.layer.geometry import Geometry, check, memory_format, output_size, pair
from adder_onnx.export.layer.precision import full_float32
from adder_onnx.export.layer.selection import native_kernels

__all__ = ["ETA", "AdderConv2d", "adder_conv2d"]

ETA = 0.2
"""The factor of the adaptive scaling of the filters' gradient (equation 13 of the paper)."""

_TYPES = (torch.float32, torch.float64)


class AdderConv2d(nn.Module):
    """A two-dimensional adder convolution (Chen et al., CVPR 2020).

    The output is the negated L1 distance between patches of the input and the filters; padding is
    with zeros. float32 is computed by kernels of ours, forwards (in exact arithmetic) and
    backwards, on a CPU, and with CuPy on an NVIDIA GPU, on torch's current stream; float64 by
    PyTorch. Under ``torch.autocast`` the layer computes in float32. Arguments are those of
    ``torch.nn.Conv2d``, except that ``bias`` is off by default; parameters are called as in the
    paper's reference implementation.

    Args:
        in_channels: channels of the input.
        out_channels: filters, and channels of the output.
        kernel_size: (height, width), or one number for both.
        stride: (vertical, horizontal), or one number for both, like the rest.
        padding: zeros on both sides; a padded tap costs abs(0 - w).
        dilation: distance between taps.
        groups: number of groups of channels.
        bias: whether there is one for each filter.

    Raises:
        ValueError: channels cannot be divided into groups.

    Attributes:
        adder: the filters, (out_channels, in_channels / groups, kernel height, kernel width).
        b: (out_channels,), added to the output, or None.

    Shapes:
        input (N, in_channels, H, W), output (N, out_channels, oH, oW) as of ``Conv2d``; float32
        or float64. The output is ``channels_last`` where the input is, else contiguous.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"in_channels={in_channels} and out_channels={out_channels} must be multiples of "
                f"groups={groups}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = pair(kernel_size)
        self.stride = pair(stride)
        self.padding = pair(padding)
        self.dilation = pair(dilation)
        self.groups = groups
        self.adder = nn.Parameter(
            torch.empty(out_channels, in_channels // groups, *self.kernel_size)
        )
        self.b = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the filters from a standard normal and the bias from a uniform distribution."""
        nn.init.normal_(self.adder)
        if self.b is not None:
            nn.init.uniform_(self.b)

    def forward(self, x: Tensor) -> Tensor:
        """`adder_conv2d` of the input and the filters, and the bias."""
        y = adder_conv2d(x, self.adder, self.stride, self.padding, self.dilation, self.groups)
        return y if self.b is None else y + self.b.view(1, -1, 1, 1)

    def extra_repr(self) -> str:
        """The arguments, as ``repr`` shows them."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}, bias={self.b is not None}"
        )


def adder_conv2d(
    x: Tensor,
    weight: Tensor,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> Tensor:
    """The operator of `AdderConv2d`: -sum |x - w| over each patch of ``x`` and each filter.

    Gradients are the paper's. For the filters the full-precision X - W (equation 5), with the
    layer's gradient rescaled to the norm 0.2 * sqrt(number of elements) (equation 13); for the
    input HardTanh(W - X) (equation 7).

    Args:
        x: (N, C, H, W), float32 or float64.
        weight: (M, C / groups, kH, kW), of the same type.
        stride: as for ``torch.nn.functional.conv2d``, like the rest.
        padding: zeros on both sides; a padded tap costs abs(0 - w).
        dilation: distance between taps.
        groups: number of groups of channels.

    Returns:
        (N, M, oH, oW), channels last where ``x`` is, else contiguous.

    Raises:
        ValueError: the filters do not fit the input, the types are others, or the kernel does not
            fit into the padded image.
    """
    result: Tensor = torch.ops.adder_onnx.adder_conv2d(
        x, weight, pair(stride), pair(padding), pair(dilation), groups
    )
    return result


@torch.library.custom_op("adder_onnx::adder_conv2d", mutates_args=())
def _adder_conv2d(
    x: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    check(x, weight, groups)
    if x.dtype != weight.dtype or x.dtype not in _TYPES:
        raise ValueError(
            f"the input is {x.dtype} and the filters are {weight.dtype}; expected both float32, or "
            "both float64: train in mixed precision under torch.autocast"
        )
    geometry = _geometry(stride, padding, dilation, groups)
    size = output_size(x, weight, geometry)
    kernels = native_kernels(x, weight)
    forward = kernels.forward if kernels else pytorch.forward
    return forward(x, weight, geometry, size).contiguous(memory_format=memory_format(x))


@_adder_conv2d.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    check(x, weight, groups)
    size = output_size(x, weight, _geometry(stride, padding, dilation, groups))
    return _empty(x, (x.shape[0], weight.shape[0], *size))


# As torch.cdist: 16 bits are too few for sums of thousands of absolute differences.
for _device_type in ("cpu", "cuda"):
    _adder_conv2d.register_autocast(_device_type, torch.float32)


@torch.library.custom_op("adder_onnx::adder_conv2d_input_gradient", mutates_args=())
def _input_gradient(
    x: Tensor,
    weight: Tensor,
    grad_y: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """Equation 7, by native kernels."""
    kernels = native_kernels(x, weight)
    assert kernels is not None
    geometry = _geometry(stride, padding, dilation, groups)
    grad_x = kernels.input_gradient(x, weight, grad_y, geometry)
    return grad_x.contiguous(memory_format=memory_format(x))


@_input_gradient.register_fake
def _(x: Tensor, *_: object) -> Tensor:
    return _empty(x, x.shape)


@torch.library.custom_op("adder_onnx::adder_conv2d_weight_gradient", mutates_args=())
def _weight_gradient(
    x: Tensor,
    weight: Tensor,
    grad_y: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """Equation 5: sum of (X - W) * grad over the output's positions, the first as a convolution's.

    Factors that are rounded to TF32, cuDNN's default, would cost three digits, and more where
    filters are larger than the gradient, because their product with it is subtracted. In one piece,
    because torch.compile would lose what is set around the convolution.
    """
    with full_float32():
        gradient: Tensor = conv2d_weight(  # type: ignore[no-untyped-call]
            x, list(weight.shape), grad_y, *_geometry(stride, padding, dilation, groups)
        )
    return (gradient - weight * grad_y.sum((0, 2, 3)).view(-1, 1, 1, 1)).contiguous()


@_weight_gradient.register_fake
def _(x: Tensor, weight: Tensor, *_: object) -> Tensor:
    return weight.new_empty(weight.shape)


def _geometry(stride: list[int], padding: list[int], dilation: list[int], groups: int) -> Geometry:
    return Geometry(pair(stride), pair(padding), pair(dilation), groups)


def _empty(x: Tensor, shape: Sequence[int]) -> Tensor:
    """A tensor of the type, device and memory format of ``x``."""
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format(x))


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, weight, *ctx.geometry = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx, grad_y: Tensor):  # type: ignore[no-untyped-def]
    x, weight = ctx.saved_tensors
    needs_x, needs_weight = ctx.needs_input_grad[:2]
    grad_x = grad_weight = None
    if native_kernels(x, weight):
        tensors = (x, weight, grad_y)
        if needs_x:
            grad_x = _input_gradient(*tensors, *ctx.geometry)
        if needs_weight:
            grad_weight = _rescaled(_weight_gradient(*tensors, *ctx.geometry))
    else:
        geometry = _geometry(*ctx.geometry)
        grad_x, grad_filters = pytorch.gradients(x, weight, grad_y, geometry, needs_x)
        if needs_weight:
            grad_weight = _rescaled(grad_filters)
    return (grad_x, grad_weight, None, None, None, None)


def _rescaled(gradient: Tensor) -> Tensor:
    """Equation 13."""
    norm = gradient.norm().clamp_min(1e-12)
    rescaled: Tensor = gradient * (ETA * gradient.numel() ** 0.5 / norm)
    return rescaled


_adder_conv2d.register_autograd(_backward, setup_context=_setup_context)
