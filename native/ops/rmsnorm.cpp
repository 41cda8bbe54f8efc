// RMSNorm. rmsnorm_fwd: rstd[t] = 1 / sqrt(mean_j x[t,j]^2 + eps), y = x rstd weight.
// rmsnorm_bwd: with h = dy weight, dx[t] (+)= rstd (h - x rstd^2 mean_j(h x)); dweight (+)= sum_t dy x rstd.
// x, y, dy, dx [T,D], rstd [T], weight, dweight [D]. dx and dweight accumulate where they are given.
// dweight: sums over blocks of kBlock rows, added in the order of the blocks, whatever the threads.
#include "ops/rmsnorm.h"

#include <algorithm>

#include "core/parallel.h"
#include "ops/schema.h"

namespace sdpo {
namespace {

constexpr int64_t kBlock = 128;

void rmsnorm_fwd(const Call& call) {
  const int64_t rows = call.in(0).shape[0], d = call.in(0).shape[1];
  const float* x = call.in_as<float>(0);
  float *y = call.out_as<float>(0), *rstd = call.out_as<float>(1);
  parallel_for(rows, 1 + 16384 / (d + 1), [&](int64_t begin, int64_t end) {
    RmsnormRows a{};
    a.rows = end - begin;
    a.d = d;
    a.x = x + begin * d;
    a.weight = call.in(1).data;
    a.weight_bf16 = call.in(1).dtype == SDPO_BF16;
    a.eps = float(call.number(0));
    a.y = y + begin * d;
    a.rstd = rstd + begin;
    rmsnorm_fwd_rows(a);
  });
}

void add_partial_sums(const float* partial, int64_t blocks, int64_t d, bool accumulate, float* sums) {
  parallel_for(d, 64, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j++) {
      double sum = accumulate ? double(sums[j]) : 0.0;
      for (int64_t b = 0; b < blocks; b++) sum += double(partial[b * d + j]);
      sums[j] = float(sum);
    }
  });
}

void rmsnorm_bwd(const Call& call) {
  const int64_t rows = call.in(0).shape[0], d = call.in(0).shape[1];
  const int64_t blocks = (rows + kBlock - 1) / kBlock;
  float* partial = static_cast<float*>(call.scratch());
  parallel_tasks(blocks, [&](int64_t b) {
    const int64_t begin = b * kBlock;
    RmsnormRows a{};
    a.rows = std::min(kBlock, rows - begin);
    a.d = d;
    a.x = call.in_as<float>(0) + begin * d;
    a.weight = call.in(1).data;
    a.weight_bf16 = call.in(1).dtype == SDPO_BF16;
    a.rstd = call.in_as<float>(2) + begin;
    a.dy = call.in_as<float>(3) + begin * d;
    a.dx = call.out_as<float>(0) + begin * d;
    a.accumulate = call.has_in(4);
    a.dweight = partial + b * d;
    rmsnorm_bwd_rows(a);
  });
  add_partial_sums(partial, blocks, d, call.has_in(5), call.out_as<float>(1));
}

SDPO_OP(rmsnorm_fwd)
    .input("x", "f32", "T,D")
    .input("weight", "f32|bf16", "D")
    .output("y", "f32", "T,D")
    .output("rstd", "f32", "T")
    .number("eps", 1e-6, 0, 1)
    .cpu<rmsnorm_fwd>();

SDPO_OP(rmsnorm_bwd)
    .input("x", "f32", "T,D")
    .input("weight", "f32|bf16", "D")
    .input("rstd", "f32", "T")
    .input("dy", "f32", "T,D")
    .input("dx?", "f32", "T,D")
    .input("dweight?", "f32", "D")
    .output("dx", "f32", "T,D")
    .aliases("dx")
    .output("dweight", "f32", "D")
    .aliases("dweight")
    .scratch([](const Dims& dims, const double*) {
      return uint64_t((dims.at("T") + kBlock - 1) / kBlock * dims.at("D")) * sizeof(float);
    })
    .cpu<rmsnorm_bwd>();

}  // namespace
}  // namespace sdpo
