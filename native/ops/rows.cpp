// gather_rows: y[i] = x[index[i]], its gradient scatter_rows: dx[index[i]] += dy[i].
// x [T,D], index [N], y [N,D]. Duplicates in the index add up in the order of i: the columns are shared out
// among the threads, never the rows, so the bits do not depend on the number of threads.
#include "ops/rows.h"

#include <cstring>

#include "core/parallel.h"
#include "ops/schema.h"

namespace sdpo {

void check_indices(const char* name, const int32_t* index, int64_t n, int64_t size) {
  for (int64_t i = 0; i < n; i++)
    if (index[i] < 0 || index[i] >= size)
      throw Error("ERR_SDPO_OP", str(name, ": row ", i, ": ", index[i], " is outside [0, ", size, ")"));
}

void copy_rows(const void* table, DType dtype, const int32_t* index, int64_t n, int64_t d, float* y) {
  parallel_for(n, 1 + 16384 / (d + 1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      float* to = y + i * d;
      if (dtype == DType::F32) {
        std::memcpy(to, static_cast<const float*>(table) + index[i] * d, size_t(d) * 4);
      } else {
        const uint16_t* from = static_cast<const uint16_t*>(table) + index[i] * d;
        for (int64_t j = 0; j < d; j++) to[j] = bf16_to_f32(from[j]);
      }
    }
  });
}

void add_rows(const float* x, const int32_t* index, int64_t n, int64_t d, float* table) {
  parallel_for(d, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < n; i++) {
      float* to = table + index[i] * d;
      for (int64_t j = begin; j < end; j++) to[j] += x[i * d + j];
    }
  });
}

namespace {

void gather_rows(const Call& call) {
  const int64_t n = call.in(1).shape[0];
  const int32_t* index = call.in_as<int32_t>(1);
  check_indices("index", index, n, call.in(0).shape[0]);
  copy_rows(call.in(0).data, DType::F32, index, n, call.in(0).shape[1], call.out_as<float>(0));
}

void scatter_rows(const Call& call) {
  const int64_t n = call.in(1).shape[0];
  const int32_t* index = call.in_as<int32_t>(1);
  check_indices("index", index, n, call.in(2).shape[0]);
  add_rows(call.in_as<float>(0), index, n, call.in(0).shape[1], call.out_as<float>(0));
}

SDPO_OP(gather_rows)
    .input("x", "f32", "T,D")
    .input("index", "i32", "N")
    .output("y", "f32", "N,D")
    .cpu<gather_rows>();

SDPO_OP(scatter_rows)
    .input("dy", "f32", "N,D")
    .input("index", "i32", "N")
    .input("dx", "f32", "T,D")
    .output("dx", "f32", "T,D")
    .aliases("dx")
    .cpu<scatter_rows>();

}  // namespace
}  // namespace sdpo
