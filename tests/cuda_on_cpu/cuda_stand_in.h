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

using std::max;
using std::min;

struct Index3 {
  unsigned x, y, z;
};
extern thread_local Index3 threadIdx, blockIdx, blockDim, gridDim;

// Leaves the fibre until all others of the block have come here, or have ended.
void __syncthreads();

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

using std::max;
using std::min;

inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}

inline float __saturatef(float value) { return value > 0 ? (value < 1 ? value : 1) : 0; }
// Blocks run one after the other: what a thread stores is seen by those of later blocks.
inline void __threadfence() {}
inline unsigned atomicAdd(unsigned* to, unsigned value) {
  return __atomic_fetch_add(to, value, __ATOMIC_RELAXED);
}

// Ends the process, saying so, where the bytes belong to no array.
void check_read(const void* from, size_t size);

template <typename T>
T __ldg(const T* from) {
  check_read(from, sizeof(T));
  return *from;
}

template <typename T>
T __ldcg(const T* from) {
  return __ldg(from);
}
template <typename T>
void __stcg(T* to, T value) {
  check_read(to, sizeof(T));
  *to = value;
}

// common/async.cuh as compute capability 8.0 and later have it, or, with ADDER_ONNX_NO_ASYNC, those
// before. A copy lands as late as it may, when its thread waits for it; until then its destination
// holds what no kernel should see, also of what was there before.
#ifdef ADDER_ONNX_NO_ASYNC
constexpr bool kAsyncCopies = false;
#else
constexpr bool kAsyncCopies = true;
#endif

void begin_copy(void* to, const void* from, size_t size, bool there);
void commit_copies();
void wait_for_all_but(int groups);

template <int kBytes>
void copy_async(void* to, const void* from, bool there = true) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "what the hardware copies");
  begin_copy(to, from, kBytes, there);
  if (!kAsyncCopies) {
    commit_copies();
    wait_for_all_but(0);
  }
}
template <int kGroups>
void wait_for_copies() {
  wait_for_all_but(kGroups);
}
