// Work memory of the attention kernels: one block for each thread, aligned to a cache line, kept.
#pragma once
#include <cstdint>
#include <vector>

namespace sdpo {

// Static: *.simd.cpp files use it, and must not share code.
static constexpr int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// At least `floats` floats with any content, valid until the thread's next call.
inline float* thread_work(int64_t floats) {
  thread_local std::vector<float> buffer;
  if (buffer.size() < size_t(floats) + 16) buffer.resize(size_t(floats) + 16);
  const auto address = reinterpret_cast<uintptr_t>(buffer.data());
  return buffer.data() + (64 - address % 64) % 64 / 4;
}

}  // namespace sdpo
