// Sums that several blocks share ("split k"), for layers of too few blocks to keep a GPU busy: each
// block adds up a range of the taps and leaves its sums in memory, and the last one to come adds
// them up in the order of the ranges, so that a result does not depend on who that was.
//
// The launch has one piece of memory for this, `scratch`: a counter for each tile, which must be 0
// and is 0 again afterwards, kMaxSplitTiles of them; then
//     partials[tile][split][piece][thread], pieces of 16 bytes.
// Launches that do not run at the same time can share it.
#pragma once

constexpr int kMaxSplitTiles = 1024;

// The pieces of this thread in block `split` of a tile.
struct Partials {
  uint4* first;
  int step;

  // `pieces`: of each thread.
  __device__ Partials(void* scratch, int tile, int splits, int split, int pieces, int threads)
      : step(threads) {
    uint4* all = reinterpret_cast<uint4*>(static_cast<unsigned*>(scratch) + kMaxSplitTiles);
    const long long block = static_cast<long long>(tile) * splits + split;
    first = all + block * pieces * threads + threadIdx.x;
  }
  __device__ void store(int piece, uint4 value) const { __stcg(first + piece * step, value); }
  __device__ uint4 load(int piece) const { return __ldcg(first + piece * step); }
};

// Whether this block is the last of so many that come here, all of which have then stored their
// partials. For all threads of the block.
__device__ inline bool is_last_block(void* scratch, int tile, int blocks) {
  __shared__ bool last;
  __threadfence();   // this thread's partials are seen before
  __syncthreads();   // the block is counted, once all its threads have got so far
  if (threadIdx.x == 0) {
    unsigned* counter = static_cast<unsigned*>(scratch) + tile;
    last = atomicAdd(counter, 1u) == static_cast<unsigned>(blocks) - 1;
    if (last) *counter = 0;
  }
  __syncthreads();
  __threadfence();  // nor are others' partials read before all blocks have been counted
  return last;
}
