// The bare inner loop: differences of 16 pixels and 16 filters in registers, added up in 32 sums.
// Its rate is the bound on what the kernels can reach. The pixels change from turn to turn, so that
// no difference can be kept: 16 additions beside those of 256 taps, pairs or quads of taps.
#include <cuda_fp16.h>

#include "integer/distances.cuh"

struct Floats {
  using Word = float;
  __device__ static float tap(float sum, float x, float w) { return sum + fabsf(x - w); }
  __device__ static float plus(float a, float b) { return a + b; }
  __device__ static float make(int i) { return i; }
  __device__ static float total(float a) { return a; }
};

struct Halves {
  using Word = __half2;
  __device__ static __half2 tap(__half2 sum, __half2 x, __half2 w) {
    return __hadd2(sum, __habs2(__hsub2(x, w)));
  }
  __device__ static __half2 plus(__half2 a, __half2 b) { return __hadd2(a, b); }
  __device__ static __half2 make(int i) { return __float2half2_rn(i); }
  __device__ static float total(__half2 a) { return __low2float(a) + __high2float(a); }
};

// Distances: one of integer/distances.cuh.
template <typename Distances>
struct Bytes {
  using Word = unsigned;
  __device__ static unsigned tap(unsigned sum, unsigned x, unsigned w) {
    return Distances::add(sum, x, w);
  }
  __device__ static unsigned plus(unsigned a, unsigned b) { return a + b; }
  __device__ static unsigned make(int i) { return i; }
  __device__ static float total(unsigned a) { return a; }
};

template <typename Taps>
__global__ void __launch_bounds__(128) bare_loop(float* out, int turns) {
  using Word = typename Taps::Word;
  Word x[16], w[16], sums[32];
#pragma unroll
  for (int i = 0; i < 32; ++i) sums[i] = Taps::make(0);
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    x[i] = Taps::make(threadIdx.x + i);
    w[i] = Taps::make(blockIdx.x % 64 - i);
  }
  const Word step = Taps::make(turns % 2);
#pragma unroll 1
  for (int turn = 0; turn < turns; ++turn) {
#pragma unroll
    for (int p = 0; p < 16; ++p) {
#pragma unroll
      for (int f = 0; f < 16; ++f)
        sums[p % 8 * 4 + f % 4] = Taps::tap(sums[p % 8 * 4 + f % 4], x[p], w[f]);
      x[p] = Taps::plus(x[p], step);
    }
  }
  float sum = 0;
  for (int i = 0; i < 32; ++i) sum += Taps::total(sums[i]);
  out[blockIdx.x * 128 + threadIdx.x] = sum;
}
