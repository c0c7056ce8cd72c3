// One quantized adder convolution whose input, residual and output take few values, by table lookups.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "isa/isa.h"
#include "layers/aligned.h"
#include "layers/params.h"
#include "layers/work.h"
#include "uint8/lookup/kernel.h"

namespace adder_onnx {

class LookupStage;

// What a layer takes and gives, as far as lookups must know it.
struct LookupLayer {
  const ConvParams& params;
  const uint8_t* weights;  // (M, C/group, kH, kW)
  uint8_t zero_point;
  std::vector<uint8_t> x_levels;  // all values that x has, ascending; empty: not known
  bool has_residual;
  std::vector<uint8_t> z_levels;  // as x_levels, of the residual; {0} without one
  std::vector<uint8_t> y_levels;  // those of the output; empty: any
  // The number among y_levels of a filter's output for a sum of its taps and a residual. It must be
  // monotone in the sum, one way for all residuals.
  std::function<int(int64_t filter, int64_t sum, uint8_t z)> level;
};

class LookupConv {
 public:
  // Null where lookups cannot compute the layer: it has groups, an odd number of channels, a zero point that
  // x does not take, more levels than the kernels of `isa` take, values of 16 or more, or borders beyond
  // what 16 bits hold.
  static std::unique_ptr<const LookupConv> make(const LookupLayer& layer, Isa isa);

  // Whether lookups are likely to take less time than sums of absolute differences, by the costs of the
  // kernel of `isa`.
  static bool pays(const LookupLayer& layer, Isa isa);

  Work share_out(const ConvShape& shape, int threads) const;
  // The most bytes of memory that a thread takes beside tensors.
  int64_t scratch_bytes(const ConvShape& shape, const Work& work) const;
  // As QAdderConv::run.
  void run(const Work& work, int64_t task, const ConvShape& shape, const uint8_t* x,
           const uint8_t* z, uint8_t* y) const;

 private:
  LookupConv(const ConvParams& params, uint8_t zero_point, const LookupKernel& kernel);
  void make_tables(const std::vector<uint8_t>& levels);
  void pack_weights(const uint8_t* weights);
  bool add_borders(const LookupLayer& layer, int64_t filter);
  int64_t distance(int64_t code, int64_t weight) const;
  int64_t tile() const { return kernel_.pixels * kernel_.registers; }
  int64_t pairs() const { return params_.in_channels / 2; }
  void run_block(int64_t block, LookupStage* stage, int64_t count, const uint8_t* z,
                 uint8_t* y) const;

  ConvParams params_;
  uint8_t zero_point_;
  const LookupKernel& kernel_;
  std::vector<uint8_t> levels_;  // of x, by their codes
  std::vector<uint8_t> codes_;   // by value
  int64_t least_[kLookupValues], spread_[kLookupValues];  // by weight: of its distances from levels
  AlignedVector<uint8_t> tables_;
  std::vector<uint16_t> weights_;  // by tiles
  std::vector<uint8_t> runs_;      // by tiles
  std::vector<int64_t> run_starts_;
  std::vector<int16_t> borders_;
  int64_t border_count_ = 0;
  std::vector<uint8_t> values_;
};

}  // namespace adder_onnx
