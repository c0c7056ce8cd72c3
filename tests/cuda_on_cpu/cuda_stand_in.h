// Stands in for what CUDA builds into the compiler, so that the kernels' sources compile as plain
// C++ and run on the CPU: a block at a time, its threads as fibres that change over at barriers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#define __global__
#define __device__
#define __shared__ static thread_local
#define __launch_bounds__(...)

struct Index3 {
  unsigned x, y, z;
};
extern thread_local Index3 threadIdx, blockIdx, gridDim;

// Leaves the fibre until all others of the block have come here, or have ended.
void __syncthreads();

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

using std::max;
using std::min;

inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}

// Ends the process, saying so, where the bytes belong to no array.
void check_read(const void* from, size_t size);

template <typename T>
T __ldg(const T* from) {
  check_read(from, sizeof(T));
  return *from;
}
