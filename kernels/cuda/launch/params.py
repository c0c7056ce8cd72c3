"""The structures that kernels take, field by field as in params.cuh."""

from __future__ import annotations

import numpy as np

__all__ = [
    "CONV_ARGS",
    "GRADIENT_ARGS",
    "INTEGER_CONV_ARGS",
    "LAYOUT_ARGS",
    "MOST_BORDERS",
    "PACK_ARGS",
]

MOST_BORDERS = 15
"""Between the levels of an output."""


def _structure(
    pointers: str, integers: str, unsigned: str = "", floats: str = ""
) -> np.dtype[np.void]:
    fields = [
        (name, kind)
        for names, kind in ((pointers, "u8"), (integers, "i4"), (unsigned, "u4"), (floats, "f4"))
        for name in names.split()
    ]
    return np.dtype(fields, align=True)


_LEVELS = np.dtype(
    [
        *[("borders", "i4"), ("first_level", "u4")],
        *[("border", "f4", MOST_BORDERS), ("step", "u4", MOST_BORDERS)],
    ],
    align=True,
)


def _derived(base: np.dtype[np.void], own: np.dtype[np.void]) -> np.dtype[np.void]:
    """A structure derived from another, whose bytes, padding included, come before its own."""
    places = [(name, *field[:2]) for name, field in (base.fields or {}).items()]
    for name, (type_, offset, *_) in (own.fields or {}).items():
        places.append((name, type_, base.itemsize + offset))
    names, formats, offsets = zip(*places, strict=True)
    size = base.itemsize + own.itemsize
    layout = {"names": names, "formats": formats, "offsets": offsets, "itemsize": size}
    return np.dtype(layout, align=True)  # type: ignore[call-overload,no-any-return]


CONV_ARGS = _structure(
    "x weights scale bias z y pieces zeros scratch",
    "pixels in_h in_w out_h out_w x_row y_row group_in group_out "
    "kernel_h kernel_w stride_h stride_w dilation_h dilation_w pad_top pad_left "
    "weight_words weight_row splits",
    "per_position per_position_inverse kernel_w_inverse",
    "clip_min clip_max",
)
INTEGER_CONV_ARGS = _derived(
    _derived(
        CONV_ARGS,
        _structure(
            "weight_sums",
            "z_zero_point y_zero_point",
            "",
            "z_scale y_factor y_scale y_reciprocal low high",
        ),
    ),
    _LEVELS,
)
PACK_ARGS = _structure(
    "weights packed",
    "group group_in group_out kernel_size words_per_position weight_words weight_row tile_filters",
)
LAYOUT_ARGS = _structure("from to table", "batch channels pixels row", "", "scale zero_point top")
GRADIENT_ARGS = _structure(
    "x weights grad_y grad_x",
    "batch in_h in_w out_h out_w x_row y_row group group_in group_out "
    "kernel_h kernel_w stride_h stride_w dilation_h dilation_w pad_top pad_left "
    "weight_filters weight_row phases_w tiles step_h step_w shift_h shift_w",
)
