#include "uint8/lookup/lookup_conv.h"

#include <algorithm>
#include <cstdlib>

#include "isa/select.h"
#include "uint8/lookup/stage.h"

namespace adder_onnx {
namespace {

// Filters whose outputs are computed before they are laid side by side; a multiple of 16.
constexpr int64_t kBlock = 48;
constexpr int64_t kTiles = ceil_div(kBlock, kLookupFilters);

// What the indices of a task may take, unless a tile of its own takes more.
constexpr int64_t kStageBytes = 256 * 1024;
constexpr int64_t kMaxPixelsPerTask = 1024;
constexpr int64_t kMinPixelsPerTask = 64;
constexpr int64_t kTasksPerThread = 2;

// A sum is kept as this much less, so that a border of -1 has 16 bits.
constexpr int64_t kSumBias = 32767;
constexpr int64_t kNever = 32767;  // no sum is more

constexpr int64_t kMostOfByte = 255;

bool are_small(const std::vector<uint8_t>& levels) {
  return !levels.empty() && levels.back() < kLookupValues;
}

struct Tile {
  int64_t number;        // in its block
  int64_t first, count;  // filters
};

// The filters of a block cut into tiles, as equal as may be.
template <typename F>
void for_tiles(int64_t first, int64_t count, const F& f) {
  const int64_t tiles = ceil_div(count, kLookupFilters);
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t begin = t * count / tiles, end = (t + 1) * count / tiles;
    f(Tile{t, first + begin, end - begin});
  }
}

}  // namespace

std::unique_ptr<const LookupConv> LookupConv::make(const LookupLayer& layer, Isa isa) {
  const ConvParams& a = layer.params;
  const LookupKernel* kernel = lookup_kernel(isa, static_cast<int>(layer.x_levels.size()));
  const auto end = layer.weights + a.out_channels * a.group_in() * a.kernel_size();
  const bool are_weights_small =
      std::all_of(layer.weights, end, [](uint8_t w) { return w < kLookupValues; });
  if (kernel == nullptr || a.group != 1 || a.in_channels % 2 != 0 || a.out_channels == 0 ||
      !are_small(layer.x_levels) || !are_small(layer.z_levels) || !are_small(layer.y_levels) ||
      !are_weights_small ||
      !std::binary_search(layer.x_levels.begin(), layer.x_levels.end(), layer.zero_point))
    return nullptr;
  std::unique_ptr<LookupConv> conv(new LookupConv(a, layer.zero_point, *kernel));
  conv->make_tables(layer.x_levels);
  conv->pack_weights(layer.weights);
  conv->border_count_ = static_cast<int64_t>(layer.y_levels.size()) - 1;
  for (int64_t m = 0; m < a.out_channels; ++m)
    if (!conv->add_borders(layer, m)) return nullptr;
  return conv;
}

bool LookupConv::pays(const LookupLayer& layer, Isa isa) {
  const LookupKernel* kernel = lookup_kernel(isa, static_cast<int>(layer.x_levels.size()));
  if (kernel == nullptr) return false;
  const LookupCosts& cost = kernel->costs;
  const ConvParams& a = layer.params;
  const auto positions = static_cast<double>(a.kernel_size());
  const auto filters = static_cast<double>(a.out_channels);
  const auto eights_of = static_cast<double>(ceil_div(a.in_channels, 8));
  const auto pairs_of = static_cast<double>(ceil_div(a.in_channels, 2));
  const auto borders = static_cast<double>(layer.y_levels.size());
  const bool is_strided = a.stride_h != 1 || a.stride_w != 1;
  const double by_differences = cost.difference * filters * positions * eights_of * 8;
  const double by_lookups =
      cost.lookup * filters * positions * pairs_of +
      cost.index * pairs_of * (is_strided ? positions : 1) +
      filters * (cost.output + borders * (layer.has_residual ? cost.residual : cost.border));
  return by_lookups < by_differences;
}

LookupConv::LookupConv(const ConvParams& params, uint8_t zero_point, const LookupKernel& kernel)
    : params_(params), zero_point_(zero_point), kernel_(kernel) {}

int64_t LookupConv::distance(int64_t code, int64_t weight) const {
  return std::abs(static_cast<int64_t>(levels_[code]) - weight);
}

