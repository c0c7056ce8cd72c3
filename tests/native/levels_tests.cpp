// Every level's kernels against those of the scalar level, to the bit: over filters, pixels and
// channels that meet every remainder of blocks, tiles and steps, with values of every kind, and with
// sums that would overflow were they kept in too few bits.
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "few_levels.h"
#include "float32/adder_conv.h"
#include "float32/input_gradient.h"
#include "isa/isa.h"
#include "tests.h"
#include "uint8/qadder_conv.h"

using namespace adder_onnx;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// One row of output pixels; with a kernel of three, one of padding at each end.
struct Row {
  int64_t filters, pixels, channels, kernel;
  bool is_depthwise;
  int64_t height = 1;  // of the kernel, and of the image

  ConvParams params() const {
    return {channels, filters, height, kernel, 1, 1, 1, 1, is_depthwise ? channels : 1};
  }
  ConvShape shape() const { return {1, height, pixels, 1, pixels, 0, kernel / 2}; }
  int64_t taps() const { return (is_depthwise ? 1 : channels) * height * kernel; }
  int64_t x_size() const { return height * pixels * padded_channels(channels); }
  int64_t y_size() const { return pixels * padded_channels(filters); }
  std::string text() const {
    return std::to_string(filters) + " filters, " + std::to_string(pixels) + " pixels, " +
           std::to_string(channels) + " channels, kernel " + std::to_string(height) + "x" +
           std::to_string(kernel);
  }
};

std::vector<Row> rows(const std::vector<int64_t>& many_channels) {
  std::vector<Row> found;
  for (int64_t channels : many_channels)
    for (int64_t filters : {1, 3, 4, 5, 8, 9, 12, 16, 17, 25, 33})
      for (int64_t pixels = 1; pixels <= 13; ++pixels)
        found.push_back({filters, pixels, channels, filters % 3 == 0 ? 3 : 1, false});
  for (int64_t channels : {1, 3, 4, 8, 9, 16, 17, 31, 33, 64, 70})
    for (int64_t pixels : {1, 5}) found.push_back({channels, pixels, channels, 3, true});
  return found;
}

// Whether they are the same to the bit, but for what kind of NaN they are.
template <typename T>
bool are_same(T a, T b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0 || (a != a && b != b);
}

// The same of all outputs.
template <typename T>
bool are_same(const Row& row, const std::vector<T>& a, const std::vector<T>& b) {
  const int64_t pitch = padded_channels(row.filters);
  for (int64_t p = 0; p < row.pixels; ++p)
    for (int64_t m = 0; m < row.filters; ++m)
      if (!are_same(a[p * pitch + m], b[p * pitch + m])) return false;
  return true;
}

template <typename Conv, typename T>
std::vector<T> outputs(const Conv& conv, const Row& row, const std::vector<T>& x,
                       const std::vector<T>& z) {
  std::vector<T> y(row.y_size());
  const Work work = conv.share_out(row.shape(), 1);
  for (int64_t task = 0; task < work.tasks; ++task)
    conv.run(work, task, row.shape(), x.data(), z.empty() ? nullptr : z.data(), y.data());
  return y;
}

// Calls make(isa) for every level; all it gives must be what it gives for the scalar level.
template <typename F>
void expect_same(const Row& row, const char* what, const F& make) {
  const auto expected = make(Isa::kScalar);
  for (Isa isa : available_isas())
    if (isa != Isa::kScalar)
      expect(are_same(row, make(isa), expected),
             std::string(what) + ", " + isa_name(isa) + " and scalar: " + row.text());
}

struct NamedKernels {
  std::string name;
  Isa isa;
  const Uint8Kernels* kernels;
};

// Of every level, also those that are not chosen for this processor.
std::vector<NamedKernels> all_uint8_kernels() {
  std::vector<NamedKernels> all;
  for (Isa isa : available_isas()) {
#if defined(ADDER_ONNX_X86)
    if (isa == Isa::kAvx2) {
      all.push_back({"avx2", isa, &kUint8Avx2});
      all.push_back({"avx2 with packed sums", isa, &kUint8Avx2Packed});
      continue;
    }
#endif
    all.push_back({isa_name(isa), isa, &uint8_kernels(isa)});
  }
  return all;
}

