// Our matrix product kernels: a block a tile of 64 x 64, the inner size in steps through shared memory, bf16
// on the tensor cores, f32 by multiply-adds. An element of C is summed over k in one order wherever its tile
// lies, so a row of C depends on its row of A and on B alone.
#include "backends/device.cuh"
#include "ops/gemm.h"

namespace sdpo {
namespace {

constexpr int kTile = 64, kBf16Step = 32, kF32Step = 16;
constexpr int kBf16Row = kBf16Step + 8, kF32Row = kTile + 4;  // padded: other banks, and 16-byte rows
constexpr int kBf16Threads = 128, kF32Threads = 256;

template <class T>
struct GemmOperand {
  const T* data;
  int64_t stride;
  bool flipped;  // stored with the inner size first

  DEV_INLINE const T* at(int64_t outer, int64_t inner) const {
    return data + (flipped ? inner * stride + outer : outer * stride + inner);
  }
};

template <class T>
struct GemmCall {
  GemmOperand<T> a, b;  // a: rows of C, b: columns of C
  void* c;
  int64_t c_stride, m, n, k;
  bool c_is_bf16, add;
};

template <class T>
DEV_INLINE void put_product(const GemmCall<T>& call, int64_t row, int64_t column, float value) {
  if (row >= call.m || column >= call.n) return;
  const int64_t at = row * call.c_stride + column;
  if (call.c_is_bf16) {
    bf16* c = static_cast<bf16*>(call.c) + at;
    *c = to_bf16(call.add ? to_f32(*c) + value : value);
  } else {
    float* c = static_cast<float*>(call.c) + at;
    *c = call.add ? *c + value : value;
  }
}

// A tile's operand as [outer][inner] in shared memory, 0 past the ends.
DEV_INLINE void load_tile(const GemmOperand<bf16>& x, int64_t first, int64_t outers, int64_t k0,
                          int64_t inners, bf16* to) {
  for (int i = threadIdx.x; i < kTile * kBf16Step / 8; i += kBf16Threads) {
    const int row = i / (kBf16Step / 8), column = i % (kBf16Step / 8) * 8;
    const int64_t outer = first + row, inner = k0 + column;
    const bf16* from = x.at(outer, inner);
    bf16x8 eight{};
    if (!x.flipped && outer < outers && inner + 8 <= inners && reinterpret_cast<uintptr_t>(from) % 16 == 0) {
      eight = ld16(reinterpret_cast<const bf16x8*>(from));
    } else {
      for (int j = 0; j < 8; j++)
        if (outer < outers && inner + j < inners) eight.v[j] = *x.at(outer, inner + j);
    }
    st16(reinterpret_cast<bf16x8*>(to + row * kBf16Row + column), eight);
  }
}

__global__ void __launch_bounds__(kBf16Threads) gemm_bf16(GemmCall<bf16> call) {
  Smem smem;
  bf16* a_tile = smem.take<bf16>(kTile * kBf16Row);
  bf16* b_tile = smem.take<bf16>(kTile * kBf16Row);
  const int64_t m0 = int64_t(blockIdx.y) * kTile, n0 = int64_t(blockIdx.x) * kTile;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row0 = warp / 2 * 32, column0 = warp % 2 * 32;
  float c[2][4][4] = {};
  for (int64_t k0 = 0; k0 < call.k; k0 += kBf16Step) {
    load_tile(call.a, m0, call.m, k0, call.k, a_tile);
    load_tile(call.b, n0, call.n, k0, call.k, b_tile);
    __syncthreads();
    for (int kk = 0; kk < kBf16Step; kk += 16) {
      uint32_t a[2][4], b[4][2];
#pragma unroll
      for (int i = 0; i < 2; i++)
        ldmatrix_x4(a[i], a_tile + (row0 + i * 16 + lane % 16) * kBf16Row + kk + lane / 16 * 8);
#pragma unroll
      for (int j = 0; j < 2; j++) {
        uint32_t four[4];
        ldmatrix_x4(
            four, b_tile + (column0 + j * 16 + lane % 8 + lane / 16 * 8) * kBf16Row + kk + lane / 8 % 2 * 8);
        b[2 * j][0] = four[0], b[2 * j][1] = four[1], b[2 * j + 1][0] = four[2], b[2 * j + 1][1] = four[3];
      }
#pragma unroll
      for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) mma_bf16(c[i][j], a[i], b[j]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 2; i++)
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int e = 0; e < 4; e++)
        put_product(call, m0 + row0 + i * 16 + lane / 4 + e / 2 * 8,
                    n0 + column0 + j * 8 + lane % 4 * 2 + e % 2, c[i][j][e]);
}

DEV_INLINE void load_tile(const GemmOperand<float>& x, int64_t first, int64_t outers, int64_t k0,
                          int64_t inners, float* to) {
  for (int i = threadIdx.x; i < kTile * kF32Step; i += kF32Threads) {
    // Neighbouring threads read neighbouring addresses.
    const int row = x.flipped ? i % kTile : i / kF32Step, column = x.flipped ? i / kTile : i % kF32Step;
    const int64_t outer = first + row, inner = k0 + column;
    to[column * kF32Row + row] = outer < outers && inner < inners ? *x.at(outer, inner) : 0.f;
  }
}

__global__ void __launch_bounds__(kF32Threads) gemm_f32(GemmCall<float> call) {
  Smem smem;
  float* a_tile = smem.take<float>(kF32Step * kF32Row);
  float* b_tile = smem.take<float>(kF32Step * kF32Row);
  const int64_t m0 = int64_t(blockIdx.y) * kTile, n0 = int64_t(blockIdx.x) * kTile;
  const int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
  float c[4][4] = {};
  for (int64_t k0 = 0; k0 < call.k; k0 += kF32Step) {
    load_tile(call.a, m0, call.m, k0, call.k, a_tile);
    load_tile(call.b, n0, call.n, k0, call.k, b_tile);
    __syncthreads();
    for (int k = 0; k < kF32Step; k++) {
      const float4 a = ld16(reinterpret_cast<const float4*>(a_tile + k * kF32Row + row));
      const float4 b = ld16(reinterpret_cast<const float4*>(b_tile + k * kF32Row + column));
      const float left[4] = {a.x, a.y, a.z, a.w}, right[4] = {b.x, b.y, b.z, b.w};
      for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) c[i][j] = fmaf(left[i], right[j], c[i][j]);
    }
    __syncthreads();
  }
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++) put_product(call, m0 + row + i, n0 + column + j, c[i][j]);
}

