// The chunk loop of the losses that take hidden states and an lm-head instead of logits:
//   logits = hidden head^T of chunk_tokens rows at a time, the row kernel writing their gradient in place,
//   d_hidden = dlogits head, d_head += dlogits^T hidden.
// Memory is chunk_tokens x V for each model, whatever N. hidden f32 [N,D], head f32|bf16 [V,D].
// d_head accumulates onto the input of that name where given. Losses of a row depend on the chunk only
// through the rounding of the product that makes its logits. An abort is honoured between chunks, and leaves
// d_head with the chunks so far.
#pragma once
#include <functional>

#include "ops/linear_device.h"
#include "ops/loss_support.h"
#include "ops/schema.h"

namespace sdpo {

// One model's hidden states and head; hidden is null where the model is not there.
struct LinearModel {
  const float* hidden = nullptr;
  const void* head = nullptr;
  DType head_dtype = DType::F32;
  int64_t d = 0;

  static LinearModel of(const sdpo_tensor& hidden, const sdpo_tensor& head);
};

struct LinearLoss {
  static constexpr int kModels = 3;
  int64_t rows = 0, v = 0;
  LinearModel models[kModels];  // the first is the one that learns
  // Which rows may have a gradient; chunks without one skip their products. Null: no gradient is wanted.
  const float *weights = nullptr, *coefficients = nullptr;
  float *d_hidden = nullptr, *d_head = nullptr;  // null: no gradient
  bool accumulate = false;                       // d_head holds what to add to
};

// Runs rows [begin, begin + count): logits of each model in, the first's gradient written over its own.
using ChunkKernel = std::function<void(int64_t begin, int64_t count, LogitMatrix logits[LinearLoss::kModels],
                                       void* scratch, uint64_t scratch_bytes)>;

int64_t chunk_rows(int64_t wished, int64_t rows, int64_t v);
uint64_t linear_scratch_bytes(int64_t chunk, int64_t v, int models, uint64_t slot_bytes);
void linear_chunks(const LinearLoss& job, int64_t chunk, void* scratch, uint64_t scratch_bytes,
                   const ChunkKernel& kernel);

// Scratch on other devices; inputs begin with hidden and head of up to `models` models.
uint64_t linear_device_bytes(int64_t wished, const Dims& dims, const std::vector<Tensor>& inputs, int models,
                             uint64_t (*row_bytes)(int64_t n, int64_t v));

void linear_gradient_outputs(OpSchema& op);  // d_hidden, d_head
void linear_chunk_attribute(OpSchema& op);   // chunk_tokens

}  // namespace sdpo
