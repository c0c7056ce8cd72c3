// Convolutions by table lookups, at every level, against the definition in plain loops.
#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "isa/select.h"
#include "tests.h"
#include "uint8/lookup/lookup_conv.h"

using namespace adder_onnx;

namespace {

using Bytes = std::vector<uint8_t>;

struct Rng {
  std::mt19937_64 engine;
  int64_t operator()(int64_t first, int64_t last) {
    return std::uniform_int_distribution<int64_t>(first, last)(engine);
  }
};

// So many different values below 16, ascending.
Bytes some_levels(Rng& random, int64_t count) {
  Bytes all(kLookupValues);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint8_t>(i);
  std::shuffle(all.begin(), all.end(), random.engine);
  all.resize(count);
  std::sort(all.begin(), all.end());
  return all;
}

struct Case {
  ConvParams params;
  ConvShape shape;
  Bytes x_levels, z_levels, y_levels;
  bool has_residual;
  uint8_t zero_point;
  Bytes weights, x, z;
  std::vector<double> factor, bias;
  double z_factor;

  // As a network's epilogue is: linear, then rounded to a level.
  int level(int64_t m, int64_t sum, uint8_t z_value) const {
    const double v = factor[m] * static_cast<double>(sum) + bias[m] + z_factor * z_value;
    int found = 0;
    for (size_t i = 1; i < y_levels.size(); ++i) found += 2 * v > y_levels[i - 1] + y_levels[i];
    return found;
  }
  std::string text() const {
    const ConvParams& a = params;
    const ConvShape& s = shape;
    std::string text = "lookups:";
    for (int64_t value : {a.in_channels, a.out_channels, a.kernel_h, a.kernel_w, a.stride_h,
                          a.stride_w, a.dilation_h, a.dilation_w, s.batch, s.in_h, s.in_w, s.pad_top,
                          s.pad_left, int64_t(has_residual)})
      text += " " + std::to_string(value);
    return text;
  }
};

Case make_case(Rng& random, int64_t most_levels) {
  Case c{};
  const bool is_plain = random(0, 1) == 0;  // the output as large as the input
  const int64_t kernels[] = {1, 2, 3, 5};
  ConvParams& a = c.params;
  a = {2 * random(1, random(0, 3) == 0 ? 90 : 20), random(1, random(0, 2) == 0 ? 110 : 20),
       kernels[random(0, 3)], kernels[random(0, 3)], 1, 1, random(1, 2), random(1, 2), 1};
  ConvShape& s = c.shape;
  s = {random(1, 4), random(1, 20), random(1, 20), 0, 0, 0, 0};
  const int64_t span_h = (a.kernel_h - 1) * a.dilation_h, span_w = (a.kernel_w - 1) * a.dilation_w;
  int64_t bottom = 0, right = 0;
  if (is_plain) {
    s.pad_top = random(0, span_h);
    s.pad_left = random(0, span_w);
    bottom = span_h - s.pad_top;
    right = span_w - s.pad_left;
  } else {
    a.stride_h = random(1, 3);
    a.stride_w = random(1, 3);
    s.pad_top = random(0, 4);
    s.pad_left = random(0, 4);
    bottom = std::max<int64_t>(span_h - s.in_h - s.pad_top + 1, random(0, 4));
    right = std::max<int64_t>(span_w - s.in_w - s.pad_left + 1, random(0, 4));
  }
  s.out_h = (s.in_h + s.pad_top + bottom - span_h - 1) / a.stride_h + 1;
  s.out_w = (s.in_w + s.pad_left + right - span_w - 1) / a.stride_w + 1;
  c.x_levels = some_levels(random, random(1, most_levels));
  c.y_levels = some_levels(random, random(2, 16));
  c.zero_point = c.x_levels[random(0, static_cast<int64_t>(c.x_levels.size()) - 1)];
  c.has_residual = random(0, 1) == 1;
  c.z_levels = c.has_residual ? some_levels(random, random(1, 16)) : Bytes{0};
  const auto any_of = [&](const Bytes& levels) {
    return levels[random(0, static_cast<int64_t>(levels.size()) - 1)];
  };
  c.weights.resize(a.out_channels * a.in_channels * a.kernel_size());
  for (uint8_t& w : c.weights) w = static_cast<uint8_t>(random(0, 15));
  c.x.resize(s.batch * s.in_h * s.in_w * padded_channels(a.in_channels));
  for (size_t i = 0; i < c.x.size(); ++i) {
    const bool is_channel = static_cast<int64_t>(i) % padded_channels(a.in_channels) < a.in_channels;
    c.x[i] = is_channel ? any_of(c.x_levels) : static_cast<uint8_t>(random(0, 255));
  }
  c.z.resize(s.batch * s.out_h * s.out_w * padded_channels(a.out_channels));
  for (uint8_t& z : c.z) z = any_of(c.z_levels);
  const double taps = static_cast<double>(a.in_channels * a.kernel_size());
  for (int64_t m = 0; m < a.out_channels; ++m) {
    const double sign = random(0, 3) == 0 ? 1 : random(0, 20) == 0 ? 0 : -1;
    c.factor.push_back(sign * static_cast<double>(random(1, 40)) / 10 / std::max(taps / 8, 1.0));
    c.bias.push_back(8 - c.factor[m] * taps * 4 + static_cast<double>(random(-40, 40)) / 10);
  }
  c.z_factor = static_cast<double>(random(1, 20)) / 10;
  return c;
}

Bytes by_definition(const Case& c) {
  const ConvParams& a = c.params;
  const ConvShape& s = c.shape;
  const int64_t row = padded_channels(a.out_channels), in_row = padded_channels(a.in_channels);
  Bytes y(c.z.size());
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t i = 0; i < s.out_h; ++i)
      for (int64_t j = 0; j < s.out_w; ++j)
        for (int64_t m = 0; m < a.out_channels; ++m) {
          int64_t sum = 0;
          for (int64_t ch = 0; ch < a.in_channels; ++ch)
            for (int64_t u = 0; u < a.kernel_h; ++u)
              for (int64_t v = 0; v < a.kernel_w; ++v) {
                const int64_t h = i * a.stride_h + u * a.dilation_h - s.pad_top;
                const int64_t w = j * a.stride_w + v * a.dilation_w - s.pad_left;
                const bool is_inside = h >= 0 && h < s.in_h && w >= 0 && w < s.in_w;
                const int value =
                    is_inside ? c.x[((n * s.in_h + h) * s.in_w + w) * in_row + ch] : c.zero_point;
                const int weight =
                    c.weights[((m * a.in_channels + ch) * a.kernel_h + u) * a.kernel_w + v];
                sum += std::abs(value - weight);
              }
          const int64_t at = ((n * s.out_h + i) * s.out_w + j) * row + m;
          y[at] = c.y_levels[c.level(m, sum, c.has_residual ? c.z[at] : uint8_t{0})];
        }
  return y;
}

