// Matrix products and conversions on a GPU, for launchers (gemm_library.h has the product's formula).
#pragma once
#include "backends/gemm_library.h"

namespace sdpo {

// By cuBLASLt where there is one that can, else by our own kernels.
void launch_gemm(const GpuCall& call, const GemmArgs& g, void* workspace, uint64_t workspace_bytes);
// By our own kernels: each row of C depends on its row of A and on B alone, bit for bit.
void launch_plain_gemm(const GpuCall& call, const GemmArgs& g);

void launch_narrow(const GpuCall& call, const float* from, void* to, int64_t n);  // f32 to bf16
void launch_widen(const GpuCall& call, const void* from, float* to, int64_t n);   // and back
void launch_zero(const GpuCall& call, float* to, int64_t n);

}  // namespace sdpo
