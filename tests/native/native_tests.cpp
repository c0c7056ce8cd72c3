// The native kernels alone, at every instruction set that this machine has, for builds with
// sanitizers: each tensor is an allocation of its own, of exactly its size, so that a read or write
// beside it is seen; results are compared with plain loops. What is random comes from fixed seeds.
//
//   native_tests             exit status 0 where all agree, 1 with a line for each that does not
//   native_tests --no-fork   for an emulator that cannot fork a process of several threads
//   native_tests --only ISA  for a slow emulator: fewer shapes, in plain loops at this level alone
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "few_levels.h"
#include "float32/adder_conv.h"
#include "float32/input_gradient.h"
#include "isa/isa.h"
#include "layout/layout.h"
#include "program/program.h"
#include "tests.h"
#include "threads/thread_pool.h"
#include "uint8/qadder_conv.h"

using namespace adder_onnx;

std::atomic<int> failures{0};

void expect(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  std::printf("FAILED: %s\n", what.c_str());
}

namespace {

// An allocation that ends with the last element.
template <typename T>
using Exact = std::vector<T>;

struct Case {
  ConvParams a;
  ConvShape s;
  bool residual;
  int threads;

  std::string text() const {
    std::ostringstream text;
    text << a.in_channels << " channels, " << a.out_channels << " filters, kernel " << a.kernel_h
         << "x" << a.kernel_w << ", stride " << a.stride_h << "x" << a.stride_w << ", dilation "
         << a.dilation_h << "x" << a.dilation_w << ", group " << a.group << ", " << s.batch << "x"
         << s.in_h << "x" << s.in_w << " -> " << s.out_h << "x" << s.out_w << ", pads "
         << s.pad_top << " " << s.pad_left << ", residual " << residual << ", threads " << threads;
    return text.str();
  }
  int64_t x_size() const { return s.batch * s.in_h * s.in_w * padded_channels(a.in_channels); }
  int64_t y_size() const { return s.batch * s.out_h * s.out_w * padded_channels(a.out_channels); }
  int64_t w_size() const { return a.out_channels * a.group_in() * a.kernel_size(); }
};

// Shapes that meet every remainder: of channels, filters, pixels of a tile, rows of a task.
std::vector<Case> cases(int count) {
  std::mt19937 random(7);
  const auto pick = [&](std::vector<int64_t> from) { return from[random() % from.size()]; };
  std::vector<Case> found;
  while (static_cast<int>(found.size()) < count) {
    Case c{};
    c.a.group = pick({1, 1, 1, 2, 3, 8});
    c.a.in_channels = c.a.group * pick({1, 3, 7, 8, 9, 16, 24, 33});
    c.a.out_channels = c.a.group * pick({1, 4, 5, 8, 9, 16, 17, 31, 40});
    if (random() % 6 == 0) c.a.in_channels = c.a.out_channels = c.a.group = pick({3, 16, 20, 35});
    c.a.kernel_h = pick({1, 1, 2, 3, 5, 7});
    c.a.kernel_w = pick({1, 1, 2, 3, 5, 7});
    c.a.stride_h = pick({1, 1, 2, 3});
    c.a.stride_w = pick({1, 1, 2, 3});
    c.a.dilation_h = pick({1, 1, 2});
    c.a.dilation_w = pick({1, 1, 2});
    c.s.batch = pick({1, 1, 2, 3});
    c.s.in_h = pick({1, 2, 5, 7, 8, 13, 14});
    c.s.in_w = pick({1, 3, 7, 8, 12, 13, 25});
    c.s.pad_top = pick({0, 0, 1, 2, 4});
    c.s.pad_left = pick({0, 0, 1, 2, 4});
    const int64_t bottom = pick({0, 0, 1, 3}), right = pick({0, 0, 1, 3});
    const int64_t high = c.s.in_h + c.s.pad_top + bottom - (c.a.kernel_h - 1) * c.a.dilation_h - 1;
    const int64_t wide = c.s.in_w + c.s.pad_left + right - (c.a.kernel_w - 1) * c.a.dilation_w - 1;
    if (high < 0 || wide < 0) continue;
    c.s.out_h = high / c.a.stride_h + 1;
    c.s.out_w = wide / c.a.stride_w + 1;
    c.residual = random() % 2 == 0;
    c.threads = static_cast<int>(pick({1, 2, 3}));
    found.push_back(c);
  }
  return found;
}

// Calls tap(x index or -1 in the padding, w index) for every tap of one output.
template <typename F>
void for_taps(const Case& c, int64_t n, int64_t m, int64_t oy, int64_t ox, const F& tap) {
  const int64_t row = padded_channels(c.a.in_channels), group = m / c.a.group_out();
  for (int64_t channel = 0; channel < c.a.group_in(); ++channel)
    for (int64_t i = 0; i < c.a.kernel_h; ++i)
      for (int64_t j = 0; j < c.a.kernel_w; ++j) {
        const int64_t h = oy * c.a.stride_h + i * c.a.dilation_h - c.s.pad_top;
        const int64_t w = ox * c.a.stride_w + j * c.a.dilation_w - c.s.pad_left;
        const bool inside = h >= 0 && h < c.s.in_h && w >= 0 && w < c.s.in_w;
        const int64_t x = ((n * c.s.in_h + h) * c.s.in_w + w) * row + group * c.a.group_in();
        tap(inside ? x + channel : -1,
            ((m * c.a.group_in() + channel) * c.a.kernel_h + i) * c.a.kernel_w + j);
      }
}

// Calls f(n, m, oy, ox, index of the output).
template <typename F>
void for_outputs(const Case& c, const F& f) {
  const int64_t row = padded_channels(c.a.out_channels);
  for (int64_t n = 0; n < c.s.batch; ++n)
    for (int64_t oy = 0; oy < c.s.out_h; ++oy)
      for (int64_t ox = 0; ox < c.s.out_w; ++ox)
        for (int64_t m = 0; m < c.a.out_channels; ++m)
          f(n, m, oy, ox, ((n * c.s.out_h + oy) * c.s.out_w + ox) * row + m);
}

template <typename Conv, typename T>
void run(const Conv& conv, const Case& c, const T* x, const T* z, T* y) {
  const auto work = conv.share_out(c.s, c.threads);
  parallel_for(work.tasks, c.threads, [&](int64_t task) { conv.run(work, task, c.s, x, z, y); });
}

void test_uint8(Isa isa, const Case& c, uint32_t seed) {
  std::mt19937 random(seed);
  const int bits = 2 + static_cast<int>(random() % 7), top = (1 << bits) - 1;
  Exact<uint8_t> x(c.x_size()), w(c.w_size()), z(c.residual ? c.y_size() : 0), y(c.y_size());
  for (auto* bytes : {&x, &w, &z})
    for (uint8_t& value : *bytes) value = static_cast<uint8_t>(random() & top);
  const auto zero_point = static_cast<uint8_t>(random() % (top / 2 + 1));
  const double taps = static_cast<double>(c.a.group_in() * c.a.kernel_size());
  Exact<float> factor(c.a.out_channels), bias(c.a.out_channels);
  for (int64_t m = 0; m < c.a.out_channels; ++m) {
    factor[m] = static_cast<float>(random() % 1000) / 500 - 1;
    bias[m] = static_cast<float>(factor[m] * taps * top / 3);
  }
  const Q8Activation act = {0.37f, static_cast<int32_t>(random() % (top + 1)),
                            static_cast<float>(0.5 + std::sqrt(taps)),
                            static_cast<int32_t>(random() % (top + 1)),
                            random() % 2 ? 0.0f : -std::numeric_limits<float>::infinity(), top,
                            random() % 3 == 0 ? some_levels(random, top) : std::vector<uint8_t>{}};
  const QAdderConv conv(c.a, w.data(), zero_point, factor.data(), bias.data(), act, isa);
  run(conv, c, x.data(), c.residual ? z.data() : nullptr, y.data());
  int wrong = 0;
  for_outputs(c, [&](int64_t n, int64_t m, int64_t oy, int64_t ox, int64_t at) {
    int32_t sum = 0;
    for_taps(c, n, m, oy, ox, [&](int64_t i, int64_t k) {
      sum += std::abs(static_cast<int>(i < 0 ? zero_point : x[i]) - static_cast<int>(w[k]));
    });
    float v = static_cast<float>(sum) * -factor[m];
    v = v + bias[m];
    if (c.residual) v = v + static_cast<float>(z[at] - act.z_zero_point) * act.z_scale;
    wrong += y[at] != requantized(v, act);
  });
  expect(wrong == 0, std::string(act.levels.empty() ? "uint8 " : "levels ") + isa_name(isa) + ": " + c.text());
}

void test_max_pool(Case c, uint32_t seed) {
  std::mt19937 random(seed);
  c.a.out_channels = c.a.in_channels;
  c.a.group = c.a.in_channels;  // for for_taps: a channel's own taps alone
  Exact<uint8_t> x(c.x_size()), y(c.y_size());
  for (uint8_t& value : x) value = static_cast<uint8_t>(random());
  const Work work = share_out_rows(c.s, 1, 64, c.threads);
  parallel_for(work.tasks, c.threads, [&](int64_t task) {
    max_pool(c.a, c.s, x.data(), y.data(), work.rows_of(task, c.s));
  });
  int wrong = 0;
  for_outputs(c, [&](int64_t n, int64_t m, int64_t oy, int64_t ox, int64_t at) {
    uint8_t largest = 0;
    for_taps(c, n, m, oy, ox, [&](int64_t i, int64_t) {
      if (i >= 0) largest = std::max(largest, x[i]);
    });
    wrong += y[at] != largest;
  });
  expect(wrong == 0, "max pooling: " + c.text());
}

void test_float32(Isa isa, Form form, const Case& c, uint32_t seed) {
  std::mt19937 random(seed);
  const auto value = [&] { return static_cast<float>(random() % 4001) / 1000 - 2; };
  Exact<float> x(c.x_size()), w(c.w_size()), z(c.residual ? c.y_size() : 0), y(c.y_size());
  for (auto* floats : {&x, &w, &z})
    for (float& f : *floats) f = value();
  Exact<float> scale(c.a.out_channels), bias(c.a.out_channels);
  for (auto* floats : {&scale, &bias})
    for (float& f : *floats) f = value();
  const AdderConv conv(c.a, w.data(), scale.data(), bias.data(), {0.0f, 100.0f}, form, isa);
  run(conv, c, x.data(), c.residual ? z.data() : nullptr, y.data());
  int wrong = 0;
  for_outputs(c, [&](int64_t n, int64_t m, int64_t oy, int64_t ox, int64_t at) {
    double sum = 0, size = 0;
    for_taps(c, n, m, oy, ox, [&](int64_t i, int64_t k) {
      const double tap = i < 0 ? 0.0 : static_cast<double>(x[i]);
      sum += std::fabs(tap - static_cast<double>(w[k]));
      size += std::fabs(tap) + std::fabs(static_cast<double>(w[k]));
    });
    double v = -sum * scale[m] + bias[m] + (c.residual ? z[at] : 0.0f);
    v = std::min(std::max(v, 0.0), 100.0);
    wrong += std::fabs(y[at] - v) > 1e-5 * (1 + (form == Form::kMax ? size : sum));
  });
  expect(wrong == 0, std::string(form == Form::kMax ? "fast " : "exact ") + isa_name(isa) + ": " +
                         c.text());
}

// The gradient with respect to the input, in (N, C, H, W), against its definition.
void test_gradient(Isa isa, const Case& c, uint32_t seed) {
  std::mt19937 random(seed);
  const auto value = [&] { return static_cast<float>(random() % 4001) / 1000 - 2; };
  const ConvParams& a = c.a;
  const ConvShape& s = c.s;
  Exact<float> x(s.batch * a.in_channels * s.in_h * s.in_w), w(c.w_size());
  Exact<float> grad_y(s.batch * a.out_channels * s.out_h * s.out_w);
  for (auto* floats : {&x, &w, &grad_y})
    for (float& f : *floats) f = value();
  Exact<float> grad_x(x.size(), std::numeric_limits<float>::quiet_NaN());
  input_gradient(a, s, x.data(), w.data(), grad_y.data(), grad_x.data(), isa, c.threads);
  std::vector<double> expected(x.size()), size(x.size());
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t m = 0; m < a.out_channels; ++m)
      for (int64_t oy = 0; oy < s.out_h; ++oy)
        for (int64_t ox = 0; ox < s.out_w; ++ox)
          for (int64_t k = 0; k < a.group_in() * a.kernel_size(); ++k) {
            const int64_t channel = m / a.group_out() * a.group_in() + k / a.kernel_size();
            const int64_t position = k % a.kernel_size();
            const int64_t h = oy * a.stride_h + position / a.kernel_w * a.dilation_h - s.pad_top;
            const int64_t v = ox * a.stride_w + position % a.kernel_w * a.dilation_w - s.pad_left;
            if (h < 0 || h >= s.in_h || v < 0 || v >= s.in_w) continue;
            const int64_t at = ((n * a.in_channels + channel) * s.in_h + h) * s.in_w + v;
            const double difference = static_cast<double>(w[m * a.group_in() * a.kernel_size() + k]) -
                                      static_cast<double>(x[at]);
            const double g = grad_y[((n * a.out_channels + m) * s.out_h + oy) * s.out_w + ox];
            expected[at] += std::min(1.0, std::max(-1.0, difference)) * g;
            size[at] += std::fabs(g);
          }
  int wrong = 0;
  for (size_t i = 0; i < x.size(); ++i)
    wrong += !(std::fabs(grad_x[i] - expected[i]) <= 1e-5 * (1 + size[i]));
  expect(wrong == 0, std::string("gradient ") + isa_name(isa) + ": " + c.text());
}

