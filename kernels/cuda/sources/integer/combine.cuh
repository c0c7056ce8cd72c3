// Adding up the sums that the blocks of a tile have made of their ranges of taps, in any order: they
// are integers.
#pragma once

#include "common/params.cuh"
#include "common/split.cuh"

// In the last block to come `sums` becomes those of all taps, and the result is true.
template <int kThreads>
__device__ bool combine(const IntegerConvArgs& a, int tile, int split, unsigned (&sums)[8][8]) {
  const Partials mine(a.scratch, tile, a.splits, split, 16, kThreads);
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const unsigned* four = &sums[i / 2][i % 2 * 4];
    mine.store(i, make_uint4(four[0], four[1], four[2], four[3]));
  }
  if (!is_last_block(a.scratch, tile, a.splits)) return false;
#pragma unroll 1
  for (int other = 0; other < a.splits; ++other) {
    if (other == split) continue;
    const Partials theirs(a.scratch, tile, a.splits, other, 16, kThreads);
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const uint4 more = theirs.load(i);
      unsigned* four = &sums[i / 2][i % 2 * 4];
      four[0] += more.x;
      four[1] += more.y;
      four[2] += more.z;
      four[3] += more.w;
    }
  }
  return true;
}
