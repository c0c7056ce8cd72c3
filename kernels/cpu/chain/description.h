// A chain written down as numbers and arrays, as files hold it, and read back.
//
// Integers, in this order:
//
//   version                      of what follows: 1, or 2
//   entries, layers, exits       how many there are
//   for each entry               outside, inside, zero_point, top; with version 2 also table
//   for each layer               kind, x, z, stride_h, stride_w, dilation_h, dilation_w,
//                                auto_pad, top, left, bottom, right, and then
//     AdderConv       (0)        group, weight, scale, bias
//     QLinearAdderConv (1)       group, weight, factor, bias, x_zero_point, z_zero_point,
//                                y_zero_point, bits; with version 2 also the number of levels,
//                                which may be 0, and the levels
//     MaxPool         (2)        kernel_h, kernel_w, ceil_mode
//   for each exit                value, outside, inside, zero_point, top
//
// Types are 0 for float32, 1 for float16, 2 for uint8; auto_pad is 0 for NOTSET, 1 for SAME_UPPER,
// 2 for SAME_LOWER, 3 for VALID. Values are numbered as ChainPort has it; z is -1 where there is no
// residual. `weight`, `scale` or `factor`, and `bias` are numbers of operands: (M, C/group, kH, kW), float32
// or uint8, and (M), float32, perhaps with further dimensions of one. The weight of an AdderConv may be
// one that comes with each run. `table` is the number of an operand, (256), uint8, of what each integer
// becomes that a float has become, or -1.
//
// Floats, in this order: for each entry and exit its scale, 1 where nothing is quantized; for each
// layer, AdderConv: clip_min, clip_max; QLinearAdderConv: z_scale, y_scale, clip_min. Those of entries
// come first, then those of layers, then those of exits.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "chain/chain.h"

namespace adder_onnx {

struct Description {
  std::vector<int64_t> integers;
  std::vector<float> floats;
};

// Whoever wrote it is not trusted. `labels` name the layers in messages; where there are none, their
// numbers do. Operands are copied. Throws std::invalid_argument: something is not as it is said above, is
// left over or missing, or the kernels do not take it.
std::shared_ptr<const Chain> read_chain(const Description& description,
                                        const std::vector<Operand>& operands, Isa isa, Form form,
                                        const std::vector<std::string>& labels = {});

}  // namespace adder_onnx
