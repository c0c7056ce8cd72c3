#include "uint8/lookup/lookup_conv.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "isa/select.h"
#include "threads/inner_loop_rate.h"
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
constexpr int64_t kMostOfSum = 32767;

constexpr int64_t kMostOfByte = 255;

bool are_small(const std::vector<uint8_t>& levels) {
  return !levels.empty() && levels.back() < kLookupValues;
}

// Whether an output is a monotone function of its sum, and of a residual that is small.
bool can_have_borders(const LookupLayer& layer) {
  const Q8Epilogue& e = layer.epilogue;
  const auto is_finite = [](float v) { return std::isfinite(v); };
  const int64_t filters = layer.params.out_channels;
  return e.levels.borders != 0 && e.levels.level[e.levels.borders] < kLookupValues &&
         (!layer.values.has_residual || are_small(layer.values.z)) && is_finite(e.z_scale) &&
         std::all_of(layer.factor, layer.factor + filters, is_finite) &&
         std::all_of(layer.bias, layer.bias + filters, is_finite);
}

// The number of the level that a sum and a residual become, as uint8/epilogue.inc has it.
int level_of(const LookupLayer& layer, int64_t filter, int64_t sum, uint8_t z) {
  const Q8Epilogue& e = layer.epilogue;
  float v = static_cast<float>(sum) * -layer.factor[filter] + layer.bias[filter];
  if (layer.values.has_residual) v = v + static_cast<float>(z - e.z_zero_point) * e.z_scale;
  const auto is_passed = [&](float border) { return v >= border; };
  return static_cast<int>(
      std::count_if(e.levels.border, e.levels.border + e.levels.borders, is_passed));
}

struct Tile {
  int64_t number;        // in its block
  int64_t first, count;  // filters, of those of the block
};

// So many filters of a block cut into tiles, as equal as may be.
template <typename F>
void for_tiles(int64_t count, const F& f) {
  const int64_t tiles = ceil_div(count, kLookupFilters);
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t begin = t * count / tiles, end = (t + 1) * count / tiles;
    f(Tile{t, begin, end - begin});
  }
}

}  // namespace

std::unique_ptr<const LookupConv> LookupConv::make(const LookupLayer& layer, Isa isa) {
  const ConvParams& a = layer.params;
  const std::vector<uint8_t>& x = layer.values.x;
  const LookupKernel* kernel = lookup_kernel(isa, static_cast<int>(x.size()));
  const auto end = layer.weights + a.out_channels * a.group_in() * a.kernel_size();
  const bool are_weights_small =
      std::all_of(layer.weights, end, [](uint8_t w) { return w < kLookupValues; });
  if (kernel == nullptr || a.group != 1 || a.in_channels % 2 != 0 || !are_small(x) ||
      !are_weights_small || !std::binary_search(x.begin(), x.end(), layer.zero_point))
    return nullptr;
  std::unique_ptr<LookupConv> conv(new LookupConv(layer, *kernel, uint8_kernels(isa).finish));
  conv->make_tables(x);
  conv->pack_weights(layer.weights);
  for (int64_t m = 0; m < a.out_channels; ++m)
    if (!(conv->has_borders_ ? conv->add_borders(layer, m) : conv->add_offset(layer, m)))
      return nullptr;
  return conv;
}

bool LookupConv::pays(const LookupLayer& layer, Isa isa) {
  const LookupKernel* kernel = lookup_kernel(isa, static_cast<int>(layer.values.x.size()));
  if (kernel == nullptr) return false;
  const LookupCosts& cost = kernel->costs;
  const ConvParams& a = layer.params;
  const auto positions = static_cast<double>(a.kernel_size());
  const auto filters = static_cast<double>(a.out_channels);
  const auto eights_of = static_cast<double>(ceil_div(a.in_channels, 8));
  const auto pairs_of = static_cast<double>(ceil_div(a.in_channels, 2));
  const bool has_residual = layer.values.has_residual;
  const double border = has_residual ? cost.residual_border : cost.border;
  const bool is_strided = a.stride_h != 1 || a.stride_w != 1;
  const double by_differences =
      cost.difference * filters * positions * eights_of * 8 +
      filters * (cost.difference_output + (has_residual ? cost.difference_residual : 0));
  const double by_lookups =
      cost.lookup * filters * positions * pairs_of +
      cost.index * pairs_of * (is_strided ? positions : 1) +
      filters * (can_have_borders(layer) ? cost.output + border * layer.epilogue.levels.borders
                                         : cost.sum);
  return by_lookups < by_differences;
}

