#include "ops/linear_loss.h"

#include <algorithm>

#include "backends/cpu/gemm.h"
#include "ops/run.h"

namespace sdpo {
namespace {

constexpr int64_t kChunkBytes = int64_t(64) << 20;

bool has_gradient(const LinearLoss& job, int64_t begin, int64_t count) {
  if (!job.d_hidden) return false;
  for (int64_t i = begin; i < begin + count; i++)
    if (job.weights[i] != 0 && job.coefficients[i] != 0) return true;
  return false;
}

void logits_of(const LinearModel& model, int64_t begin, int64_t count, int64_t v, float* logits) {
  gemm(count, v, model.d, {model.hidden + begin * model.d, DType::F32, model.d, false},
       {model.head, model.head_dtype, model.d, true}, 0, logits, v);
}

void gradients(const LinearLoss& job, int64_t begin, int64_t count, const float* dlogits, bool add) {
  const LinearModel& model = job.models[0];
  const int64_t v = job.v, d = model.d;
  gemm(count, d, v, {dlogits, DType::F32, v, false}, {model.head, model.head_dtype, d, false}, 0,
       job.d_hidden + begin * d, d);
  gemm(v, d, count, {dlogits, DType::F32, v, true}, {model.hidden + begin * d, DType::F32, d, false},
       add ? 1.f : 0.f, job.d_head, d);
}

}  // namespace

LinearModel LinearModel::of(const sdpo_tensor& hidden, const sdpo_tensor& head) {
  return {static_cast<const float*>(hidden.data), head.data, DType(head.dtype), head.shape[1]};
}

int64_t chunk_rows(int64_t wished, int64_t rows, int64_t v) {
  const int64_t fitting = std::clamp<int64_t>(kChunkBytes / 4 / std::max<int64_t>(v, 1), 128, 2048);
  return std::max<int64_t>(1, std::min(wished ? wished : fitting, rows));
}

uint64_t linear_scratch_bytes(int64_t chunk, int64_t v, int models, uint64_t slot_bytes) {
  Arena arena;
  const int64_t logits = element_count({chunk, v});
  for (int m = 0; m < models; m++) arena.take<float>(logits);
  return arena.used() + row_scratch_bytes(chunk, slot_bytes);
}

void linear_chunks(const LinearLoss& job, int64_t chunk, void* scratch, uint64_t scratch_bytes,
                   const ChunkKernel& kernel) {
  Arena arena(scratch);
  LogitMatrix logits[LinearLoss::kModels];
  for (int m = 0; m < LinearLoss::kModels; m++)
    if (job.models[m].hidden) logits[m] = {arena.take<float>(chunk * job.v), DType::F32, job.v};
  bool written = job.accumulate;
  for (int64_t begin = 0; begin < job.rows; begin += chunk) {
    throw_if_cancelled();
    const int64_t count = std::min(chunk, job.rows - begin);
    for (int m = 0; m < LinearLoss::kModels; m++)
      if (logits[m]) logits_of(job.models[m], begin, count, job.v, static_cast<float*>(logits[m].data));
    kernel(begin, count, logits, static_cast<char*>(scratch) + arena.used(), scratch_bytes - arena.used());
    if (has_gradient(job, begin, count)) {
      gradients(job, begin, count, static_cast<float*>(logits[0].data), written);
      written = true;
    } else if (job.d_hidden) {
      const int64_t d = job.models[0].d;
      std::fill(job.d_hidden + begin * d, job.d_hidden + (begin + count) * d, 0.f);
    }
  }
  if (job.d_head && !written) std::fill(job.d_head, job.d_head + job.v * job.models[0].d, 0.f);
}

uint64_t linear_device_bytes(int64_t wished, const Dims& dims, const std::vector<Tensor>& inputs, int models,
                             uint64_t (*row_bytes)(int64_t n, int64_t v)) {
  LinearHead heads[kLinearModels];
  for (int m = 0; m < models; m++) {
    if (const Tensor& head = inputs[size_t(2 * m + 1)])
      heads[m] = {std::max<int64_t>(1, head.size(1)), head.dtype() == DType::BF16};
  }
  const int64_t n = dims.at("N"), v = dims.at("V");
  element_count({std::min(wished ? wished : kDeviceChunk, n), v});  // throws where no memory holds them
  return linear_layout(wished, n, v, heads, row_bytes).total;
}

void linear_gradient_outputs(OpSchema& op) {
  op.output("d_hidden", "f32", "N,D")
      .only("gradient")
      .output("d_head", "f32", "V,D")
      .aliases("d_head")
      .only("gradient");
}

void linear_chunk_attribute(OpSchema& op) { op.integer("chunk_tokens", 0, 0, int64_t(1) << 31); }

}  // namespace sdpo
