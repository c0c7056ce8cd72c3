"""The structures that kernels take, field by field as in params.cuh."""

from __future__ import annotations

import numpy as np

__all__ = ["CONV_ARGS", "INTEGER_CONV_ARGS", "LAYOUT_ARGS", "PACK_ARGS"]


def _structure(
    pointers: str, integers: str, unsigned: str = "", floats: str = ""
) -> np.dtype[np.void]:
    fields = [
        (name, kind)
        for names, kind in ((pointers, "u8"), (integers, "i4"), (unsigned, "u4"), (floats, "f4"))
        for name in names.split()
    ]
    return np.dtype(fields, align=True)


CONV_ARGS = _structure(
    "x weights scale bias z y zeros",
    "pixels in_h in_w out_h out_w x_row y_row group_in group_out "
    "kernel_h kernel_w stride_h stride_w dilation_h dilation_w pad_top pad_left "
    "weight_words weight_row",
    "per_position per_position_inverse kernel_w_inverse",
    "clip_min clip_max",
)
INTEGER_CONV_ARGS = np.dtype(
    [
        *((name, CONV_ARGS[name]) for name in CONV_ARGS.names or ()),
        *((name, "f4") for name in ("z_scale", "z_zero")),
        *((name, "f4") for name in ("y_factor", "y_scale", "y_reciprocal")),
        *((name, "f4") for name in ("low", "high")),
        ("y_zero_point", "i4"),
    ],
    align=True,
)
PACK_ARGS = _structure(
    "weights packed",
    "group group_in group_out kernel_size words_per_position weight_words weight_row",
)
LAYOUT_ARGS = _structure("from to", "batch channels pixels row", "", "scale zero_point top")