// There and back again, for every pair of types.
void test_conversions() {
  using T = ElementType;
  const Conversion kinds[] = {{T::kFloat32, T::kFloat32, 1, 0, 255},
                              {T::kFloat16, T::kFloat32, 1, 0, 255},
                              {T::kUint8, T::kUint8, 1, 0, 255},
                              {T::kFloat32, T::kUint8, 0.5f, 9, 200}};
  for (const Conversion& kind : kinds)
    for (int64_t channels : {1, 3, 16, 17, 40})
      for (int64_t width : {1, 5, 16, 33}) {
        const ImageShape shape = {2, channels, 3, width};
        Exact<uint8_t> from(shape.nchw_size() * size_of(kind.outside));
        Exact<uint8_t> inside(shape.nhwc_size() * size_of(kind.inside)), to(from.size());
        for (int64_t i = 0; i < shape.nchw_size(); ++i) {
          const float value = static_cast<float>(i % 100) * 0.5f;
          if (kind.outside == T::kFloat32) std::memcpy(&from[4 * i], &value, 4);
          if (kind.outside != T::kFloat32) from[i * size_of(kind.outside)] = i % 100;
        }
        for (int64_t task = 0; task < conversion_tasks(shape); ++task)
          nchw_to_nhwc(shape, kind, from.data(), inside.data(), task);
        for (int64_t task = 0; task < conversion_tasks(shape); ++task)
          nhwc_to_nchw(shape, kind, inside.data(), to.data(), task);
        expect(from == to, "conversion of " + std::to_string(channels) + " channels, width " +
                               std::to_string(width));
      }
}

