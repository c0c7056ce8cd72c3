// Where a lookup kernel reads the indices of a run of output pixels.
//
// Where the output is as large as the input and strides are one, a tap's pixel lies as far from its output
// pixel everywhere, and input pixels become indices once: a kernel position is an offset into these planes,
// with a mask for what is padding. Else each kernel position has planes of its own.
#pragma once

#include <vector>

#include "layers/aligned.h"
#include "layers/params.h"
#include "uint8/lookup/kernel.h"

namespace adder_onnx {

class LookupStage {
 public:
  // Of `count` output pixels from `first` on, whole rows, numbered through the images. It holds until the thread
  // makes another one. `codes` has kLookupValues entries, 0 for the zero point.
  LookupStage(const ConvParams& params, const ConvShape& shape, const LookupKernel& kernel,
              const uint8_t* codes, uint8_t zero_point, const uint8_t* x, int64_t first,
              int64_t count);

  // Bytes that a thread takes for so many output pixels, at most.
  static int64_t bytes_of(const ConvParams& params, const ConvShape& shape,
                          const LookupKernel& kernel, int64_t count);
  // Planes of a channel pair that there are.
  static int64_t planes_of(const ConvParams& params, const ConvShape& shape);

  // From the pixel `at` of the run on, which is a multiple of the kernel's registers.
  LookupTaps taps(int64_t at);

 private:
  struct Memory {
    std::vector<const uint8_t*> pixels;
    AlignedVector<uint8_t> planes, masks;
    std::vector<uint8_t> padding;
    std::vector<const uint8_t*> all_planes, all_masks;    // by kernel position
    std::vector<const uint8_t*> tile_planes, tile_masks;  // of a tile
  };

  void stage_shifted(const uint8_t* codes, const uint8_t* x);
  void stage_positions(const uint8_t* codes, uint8_t zero_point, const uint8_t* x);
  const uint8_t* mask(int64_t dy, int64_t dx, uint8_t* to) const;

  const ConvParams& params_;
  const ConvShape& shape_;
  const LookupKernel& kernel_;
  int64_t first_, count_;
  int64_t pitch_ = 0;
  Memory* memory_;
};

}  // namespace adder_onnx
