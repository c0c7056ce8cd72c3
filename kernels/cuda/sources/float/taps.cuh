// Words of taps: 32 bits of neighbouring channels, and sums over them.
//
// A word is a float (one tap) or a __half2 (two taps, whose sums are kept apart until they become
// float32). A type of sum says how taps are added up:
//
//   FloatSum  The total is the unevaluated sum high + low of two floats. Runs of up to 64 taps are
//             added to low, and then low to high by Fast2Sum (Dekker, Numerische Mathematik 18,
//             1971), which leaves in low what high loses in rounding. Batch normalisation subtracts
//             a mean that is often a thousand times the deviation from it, so a float32 total would
//             lose three digits that the network needs. (The CPU keeps the total in double; most
//             GPUs have few units for that.) Fast2Sum is exact where high >= low, which totals
//             reach after a few runs; before, it is as good as an ordinary addition.
//   HalfSum   Runs of 8 words are added up in each half of a word, in float16; the total is
//             float32. Differences must stay below 65504 / 8.
#pragma once

#include <cuda_fp16.h>

constexpr float kLargest = 0x1.fffffep127f;

template <typename Scalar>
struct Taps;

struct FloatSum {
  using Word = float;
  static constexpr int kRunWords = 64;  // no more of them between two folds

  float high = 0, low = 0;

  // The last argument, whether a run begins with this term, is for sums that are not carried on.
  __device__ void add(float x, float w, bool) { low += fabsf(x - w); }

  // An infinite or undefined sum would leave NaN or -inf in low; no finite number changes it.
  __device__ void fold() {
    const float sum = high + low;
    low = fmaxf(low - (sum - high), -kLargest);
    high = sum;
  }

  // What another block needs to know of the total, and adding it to one of other taps: by TwoSum
  // (Knuth, The Art of Computer Programming 2, 4.2.2), since neither need be the larger one.
  static constexpr int kParts = 2;
  __device__ float part(int i) const { return i == 0 ? high : low; }
  __device__ void merge(const float (&parts)[kParts]) {
    const float sum = high + parts[0];
    const float added = sum - high;
    const float lost = (high - (sum - added)) + (parts[0] - added);
    low = fmaxf(low + parts[1] + lost, -kLargest);
    high = sum;
  }

  // scale * -total + bias, after the last fold.
  __device__ float affine(float scale, float bias) const {
    return fmaf(-scale, low, fmaf(-scale, high, bias));
  }
};

struct HalfSum {
  using Word = __half2;
  static constexpr int kRunWords = 8;

  __half2 partial;
  float total = 0;

  // `first` is known to the compiler: the first term of a run costs no addition.
  __device__ void add(__half2 x, __half2 w, bool first) {
    const __half2 term = __habs2(__hsub2(x, w));
    partial = first ? term : __hadd2(partial, term);
  }

  __device__ void fold() {
    total += __low2float(partial);
    total += __high2float(partial);
  }

  static constexpr int kParts = 1;
  __device__ float part(int) const { return total; }
  __device__ void merge(const float (&parts)[kParts]) { total += parts[0]; }

  __device__ float affine(float scale, float bias) const { return fmaf(-scale, total, bias); }
};

template <>
struct Taps<float> {
  using Word = float;
  using Sum = FloatSum;
  static constexpr int kPerWord = 1;
  __device__ static float word(const float (&taps)[1]) { return taps[0]; }
};

template <>
struct Taps<__half> {
  using Word = __half2;
  using Sum = HalfSum;
  static constexpr int kPerWord = 2;
  __device__ static __half2 word(const __half (&taps)[2]) {
    return __halves2half2(taps[0], taps[1]);
  }
};

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(__half value) { return __half2float(value); }

template <typename Scalar>
__device__ Scalar from_float(float value);
template <>
__device__ inline float from_float<float>(float value) { return value; }
template <>
__device__ inline __half from_float<__half>(float value) { return __float2half_rn(value); }
