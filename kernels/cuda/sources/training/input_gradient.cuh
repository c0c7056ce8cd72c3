// The gradient of an adder convolution with respect to its input (Chen et al., CVPR 2020,
// equation 7), as an implicit matrix product of pixels x channels over kernel positions and filters:
//
//   dX[p, c] = sum over k and m of HardTanh(w[k, m, c] - X[p, c]) * dY[q(p, k), m]
//
// where q(p, k) is the output pixel that has p at its kernel position k. Each input element collects
// what it gets, so that nothing is added by atomics, and the result is the same in every run.
//
// A term costs two instructions
//   HardTanh(d) = 2 saturate(d / 2 + 1/2) - 1, and additions can saturate to [0, 1] at no cost: with
//   halved weights and h = 1/2 - X / 2, kept in registers, a term is s = saturate(w / 2 + h) and
//   sum += s * dY. In the end dX = 2 sum - (sum over k and m of dY). Rounding h is as if X was off by
//   half a unit in the last place of max(1, |X|), which float32 results are anyway. saturate(NaN) is
//   0: where X is NaN, dX is set to it in the end.
//
// Phases
//   With a stride, an input pixel is at some of the kernel positions only: those that differ from its
//   row (column) by a multiple of the stride. Pixels whose rows and columns leave the same remainders
//   have the same ones, and are a phase. A block computes pixels of one phase, numbered through the
//   whole batch. The kernel positions of a phase are step_h, step_w apart, and their output pixels
//   shift_h, shift_w.
//
// Tiling
//   As in float/gemm.cuh: a thread computes 8 pixels by 4 channels, of a warp 8 lanes lie along the
//   pixels and 4 along the channels. Shared memory holds g[filter][pixel] and w[filter][channel] for
//   16 filters of one kernel position. A thread fetches 4 filters of a pixel at a time: chunk c of
//   pixel p goes into column p ^ 8c, which puts what a warp stores at a time into 32 banks.
//
// Partial sums are of the 16 filters that are in shared memory, and the total is of these: a sum of
// thousands of terms in a row would lose a digit.
#pragma once

#include "common/image.cuh"
#include "common/params.cuh"

constexpr int kGradientDepth = 16;  // filters in shared memory
constexpr int kGradientChunk = 4;   // filters that a thread fetches of one pixel
constexpr int kGradientChunks = kGradientDepth / kGradientChunk;
constexpr int kGradientPixels = 8, kGradientChannels = 4;  // of a thread

constexpr int gradient_threads(int pixels, int channels) {
  return pixels / kGradientPixels * (channels / kGradientChannels);
}

// Input pixels whose rows leave the remainder `row` by the stride, and whose columns `column`.
struct Phase {
  int row, column;
  int rows, columns;     // how many there are
  int first_h, first_w;  // the first kernel position that they are at
  int out_h, out_w;      // the output row and column of the first of them there

  __device__ Phase(const GradientArgs& a, int number)
      : row(number / a.phases_w), column(number % a.phases_w) {
    rows = (a.in_h - row - 1) / a.stride_h + 1;
    columns = (a.in_w - column - 1) / a.stride_w + 1;
    first_h = first(row + a.pad_top, a.stride_h, a.dilation_h, a.step_h, a.kernel_h);
    first_w = first(column + a.pad_left, a.stride_w, a.dilation_w, a.step_w, a.kernel_w);
    out_h = (row + a.pad_top - first_h * a.dilation_h) / a.stride_h;
    out_w = (column + a.pad_left - first_w * a.dilation_w) / a.stride_w;
  }

  // The first position i where at - i * dilation is a multiple of the stride; `none` if there is no.
  __device__ static int first(int at, int stride, int dilation, int step, int none) {
    for (int i = 0; i < step; ++i)
      if ((at - i * dilation) % stride == 0) return i;
    return none;
  }
};

// Where an input pixel of a phase lies, and its output pixel at the phase's first kernel position.
struct PhasePixel {
  long long x;       // in elements of x; -1 beyond the last pixel
  long long grad_y;  // in elements of grad_y; may lie outside
  int h, w;          // of the output

