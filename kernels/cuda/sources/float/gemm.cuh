// The adder convolution as an implicit matrix product: pixels x filters, over words of taps.
//
// Tiling
//   A block computes a tile of output pixels by filters of one group. Output pixels are numbered
//   through the whole batch, so that tiles stay full on narrow images. There is no image-to-column
//   copy: taps go from the image into shared memory, a stage at a time, zeros where they fall into
//   the padding. A thread computes 8 pixels by 4 filters.
//
// Stages
//   Two are in shared memory: while one is computed with, the next one is on its way, and one
//   barrier between them is enough. Turns of the loop are unrolled, so that where stages lie is
//   known to the compiler; the loop around it folds sums of long runs.
//
// Splits
//   Where there are few tiles, `splits` blocks share the turns of each; see combine.cuh.
#pragma once

#include "common/async.cuh"
#include "common/params.cuh"
#include "float/combine.cuh"
#include "float/epilogue.cuh"
#include "float/fetch.cuh"
#include "float/gather.cuh"
#include "float/tile.cuh"

// Which part of a tile a thread computes: pixels `pixel` + i * kPixelLanes by filters
// `filter` + {0 … 3}.
template <typename Tile>
struct Place {
  int pixel, filter;
  unsigned x, w;  // bytes from the beginning of a stage's x and w to what is read first

  __device__ Place() {
    constexpr int kWarpsAlongPixels = Tile::kPixels / Tile::kWarpPixels;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    pixel = warp % kWarpsAlongPixels * Tile::kWarpPixels + lane % Tile::kPixelLanes;
    filter = warp / kWarpsAlongPixels * Tile::kWarpFilters + lane / Tile::kPixelLanes * 4;
    x = keep(Tile::offset(pixel, 0));
    w = keep(filter * 4);
  }
};

// Adds up a stage, and folds sums of short runs.
template <typename Tile>
__device__ void accumulate(const typename Tile::Stage& stage, const Place<Tile>& place,
                           typename Tile::Sum (&sums)[kThreadPixels][kThreadFilters]) {
  using Word = typename Tile::Word;
  constexpr int kRunWords = Tile::Sum::kRunWords;
#pragma unroll
  for (int piece = 0; piece < Tile::kPieces; ++piece) {
    const int word = piece * kPieceWords;
    Four<Word> w[kPieceWords];
#pragma unroll
    for (int i = 0; i < kPieceWords; ++i)
      w[i] = Four<Word>::load(stage.w[word + i], place.w);
#pragma unroll
    for (int p = 0; p < kThreadPixels; ++p) {
      const int step = p * Tile::kPixelLanes;
      const Four<Word> x = Four<Word>::load(stage.x[step], place.x ^ Tile::offset(0, piece, step));
#pragma unroll
      for (int i = 0; i < kPieceWords; ++i)
#pragma unroll
        for (int f = 0; f < kThreadFilters; ++f)
          sums[p][f].add(x.words[i], w[i].words[f], (word + i) % kRunWords == 0);
      if ((word + kPieceWords) % kRunWords == 0) {
#pragma unroll
        for (int f = 0; f < kThreadFilters; ++f) sums[p][f].fold();
      }
    }
  }
}

// Input channels of a group that are whole pieces, or taps one by one.
template <typename Tile, bool kVector>
struct FetchBy {
  using Type = PieceFetch<Tile>;
};
template <typename Tile>
struct FetchBy<Tile, false> {
  using Type = TapFetch<Tile>;
};

template <typename Scalar, int kPixels, int kFilters, bool kVector>
__global__ void __launch_bounds__(Tile<Scalar, kPixels, kFilters>::kThreads,
                                  384 / Tile<Scalar, kPixels, kFilters>::kThreads)
    adder_conv_gemm(const ConvArgs a) {
  using T = Tile<Scalar, kPixels, kFilters>;
  using Fetch = typename FetchBy<T, kVector>::Type;
  __shared__ typename T::Stage stages[2];
  __shared__ typename Fetch::Shared shared;

  const int first_pixel = blockIdx.x * kPixels, first_filter = blockIdx.y * kFilters;
  const int group = blockIdx.z / a.splits, split = blockIdx.z % a.splits;
  const int all_turns = a.weight_words / kTurn, begin = all_turns * split / a.splits;
  const int end = all_turns * (split + 1) / a.splits;

  Fetch x(a, shared, group, first_pixel, begin * kTurn);
  WeightFetch<T> weights(a, group * gridDim.y + blockIdx.y, begin * kTurn);
  __syncthreads();
  x.start(shared);
  x.begin(stages[0], 0);
  weights.begin(stages[0], 0);
  commit_copies();
  x.finish(stages[0]);
  weights.finish(stages[0]);

  const Place<T> place;
  typename T::Sum sums[kThreadPixels][kThreadFilters];
  constexpr int kRunTurns = T::Sum::kRunWords / kTurn;  // 0: folded in each stage
  for (int turns = end - begin; turns > 0;) {
    for (int run = kRunTurns == 0 ? turns : min(turns, kRunTurns); run > 0; --run, --turns) {
#pragma unroll
      for (int i = 0; i < T::kStages; ++i) {
        typename T::Stage &stage = stages[i % 2], &next = stages[(i + 1) % 2];
        const bool more = i + 1 < T::kStages || turns > 1;
        wait_for_copies<0>();
        __syncthreads();  // this stage has come, and nobody uses the one before any longer
        if (more) {
          x.begin(next, i + 1);
          weights.begin(next, i + 1);
          commit_copies();
        }
        accumulate<T>(stage, place, sums);
        if (more) {
          x.finish(next);
          weights.finish(next);
        }
      }
      x.next_turn();
      weights.next_turn();
    }
    if (kRunTurns != 0) {
#pragma unroll
      for (int p = 0; p < kThreadPixels; ++p)
#pragma unroll
        for (int f = 0; f < kThreadFilters; ++f) sums[p][f].fold();
    }
  }

  if (a.splits > 1) {
    const int tile = (group * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    if (!combine<T>(a, tile, split, sums)) return;
  }
  const int pixel = first_pixel + place.pixel, filter = first_filter + place.filter;
  if (kVector)
    store_whole<T>(a, sums, pixel, group, filter);
  else
    store_single<T>(a, sums, pixel, group, filter);
}
