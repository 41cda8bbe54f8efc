// The chunk loop of linear_loss.h on a GPU. With a bf16 head, hidden states are rounded to bf16 and logits
// and their gradient are bf16, as other bf16 trainers do; products accumulate in f32. Whether a chunk has
// anything to learn is not known here, so its products are always computed.
#pragma once
#include "ops/gemm.h"
#include "ops/linear_device.h"
#include "ops/loss_rows.cuh"

namespace sdpo {

struct LinearGpu {
  const GpuCall& call;
  int64_t n, v;
  const sdpo_tensor *hidden[kLinearModels] = {}, *head[kLinearModels] = {};  // null: no such model
  float *d_hidden = nullptr, *d_head = nullptr;                              // null: no gradient
  bool accumulate = false;
  LinearLayout layout{};

  void model(int m, const sdpo_tensor* first) {
    if (!first[0].data) return;
    hidden[m] = first;
    head[m] = first + 1;
  }
  int64_t d(int m) const { return head[m]->shape[1]; }
  int32_t dtype(int m) const { return head[m]->dtype; }
  char* scratch(uint64_t at) const { return static_cast<char*>(call.scratch()) + at; }
};

// The chunk's hidden states in the head's dtype.
inline const void* chunk_hidden(const LinearGpu& job, int m, int64_t begin, int64_t count) {
  const float* from = static_cast<const float*>(job.hidden[m]->data) + begin * job.d(m);
  if (job.dtype(m) == SDPO_F32) return from;
  void* to = job.scratch(job.layout.hidden[m]);
  launch_narrow(job.call, from, to, count * job.d(m));
  return to;
}

inline void linear_product(const LinearGpu& job, GemmArgs g) {
  launch_gemm(job.call, g, job.scratch(job.layout.workspace), job.layout.workspace_bytes);
}

// rows(begin, count, logits, scratch): the row kernels, the gradient of the first model's logits in place.
template <class Rows>
void launch_linear(LinearGpu& job, int64_t wished, uint64_t (*row_bytes)(int64_t, int64_t), Rows rows) {
  LinearHead heads[kLinearModels];
  for (int m = 0; m < kLinearModels; m++)
    if (job.head[m]) heads[m] = {job.d(m), job.dtype(m) == SDPO_BF16};
  job.layout = linear_layout(wished, job.n, job.v, heads, row_bytes);
  if (job.d_head && !job.accumulate && job.n == 0) launch_zero(job.call, job.d_head, job.v * job.d(0));
  for (int64_t begin = 0; begin < job.n; begin += job.layout.chunk) {
    const int64_t count = std::min(job.layout.chunk, job.n - begin), v = job.v;
    Logits logits[kLinearModels] = {};
    const void* hidden[kLinearModels] = {};
    for (int m = 0; m < kLinearModels; m++) {
      if (!job.head[m]) continue;
      const int32_t type = job.dtype(m);
      void* to = job.scratch(job.layout.logits[m]);
      hidden[m] = chunk_hidden(job, m, begin, count);
      linear_product(job, {count, v, job.d(m), hidden[m], job.head[m]->data, to, job.d(m), job.d(m), v, false,
                           true, type, type, 0});
      logits[m] = {to, type == SDPO_BF16, true};
    }
    rows(begin, count, logits, job.scratch(job.layout.rows));
    if (!job.d_hidden) continue;
    const int64_t d = job.d(0);
    const int32_t type = job.dtype(0);
    const bool add = job.accumulate || begin > 0;
    linear_product(job, {count, d, v, logits[0].data, job.head[0]->data, job.d_hidden + begin * d, v, d, d,
                         false, false, type, SDPO_F32, 0});
    linear_product(job, {v, d, count, logits[0].data, hidden[0], job.d_head, v, d, d, true, false, type,
                         SDPO_F32, add ? 1.f : 0.f});
  }
}

// The same call with other scratch, for row kernels that need some.
inline sdpo_op_call with_scratch(const GpuCall& call, void* scratch) {
  sdpo_op_call raw = call.raw();
  raw.scratch = scratch;
  return raw;
}

}  // namespace sdpo