bool is_right(const Case& c, const LookupConv& conv, int threads, const Bytes& expected) {
  Bytes y(c.z.size());
  const Work work = conv.share_out(c.shape, threads);
  for (int64_t task = work.tasks; task-- > 0;)
    conv.run(work, task, c.shape, c.x.data(), c.has_residual ? c.z.data() : nullptr, y.data());
  const int64_t row = padded_channels(c.params.out_channels);
  for (size_t i = 0; i < y.size(); ++i)
    if (static_cast<int64_t>(i) % row < c.params.out_channels && y[i] != expected[i]) return false;
  return true;
}

LookupLayer layer_of(const Case& c) {
  return {c.params,       c.weights.data(), c.zero_point,
          c.x_levels,     c.has_residual,   c.z_levels,
          c.y_levels,     [&c](int64_t m, int64_t sum, uint8_t z) { return c.level(m, sum, z); }};
}

}  // namespace

void test_lookups(int count) {
  Rng random{std::mt19937_64(20)};
  for (int i = 0; i < count; ++i) {
    const Case c = make_case(random, i % 2 == 0 ? 4 : 8);
    const Bytes expected = by_definition(c);
    for (Isa isa : available_isas()) {
      const auto conv = LookupConv::make(layer_of(c), isa);
      const bool has_kernel = lookup_kernel(isa, static_cast<int>(c.x_levels.size())) != nullptr;
      expect((conv != nullptr) == has_kernel, c.text() + ": a kernel at " + isa_name(isa));
      if (conv == nullptr) continue;
      for (int threads : {1, 3})
        expect(is_right(c, *conv, threads, expected), c.text() + " at " + isa_name(isa));
    }
  }
  std::printf("lookups: %d layers, at", count);
  for (Isa isa : available_isas()) std::printf(" %s", isa_name(isa));
  std::printf("\n");
}
