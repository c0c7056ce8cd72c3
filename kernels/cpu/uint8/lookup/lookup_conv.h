// One quantized adder convolution whose input takes few values, by table lookups.
#pragma once

#include <memory>
#include <vector>

#include "isa/isa.h"
#include "layers/aligned.h"
#include "layers/params.h"
#include "layers/work.h"
#include "uint8/kernels.h"
#include "uint8/lookup/kernel.h"

namespace adder_onnx {

class LookupStage;

// All values that a layer's input and residual take, ascending; empty: not known.
struct Q8Values {
  std::vector<uint8_t> x;
  std::vector<uint8_t> z;
  bool has_residual;
};

// As QAdderConv has it.
struct LookupLayer {
  const ConvParams& params;
  const uint8_t* weights;  // (M, C/group, kH, kW)
  uint8_t zero_point;
  const float* factor;
  const float* bias;
  const Q8Epilogue& epilogue;
  const Q8Values& values;
};

class LookupConv {
 public:
  // Null where lookups cannot compute the layer: it has groups, an odd number of channels, a zero point that
  // x does not take, more values of x than the kernels of `isa` take, values of x or weights of 16 or
  // more, or sums beyond what 16 bits hold.
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
  LookupConv(const LookupLayer& layer, const LookupKernel& kernel, const Q8Finish& finish);
  void make_tables(const std::vector<uint8_t>& levels);
  void pack_weights(const uint8_t* weights);
  struct Sums;
  Sums sums_of(const LookupLayer& layer, int64_t filter) const;
  bool add_borders(const LookupLayer& layer, int64_t filter);
  bool add_offset(const LookupLayer& layer, int64_t filter);
  int64_t distance(int64_t code, int64_t weight) const;
  int64_t tile() const { return kernel_.pixels * kernel_.registers; }
  int64_t pairs() const { return params_.in_channels / 2; }
  void run_block(int64_t block, LookupStage* stage, int64_t count, const uint8_t* z,
                 uint8_t* y) const;
  void run_tiles(const LookupTaps& taps, int64_t block, int64_t registers, bool has_residual,
                 const LookupPlanes& planes) const;
  void finish(int64_t block, const int16_t* sums, int64_t pixels, const uint8_t* z,
              uint8_t* y) const;

  ConvParams params_;
  uint8_t zero_point_;
  bool has_borders_;  // or else sums are given, for the epilogue of uint8/epilogue.inc
  const LookupKernel& kernel_;
  std::vector<uint8_t> levels_;  // of x, by their codes
  std::vector<uint8_t> codes_;   // by value
  int64_t least_[kLookupValues], spread_[kLookupValues];  // by weight: of its distances from levels
  AlignedVector<uint8_t> tables_;
  std::vector<uint16_t> weights_;  // by tiles
  std::vector<uint8_t> runs_;      // by tiles
  std::vector<int64_t> run_starts_;
  std::vector<int16_t> borders_;
  int64_t border_count_;
  std::vector<uint8_t> values_;
  Q8Finish finish_;
  Q8Epilogue epilogue_;
  std::vector<int32_t> offsets_;
  std::vector<float> factor_, bias_;
};

// The most levels of an input that a kernel of `isa` takes.
int most_lookup_levels(Isa isa);

// As q8_inner_loop_rate, of the kernel for inputs of so many levels; 0 where there is none.
double lookup_inner_loop_rate(Isa isa, int levels, int threads, double seconds);

}  // namespace adder_onnx
