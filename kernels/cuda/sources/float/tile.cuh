// A tile of the matrix product: kPixels output pixels by kFilters filters of one group, and how its
// taps lie in shared memory.
#pragma once

#include "float/taps.cuh"

constexpr int kTurn = 32;       // words in a turn of the loop over taps
constexpr int kPieceWords = 4;  // 16 bytes, which move as one
constexpr int kThreadPixels = 8, kThreadFilters = 4;

template <typename Scalar_, int kPixels_, int kFilters_>
struct Tile {
  using Scalar = Scalar_;
  using Word = typename Taps<Scalar>::Word;
  using Sum = typename Taps<Scalar>::Sum;
  static constexpr int kPixels = kPixels_, kFilters = kFilters_;
  static constexpr int kThreads = kPixels / kThreadPixels * (kFilters / kThreadFilters);

  // Of a warp, so many lanes lie along the pixels, the others along the filters: what it reads of
  // shared memory at a time is 128 bytes at most.
  static constexpr int kPixelLanes = kPixels < 64 ? 4 : 8;
  static constexpr int kWarpPixels = kPixelLanes * kThreadPixels;
  static constexpr int kWarpFilters = 32 / kPixelLanes * kThreadFilters;
  static_assert(kPixels % kWarpPixels == 0 && kFilters % kWarpFilters == 0, "whole warps");

  // Words in shared memory at a time. Two such stages of 384 threads take 64 KiB at most.
  static constexpr int kDepth = kPixels > 128 ? 8 : 16;
  static constexpr int kStages = kTurn / kDepth;  // in a turn
  static_assert(kStages % 2 == 0, "the next turn begins with the first stage again");
  static constexpr int kPieces = kDepth / kPieceWords;

  struct alignas(16) Stage {
    Word x[kPixels][kDepth];
    Word w[kDepth][kFilters];
  };

  // Bytes from the beginning of x to a piece of pixel `pixel` (or, from the row of pixel `step`, of
  // pixel + step). Pieces of a pixel change places from one 128 bytes to the next, so that eight
  // threads that read one piece of neighbouring pixels, or write the pieces of a pixel, meet all
  // banks. Numbers without a bit in common can be taken apart:
  //     offset(pixel, piece, step) = offset(pixel, 0) ^ offset(0, piece, step).
  __device__ static constexpr unsigned offset(unsigned pixel, unsigned piece, unsigned step = 0) {
    return pixel * kDepth * 4 + (piece ^ (pixel ^ step) / (8 / kPieces) % kPieces) * 16;
  }
};

// The same value, in a register: the compiler does not know how to compute it anew in each turn of
// a loop, which it prefers. (Before sm_80 it spills other registers instead.)
__device__ inline unsigned keep(unsigned value) {
#if defined(__CUDACC_RTC__) && __CUDA_ARCH__ >= 800
  return __shfl_sync(0xffffffffu, value, threadIdx.x % 32);
#else
  return value;
#endif
}

// Four words, which move as one.
template <typename Word>
union Four {
  uint4 bits;
  Word words[4];

  __device__ Four() : bits(make_uint4(0, 0, 0, 0)) {}
  __device__ explicit Four(uint4 bits) : bits(bits) {}
  __device__ Four(const Four& other) : bits(other.bits) {}
  __device__ Four& operator=(const Four& other) {
    bits = other.bits;
    return *this;
  }
  // So many bytes behind the beginning of an array.
  template <typename Array>
  __device__ static Four load(const Array& array, unsigned offset) {
    return Four(*reinterpret_cast<const uint4*>(reinterpret_cast<const char*>(&array) + offset));
  }
};
