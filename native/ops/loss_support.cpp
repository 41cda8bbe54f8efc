#include "ops/loss_support.h"

#include <algorithm>
#include <atomic>
#include <limits>

#include "core/error.h"
#include "core/parallel.h"

namespace sdpo {

const float* LogitMatrix::read(int64_t i, float* spare) const {
  if (dtype == DType::F32) return static_cast<const float*>(row(i));
  widen_row(static_cast<const uint16_t*>(row(i)), v, spare);
  return spare;
}

float* LogitMatrix::target(int64_t i, float* spare) const {
  return dtype == DType::F32 ? static_cast<float*>(row(i)) : spare;
}

void LogitMatrix::write(int64_t i, const float* computed) const {
  if (dtype == DType::F32) return;
  uint16_t* out = static_cast<uint16_t*>(row(i));
  for (int64_t j = 0; j < v; j++) out[j] = f32_to_bf16(computed[j]);
}

uint64_t row_scratch_bytes(int64_t rows, uint64_t slot_bytes) {
  return uint64_t(std::max<int64_t>(1, std::min<int64_t>(rows, thread_count()))) * slot_bytes;
}

void for_rows(int64_t rows, void* scratch, uint64_t scratch_bytes, uint64_t slot_bytes,
              const std::function<void(int64_t, void*)>& body) {
  std::atomic<int64_t> next{0};
  parallel_tasks(int64_t(scratch_bytes / slot_bytes), [&](int64_t slot) {
    void* mine = static_cast<char*>(scratch) + uint64_t(slot) * slot_bytes;
    for (int64_t row; (row = next.fetch_add(1)) < rows;) body(row, mine);
  });
}

Softmax softmax_of(const LogitRow& row, const LeftOut& left_out, float* e, double* sum_of_others) {
  ExpSums sums;
  exponentials(row, left_out, e, &sums);
  double sum = 0;
  for (int64_t i = 0; i < left_out.count; i++) sum += left_out.exponentials[i];
  *sum_of_others = sums.sum;
  sum += sums.sum;
  const double log_sum = std::log(sum);
  return {row.max, row.inv_temperature, sum, log_sum, log_sum - sums.weighted / sum};
}

namespace {

// Orders like (value, lower id first); both zeros are equal.
uint64_t key_of(float value, int64_t id) {
  value += 0.f;
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return uint64_t(bits) << 32 | uint32_t(~uint32_t(id));
}

float value_of(uint64_t key) {
  uint32_t bits = uint32_t(key >> 32);
  bits = bits & 0x80000000u ? bits & 0x7fffffffu : ~bits;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

}  // namespace

TopK::TopK(Arena& arena, int64_t n, int64_t k)
    : n_(n),
      k_(k),
      capacity_(2 * k + 16 * kMaximaBlock),
      sorted_maxima_(arena.take<float>(maxima_count(n))),
      keys_(arena.take<uint64_t>(capacity_)),
      spare_(arena.take<uint64_t>(capacity_)) {}

void TopK::keep_largest() {
  if (count_ <= k_) return;
  std::copy(keys_, keys_ + count_, spare_);
  std::nth_element(spare_, spare_ + k_ - 1, spare_ + count_, std::greater<uint64_t>());
  const uint64_t least = spare_[k_ - 1];
  count_ = std::remove_if(keys_, keys_ + count_, [&](uint64_t key) { return key < least; }) - keys_;
  // What comes later and equals the least loses to it by its id.
  threshold_ = std::nextafter(value_of(least), std::numeric_limits<float>::infinity());
}

int64_t TopK::select(const float* z, const float* maxima, int32_t* ids) {
  // k blocks hold an element of at least the k-th largest block maximum each.
  const int64_t blocks = maxima_count(n_);
  threshold_ = -std::numeric_limits<float>::infinity();
  if (blocks >= k_) {
    std::copy(maxima, maxima + blocks, sorted_maxima_);
    std::nth_element(sorted_maxima_, sorted_maxima_ + k_ - 1, sorted_maxima_ + blocks, std::greater<float>());
    threshold_ = sorted_maxima_[k_ - 1];
  }
  count_ = 0;
  for (int64_t block = 0; block < blocks; block++) {
    if (!(maxima[block] >= threshold_)) continue;
    const int64_t begin = block * kMaximaBlock, size = std::min(kMaximaBlock, n_ - begin);
    int32_t found[kMaximaBlock];
    int64_t hits;
    find_at_least(z + begin, size, threshold_, found, &hits);
    if (count_ + hits > capacity_) keep_largest();
    for (int64_t i = 0; i < hits; i++) keys_[count_++] = key_of(z[begin + found[i]], begin + found[i]);
  }
  keep_largest();
  for (int64_t i = 0; i < count_; i++) ids[i] = int32_t(~uint32_t(keys_[i]));
  return count_;
}

void check_token_ids(const int32_t* ids, int64_t rows, int64_t v) {
  for (int64_t i = 0; i < rows; i++)
    if (ids[i] < 0 || ids[i] >= v)
      throw Error("ERR_SDPO_OP", str("token_ids: ", ids[i], " at ", i, ": the vocabulary is 0..", v - 1));
}

}  // namespace sdpo