  __device__ static PhasePixel of(const GradientArgs& a, const Phase& phase, int pixel) {
    const int image = phase.rows * phase.columns, n = pixel / image, rest = pixel % image;
    if (n >= a.batch) return {-1, 0, kOutside, 0};
    const int u = rest / phase.columns, v = rest % phase.columns;
    const int h = u + phase.out_h, w = v + phase.out_w;
    const long long row = static_cast<long long>(n) * a.in_h + phase.row + u * a.stride_h;
    return {(row * a.in_w + phase.column + v * a.stride_w) * a.x_row,
            ((static_cast<long long>(n) * a.out_h + h) * a.out_w + w) * a.y_row, h, w};
  }
};

// saturate(a + b) in one instruction; of __saturatef(a + b) the compiler makes two.
__device__ inline float saturated_sum(float a, float b) {
#ifdef __CUDA_ARCH__
  float sum;
  asm("add.ftz.sat.f32 %0, %1, %2;" : "=f"(sum) : "f"(a), "f"(b));
  return sum;
#else
  return __saturatef(a + b);
#endif
}

union Floats {
  uint4 bits;
  float values[4];

  __device__ explicit Floats(uint4 bits) : bits(bits) {}
  __device__ static Floats load(const float* from) {
    return Floats(*reinterpret_cast<const uint4*>(from));
  }
  __device__ static Floats load_global(const float* from) {
    return Floats(__ldg(reinterpret_cast<const uint4*>(from)));
  }
};

