// What the loss ops share: rows of logits in either dtype, the loop over rows with a scratch slot for each
// thread, softmax statistics of a row, and the K largest logits.
#pragma once
#include <cmath>
#include <functional>

#include "backends/abi.h"
#include "core/dtype.h"
#include "ops/loss_rows.h"

namespace sdpo {

// Rows of v logits, f32 or bf16; data is null for one that is not there.
struct LogitMatrix {
  void* data = nullptr;
  DType dtype = DType::F32;
  int64_t v = 0;

  static LogitMatrix of(const sdpo_tensor& t) { return {t.data, DType(t.dtype), t.shape[1]}; }
  explicit operator bool() const { return data != nullptr; }
  void* row(int64_t i) const { return static_cast<char*>(data) + i * v * dtype_bytes(dtype); }
  const float* read(int64_t i, float* spare) const;  // the row itself, or `spare` filled with it as f32
  float* target(int64_t i, float* spare) const;      // where to compute the row before write()
  void write(int64_t i, const float* computed) const;
};

// Hands out pieces of a slot, or measures one where the base is null.
class Arena {
 public:
  explicit Arena(void* base = nullptr) : base_(static_cast<char*>(base)) {}
  template <class T>
  T* take(int64_t count) {
    char* at = base_ ? base_ + used_ : nullptr;
    used_ += (uint64_t(count) * sizeof(T) + 63) / 64 * 64;
    return reinterpret_cast<T*>(at);
  }
  uint64_t used() const { return used_; }

 private:
  char* base_;
  uint64_t used_ = 0;
};

// Scratch for for_rows, and the loop: body(row, slot) for each row, each slot used by one thread at a time.
uint64_t row_scratch_bytes(int64_t rows, uint64_t slot_bytes);
void for_rows(int64_t rows, void* scratch, uint64_t scratch_bytes, uint64_t slot_bytes,
              const std::function<void(int64_t, void*)>& body);

// Softmax of z * inv_temperature; sum is that of exp((z - max) * inv_temperature).
struct Softmax {
  double max, inv_temperature, sum, log_sum, entropy;
  double lse() const { return max * inv_temperature + log_sum; }
  double logprob(double z) const { return (z - max) * inv_temperature - log_sum; }
};

// Exponentials of a row, the left out ones counted in; e as in `exponentials`.
Softmax softmax_of(const LogitRow& row, const LeftOut& left_out, float* e, double* sum_of_others);

constexpr int64_t maxima_count(int64_t n) { return (n + kMaximaBlock - 1) / kMaximaBlock; }

// Finds the k < n largest of a row, ties to the lower id; NaN is never among them.
class TopK {
 public:
  TopK(Arena& arena, int64_t n, int64_t k);
  // ids ascending; returns their number: k, or fewer where the row holds NaN. Changes nothing of maxima.
  int64_t select(const float* z, const float* maxima, int32_t* ids);

 private:
  void keep_largest();

  int64_t n_, k_, capacity_, count_ = 0;
  float threshold_ = 0;
  float* sorted_maxima_;
  uint64_t *keys_, *spare_;
};

// Throws where an id is outside the vocabulary.
void check_token_ids(const int32_t* ids, int64_t rows, int64_t v);

}  // namespace sdpo
