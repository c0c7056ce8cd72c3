#include "rounding/rounding.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "layers/checks.h"
#include "threads/thread_pool.h"

namespace adder_onnx {
namespace {

constexpr int64_t kFilters = 8;  // that share a tap's row of x, which then comes from a near cache
constexpr int kLanes = 16;       // partial sums, so many on every processor
constexpr double kLeast = 1e-3;  // a growth nearer to 0 is one of rounding

typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t Mask __attribute__((vector_size(kLanes * sizeof(float))));

// How many of a tap's integers are at most t, for each t.
struct Counts {
  int32_t at_most[256];
};

Counts count(const uint8_t* x, int64_t samples) {
  Counts counts{};
  for (int64_t i = 0; i < samples; ++i) ++counts.at_most[x[i]];
  for (int t = 1; t < 256; ++t) counts.at_most[t] += counts.at_most[t - 1];
  return counts;
}

// A loop that has wider vectors where the processor has them; the result is the same. Only glibc
// chooses a function while a program is loaded, and the thread sanitizer cannot start where it does.
#if defined(ADDER_ONNX_X86) && defined(__GLIBC__) && !defined(__clang__) && \
    !defined(__SANITIZE_THREAD__)
#define ADDER_ONNX_WIDEST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define ADDER_ONNX_WIDEST
#endif

// The sum of `values` where x is at most t.
ADDER_ONNX_WIDEST
double sum_at_most(const float* x, const float* values, int64_t samples, float t) {
  Lanes lanes = {};
  int64_t i = 0;
  for (; i + kLanes <= samples; i += kLanes) {
    Lanes at, value;
    std::memcpy(&at, x + i, sizeof(Lanes));
    std::memcpy(&value, values + i, sizeof(Lanes));
    lanes += reinterpret_cast<Lanes>(reinterpret_cast<Mask>(value) & (at <= t));
  }
  double total = 0;
  for (; i < samples; ++i) total += x[i] <= t ? static_cast<double>(values[i]) : 0;
  for (int lane = 0; lane < kLanes; ++lane) total += static_cast<double>(lanes[lane]);
  return total;
}

// A range of the samples that judges for itself.
struct Part {
  int64_t begin, end;
  std::vector<Counts> counts;  // by tap
};

// By how much the squares of a part's missing, less their mean, grow with a step: see choose_block.
double growth(const Part& part, int64_t k, int t, double sign, const float* row,
              const float* missing, double total) {
  const double n = static_cast<double>(part.end - part.begin);
  const double change = sign * (2.0 * part.counts[k].at_most[t] - n);  // the sum of all changes
  const double below =
      sum_at_most(row + part.begin, missing + part.begin, part.end - part.begin,
                  static_cast<float>(t));
  const double product = sign * (2 * below - total);
  return n - change * change / n - 2 * (product - change * total / n);
}

// Filters first … last - 1.
void choose_block(const uint8_t* x, const std::vector<Part>& parts, uint8_t* weights,
                  int8_t* steps, float* missing, int64_t first, int64_t last, int64_t taps,
                  int64_t samples, int sweeps, const StopFlag& stop) {
  const int64_t count = static_cast<int64_t>(parts.size());
  std::vector<double> totals((last - first) * count);
  for (int64_t m = first; m < last; ++m)
    for (int64_t p = 0; p < count; ++p)
      for (int64_t i = parts[p].begin; i < parts[p].end; ++i)
        totals[(m - first) * count + p] += static_cast<double>(missing[m * samples + i]);
  std::vector<float> row(samples);
  bool has_moved = true;  // where nothing has, nothing ever will
  for (int sweep = 0; sweep < sweeps && has_moved; ++sweep) {
    has_moved = false;
    for (int64_t k = 0; k < taps && !stop.is_set(); ++k) {
      std::copy_n(x + k * samples, samples, row.begin());
      for (int64_t m = first; m < last; ++m) {
        int8_t& step = steps[m * taps + k];
        uint8_t& weight = weights[m * taps + k];
        float* own = missing + m * samples;
        double* total = &totals[(m - first) * count];
        if (step == 0) continue;
        // One step up changes |x - w| by +1 where x is at most w, and by -1 elsewhere; one step
        // down by the reverse of the step that leads back.
        const int t = step > 0 ? weight : weight - 1;
        const double sign = step;
        bool all = true;
        for (int64_t p = 0; p < count && all; ++p)
          all = growth(parts[p], k, t, sign, row.data(), own, total[p]) < -kLeast;
        if (!all) continue;
        has_moved = true;
        for (int64_t p = 0; p < count; ++p)
          total[p] -= sign * (2.0 * parts[p].counts[k].at_most[t] -
                              static_cast<double>(parts[p].end - parts[p].begin));
        const float at_most = static_cast<float>(step);
        for (int64_t i = 0; i < samples; ++i)
          own[i] -= row[i] <= static_cast<float>(t) ? at_most : -at_most;
        weight = static_cast<uint8_t>(weight + step);
        step = static_cast<int8_t>(-step);
      }
    }
  }
}

void check_steps(const uint8_t* weights, const int8_t* steps, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const int other = weights[i] + steps[i];
    if (steps[i] < -1 || steps[i] > 1 || other < 0 || other > 255)
      throw std::invalid_argument("a weight's step is not -1, 0 or 1, or leads out of uint8");
  }
}

}  // namespace

void choose_roundings(const uint8_t* x, uint8_t* weights, int8_t* steps, float* missing,
                      int64_t filters, int64_t taps, int64_t samples, int64_t parts, int sweeps,
                      int threads, const StopFlag& stop) {
  if (threads < 1 || sweeps < 0)
    throw std::invalid_argument("threads must be at least 1, and sweeps at least 0");
  if (parts < 1 || parts > kMaxParts || parts > samples)
    throw std::invalid_argument("there are not as many samples as parts, or parts are not 1 to " +
                                std::to_string(kMaxParts));
  const int64_t size = checked_product({filters, taps});
  const Memory memory[] = {{x, checked_product({taps, samples})},
                           {weights, size},
                           {steps, size},
                           {missing, checked_product({filters, samples, sizeof(float)})}};
  for (const Memory& one : memory)
    for (const Memory* other = memory; other < &one; ++other)
      if (overlap(one, *other))
        throw std::invalid_argument("input, weights, steps and sums share memory");
  check_steps(weights, steps, size);
  std::vector<Part> all(parts);
  for (int64_t p = 0; p < parts; ++p)
    all[p] = {p * samples / parts, (p + 1) * samples / parts, std::vector<Counts>(taps)};
  parallel_for(taps, threads, [&](int64_t k) {
    for (Part& part : all)
      part.counts[k] = count(x + k * samples + part.begin, part.end - part.begin);
  });
  const int64_t blocks = (filters + kFilters - 1) / kFilters;
  parallel_for(blocks, threads, [&](int64_t block) {
    const int64_t first = block * kFilters;
    choose_block(x, all, weights, steps, missing, first, std::min(first + kFilters, filters), taps,
                 samples, sweeps, stop);
  });
}

}  // namespace adder_onnx