template <class T>
GemmCall<T> gemm_call(const GemmArgs& g) {
  return {{static_cast<const T*>(g.a), g.a_stride, g.transpose_a},
          {static_cast<const T*>(g.b), g.b_stride, !g.transpose_b},
          g.c,
          g.c_stride,
          g.m,
          g.n,
          g.k,
          g.output_dtype == SDPO_BF16,
          g.beta != 0};
}

template <class From, class To>
__global__ void __launch_bounds__(256) convert_elements(const From* from, To* to, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  if constexpr (sizeof(From) == 4)
    to[i] = to_bf16(from[i]);
  else
    to[i] = to_f32(from[i]);
}

__global__ void __launch_bounds__(256) zero_elements(float* to, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) to[i] = 0;
}

dim3 blocks_of(int64_t n) { return dim3(unsigned((n + 255) / 256)); }

}  // namespace

void launch_plain_gemm(const GpuCall& call, const GemmArgs& g) {
  if (!g.m || !g.n) return;
  const dim3 grid(unsigned((g.n + kTile - 1) / kTile), unsigned((g.m + kTile - 1) / kTile));
  if (g.input_dtype == SDPO_BF16)
    launch(gemm_bf16, grid, dim3(kBf16Threads), 2 * kTile * kBf16Row * sizeof(bf16), call.stream(),
           gemm_call<bf16>(g));
  else
    launch(gemm_f32, grid, dim3(kF32Threads), 2 * kF32Step * kF32Row * sizeof(float), call.stream(),
           gemm_call<float>(g));
}

void launch_gemm(const GpuCall& call, const GemmArgs& g, void* workspace, uint64_t workspace_bytes) {
  if (!library_gemm(call, g, workspace, workspace_bytes)) launch_plain_gemm(call, g);
}

void launch_narrow(const GpuCall& call, const float* from, void* to, int64_t n) {
  if (n)
    launch(convert_elements<float, bf16>, blocks_of(n), dim3(256), 0, call.stream(), from,
           static_cast<bf16*>(to), n);
}

void launch_widen(const GpuCall& call, const void* from, float* to, int64_t n) {
  if (n)
    launch(convert_elements<bf16, float>, blocks_of(n), dim3(256), 0, call.stream(),
           static_cast<const bf16*>(from), to, n);
}

void launch_zero(const GpuCall& call, float* to, int64_t n) {
  if (n) launch(zero_elements, blocks_of(n), dim3(256), 0, call.stream(), to, n);
}

}  // namespace sdpo
