// Convolutions by table lookups, at every level, against the definition in plain loops.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "isa/select.h"
#include "tests.h"
#include "uint8/lookup/lookup_conv.h"
#include "uint8/qadder_conv.h"

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
  Q8Values values;
  Q8Activation activation;
  uint8_t zero_point;
  Bytes weights, x, z;
  std::vector<float> factor, bias;

  // As docs/quantisation.md has it, step by step in float32.
  uint8_t output(int64_t m, int64_t sum, uint8_t z_value) const {
    const Q8Activation& a = activation;
    float v = static_cast<float>(sum) * -factor[m];
    v = v + bias[m];
    if (values.has_residual) v = v + static_cast<float>(z_value - a.z_zero_point) * a.z_scale;
    const float quotient = std::max(v, a.clip_min) / a.y_scale;
    if (a.levels.empty()) {
      const float whole = std::rint(quotient) + static_cast<float>(a.y_zero_point);
      return static_cast<uint8_t>(std::clamp(whole, 0.0f, static_cast<float>(a.top)));
    }
    int found = 0;
    for (size_t i = 1; i < a.levels.size(); ++i)
      found += quotient > static_cast<float>(a.levels[i - 1] + a.levels[i]) / 2 -
                              static_cast<float>(a.y_zero_point);
    return a.levels[found];
  }
  std::string text() const {
    const ConvParams& a = params;
    const ConvShape& s = shape;
    std::string text = "lookups:";
    for (int64_t value : {a.in_channels, a.out_channels, a.kernel_h, a.kernel_w, a.stride_h,
                          a.stride_w, a.dilation_h, a.dilation_w, s.batch, s.in_h, s.in_w, s.pad_top,
                          s.pad_left, int64_t(values.has_residual)})
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
  Q8Values& values = c.values;
  values.x = some_levels(random, random(1, most_levels));
  c.zero_point = values.x[random(0, static_cast<int64_t>(values.x.size()) - 1)];
  values.has_residual = random(0, 1) == 1;
  if (random(0, 2) != 0) values.z = some_levels(random, random(1, 16));
  c.activation = {static_cast<float>(random(1, 20)) / 10, static_cast<int32_t>(random(0, 15)),
                  static_cast<float>(random(1, 30)) / 10, static_cast<int32_t>(random(0, 15)),
                  random(0, 1) == 0 ? 0.0f : -std::numeric_limits<float>::infinity(), 15};
  if (random(0, 3) != 0)
    c.activation.levels = some_levels(random, random(2, 16));
  else
    c.activation.top = 255;
  const auto any_of = [&](const Bytes& levels) {
    return levels[random(0, static_cast<int64_t>(levels.size()) - 1)];
  };
  c.weights.resize(a.out_channels * a.in_channels * a.kernel_size());
  for (uint8_t& w : c.weights) w = static_cast<uint8_t>(random(0, 15));
  c.x.resize(s.batch * s.in_h * s.in_w * padded_channels(a.in_channels));
  for (size_t i = 0; i < c.x.size(); ++i) {
    const bool is_channel = static_cast<int64_t>(i) % padded_channels(a.in_channels) < a.in_channels;
    c.x[i] = is_channel ? any_of(values.x) : static_cast<uint8_t>(random(0, 255));
  }
  c.z.resize(s.batch * s.out_h * s.out_w * padded_channels(a.out_channels));
  for (uint8_t& z : c.z)
    z = values.z.empty() ? static_cast<uint8_t>(random(0, 255)) : any_of(values.z);
  const auto taps = static_cast<float>(a.in_channels * a.kernel_size());
  for (int64_t m = 0; m < a.out_channels; ++m) {
    const float sign = random(0, 3) == 0 ? -1.0f : random(0, 20) == 0 ? 0.0f : 1.0f;
    c.factor.push_back(sign * static_cast<float>(random(1, 40)) / 10 / std::max(taps / 8, 1.0f));
    c.bias.push_back(8 + c.factor[m] * taps * 4 + static_cast<float>(random(-40, 40)) / 10);
  }
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
          y[at] = c.output(m, sum, c.z[at]);
        }
  return y;
}

bool is_right(const Case& c, const LookupConv& conv, int threads, const Bytes& expected) {
  Bytes y(c.z.size());
  const Work work = conv.share_out(c.shape, threads);
  for (int64_t task = work.tasks; task-- > 0;)
    conv.run(work, task, c.shape, c.x.data(), c.values.has_residual ? c.z.data() : nullptr, y.data());
  const int64_t row = padded_channels(c.params.out_channels);
  for (size_t i = 0; i < y.size(); ++i)
    if (static_cast<int64_t>(i) % row < c.params.out_channels && y[i] != expected[i]) return false;
  return true;
}

LookupLayer layer_of(const Case& c, const Q8Epilogue& epilogue) {
  return {c.params, c.weights.data(), c.zero_point, c.factor.data(), c.bias.data(), epilogue,
          c.values};
}

// Sums of up to 75,000, which change the output at `border`.
void test_large_sums(Isa isa, float border, bool has_levels, bool is_possible) {
  Case c{};
  c.params = {5000, 1, 1, 1, 1, 1, 1, 1, 1};
  c.shape = {1, 1, 40, 1, 40, 0, 0};
  c.values = {{0, 15}, {}, false};
  c.activation = {1.0f, 0, 1.0f, 0, 0.0f, 15};
  if (has_levels) c.activation.levels = {0, 1};
  c.weights.assign(5000, 0);
  c.factor = {1.0f};
  c.bias = {border + 0.75f};
  c.x.assign(40 * padded_channels(5000), 0);
  for (int64_t i = 0; i < 40; ++i)
    std::fill_n(c.x.begin() + i * padded_channels(5000), i * 5000 / 39, uint8_t{15});
  c.z.assign(40 * 16, 0);
  const Q8Epilogue epilogue = make_epilogue(c.activation);
  const auto conv = LookupConv::make(layer_of(c, epilogue), isa);
  const std::string text = "sums up to 75,000, border " + std::to_string(border);
  expect((conv != nullptr) == is_possible, text + " at " + isa_name(isa));
  if (conv != nullptr) expect(is_right(c, *conv, 1, by_definition(c)), text);
}

}  // namespace

void test_lookups(int count) {
  Rng random{std::mt19937_64(20)};
  for (int i = 0; i < count; ++i) {
    const Case c = make_case(random, i % 2 == 0 ? 4 : 8);
    const Bytes expected = by_definition(c);
    const Q8Epilogue epilogue = make_epilogue(c.activation);
    const LookupLayer layer = layer_of(c, epilogue);
    for (Isa isa : available_isas()) {
      const auto conv = LookupConv::make(layer, isa);
      const bool has_kernel = lookup_kernel(isa, static_cast<int>(c.values.x.size())) != nullptr;
      expect((conv != nullptr) == has_kernel, c.text() + ": a kernel at " + isa_name(isa));
      if (conv == nullptr) continue;
      for (int threads : {1, 3})
        expect(is_right(c, *conv, threads, expected), c.text() + " at " + isa_name(isa));
    }
  }
  for (Isa isa : available_isas()) {
    for (float border : {0.0f, 30'000.0f, 65'533.0f}) test_large_sums(isa, border, true, true);
    test_large_sums(isa, 65'534.0f, true, false);
    test_large_sums(isa, 80'000.0f, true, true);  // never reached
    test_large_sums(isa, 30'000.0f, false, false);
  }
  std::printf("lookups: %d layers, at", count);
  for (Isa isa : available_isas()) std::printf(" %s", isa_name(isa));
  std::printf("\n");
}
