// bias_add: x[t] += bias, in place; its gradient bias_bwd: dbias += sum_t dy[t], summed in double in the
// order of t (the columns are shared out among the threads, never the rows). x, dy [T,N], bias, dbias [N].
#include <algorithm>

#include "core/parallel.h"
#include "ops/schema.h"

namespace sdpo {
namespace {

constexpr int64_t kColumns = 64;

void bias_add(const Call& call) {
  const int64_t rows = call.in(0).shape[0], n = call.in(0).shape[1];
  const bool bf16 = call.in(1).dtype == SDPO_BF16;
  parallel_for(rows, 1 + 16384 / (n + 1), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) {
      float* x = call.out_as<float>(0) + t * n;
      if (bf16) {
        for (int64_t j = 0; j < n; j++) x[j] += bf16_to_f32(call.in_as<uint16_t>(1)[j]);
      } else {
        for (int64_t j = 0; j < n; j++) x[j] += call.in_as<float>(1)[j];
      }
    }
  });
}

void bias_bwd(const Call& call) {
  const int64_t rows = call.in(0).shape[0], n = call.in(0).shape[1];
  const float* dy = call.in_as<float>(0);
  parallel_tasks((n + kColumns - 1) / kColumns, [&](int64_t task) {
    const int64_t first = task * kColumns, columns = std::min(kColumns, n - first);
    double sum[kColumns] = {};
    for (int64_t t = 0; t < rows; t++)
      for (int64_t j = 0; j < columns; j++) sum[j] += double(dy[t * n + first + j]);
    for (int64_t j = 0; j < columns; j++) {
      float& dbias = call.out_as<float>(0)[first + j];
      dbias = float(double(dbias) + sum[j]);
    }
  });
}

SDPO_OP(bias_add)
    .input("x", "f32", "T,N")
    .input("bias", "f32|bf16", "N")
    .output("x", "f32", "T,N")
    .aliases("x")
    .cpu<bias_add>();

SDPO_OP(bias_bwd)
    .input("dy", "f32", "T,N")
    .input("dbias", "f32", "N")
    .output("dbias", "f32", "N")
    .aliases("dbias")
    .cpu<bias_bwd>();

}  // namespace
}  // namespace sdpo
