// The integer adder convolution as an implicit matrix product: pixels x filters, over words of four
// taps.
//
// Tiling
//   A block computes kPixels output pixels by kFilters filters of one group, as in float/gemm.cuh; a
//   thread 8 pixels by 8 filters, since a sum is one register. Taps come in chunks of 16 channels of
//   one kernel position, kChunks of them at a time; chunks beyond the last one are not computed
//   with.
//
// Shared memory
//   x[pixel][chunk] and w[word][filter], in units of 16 bytes, which are four words of one pixel or
//   one word of four filters. Eight lanes read one chunk of eight neighbouring pixels at a time:
//   `swizzled` puts these into eight different columns of 16 bytes, and so do the lanes that write.
//   There are two stages: while the threads compute with one, the next one's taps are on their way,
//   and there is one barrier for each.
//
// Padding
//   Asynchronous copies go past the first cache. Were they to read padding, all multiprocessors
//   would read the same few bytes, which one slice of the second cache has to serve: threads store
//   it themselves instead.
//
// Epilogue
//   Sums go through shared memory, where the stages were, half of the pixels at a time, so that the
//   threads of a warp finish neighbouring filters of a pixel, four bytes each, in a loop.
#pragma once

#include "common/async.cuh"
#include "common/params.cuh"
#include "integer/bytes.cuh"
#include "integer/combine.cuh"
#include "integer/distances.cuh"
#include "integer/epilogue.cuh"
#include "integer/fetch.cuh"

// Of a multiprocessor at least; where taps go through registers, a thread needs more of these.
constexpr int kResidentThreads = kAsyncCopies ? 384 : 256;

constexpr int integer_gemm_threads(int pixels, int filters) { return pixels / 8 * (filters / 8); }

// The column of unit `unit` of a pixel that has kUnits of them.
template <int kUnits>
__device__ int swizzled(int pixel, int unit) {
  constexpr int kTurn = kUnits < 8 ? kUnits : 8;  // of eight columns of 16 bytes: 128 bytes
  return unit ^ pixel / (8 / kTurn) % kTurn;
}