LookupConv::LookupConv(const LookupLayer& layer, const LookupKernel& kernel,
                       const Q8Finish& finish)
    : params_(layer.params),
      zero_point_(layer.zero_point),
      has_borders_(can_have_borders(layer)),
      kernel_(kernel),
      border_count_(layer.epilogue.levels.borders),
      finish_(finish),
      epilogue_(layer.epilogue) {
  if (has_borders_) return;
  const int64_t filters = ceil_div(params_.out_channels, kBlock) * kBlock;
  offsets_.resize(filters);
  factor_.resize(filters);
  bias_.resize(filters);
  for (int64_t m = 0; m < params_.out_channels; ++m) {
    factor_[m] = -layer.factor[m];
    bias_[m] = layer.bias[m];
  }
}

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
    for_tiles(std::min(kBlock, params_.out_channels - block), [&](const Tile& tile) {
      run_starts_.push_back(static_cast<int64_t>(runs_.size()));
      int64_t sums[kLookupFilters] = {}, run = 0;
      for (int64_t p = 0; p < positions; ++p)
        for (int64_t c = 0; c < channels; c += 2, ++run) {
          int64_t spreads[kLookupFilters] = {};
          for (int64_t f = 0; f < tile.count; ++f) {
            const uint8_t* w = weights + ((block + tile.first + f) * channels + c) * positions + p;
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

// Of a filter: what tables leave out of its sums, and the largest that they have.
struct LookupConv::Sums {
  int64_t offset, last;
};

LookupConv::Sums LookupConv::sums_of(const LookupLayer& layer, int64_t filter) const {
  const int64_t taps = params_.in_channels * params_.kernel_size();
  Sums sums{};
  for (int64_t i = 0; i < taps; ++i) {
    const uint8_t w = layer.weights[filter * taps + i];
    sums.offset += least_[w];
    sums.last += spread_[w];
  }
  return sums;
}

// False where sums go beyond what 16 bits hold.
bool LookupConv::add_offset(const LookupLayer& layer, int64_t filter) {
  const Sums sums = sums_of(layer, filter);
  offsets_[filter] = static_cast<int32_t>(sums.offset + kSumBias);
  return sums.last - kSumBias <= kMostOfSum;
}

// False where a border lies beyond what 16 bits hold.
bool LookupConv::add_borders(const LookupLayer& layer, int64_t filter) {
  const auto [offset, last] = sums_of(layer, filter);
  const auto level = [&, offset = offset](int64_t sum, uint8_t z) {
    return level_of(layer, filter, offset + sum, z);
  };
  const std::vector<uint8_t> none = {0};
  const std::vector<uint8_t>& residuals = layer.values.has_residual ? layer.values.z : none;
  const int top = static_cast<int>(border_count_);
  bool is_rising = false;
  for (uint8_t z : residuals) is_rising = is_rising || level(0, z) < level(last, z);
  for (int b = 0; b < top; ++b) {
    std::vector<int16_t> borders(layer.values.has_residual ? kLookupValues : 1, 0);
    for (uint8_t z : residuals) {
      // The last sum that is not beyond the border, and the first that is.
      const auto is_beyond = [&](int64_t sum) {
        return is_rising ? level(sum, z) > b : level(sum, z) < top - b;
      };
      int64_t before = -1, beyond = last + 1;
      while (beyond - before > 1) {
        const int64_t middle = before + (beyond - before) / 2;
        (is_beyond(middle) ? beyond : before) = middle;
      }
      const int64_t border = before == last ? kMostOfSum : before - kSumBias;
      if (before != last && border >= kMostOfSum) return false;
      borders[layer.values.has_residual ? z : 0] = static_cast<int16_t>(border);
    }
    borders_.insert(borders_.end(), borders.begin(), borders.end());
  }
  const uint8_t* levels = layer.epilogue.levels.level;
  for (int i = 0; i < kLookupValues; ++i)
    values_.push_back(levels[is_rising ? std::min(i, top) : std::max(top - i, 0)]);
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
         6 * kBlock * tile();
}

void LookupConv::run(const Work& work, int64_t task, const ConvShape& shape, const uint8_t* x,
                     const uint8_t* z, uint8_t* y) const {
  const Range rows = work.rows_of(task, shape), blocks = work.blocks_of(task);
  const int64_t first = rows.first * shape.out_w, count = (rows.last - rows.first) * shape.out_w;
  LookupStage stage(params_, shape, kernel_, codes_.data(), zero_point_, x, first, count);
  const int64_t at = first * padded_channels(params_.out_channels);
  for (int64_t block = blocks.first; block < blocks.last; ++block) {
    const int64_t to = at + block * kBlock;
    run_block(block, &stage, count, z == nullptr ? nullptr : z + to, y + to);
  }
}

// z and y are those of the block's first filter and the first pixel.
void LookupConv::run_block(int64_t block, LookupStage* stage, int64_t count, const uint8_t* z,
                           uint8_t* y) const {
  static thread_local AlignedVector<uint8_t> z_planes, y_planes;
  static thread_local AlignedVector<int16_t> sum_planes, sums;
  const int64_t filters = std::min(kBlock, params_.out_channels - block * kBlock);
  const int64_t row = padded_channels(params_.out_channels), channels = padded_channels(filters);
  const size_t size = kBlock * tile();
  for (auto* planes : {&z_planes, &y_planes}) planes->resize(size);
  for (auto* planes : {&sum_planes, &sums}) planes->resize(size);
  for (int64_t at = 0; at < count; at += tile()) {
    const int64_t pixels = std::min(tile(), count - at);
    const int64_t registers = ceil_div(pixels, kernel_.pixels);
    const uint8_t* z_at = z == nullptr ? nullptr : z + at * row;
    const LookupTaps taps = stage->taps(at);
    if (!has_borders_) {
      run_tiles(taps, block, registers, false, {nullptr, nullptr, sum_planes.data()});
      kernel_.to_sums(sum_planes.data(), registers, channels, sums.data(), kBlock);
      finish(block, sums.data(), pixels, z_at, y + at * row);
      continue;
    }
    if (z != nullptr)
      kernel_.to_planes(z_at, row, pixels, channels, z_planes.data(), tile());
    run_tiles(taps, block, registers, z != nullptr, {z_planes.data(), y_planes.data(), nullptr});
    kernel_.to_pixels(y_planes.data(), tile(), pixels, channels, y + at * row, row);
  }
}

// Of all filters of a block; planes are those of its first one.
void LookupConv::run_tiles(const LookupTaps& taps, int64_t block, int64_t registers,
                           bool has_residual, const LookupPlanes& planes) const {
  const int64_t first = block * kBlock, filters = std::min(kBlock, params_.out_channels - first);
  const int64_t borders = border_count_ * (has_residual ? kLookupValues : 1);
  for_tiles(filters, [&](const Tile& t) {
    const int64_t m = first + t.first, plane = t.first * tile();
    const LookupFilters constants = {tables_.data(),
                                     weights_.data() + m * pairs() * params_.kernel_size(),
                                     runs_.data() + run_starts_[block * kTiles + t.number],
                                     borders_.data() + m * borders,
                                     border_count_,
                                     values_.data() + m * kLookupValues};
    kernel_.run(taps, constants, t.count, registers,
                {has_residual ? planes.z + plane : nullptr,
                 planes.y == nullptr ? nullptr : planes.y + plane,
                 planes.sums == nullptr ? nullptr : planes.sums + plane});
  });
}

// The outputs of a block's filters.
void LookupConv::finish(int64_t block, const int16_t* sums, int64_t pixels, const uint8_t* z,
                        uint8_t* y) const {
  const int64_t first = block * kBlock, filters = std::min(kBlock, params_.out_channels - first);
  for (int64_t f = 0; f < filters; f += finish_.filters)
    finish_.run(sums + f, kBlock, offsets_.data() + first + f, pixels, factor_.data() + first + f,
                bias_.data() + first + f, std::min(finish_.filters, filters - f), epilogue_,
                z == nullptr ? nullptr : z + f, y + f, padded_channels(params_.out_channels));
}

int most_lookup_levels(Isa isa) {
  int most = 1;
  while (lookup_kernel(isa, most + 1) != nullptr) ++most;
  return most;
}

double lookup_inner_loop_rate(Isa isa, int levels, int threads, double seconds) {
  constexpr int64_t kPairs = 32;
  const LookupKernel* kernel = lookup_kernel(isa, levels);
  if (kernel == nullptr) return 0;
  const int64_t pixels = kernel->pixels * kernel->registers;
  const int64_t size = int64_t{1} << 2 * kernel->code_bits;
  const AlignedVector<uint8_t> tables(kLookupValues * kLookupValues * size, 1);
  AlignedVector<uint8_t> indices(kPairs * pixels);
  for (size_t i = 0; i < indices.size(); ++i) indices[i] = static_cast<uint8_t>(i * 7 % size);
  std::vector<uint16_t> weights(kPairs * kLookupFilters);
  for (size_t i = 0; i < weights.size(); ++i)
    weights[i] = static_cast<uint16_t>(i * 37 % (kLookupValues * kLookupValues) * size);
  const uint8_t* plane = indices.data();
  const uint8_t* mask = nullptr;
  const LookupTaps taps = {&plane, &mask, 1, kPairs, pixels};
  const LookupFilters filters = {tables.data(), weights.data(), nullptr, nullptr, 0, nullptr};
  return inner_loop_rate(threads, seconds,
                         static_cast<double>(pixels * kLookupFilters * kPairs * 2),
                         [&](int64_t times) {
                           return static_cast<double>(kernel->inner_loop(taps, filters, times));
                         });
}

}  // namespace adder_onnx
