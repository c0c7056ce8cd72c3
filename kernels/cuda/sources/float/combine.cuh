// Adding up the sums that the blocks of a tile have made of their ranges of taps.
#pragma once

#include "common/params.cuh"
#include "common/split.cuh"
#include "float/tile.cuh"

// In the last block to come `sums` becomes those of all taps, and the result is true.
template <typename Tile>
__device__ bool combine(const ConvArgs& a, int tile, int split,
                        typename Tile::Sum (&sums)[kThreadPixels][kThreadFilters]) {
  using Sum = typename Tile::Sum;
  constexpr int kParts = Sum::kParts, kPieces = kThreadPixels * kParts;
  const Partials mine(a.scratch, tile, a.splits, split, kPieces, Tile::kThreads);
#pragma unroll
  for (int p = 0; p < kThreadPixels; ++p)
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      Four<float> four;
#pragma unroll
      for (int f = 0; f < kThreadFilters; ++f) four.words[f] = sums[p][f].part(part);
      mine.store(p * kParts + part, four.bits);
    }
  if (!is_last_block(a.scratch, tile, a.splits)) return false;
#pragma unroll
  for (int p = 0; p < kThreadPixels; ++p)
#pragma unroll
    for (int f = 0; f < kThreadFilters; ++f) sums[p][f] = Sum();
#pragma unroll 1
  for (int other = 0; other < a.splits; ++other) {
    const Partials theirs(a.scratch, tile, a.splits, other, kPieces, Tile::kThreads);
    Four<float> fours[kThreadPixels][kParts];
#pragma unroll
    for (int p = 0; p < kThreadPixels; ++p)
#pragma unroll
      for (int part = 0; part < kParts; ++part)
        fours[p][part] = Four<float>(theirs.load(p * kParts + part));
#pragma unroll
    for (int p = 0; p < kThreadPixels; ++p)
#pragma unroll
      for (int f = 0; f < kThreadFilters; ++f) {
        float parts[kParts];
#pragma unroll
        for (int part = 0; part < kParts; ++part) parts[part] = fours[p][part].words[f];
        sums[p][f].merge(parts);
      }
  }
  return true;
}