template <int kPixels, int kChannels>
__global__ void __launch_bounds__(gradient_threads(kPixels, kChannels),
                                  384 / gradient_threads(kPixels, kChannels))
    input_gradient(const GradientArgs a) {
  constexpr int kThreads = gradient_threads(kPixels, kChannels);
  constexpr int kWarpsAlongPixels = kPixels / 64;
  constexpr int kStep = kThreads / kGradientChunks;           // from a thread's pixel to its next one
  constexpr int kFiltersAtOnce = kThreads / (kChannels / 4);  // of weights, fetched by all threads
  static_assert(kPixels % 64 == 0 && kChannels % 16 == 0, "whole warps");
  static_assert(kPixels % kStep == 0, "every thread fetches as much of dY");

  alignas(16) __shared__ float g_tile[kGradientDepth][kPixels];
  alignas(16) __shared__ float w_tile[kGradientDepth][kChannels];
  __shared__ PhasePixel places[kPixels];

  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int group = blockIdx.z;
  const Phase phase(a, blockIdx.x / a.tiles);
  const int first_pixel = blockIdx.x % a.tiles * kPixels;
  for (int p = thread; p < kPixels; p += kThreads)
    places[p] = PhasePixel::of(a, phase, first_pixel + p);
  __syncthreads();

  // This thread computes pixels pixel0 + {0 … 3, 32 … 35} by channels channel0 + {0 … 3},
  const int pixel0 = warp % kWarpsAlongPixels * 64 + lane % 8 * 4;
  const int tile_channel0 = warp / kWarpsAlongPixels * 16 + lane / 8 * 4;
  const int channel0 = blockIdx.y * kChannels + tile_channel0;
  // and fetches one chunk of the filters of pixels first + i * kStep,
  const int chunk = thread % kGradientChunks, first = thread / kGradientChunks;
  // and four channels of the weights of filters weight_filter + i * kFiltersAtOnce.
  const int weight_channel = thread % (kChannels / 4) * 4, weight_filter = thread / (kChannels / 4);

  float h[kGradientPixels][kGradientChannels], totals[kGradientPixels][kGradientChannels];
#pragma unroll
  for (int p = 0; p < kGradientPixels; ++p) {
    const long long at = places[pixel0 + p / 4 * 32 + p % 4].x;
    Floats x(make_uint4(0, 0, 0, 0));
    if (at >= 0 && channel0 < a.group_in)
      x = Floats::load_global(static_cast<const float*>(a.x) + at + group * a.group_in + channel0);
#pragma unroll
    for (int c = 0; c < kGradientChannels; ++c) {
      h[p][c] = fmaf(-0.5f, x.values[c], 0.5f);
      totals[p][c] = 0;
    }
  }
  float grad_sums[kPixels / kStep] = {};  // of what this thread fetches

  int shift_h = 0;
  for (int i = phase.first_h; i < a.kernel_h; i += a.step_h, shift_h += a.shift_h) {
    int shift_w = 0;
    for (int j = phase.first_w; j < a.kernel_w; j += a.step_w, shift_w += a.shift_w) {
      const float* grad_y = static_cast<const float*>(a.grad_y) + group * a.group_out -
                            (static_cast<long long>(shift_h) * a.out_w + shift_w) * a.y_row;
      const float* weights =
          static_cast<const float*>(a.weights) + blockIdx.y * kChannels + weight_channel +
          (static_cast<long long>((group * a.kernel_h + i) * a.kernel_w + j) * a.weight_filters +
           weight_filter) * a.weight_row;
      for (int filter0 = 0; filter0 < a.group_out; filter0 += kGradientDepth) {
        const int filter = filter0 + chunk * kGradientChunk;
        __syncthreads();
#pragma unroll
        for (int row = 0; row < kPixels / kStep; ++row) {
          const int pixel = row * kStep + first;
          const PhasePixel place = places[pixel];
          const bool inside =
              static_cast<unsigned>(place.h - shift_h) < static_cast<unsigned>(a.out_h) &&
              static_cast<unsigned>(place.w - shift_w) < static_cast<unsigned>(a.out_w) &&
              filter < a.group_out;
          Floats g(make_uint4(0, 0, 0, 0));
          if (inside) g = Floats::load_global(grad_y + place.grad_y + filter);
          float sum = 0;
#pragma unroll
          for (int f = 0; f < kGradientChunk; ++f) {
            g_tile[chunk * kGradientChunk + f][pixel ^ chunk * 8] = g.values[f];
            sum += g.values[f];
          }
          grad_sums[row] += sum;
        }
#pragma unroll
        for (int f = 0; f < kGradientDepth; f += kFiltersAtOnce)
          if (weight_filter + f < kGradientDepth)
            *reinterpret_cast<uint4*>(&w_tile[weight_filter + f][weight_channel]) =
                __ldg(reinterpret_cast<const uint4*>(weights + f * a.weight_row));
        weights += kGradientDepth * a.weight_row;
        __syncthreads();
        float sums[kGradientPixels][kGradientChannels];
#pragma unroll
        for (int k = 0; k < kGradientDepth; ++k) {
          const int column = pixel0 ^ k / kGradientChunk * 8;
          const Floats g[2] = {Floats::load(&g_tile[k][column]),
                               Floats::load(&g_tile[k][column + 32])};
          const Floats w = Floats::load(&w_tile[k][tile_channel0]);
#pragma unroll
          for (int p = 0; p < kGradientPixels; ++p)
#pragma unroll
            for (int c = 0; c < kGradientChannels; ++c) {
              const float slope = saturated_sum(w.values[c], h[p][c]);
              const float grad = g[p / 4].values[p % 4];
              sums[p][c] = k == 0 ? grad * slope : fmaf(grad, slope, sums[p][c]);
            }
        }
#pragma unroll
        for (int p = 0; p < kGradientPixels; ++p)
#pragma unroll
          for (int c = 0; c < kGradientChannels; ++c) totals[p][c] += sums[p][c];
      }
    }
  }

  // The sums of dY, of the chunks apart, go where g was.
  __syncthreads();
#pragma unroll
  for (int row = 0; row < kPixels / kStep; ++row) g_tile[chunk][row * kStep + first] = grad_sums[row];
  __syncthreads();
  if (channel0 >= a.group_in) return;
#pragma unroll
  for (int p = 0; p < kGradientPixels; ++p) {
    const int pixel = pixel0 + p / 4 * 32 + p % 4;
    const long long at = places[pixel].x;
    if (at < 0) continue;
    float grad_sum = 0;
#pragma unroll
    for (int c = 0; c < kGradientChunks; ++c) grad_sum += g_tile[c][pixel];
    Floats result(make_uint4(0, 0, 0, 0));
#pragma unroll
    for (int c = 0; c < kGradientChannels; ++c) {
      const bool is_nan = h[p][c] != h[p][c];
      result.values[c] = is_nan ? h[p][c] : fmaf(2.0f, totals[p][c], -grad_sum);
    }
    *reinterpret_cast<uint4*>(static_cast<float*>(a.grad_x) + at + group * a.group_in + channel0) =
        result.bits;
  }
}
