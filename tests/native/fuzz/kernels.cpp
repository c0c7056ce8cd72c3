// What is not part of programs: the gradient of the input, and the choice of roundings.
#include <cmath>
#include <limits>
#include <stdexcept>

#include "float32/input_gradient.h"
#include "fuzz/bytes.h"
#include "fuzz/shapes.h"
#include "rounding/rounding.h"

namespace fuzz {
namespace {

// By how much the squares of what is missing, less their mean, grow where a part's samples change
// so, times the number of samples.
double growth(const std::vector<double>& before, const std::vector<double>& after) {
  const auto spread = [](const std::vector<double>& v) {
    double sum = 0, squares = 0;
    for (double x : v) {
      sum += x;
      squares += x * x;
    }
    return static_cast<double>(v.size()) * squares - sum * sum;
  };
  return spread(after) - spread(before);
}

}  // namespace

// In values of few binary digits, so that all sums are exact.
void try_gradient(Bytes& bytes) {
  const int64_t channels = bytes.pick<int64_t>({1, 3, 8, 15, 16, 17, 33});
  const Geometry g = choose_geometry(bytes, bytes.from(0, 3), channels, bytes.from(1, 9),
                                     bytes.from(1, 12), false);
  if (g.outputs() * g.taps() > 1'000'000) return;
  const int threads = static_cast<int>(bytes.from(1, 3));
  const Isa isa = choose_isa(bytes);
  std::mt19937 random = bytes.random();
  const int64_t pixels = g.s.in_h * g.s.in_w;
  Exact<float> x(g.s.batch * channels * pixels), w(g.a.out_channels * g.taps());
  Exact<float> grad_y(g.outputs());
  Exact<float> grad_x(x.size(), std::numeric_limits<float>::quiet_NaN());
  for (auto* floats : {&x, &w, &grad_y})
    for (float& f : *floats) f = static_cast<float>(static_cast<int>(random() % 17) - 8) / 4;
  input_gradient(g.a, g.s, x.data(), w.data(), grad_y.data(), grad_x.data(), isa, threads);
  std::vector<double> expected(x.size());
  int64_t at = 0;
  for (int64_t n = 0; n < g.s.batch; ++n)
    for (int64_t m = 0; m < g.a.out_channels; ++m)
      for (int64_t oy = 0; oy < g.s.out_h; ++oy)
        for (int64_t ox = 0; ox < g.s.out_w; ++ox, ++at) {
          const int64_t first = m / g.a.group_out() * g.a.group_in();
          for_taps(g, oy, ox, g.a.group_in(), [&](int64_t c, int64_t k, int64_t h, int64_t v) {
            if (!is_inside(g.s, h, v)) return;
            const int64_t from = ((n * channels + first + c) * g.s.in_h + h) * g.s.in_w + v;
            const float weight = w[m * g.taps() + c * g.a.kernel_size() + k];
            const double difference = static_cast<double>(weight) - static_cast<double>(x[from]);
            expected[from] += std::min(1.0, std::max(-1.0, difference)) *
                              static_cast<double>(grad_y[at]);
          });
        }
  for (size_t i = 0; i < x.size(); ++i)
    if (static_cast<double>(grad_x[i]) != expected[i])
      fail("the gradient of the input, element " + std::to_string(i));
}

// Of integers, of which all sums are exact, too.
void try_roundings(Bytes& bytes) {
  const int64_t filters = bytes.from(0, 20), taps = bytes.from(0, 9), samples = bytes.from(0, 70);
  const int64_t parts = bytes.from(0, 4);
  const int sweeps = static_cast<int>(bytes.from(0, 3)), threads = static_cast<int>(bytes.from(1, 3));
  std::mt19937 random = bytes.random();
  Exact<uint8_t> x(taps * samples), weights(filters * taps);
  Exact<int8_t> steps(weights.size());
  Exact<float> missing(filters * samples);
  for (uint8_t& v : x) v = static_cast<uint8_t>(random());
  for (uint8_t& v : weights) v = static_cast<uint8_t>(random() % 8 == 0 ? random() % 2 * 255 : random());
  for (float& v : missing) v = static_cast<float>(static_cast<int>(random() % 41) - 20);
  for (size_t i = 0; i < steps.size(); ++i) {
    steps[i] = static_cast<int8_t>(static_cast<int>(random() % 3) - 1);
    if (weights[i] + steps[i] < 0 || weights[i] + steps[i] > 255) steps[i] = 0;
  }
  const bool is_hostile = bytes.chance(5) && !steps.empty();
  if (is_hostile) steps[random() % steps.size()] = static_cast<int8_t>(bytes.pick({2, -2, 127, -128}));
  Exact<uint8_t> expected = weights;
  Exact<int8_t> other = steps;
  Exact<float> lacks = missing;
  try {
    choose_roundings(x.data(), weights.data(), steps.data(), missing.data(), filters, taps, samples,
                     parts, sweeps, threads);
  } catch (const std::invalid_argument&) {
    if (!is_hostile && parts >= 1 && parts <= samples) fail("roundings are refused");
    return;
  }
  if (is_hostile || parts < 1 || parts > samples) fail("roundings are not refused");
  for (int64_t m = 0; m < filters; ++m)
    for (int sweep = 0; sweep < sweeps; ++sweep)
      for (int64_t k = 0; k < taps; ++k) {
        uint8_t& weight = expected[m * taps + k];
        int8_t& step = other[m * taps + k];
        if (step == 0) continue;
        const auto moved = [&](int64_t i) {
          const int value = x[k * samples + i];
          return lacks[m * samples + i] -
                 static_cast<float>(std::abs(value - (weight + step)) - std::abs(value - weight));
        };
        bool is_better = true;
        for (int64_t p = 0; p < parts; ++p) {
          std::vector<double> before, after;
          for (int64_t i = p * samples / parts; i < (p + 1) * samples / parts; ++i) {
            before.push_back(static_cast<double>(lacks[m * samples + i]));
            after.push_back(static_cast<double>(moved(i)));
          }
          is_better = is_better && growth(before, after) < 0;
        }
        if (!is_better) continue;
        for (int64_t i = 0; i < samples; ++i) lacks[m * samples + i] = moved(i);
        weight = static_cast<uint8_t>(weight + step);
        step = static_cast<int8_t>(-step);
      }
  if (weights != expected || steps != other || missing != lacks) fail("the choice of roundings");
}

}  // namespace fuzz