// Of tables that change at any number of places, the sixteen values at once like each by itself.
void test_byte_tables() {
  std::mt19937 random(5);
  for (int places = 0; places < 40; ++places) {
    std::vector<uint8_t> bytes(ByteTable::kSize, static_cast<uint8_t>(random()));
    for (int i = 0; i < places; ++i) {
      const auto from = static_cast<ptrdiff_t>(random() % ByteTable::kSize);
      std::fill(bytes.begin() + from, bytes.end(), static_cast<uint8_t>(random()));
    }
    const ByteTable table(bytes.data());
    std::vector<uint8_t> all(ByteTable::kSize), some(all.size());
    for (size_t i = 0; i < all.size(); ++i) some[i] = all[i] = static_cast<uint8_t>(i);
    for (size_t i = 0; i < all.size(); i += 16) table.look_up(&all[i], 16);
    for (size_t i = 0; i < all.size(); i += 8) table.look_up(&some[i], 8);
    expect(all == bytes && some == bytes, "a table of " + std::to_string(places) + " places");
  }
}

// A program of two layers, a residual and conversions, in passes and not, from several threads.
void test_program(Isa isa) {
  std::mt19937 random(3);
  const ConvParams a = {20, 20, 3, 3, 1, 1, 1, 1, 1};
  constexpr int64_t kBatch = 7, kHigh = 5, kWide = 6;
  Exact<uint8_t> w(20 * 20 * 9), x(kBatch * 20 * kHigh * kWide);
  for (auto* bytes : {&w, &x})
    for (uint8_t& value : *bytes) value = static_cast<uint8_t>(random());
  const Exact<float> factor(20, 0.01f), bias(20, 150.0f);
  const auto conv = std::make_shared<QAdderConv>(a, w.data(), 3, factor.data(), bias.data(),
                                                 Q8Activation{0.1f, 4, 0.3f, 5, 0, 255}, isa);
  const Conversion bytes = {ElementType::kUint8, ElementType::kUint8, 1, 0, 255};
  const auto make = [&](int64_t pass) {
    const ImageShape image = {kBatch, 20, kHigh, kWide};
    const ConvShape shape = {kBatch, kHigh, kWide, kHigh, kWide, 1, 1};
    const int64_t size = pass * kHigh * kWide * padded_channels(20) / 4;
    Program program(kBatch, pass);
    program.add_nchw_to_nhwc(0, bytes, image, 0);
    program.add_qadder_conv(conv, shape, 0, -1, size);
    program.add_qadder_conv(conv, shape, size, 0, 2 * size);
    program.add_nhwc_to_nchw(2 * size, image, 0, bytes);
    return program;
  };
  const auto result = [&](const Program& program, int threads, bool timed) {
    Exact<float> arena(program.arena_size(threads));
    Exact<uint8_t> y(x.size());
    double seconds[4];
      program.run(arena.data(), {x.data()}, {y.data()}, PoolWorkers(threads), timed ? seconds : nullptr);
    return y;
  };
  const Exact<uint8_t> expected = result(make(kBatch), 1, false);
  for (int64_t pass : {1, 2, 7, 9}) {
    const Program program = make(pass);
    std::vector<std::thread> callers;
    for (int threads = 1; threads <= 4; ++threads)
      callers.emplace_back([&, threads] {
        for (bool timed : {false, true})
          expect(result(program, threads, timed) == expected,
                 std::string("program ") + isa_name(isa) + ", pass of " + std::to_string(pass) +
                     " images, " + std::to_string(threads) + " threads");
      });
    for (std::thread& caller : callers) caller.join();
  }
}