template <typename Distances, int kPixels, int kFilters, int kChunks, bool kVector>
__global__ void __launch_bounds__(integer_gemm_threads(kPixels, kFilters),
                                  kResidentThreads / integer_gemm_threads(kPixels, kFilters))
    integer_gemm(const IntegerConvArgs a) {
  constexpr int kThreads = integer_gemm_threads(kPixels, kFilters);
  constexpr int kWords = kChunks * kChunkWords;
  constexpr int kFilterLanes = kFilters < 32 ? kFilters / 8 : 4, kPixelLanes = 32 / kFilterLanes;
  constexpr int kWarpsAlongPixels = kPixels / (kPixelLanes * 8);
  constexpr int kStep = kThreads / kChunks;  // between the pixels that a thread fetches
  constexpr int kFetched = kPixels / kStep;
  static_assert(kStep % 8 == 0, "all that a thread fetches is swizzled alike");
  constexpr int kPieces = kWords * kFilters / 4;  // of weights, in a stage
  constexpr int kFetchedPieces = (kPieces + kThreads - 1) / kThreads;
  constexpr int kUnits = kFilters / 4;  // of sums, of a pixel

  struct Stages {
    uint4 x[2][kPixels * kChunks];
    uint4 w[2][kPieces];
    Origin origins[kPixels];
  };
  union Shared {
    Stages stages;
    uint4 sums[kPixels / 2 * kUnits];
  };
  __shared__ Shared shared;
  Stages& s = shared.stages;

  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int first_pixel = blockIdx.x * kPixels, first_filter = blockIdx.y * kFilters;
  const int group = blockIdx.z / a.splits, split = blockIdx.z % a.splits;
  // This block's chunks: whole turns of the loop below.
  const int all_chunks = a.weight_words / kChunkWords;
  const int all_turns = (all_chunks + kChunks - 1) / kChunks;
  const int begin = all_turns * split / a.splits * kChunks;
  const int chunks = min(all_turns * (split + 1) / a.splits * kChunks, all_chunks) - begin;
#pragma unroll 1
  for (int p = thread; p < kPixels; p += kThreads)
    s.origins[p] = origin_of<Byte>(a, first_pixel + p);
  __syncthreads();

  // This thread computes pixels pixel0 + kPixelLanes * i by filters
  // filter0 + {0 … 3} and filter0 + 4 * kFilterLanes + {0 … 3},
  const int pixel0 = warp % kWarpsAlongPixels * kPixelLanes * 8 + lane % kPixelLanes;
  const int filter0 =
      warp / kWarpsAlongPixels * kFilterLanes * 8 + lane / kPixelLanes * 4;
  // and fetches chunk `chunk` of pixels fetched0 + kStep * i, and pieces thread + kThreads * i.
  const int chunk = thread % kChunks, fetched0 = thread / kChunks;
  const long long weight_word =
      static_cast<long long>(group) * a.weight_words + begin * kChunkWords + thread / kUnits;
  const uint4* weights = static_cast<const uint4*>(a.weights) +
                         (weight_word * a.weight_row + first_filter) / 4 + thread % kUnits;

  // Where copies are asynchronous, taps of whole chunks go straight into shared memory; else
  // through registers.
  constexpr bool kCopied = kAsyncCopies && kVector;
  const uint4 padding =
      kCopied ? __ldg(static_cast<const uint4*>(a.zeros)) : make_uint4(0, 0, 0, 0);
  unsigned sums[8][8] = {};
  unsigned x_sums[8] = {};
  // The first turn only loads.
  int stage = 1;
#pragma unroll 1
  for (int first = -kChunks; first < chunks; first += kChunks, stage ^= 1) {
    const bool more = first + kChunks < chunks;
    uint4* next_x = &s.x[stage ^ 1][fetched0 * kChunks + swizzled<kChunks>(fetched0, chunk)];
    uint4* next_w = &s.w[stage ^ 1][thread];
    uint4 loaded_x[kFetched], loaded_w[kFetchedPieces];
    if (more) {
      const IntegerFetch<kVector> from(a, begin + first + kChunks + chunk, group * a.group_in);
      if constexpr (kCopied) {
        Origin origins[kFetched];
#pragma unroll
        for (int i = 0; i < kFetched; ++i) origins[i] = s.origins[fetched0 + kStep * i];
#pragma unroll
        for (int i = 0; i < kFetched; ++i) {
          uint4* to = next_x + kStep * kChunks * i;
          if (from.is_inside(a, origins[i]))
            copy_async<16>(to, from.find(origins[i]));
          else
            *to = padding;
        }
      } else {
#pragma unroll
        for (int i = 0; i < kFetched; ++i)
          loaded_x[i] = from.load(a, s.origins[fetched0 + kStep * i]);
      }
#pragma unroll
      for (int i = 0; i < kFetchedPieces; ++i) {
        const uint4* piece = weights + kThreads * i / kUnits * a.weight_row / 4;
        if (kPieces % kThreads != 0 && thread + kThreads * i >= kPieces) continue;
        if (kAsyncCopies)
          copy_async<16>(next_w + kThreads * i, piece);
        else
          loaded_w[i] = __ldg(piece);
      }
      weights += kWords * a.weight_row / 4;
      commit_copies();
    }
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      if (static_cast<unsigned>(first + c) >= static_cast<unsigned>(chunks)) break;
      uint4 x[8];
#pragma unroll
      for (int p = 0; p < 8; ++p) {
        const int pixel = pixel0 + kPixelLanes * p;
        x[p] = s.x[stage][pixel * kChunks + swizzled<kChunks>(pixel0, c)];
      }
#pragma unroll
      for (int word = 0; word < kChunkWords; ++word) {
        const uint4* row = &s.w[stage][(c * kChunkWords + word) * kUnits + filter0 / 4];
        const uint4 w[2] = {row[0], row[kFilterLanes]};
#pragma unroll
        for (int p = 0; p < 8; ++p) {
          const unsigned taps = word_of(x[p], word);
          if (Distances::kDoubled) x_sums[p] = dot_bytes(taps, 0x01010101u, x_sums[p]);
#pragma unroll
          for (int f = 0; f < 2; ++f) {
            sums[p][4 * f + 0] = Distances::add(sums[p][4 * f + 0], taps, w[f].x);
            sums[p][4 * f + 1] = Distances::add(sums[p][4 * f + 1], taps, w[f].y);
            sums[p][4 * f + 2] = Distances::add(sums[p][4 * f + 2], taps, w[f].z);
            sums[p][4 * f + 3] = Distances::add(sums[p][4 * f + 3], taps, w[f].w);
          }
        }
      }
    }
    if (more) {
#pragma unroll
      for (int i = 0; i < kFetched; ++i)
        if (!kCopied) next_x[kStep * kChunks * i] = loaded_x[i];
#pragma unroll
      for (int i = 0; i < kFetchedPieces; ++i)
        if (!kAsyncCopies && (kPieces % kThreads == 0 || thread + kThreads * i < kPieces))
          next_w[kThreads * i] = loaded_w[i];
    }
    wait_for_copies<0>();
    __syncthreads();
  }

  if (Distances::kDoubled) {
#pragma unroll
    for (int p = 0; p < 8; ++p)
#pragma unroll
      for (int f = 0; f < 8; ++f) sums[p][f] -= x_sums[p];
  }
  if (a.splits > 1) {
    const int tile = (group * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    if (!combine<kThreads>(a, tile, split, sums)) return;
  }

  const int unit = thread % kUnits, filter = first_filter + unit * 4;
  const int filters = a.group_out - filter;
  float scale[4], bias[4];
  unsigned w_sums[4] = {};
#pragma unroll
  for (int f = 0; f < 4; ++f) {
    const int m = group * a.group_out + min(filter + f, a.group_out - 1);
    scale[f] = __ldg(a.scale + m);
    bias[f] = __ldg(a.bias + m);
    if (Distances::kDoubled) w_sums[f] = __ldg(a.weight_sums + m);
  }
  // Whether four bytes are aligned; behind the last group comes the row's padding.
  const bool wide = a.group_out % 4 == 0 || static_cast<int>(gridDim.z) == a.splits;
  const int row0 = warp % kWarpsAlongPixels * kPixelLanes * 4 + lane % kPixelLanes;
#pragma unroll 1
  for (int half = 0; half < 2; ++half) {
    // Pixels pixel0 + kPixelLanes * {0 … 3} of each thread, then the others.
    const auto share = [&](int first) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const unsigned* four = &sums[first + i / 2][i % 2 * 4];
        const int row = row0 + kPixelLanes * (i / 2);
        shared.sums[row * kUnits + swizzled<kUnits>(row0, filter0 / 4 + i % 2 * kFilterLanes)] =
            make_uint4(four[0], four[1], four[2], four[3]);
      }
    };
    if (half == 0)
      share(0);
    else
      share(4);
    __syncthreads();
#pragma unroll 1
    for (int row = thread / kUnits; row < kPixels / 2; row += kThreads / kUnits) {
      const int p = row / (kPixelLanes * 4) * kPixelLanes * 8 + half * kPixelLanes * 4 +
                    row % (kPixelLanes * 4);
      const int pixel = first_pixel + p;
      if (filters <= 0 || pixel >= a.pixels) break;
      const uint4 four = shared.sums[row * kUnits + swizzled<kUnits>(row, unit)];
      const long long at =
          static_cast<long long>(pixel) * a.y_row + group * a.group_out + filter;
      const unsigned z = a.z == nullptr ? 0 : load_bytes(a.z, at, wide, filters);
      const unsigned of_four[] = {four.x - w_sums[0], four.y - w_sums[1], four.z - w_sums[2],
                                  four.w - w_sums[3]};
      store_bytes(a.y, at, wide, filters, finish(a, of_four, scale, bias, z));
    }
    __syncthreads();
  }
}
