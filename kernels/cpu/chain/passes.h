// How the images of a batch go through a chain.
#pragma once

#include <cstdint>
#include <vector>

#include "layout/layout.h"

namespace adder_onnx {

struct Passes {
  int64_t batch;    // images of all tensors; the largest number, where tensors differ and there is one
                    // pass only
  int64_t images;   // that go through together
  int64_t at_once;  // passes that have memory at the same time, one for each thread
};

// Cuts a batch into passes, alike for all threads and rounds. `bytes` are those of one image of each
// tensor, channels-last. Throws std::invalid_argument: there is not one thread at least.
Passes plan_passes(const std::vector<ImageShape>& tensors, const std::vector<int64_t>& bytes,
                   int threads);

}  // namespace adder_onnx
