// The seam between kernels that need a matrix product and a library that has a fast one: cuBLASLt in the CUDA
// plugin, none under SIMT. Where library_gemm says no, the caller launches a kernel of its own.
//
//   C[m,n] = op(A)[m,k] op(B)[k,n] + beta C, row-major, accumulated in f32.
//
// Both inputs are f32 or both bf16; f32 inputs are multiplied as f32, never as tf32. Results are the same
// bits for the same device, library, shape, alignment and workspace; another number of rows may change them.
#pragma once
#include <cstdint>
#include <string>

#include "backends/plugin.h"

namespace sdpo {

struct GemmArgs {
  int64_t m, n, k;
  const void *a, *b;
  void* c;
  int64_t a_stride, b_stride, c_stride;  // elements from one stored row to the next
  bool transpose_a, transpose_b;         // stored as [k,m]; stored as [n,k]
  int32_t input_dtype, output_dtype;     // SDPO_F32 or SDPO_BF16
  float beta;                            // 0 or 1
};

// What a caller puts aside in its scratch for the library, 256-byte aligned.
constexpr uint64_t kGemmWorkspaceBytes = 32u << 20;

// False, with nothing done, where there is no library or it has no algorithm for this call.
bool library_gemm(const GpuCall& call, const GemmArgs& args, void* workspace, uint64_t workspace_bytes);

// The library's file, or why there is none.
std::string gemm_library_name();

}  // namespace sdpo
