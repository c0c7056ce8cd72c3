#include "chain/passes.h"

#include <algorithm>
#include <stdexcept>

namespace adder_onnx {
namespace {

// Where an image has fewer, several go through a chain together: else reading the weights of a layer
// from memory would take longer than using them.
constexpr int64_t kPixelsPerPass = 128;

// What the largest tensor of a pass may take, unless one image takes more: so much stays in a cache that
// cores share.
constexpr int64_t kPassBytes = int64_t{4} << 20;

constexpr int64_t kMaxImagesPerPass = 8;
constexpr int64_t kMaxPassesAtOnce = 64;

}  // namespace

Passes plan_passes(const std::vector<ImageShape>& tensors, const std::vector<int64_t>& bytes,
                   int threads) {
  if (threads < 1) throw std::invalid_argument("threads must be at least 1");
  int64_t batch = 0, fewest = 0, largest = 1;
  bool are_alike = true;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int64_t pixels = tensors[i].height * tensors[i].width;
    are_alike = are_alike && tensors[i].batch == tensors[0].batch;
    batch = std::max(batch, tensors[i].batch);
    fewest = i == 0 ? pixels : std::min(fewest, pixels);
    largest = std::max(largest, bytes[i]);
  }
  if (!are_alike) return {batch, std::max<int64_t>(batch, 1), 1};
  const int64_t most = std::min({kMaxImagesPerPass,
                                 ceil_div(kPixelsPerPass, std::max<int64_t>(fewest, 1)),
                                 kPassBytes / largest});
  const int64_t round = threads * std::max<int64_t>(most, 1);
  const int64_t rounds = std::max<int64_t>(1, ceil_div(batch, round));
  const int64_t images = std::max<int64_t>(1, ceil_div(batch, threads * rounds));
  const int64_t passes = std::min<int64_t>({ceil_div(batch, images), threads, kMaxPassesAtOnce});
  return {batch, images, std::max<int64_t>(1, passes)};
}

}  // namespace adder_onnx
