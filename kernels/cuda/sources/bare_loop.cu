// The bare inner loop: differences of 16 pixels and 16 filters in registers, added up in 32 sums.
// Its rate is the bound on what the kernels can reach. The pixels change from turn to turn, so that
// no difference can be kept: 16 additions beside the 512 of the taps.
#include <cuda_fp16.h>

__device__ float tap(float sum, float x, float w) { return sum + fabsf(x - w); }
__device__ __half2 tap(__half2 sum, __half2 x, __half2 w) {
  return __hadd2(sum, __habs2(__hsub2(x, w)));
}
__device__ float plus(float a, float b) { return a + b; }
__device__ __half2 plus(__half2 a, __half2 b) { return __hadd2(a, b); }
__device__ float make(int i, float) { return i; }
__device__ __half2 make(int i, __half2) { return __float2half2_rn(i); }
__device__ float total(float a) { return a; }
__device__ float total(__half2 a) { return __low2float(a) + __high2float(a); }

template <typename Word>
__global__ void __launch_bounds__(128) bare_loop(float* out, int turns) {
  Word x[16], w[16], sums[32];
#pragma unroll
  for (int i = 0; i < 32; ++i) sums[i] = make(0, Word());
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    x[i] = make(threadIdx.x + i, Word());
    w[i] = make(blockIdx.x % 64 - i, Word());
  }
  const Word step = make(turns % 2, Word());
#pragma unroll 1
  for (int turn = 0; turn < turns; ++turn) {
#pragma unroll
    for (int p = 0; p < 16; ++p) {
#pragma unroll
      for (int f = 0; f < 16; ++f)
        sums[p % 8 * 4 + f % 4] = tap(sums[p % 8 * 4 + f % 4], x[p], w[f]);
      x[p] = plus(x[p], step);
    }
  }
  float sum = 0;
  for (int i = 0; i < 32; ++i) sum += total(sums[i]);
  out[blockIdx.x * 128 + threadIdx.x] = sum;
}
