// What the CPU and the GPU kernel of matmul check.
#pragma once
#include "backends/abi.h"
#include "core/error.h"

namespace sdpo {

// Inputs a, b and c; flags transpose_a, transpose_b, row_invariant.
inline void check_matmul(const sdpo_tensor* inputs, const sdpo_tensor& c, const double* flags) {
  const sdpo_tensor &a = inputs[0], &b = inputs[1];
  const bool ta = flags[0] != 0, tb = flags[1] != 0, invariant = flags[2] != 0;
  const int64_t m = a.shape[ta ? 1 : 0], k = a.shape[ta ? 0 : 1];
  const int64_t n = b.shape[tb ? 0 : 1], kb = b.shape[tb ? 1 : 0];
  if (kb != k) throw Error("ERR_SDPO_OP", str("b: inner size ", kb, ", but a has ", k));
  if (c.shape[0] != m || c.shape[1] != n)
    throw Error("ERR_SDPO_OP", str("c: expected [", m, ",", n, "], got [", c.shape[0], ",", c.shape[1], "]"));
  if (invariant && (ta || !tb || inputs[2].data || a.dtype != SDPO_F32))
    throw Error("ERR_SDPO_OP", "row_invariant: needs f32 a, transpose_b alone and no c");
}

}  // namespace sdpo