void LookupConv::make_tables(const std::vector<uint8_t>& levels) {
  levels_.assign(1, zero_point_);
  for (uint8_t level : levels)
    if (level != zero_point_) levels_.push_back(level);
  const auto count = static_cast<int64_t>(levels_.size());
  codes_.assign(kLookupValues, 0);
  for (int64_t code = 0; code < count; ++code) codes_[levels_[code]] = static_cast<uint8_t>(code);
  for (int64_t w = 0; w < kLookupValues; ++w) {
    least_[w] = spread_[w] = distance(0, w);
    for (int64_t code = 1; code < count; ++code) {
      least_[w] = std::min(least_[w], distance(code, w));
      spread_[w] = std::max(spread_[w], distance(code, w));
    }
    spread_[w] -= least_[w];
  }
  const int64_t size = int64_t{1} << 2 * kernel_.code_bits;
  tables_.assign(kLookupValues * kLookupValues * size, 0);
  for (int64_t table = 0; table < kLookupValues * kLookupValues; ++table) {
    const int64_t w0 = table % kLookupValues, w1 = table / kLookupValues;
    for (int64_t c0 = 0; c0 < count; ++c0)
      for (int64_t c1 = 0; c1 < count; ++c1)
        tables_[table * size + (c0 | c1 << kernel_.code_bits)] = static_cast<uint8_t>(
            distance(c0, w0) - least_[w0] + distance(c1, w1) - least_[w1]);
  }
}

// [tile][position][pair][filter of the tile]
void LookupConv::pack_weights(const uint8_t* weights) {
  const int64_t channels = params_.in_channels, positions = params_.kernel_size();
  for (int64_t block = 0; block < params_.out_channels; block += kBlock)
    for_tiles(block, std::min(kBlock, params_.out_channels - block), [&](const Tile& tile) {
      run_starts_.push_back(static_cast<int64_t>(runs_.size()));
      int64_t sums[kLookupFilters] = {}, run = 0;
      for (int64_t p = 0; p < positions; ++p)
        for (int64_t c = 0; c < channels; c += 2, ++run) {
          int64_t spreads[kLookupFilters] = {};
          for (int64_t f = 0; f < tile.count; ++f) {
            const uint8_t* w = weights + ((tile.first + f) * channels + c) * positions + p;
            const int64_t w0 = w[0], w1 = w[positions];
            spreads[f] = spread_[w0] + spread_[w1];
            weights_.push_back(static_cast<uint16_t>((w0 + kLookupValues * w1)
                                                     << 2 * kernel_.code_bits));
          }
          const auto is_full = [&] {
            for (int64_t f = 0; f < tile.count; ++f)
              if (sums[f] + spreads[f] > kMostOfByte) return true;
            return run == kMostOfByte;
          };
          if (is_full()) {
            runs_.push_back(static_cast<uint8_t>(run));
            std::fill_n(sums, kLookupFilters, 0);
            run = 0;
          }
          for (int64_t f = 0; f < tile.count; ++f) sums[f] += spreads[f];
        }
      runs_.push_back(static_cast<uint8_t>(run));
      runs_.push_back(0);
    });
}

// False where a border lies beyond what 16 bits hold.
bool LookupConv::add_borders(const LookupLayer& layer, int64_t filter) {
  const int64_t taps = params_.in_channels * params_.kernel_size();
  int64_t offset = 0, last = 0;  // what tables leave out, and the largest sum of what they have
  for (int64_t i = 0; i < taps; ++i) {
    const uint8_t w = layer.weights[filter * taps + i];
    offset += least_[w];
    last += spread_[w];
  }
  const auto level = [&](int64_t sum, uint8_t z) { return layer.level(filter, offset + sum, z); };
  const int top = static_cast<int>(border_count_);
  const bool is_rising = std::any_of(layer.z_levels.begin(), layer.z_levels.end(),
                                     [&](uint8_t z) { return level(0, z) < level(last, z); });
  const int64_t residuals = layer.has_residual ? kLookupValues : 1;
  for (int b = 0; b < top; ++b) {
    std::vector<int16_t> borders(residuals, 0);
    for (uint8_t z : layer.z_levels) {
      // The last sum that is not beyond the border, and the first that is.
      const auto is_beyond = [&](int64_t sum) {
        return is_rising ? level(sum, z) > b : level(sum, z) < top - b;
      };
      int64_t before = -1, beyond = last + 1;
      while (beyond - before > 1) {
        const int64_t middle = before + (beyond - before) / 2;
        (is_beyond(middle) ? beyond : before) = middle;
      }
      const int64_t border = before == last ? kNever : before - kSumBias;
      if (before != last && border >= kNever) return false;
      borders[layer.has_residual ? z : 0] = static_cast<int16_t>(border);
    }
    borders_.insert(borders_.end(), borders.begin(), borders.end());
  }
  for (int i = 0; i < kLookupValues; ++i)
    values_.push_back(layer.y_levels[is_rising ? std::min(i, top) : std::max(top - i, 0)]);
  return true;
}

