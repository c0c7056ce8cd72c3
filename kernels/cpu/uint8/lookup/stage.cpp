#include "uint8/lookup/stage.h"

#include <algorithm>

namespace adder_onnx {
namespace {

// From an output pixel to a tap's, in rows and columns.
struct Shift {
  int64_t rows, columns;
};

Shift shift_of(const ConvParams& a, const ConvShape& s, int64_t position) {
  return {position / a.kernel_w * a.dilation_h - s.pad_top,
          position % a.kernel_w * a.dilation_w - s.pad_left};
}

bool is_shifted(const ConvParams& a, const ConvShape& s) {
  return a.stride_h == 1 && a.stride_w == 1 && s.out_h == s.in_h && s.out_w == s.in_w;
}

int64_t round_up(int64_t count, int64_t unit) { return ceil_div(count, unit) * unit; }

// Of the kernel positions, in pixels: the least shift, and how far the largest is from it.
struct Reach {
  int64_t least, width;
};

Reach reach_of(const ConvParams& a, const ConvShape& s) {
  const Shift from = shift_of(a, s, 0), to = shift_of(a, s, a.kernel_size() - 1);
  const int64_t least = from.rows * s.in_w + from.columns;
  return {least, to.rows * s.in_w + to.columns - least};
}

// From a plane to the next, of `count` output pixels. What is written behind them fills up registers, from
// a first pixel that is anywhere in one.
int64_t pitch_of(const ConvParams& a, const ConvShape& s, const LookupKernel& kernel,
                 int64_t count) {
  const int64_t width = is_shifted(a, s) ? reach_of(a, s).width + 2 * kernel.pixels : 0;
  return round_up(round_up(count, kernel.pixels) + width, 64) + 64;
}

}  // namespace

int64_t LookupStage::planes_of(const ConvParams& a, const ConvShape& s) {
  return is_shifted(a, s) ? 1 : a.kernel_size();
}

int64_t LookupStage::bytes_of(const ConvParams& a, const ConvShape& s, const LookupKernel& kernel,
                              int64_t count) {
  const int64_t pitch = pitch_of(a, s, kernel, count), positions = a.kernel_size();
  const int64_t masks = is_shifted(a, s) ? positions * round_up(count, kernel.pixels) : 0;
  return planes_of(a, s) * a.in_channels / 2 * pitch + masks +
         (pitch + 4 * positions) * static_cast<int64_t>(sizeof(void*)) +
         padded_channels(a.in_channels);
}

LookupStage::LookupStage(const ConvParams& params, const ConvShape& shape,
                         const LookupKernel& kernel, const uint8_t* codes, uint8_t zero_point,
                         const uint8_t* x, int64_t first, int64_t count)
    : params_(params), shape_(shape), kernel_(kernel), first_(first), count_(count) {
  static thread_local Memory memory;
  memory_ = &memory;
  pitch_ = pitch_of(params, shape, kernel, count);
  const int64_t positions = params.kernel_size();
  const auto bytes =
      static_cast<size_t>(planes_of(params, shape) * params.in_channels / 2 * pitch_);
  if (memory.planes.size() < bytes) memory.planes.resize(bytes);
  memory.all_planes.assign(positions, nullptr);
  memory.all_masks.assign(positions, nullptr);
  memory.tile_planes.resize(positions);
  memory.tile_masks.resize(positions);
  if (is_shifted(params, shape))
    stage_shifted(codes, x);
  else
    stage_positions(codes, zero_point, x);
}

void LookupStage::stage_shifted(const uint8_t* codes, const uint8_t* x) {
  Memory& m = *memory_;
  const auto [least, width] = reach_of(params_, shape_);
  const int64_t row = padded_channels(params_.in_channels);
  const int64_t begin = std::max<int64_t>(first_ + least, 0);
  const int64_t end = std::min(first_ + least + width + count_,
                               shape_.batch * shape_.in_h * shape_.in_w);
  m.pixels.clear();
  for (int64_t pixel = begin; pixel < end; ++pixel) m.pixels.push_back(x + pixel * row);
  if (begin < end)
    kernel_.make_indices(m.pixels.data(), end - begin, params_.in_channels, codes,
                         m.planes.data() + begin - (first_ + least), pitch_);
  const int64_t positions = params_.kernel_size();
  const int64_t mask_pitch = round_up(count_, kernel_.pixels);
  if (static_cast<int64_t>(m.masks.size()) < positions * mask_pitch)
    m.masks.resize(positions * mask_pitch);
  for (int64_t p = 0; p < positions; ++p) {
    const Shift shift = shift_of(params_, shape_, p);
    m.all_planes[p] = m.planes.data() + shift.rows * shape_.in_w + shift.columns - least;
    m.all_masks[p] = mask(shift.rows, shift.columns, m.masks.data() + p * mask_pitch);
  }
}

// Of a position, at `to`; null where no tap of it is padding.
const uint8_t* LookupStage::mask(int64_t dy, int64_t dx, uint8_t* to) const {
  if (dy == 0 && dx == 0) return nullptr;
  const int64_t width = shape_.in_w;
  const int64_t left = std::clamp<int64_t>(-dx, 0, width);
  const int64_t right = std::clamp<int64_t>(width - dx, left, width);
  for (int64_t row = 0; row < count_ / width; ++row, to += width) {
    const int64_t y = (first_ / width + row) % shape_.in_h + dy;
    std::fill_n(to, width, uint8_t{0});
    if (y >= 0 && y < shape_.in_h) std::fill(to + left, to + right, uint8_t{255});
  }
  return to - count_;
}

void LookupStage::stage_positions(const uint8_t* codes, uint8_t zero_point, const uint8_t* x) {
  Memory& m = *memory_;
  const ConvParams& a = params_;
  const ConvShape& s = shape_;
  const int64_t channels = padded_channels(a.in_channels);
  m.padding.assign(channels, zero_point);
  m.pixels.resize(count_);
  const int64_t first_row = first_ / s.out_w, rows = count_ / s.out_w;
  for (int64_t p = 0; p < a.kernel_size(); ++p) {
    const Shift shift = shift_of(a, s, p);
    const uint8_t** to = m.pixels.data();
    for (int64_t row = first_row; row < first_row + rows; ++row) {
      const int64_t y = row % s.out_h * a.stride_h + shift.rows;
      const bool is_inside = y >= 0 && y < s.in_h;
      const uint8_t* from = x + (row / s.out_h * s.in_h + y) * s.in_w * channels;
      for (int64_t j = 0, at = shift.columns; j < s.out_w; ++j, at += a.stride_w)
        *to++ = is_inside && at >= 0 && at < s.in_w ? from + at * channels : m.padding.data();
    }
    uint8_t* planes = m.planes.data() + p * a.in_channels / 2 * pitch_;
    kernel_.make_indices(m.pixels.data(), count_, a.in_channels, codes, planes, pitch_);
    m.all_planes[p] = planes;
  }
}

LookupTaps LookupStage::taps(int64_t at) {
  Memory& m = *memory_;
  for (size_t p = 0; p < m.all_planes.size(); ++p) {
    m.tile_planes[p] = m.all_planes[p] + at;
    m.tile_masks[p] = m.all_masks[p] == nullptr ? nullptr : m.all_masks[p] + at;
  }
  return {m.tile_planes.data(), m.tile_masks.data(),
          static_cast<int64_t>(m.all_planes.size()), params_.in_channels / 2, pitch_};
}

}  // namespace adder_onnx
