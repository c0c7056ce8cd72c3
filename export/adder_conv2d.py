"""`AdderConv2d`, a PyTorch layer, and its operator, which torch.export keeps in one piece."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from adder_onnx.export import native_layer
from adder_onnx.export.native_layer import Geometry, is_native

__all__ = ["ETA", "AdderConv2d", "adder_conv2d"]

ETA = 0.2
"""The factor of the adaptive scaling of the filters' gradient (equation 13 of the paper)."""

_MAX_COLUMN_BYTES = 1 << 28
"""Bound on the size of the image-to-column matrix that is made at a time."""


class AdderConv2d(nn.Module):
    """A two-dimensional adder convolution (Chen et al., CVPR 2020).

    The output is the negated L1 distance between patches of the input and the filters; padding is
    with zeros. On a CPU float32 is computed by the native kernels, forwards (in exact arithmetic)
    and backwards; anything else by PyTorch. Arguments are those of ``torch.nn.Conv2d``, except that
    ``bias`` is off by default; parameters are called as in the paper's reference implementation.

    Attributes:
        adder: the filters, (out_channels, in_channels / groups, kernel height, kernel width).
        b: (out_channels,), added to the output, or None.

    Shapes:
        input (N, in_channels, H, W), output (N, out_channels, oH, oW) as of ``Conv2d``; float32
        or float64.
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
        self.kernel_size = _pair(kernel_size)
        self.stride = _pair(stride)
        self.padding = _pair(padding)
        self.dilation = _pair(dilation)
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
        y = adder_conv2d(x, self.adder, self.stride, self.padding, self.dilation, self.groups)
        return y if self.b is None else y + self.b.view(1, -1, 1, 1)

    def extra_repr(self) -> str:
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
    layer's gradient rescaled to the norm `ETA` * sqrt(number of elements) (equation 13); for the
    input HardTanh(W - X) (equation 7).

    Args:
        x: (N, C, H, W), float32 or float64.
        weight: (M, C / groups, kH, kW), of the same type.
        stride: as for ``torch.nn.functional.conv2d``, like the rest.
        padding: zeros on both sides; a padded tap costs abs(0 - w).
        dilation: distance between taps.
        groups: number of groups of channels.

    Returns:
        (N, M, oH, oW).
    """
    result: Tensor = torch.ops.adder_onnx.adder_conv2d(
        x, weight, _pair(stride), _pair(padding), _pair(dilation), groups
    )
    return result