Work LookupConv::share_out(const ConvShape& shape, int threads) const {
  const int64_t rows = shape.batch * shape.out_h, pixels = rows * shape.out_w;
  if (pixels == 0) return {0, 0, 0, 1};
  const int64_t of_pixel = pairs() * LookupStage::planes_of(params_, shape);
  const int64_t most = std::max(std::min(kStageBytes / of_pixel, kMaxPixelsPerTask), tile());
  Work work{};
  work.blocks = ceil_div(params_.out_channels, kBlock);
  work.shares = 1;
  int64_t parts = ceil_div(pixels, most);
  if (threads > 1) {
    const int64_t wanted = kTasksPerThread * threads;
    parts = std::max(parts, std::min(wanted, ceil_div(pixels, kMinPixelsPerTask)));
    work.shares = std::min(work.blocks, ceil_div(wanted, std::min(parts, rows)));
  }
  work.rows = ceil_div(rows, std::min(parts, rows));
  work.tasks = ceil_div(rows, work.rows) * work.shares;
  return work;
}

int64_t LookupConv::scratch_bytes(const ConvShape& shape, const Work& work) const {
  return LookupStage::bytes_of(params_, shape, kernel_, work.rows * shape.out_w) +
         2 * kBlock * tile();
}

void LookupConv::run(const Work& work, int64_t task, const ConvShape& shape, const uint8_t* x,
                     const uint8_t* z, uint8_t* y) const {
  const Range rows = work.rows_of(task, shape), blocks = work.blocks_of(task);
  const int64_t first = rows.first * shape.out_w, count = (rows.last - rows.first) * shape.out_w;
  LookupStage stage(params_, shape, kernel_, codes_.data(), zero_point_, x, first, count);
  const int64_t at = first * padded_channels(params_.out_channels);
  for (int64_t block = blocks.first; block < blocks.last; ++block)
    run_block(block, &stage, count, z == nullptr ? nullptr : z + at, y + at);
}

void LookupConv::run_block(int64_t block, LookupStage* stage, int64_t count, const uint8_t* z,
                           uint8_t* y) const {
  static thread_local AlignedVector<uint8_t> z_planes, y_planes;
  const int64_t first = block * kBlock, filters = std::min(kBlock, params_.out_channels - first);
  const int64_t row = padded_channels(params_.out_channels), channels = padded_channels(filters);
  const int64_t taps = pairs() * params_.kernel_size();  // of a filter
  const int64_t residuals = z == nullptr ? 1 : kLookupValues;
  y_planes.resize(kBlock * tile());
  if (z != nullptr) z_planes.resize(kBlock * tile());
  for (int64_t at = 0; at < count; at += tile()) {
    const int64_t pixels = std::min(tile(), count - at);
    if (z != nullptr)
      kernel_.to_planes(z + at * row + first, row, pixels, channels, z_planes.data(), tile());
    const LookupTaps of_tile = stage->taps(at);
    for_tiles(first, filters, [&](const Tile& t) {
      const LookupFilters constants = {tables_.data(),
                                       weights_.data() + t.first * taps,
                                       runs_.data() + run_starts_[block * kTiles + t.number],
                                       borders_.data() + t.first * border_count_ * residuals,
                                       border_count_,
                                       values_.data() + t.first * kLookupValues};
      const int64_t plane = (t.first - first) * tile();
      kernel_.run(of_tile, constants, t.count, ceil_div(pixels, kernel_.pixels),
                  {z == nullptr ? nullptr : z_planes.data() + plane, y_planes.data() + plane,
                   tile()});
    });
    kernel_.to_pixels(y_planes.data(), tile(), pixels, channels, y + at * row + first, row);
  }
}

}  // namespace adder_onnx