// Calls make(isa, kernels) for all of uint8; all it gives must be what it gives for the scalar ones.
template <typename F>
void expect_same_uint8(const Row& row, const char* what, const F& make) {
  const auto expected = make(Isa::kScalar, &kUint8Scalar);
  for (const NamedKernels& k : all_uint8_kernels())
    expect(are_same(row, make(k.isa, k.kernels), expected),
           std::string(what) + ", " + k.name + " and scalar: " + row.text());
}

// Mostly moderate, some of them special: with infinities and NaN, or without.
float any_float(std::mt19937& random, int kind) {
  const float moderate = static_cast<float>(static_cast<int>(random() % 4001) - 2000) / 997;
  if (kind == 0 || random() % 40 > 0) return moderate;
  const float finite[] = {0.0f, -0.0f, 1e-44f, -1e-39f, 3e38f, -3e38f, 1e30f};
  const float others[] = {kInfinity, -kInfinity, kNaN, -kNaN};
  return kind == 1 ? finite[random() % 7] : others[random() % 4];
}

void test_float32(const Row& row, uint32_t seed) {
  std::mt19937 random(seed);
  const int kind = static_cast<int>(seed % 3);
  std::vector<float> x(row.x_size()), z(seed % 2 == 0 ? row.y_size() : 0);
  std::vector<float> w(row.filters * row.taps()), scale(row.filters), bias(row.filters);
  for (auto* floats : {&x, &z})
    for (float& v : *floats) v = any_float(random, kind);
  for (auto* floats : {&w, &scale, &bias})
    for (float& v : *floats) v = any_float(random, seed % 5 == 0 ? kind : 0);
  const Clip clips[] = {{-kInfinity, kInfinity}, {0, 6}, {-0.0f, 0.0f}, {-3, kNaN}};
  const Clip clip = clips[seed % 4];
  for (Form form : {Form::kDirect, Form::kMax})
    expect_same(row, form == Form::kMax ? "fast" : "exact", [&](Isa isa) {
      const AdderConv conv(row.params(), w.data(), scale.data(), bias.data(), clip, form, isa);
      return outputs(conv, row, x, z);
    });
}

// Of levels that fuse no more than the scalar one does.
void test_gradient(const Row& row, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> x(row.channels * row.pixels), w(row.filters * row.taps());
  std::vector<float> grad_y(row.filters * row.pixels);
  for (auto* floats : {&x, &w, &grad_y})
    for (float& v : *floats) v = any_float(random, static_cast<int>(seed % 3));
  const auto gradient = [&](Isa isa) {
    std::vector<float> grad_x(x.size());
    input_gradient(row.params(), row.shape(), x.data(), w.data(), grad_y.data(), grad_x.data(), isa,
                   1);
    return grad_x;
  };
  const std::vector<float> expected = gradient(Isa::kScalar);
  for (Isa isa : available_isas()) {
    if (isa != Isa::kNeon && isa != Isa::kNeonDotprod) continue;
    const std::vector<float> found = gradient(isa);
    for (size_t i = 0; i < found.size(); ++i)
      if (!are_same(found[i], expected[i]))
        return expect(false, std::string("gradient, ") + isa_name(isa) + " and scalar: " + row.text());
  }
}