// Runs that are stopped from outside, at any moment, end, and leave an arena that can be used again.
void test_stop(Isa isa) {
  constexpr int64_t kBatch = 40, kSide = 12;
  const ConvParams a = {16, 16, 3, 3, 1, 1, 1, 1, 1};
  const Exact<uint8_t> w(16 * 16 * 9, 7), x(kBatch * 16 * kSide * kSide, 9);
  const Exact<float> factor(16, 0.01f), bias(16, 150.0f);
  const auto conv = std::make_shared<QAdderConv>(a, w.data(), 3, factor.data(), bias.data(),
                                                 Q8Activation{0.1f, 4, 0.3f, 5, 0, 255}, isa);
  const Conversion bytes = {ElementType::kUint8, ElementType::kUint8, 1, 0, 255};
  const ImageShape image = {kBatch, 16, kSide, kSide};
  const int64_t size = 3 * kSide * kSide * 16 / 4;
  Program program(kBatch, 3);
  program.add_nchw_to_nhwc(0, bytes, image, 0);
  program.add_qadder_conv(conv, {kBatch, kSide, kSide, kSide, kSide, 1, 1}, 0, -1, size);
  program.add_nhwc_to_nchw(size, image, 0, bytes);
  Exact<float> arena(program.arena_size(3));
  Exact<uint8_t> expected(x.size());
  program.run(arena.data(), {x.data()}, {expected.data()}, PoolWorkers(3));
  for (int round = 0; round < 20; ++round) {
    Exact<uint8_t> y(x.size());
    StopFlag stop;
    std::thread other([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(20 * round));
      stop.set();
    });
    program.run(arena.data(), {x.data()}, {y.data()}, PoolWorkers(1 + round % 3), nullptr, stop);
    other.join();
    program.run(arena.data(), {x.data()}, {y.data()}, PoolWorkers(1 + round % 3));
    expect(y == expected, "after a run that was stopped");
    Exact<uint8_t> untouched(x.size());
    program.run(arena.data(), {x.data()}, {untouched.data()}, PoolWorkers(3), nullptr, stop);
    expect(untouched == Exact<uint8_t>(x.size()), "stopped before it began");
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string option = argc < 2 ? "" : argv[1];
  const char* only = option == "--only" && argc > 2 ? argv[2] : nullptr;
  const int count = only == nullptr ? 250 : 40;
  for (const char* name : {"scalar", "avx2", "avx512", "avx512_vbmi", "neon", "neon_dotprod"}) {
    if (only != nullptr && std::strcmp(name, only) != 0) continue;
    bool is_there = false;
    for (Isa isa : available_isas()) is_there = is_there || std::strcmp(isa_name(isa), name) == 0;
    if (!is_there) {
      std::printf("skipped %s: this machine lacks it\n", name);
      continue;
    }
    const Isa isa = isa_from_name(name);
    uint32_t seed = 0;
    for (const Case& c : cases(count)) {
      test_uint8(isa, c, ++seed);
      for (Form form : {Form::kDirect, Form::kMax}) test_float32(isa, form, c, ++seed);
      test_gradient(isa, c, ++seed);
    }
    test_program(isa);
    test_stop(isa);
    std::printf("%s: %d shapes in uint8 and in float32\n", name, count);
  }
  uint32_t seed = 0;
  for (const Case& c : cases(count)) test_max_pool(c, ++seed);
  test_lookups(count);
  test_levels();
  test_conversions();
  test_byte_tables();
  test_pool(option != "--no-fork");
  test_chains();
  test_checks();
  std::printf("%d failures\n", failures.load());
  return failures == 0 ? 0 : 1;
}