def _pair(value: int | tuple[int, int] | list[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return (value, value)
    first, second = value
    return (first, second)


def _geometry(stride: list[int], padding: list[int], dilation: list[int], groups: int) -> Geometry:
    return Geometry(_pair(stride), _pair(padding), _pair(dilation), groups)


def _check(x: Tensor, weight: Tensor, groups: int) -> None:
    if x.dim() != 4 or weight.dim() != 4:
        raise ValueError(
            f"expected (N, C, H, W) and (M, C/groups, kH, kW), got {tuple(x.shape)} and "
            f"{tuple(weight.shape)}"
        )
    if weight.shape[1] * groups != x.shape[1] or weight.shape[0] % groups:
        raise ValueError(
            f"weight {tuple(weight.shape)} with groups={groups} does not fit the input "
            f"{tuple(x.shape)}"
        )


def _output_size(x: Tensor, weight: Tensor, geometry: Geometry) -> tuple[int, int]:
    stride, padding, dilation, _ = geometry
    if min(stride) < 1 or min(padding) < 0 or min(dilation) < 1:
        raise ValueError(
            f"stride={stride}, padding={padding}, dilation={dilation}; expected at least 1, 0 and 1"
        )
    size = []
    for i, name in enumerate(("height", "width")):
        span = dilation[i] * (weight.shape[2 + i] - 1) + 1
        padded = x.shape[2 + i] + 2 * padding[i]
        if span > padded:
            raise ValueError(
                f"the kernel spans {span} pixels in {name}, more than the padded image's {padded}"
            )
        size.append((padded - span) // stride[i] + 1)
    return (size[0], size[1])


def _batch_chunks(x: Tensor, positions: int, taps: int) -> list[Tensor]:
    """The batch in parts whose image-to-column matrices are of bounded size."""
    per_image = max(1, positions * taps * x.element_size())
    return list(torch.split(x, max(1, _MAX_COLUMN_BYTES // per_image)))


def _columns(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """Patches as rows, (N, positions, taps)."""
    columns: Tensor = functional.unfold(
        x,
        (weight.shape[2], weight.shape[3]),
        dilation=geometry.dilation,
        padding=geometry.padding,
        stride=geometry.stride,
    )
    return columns.transpose(1, 2).contiguous()


@torch.library.custom_op("adder_onnx::adder_conv2d", mutates_args=())
def _adder_conv2d(
    x: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    _check(x, weight, groups)
    geometry = _geometry(stride, padding, dilation, groups)
    height, width = _output_size(x, weight, geometry)
    if is_native(x, weight):
        return native_layer.forward(x, weight, geometry, (height, width))
    filters = weight.flatten(1)
    parts = []
    for part in _batch_chunks(x, height * width, filters.shape[1]):
        of_group = [
            torch.cdist(_columns(xg, weight, geometry), wg, p=1.0)
            for xg, wg in zip(part.chunk(groups, 1), filters.chunk(groups), strict=True)
        ]
        parts.append(-torch.cat(of_group, 2).transpose(1, 2))
    return torch.cat(parts).reshape(x.shape[0], weight.shape[0], height, width)


@_adder_conv2d.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    _check(x, weight, groups)
    height, width = _output_size(x, weight, _geometry(stride, padding, dilation, groups))
    return x.new_empty((x.shape[0], weight.shape[0], height, width))


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
    geometry = _geometry(stride, padding, dilation, groups)
    return native_layer.input_gradient(x, weight, grad_y, geometry)


@_input_gradient.register_fake
def _(x: Tensor, *_: object) -> Tensor:
    return x.new_empty(x.shape)


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, weight, *ctx.geometry = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx, grad_y: Tensor):  # type: ignore[no-untyped-def]
    x, weight = ctx.saved_tensors
    needs_x, needs_weight = ctx.needs_input_grad[:2]
    grad_x, grad_weight = _gradients(x, weight, grad_y, _geometry(*ctx.geometry), needs_x)
    return (grad_x, grad_weight if needs_weight else None, None, None, None, None)


def _gradients(
    x: Tensor, weight: Tensor, grad_y: Tensor, geometry: Geometry, needs_x: bool
) -> tuple[Tensor | None, Tensor]:
    """The paper's gradients, without ever holding positions x filters x taps values."""
    grad_x: Tensor | None
    if is_native(x, weight):
        grad_x = _input_gradient(x, weight, grad_y, *geometry) if needs_x else None
        # Sum over positions p of X[p,k] * grad[o,p]: a convolution's gradient.
        grad_weight: Tensor = conv2d_weight(  # type: ignore[no-untyped-call]
            x, list(weight.shape), grad_y, *geometry
        )
        grad_weight = grad_weight - weight * grad_y.sum((0, 2, 3)).view(-1, 1, 1, 1)
        return grad_x, _rescaled(grad_weight)
    filters, per_group = weight.flatten(1), weight.shape[0] // geometry.groups
    positions, taps = grad_y.shape[2] * grad_y.shape[3], filters.shape[1]
    grad_filters = torch.zeros_like(filters)
    grad_x = torch.empty_like(x) if needs_x else None
    first = 0
    for part in _batch_chunks(x, positions, taps):
        last = first + part.shape[0]
        grad_part = grad_y[first:last].flatten(2)
        for g in range(geometry.groups):
            xs = slice(g * weight.shape[1], (g + 1) * weight.shape[1])
            ws = slice(g * per_group, (g + 1) * per_group)
            columns = _columns(part[:, xs], weight, geometry)
            grad = grad_part[:, ws]
            # Sum over positions p of (X[p,k] - W[o,k]) * grad[o,p], as a matrix product.
            grad_filters[ws] += (grad @ columns).sum(0)
            grad_filters[ws] -= filters[ws] * grad.sum((0, 2))[:, None]
            if grad_x is not None:
                grad_columns = torch.zeros_like(columns)
                for o, w in enumerate(filters[ws]):
                    clipped = (w - columns).clamp_(-1, 1)
                    grad_columns.addcmul_(clipped, grad[:, o, :, None])
                grad_x[first:last, xs] = functional.fold(
                    grad_columns.transpose(1, 2),
                    (x.shape[2], x.shape[3]),
                    (weight.shape[2], weight.shape[3]),
                    dilation=geometry.dilation,
                    padding=geometry.padding,
                    stride=geometry.stride,
                )
        first = last
    return grad_x, _rescaled(grad_filters).view_as(weight)


def _rescaled(gradient: Tensor) -> Tensor:
    """Equation 13."""
    norm = gradient.norm().clamp_min(1e-12)
    rescaled: Tensor = gradient * (ETA * gradient.numel() ** 0.5 / norm)
    return rescaled


_adder_conv2d.register_autograd(_backward, setup_context=_setup_context)