void test_uint8(const Row& row, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint8_t> x(row.x_size()), z(seed % 2 == 0 ? row.y_size() : 0);
  std::vector<uint8_t> w(row.filters * row.taps());
  for (auto* bytes : {&x, &z, &w})
    for (uint8_t& v : *bytes) v = static_cast<uint8_t>(random());
  const float y_scales[] = {0.037f, 1.0f, 3e-4f, 1e-44f, 3e38f};
  const float y_scale = y_scales[seed % 5];
  std::vector<float> factor(row.filters), bias(row.filters);
  for (int64_t m = 0; m < row.filters; ++m) {
    factor[m] = static_cast<float>(random() % 1000) / 30000 * y_scale;
    bias[m] = factor[m] * static_cast<float>(row.taps()) * static_cast<float>(random() % 200);
  }
  if (seed % 11 == 0) bias[0] = kNaN;
  const int32_t tops[] = {255, 15, 3};
  const Q8Activation activation = {0.37f * y_scale, static_cast<int32_t>(random() % 256), y_scale,
                                   static_cast<int32_t>(random() % 256),
                                   random() % 2 == 0 ? 0.0f : -kInfinity, tops[seed % 3],
                                   seed % 4 == 1 ? some_levels(random, tops[seed % 3])
                                                 : std::vector<uint8_t>{}};
  const auto zero_point = static_cast<uint8_t>(random());
  expect_same_uint8(row, "uint8", [&](Isa isa, const Uint8Kernels* kernels) {
    const QAdderConv conv(row.params(), w.data(), zero_point, factor.data(), bias.data(), activation,
                          isa, {}, kernels);
    return outputs(conv, row, x, z);
  });
}

// Outputs that lie between two integers, or as near to that as floats can.
void test_roundings(float y_scale, const std::vector<uint8_t>& levels) {
  const Row row = {33, 200, 1, 1, false};
  std::vector<uint8_t> x(row.x_size());
  for (int64_t p = 0; p < row.pixels; ++p) x[p * padded_channels(1)] = static_cast<uint8_t>(p);
  const std::vector<uint8_t> w(row.filters);
  const std::vector<float> factor(row.filters, y_scale / 2);
  std::vector<float> bias(row.filters);
  for (int64_t m = 0; m < row.filters; ++m) bias[m] = static_cast<float>(3 * m) / 2 * y_scale;
  expect_same_uint8(row, "roundings", [&](Isa isa, const Uint8Kernels* kernels) {
    const QAdderConv conv(row.params(), w.data(), 0, factor.data(), bias.data(),
                          {1, 0, y_scale, 100, -kInfinity, 255, levels}, isa, {}, kernels);
    return outputs(conv, row, x, {});
  });
}

// Taps that are all as far from their weights as can be; each output must be 100.
void test_largest_sums(int64_t channels, int64_t height, int64_t kernel, bool is_x_large) {
  const Row row = {9, 7, channels, kernel, false, height};
  const uint8_t large = is_x_large ? 255 : 0, other = is_x_large ? 0 : 255;
  const std::vector<uint8_t> x(row.x_size(), large), w(row.filters * row.taps(), other);
  const std::vector<float> factor(row.filters, 1.0f / 16);
  const std::vector<float> bias(row.filters, static_cast<float>(row.taps() * 255) / 16 + 100);
  for (const NamedKernels& k : all_uint8_kernels()) {
    const QAdderConv conv(row.params(), w.data(), large, factor.data(), bias.data(),
                          {1, 0, 1, 0, -kInfinity, 255}, k.isa, {}, k.kernels);
    const std::vector<uint8_t> y = outputs(conv, row, x, {});
    expect(are_same(row, y, std::vector<uint8_t>(y.size(), 100)),
           std::string("largest sums, ") + k.name + ": " + row.text());
  }
}

}  // namespace

void test_levels() {
  uint32_t seed = 0;
  // Runs of 24 taps, and blocks of 8 runs.
  for (const Row& row : rows({1, 5, 24, 25, 49, 193})) {
    test_float32(row, ++seed);
    if (row.channels < 30) test_gradient(row, ++seed);
  }
  for (const Row& row : rows({1, 7, 8, 9, 16, 40, 264})) test_uint8(row, ++seed);
  for (float y_scale : {1.0f, 0.1f, 0.037f, 3e-4f, 7.3f, 1e5f, 3e38f}) {
    test_roundings(y_scale, {});
    test_roundings(y_scale, {90, 91, 94, 100, 101, 120, 155, 255});
  }
  // Around 65,535 / 255 taps, and half as many, in one segment or in some; and many more.
  for (int64_t channels : {120, 128, 136, 504, 512, 520, 1016, 1024, 1032, 1040, 2048, 2056, 4616})
    for (int64_t kernel : {1, 3})
      for (bool is_x_large : {false, true}) {
        test_largest_sums(channels, 1, kernel, is_x_large);
        test_largest_sums(channels, 5, kernel, is_x_large);
      }
}
