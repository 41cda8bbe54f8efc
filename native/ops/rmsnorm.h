// Row kernels of RMSNorm, one per instruction set.
#pragma once
#include <cstdint>

#include "core/cpu.h"

namespace sdpo {

struct RmsnormRows {
  int64_t rows, d;
  const float* x;      // [rows, d]
  const void* weight;  // [d]
  bool weight_bf16;
  float eps;
  float* y;     // forward: [rows, d]
  float* rstd;  // [rows]; backward reads it
  const float* dy;
  float* dx;
  bool accumulate;  // dx +=
  float* dweight;   // [d], the sum over these rows; overwritten
};

SDPO_SIMD_FUNCTION(rmsnorm_fwd_rows, (const RmsnormRows& a), (a))
SDPO_SIMD_FUNCTION(rmsnorm_bwd_rows, (const RmsnormRows& a), (a))

}  // namespace sdpo
