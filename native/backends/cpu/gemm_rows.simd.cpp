// C = A B^T as dot products along k, reading A and B where they lie. An element's sum does not depend on the
// shape around it: lane l adds the products of k = l, l + kLanes, ... in that order; then the lanes are added
// by a fixed tree.
#include "backends/cpu/gemm_kernels.h"
#include "core/simd.h"

namespace sdpo {
namespace SDPO_ISA {
namespace {

// Rows x columns of one block's accumulators.
constexpr int kRows = SDPO_VECTOR_BYTES == 64 ? 4 : 3;
constexpr int kColumns = SDPO_VECTOR_BYTES == 64 ? 6 : 4;
// Rows of A that one pass over the columns uses: they should stay in the second-level cache.
constexpr int64_t kChunkBytes = 256 * 1024;

typedef float Quad __attribute__((vector_size(16)));

inline Vec load_vec(const float* p) { return load(p); }
inline Vec load_vec(const uint16_t* p) { return load_bf16(p); }
inline Vec load_tail(const float* p, int n) { return load_part(p, n, 0); }
inline Vec load_tail(const uint16_t* p, int n) {
  uint16_t padded[kLanes] = {};
  std::memcpy(padded, p, size_t(n) * 2);
  return load_bf16(padded);
}

// The lanes of a vector added down to four.
inline Quad fold(const Vec& v) {
  Quad q[kLanes / 4];
  std::memcpy(q, &v, sizeof v);
  for (int half = kLanes / 8; half > 0; half /= 2)
    for (int i = 0; i < half; i++) q[i] += q[i + half];
  return q[0];
}

template <int N>
void add_lanes(const Vec* sums, float* to) {
  int i = 0;
  for (; i + 4 <= N; i += 4) {
    const Quad a = fold(sums[i]), b = fold(sums[i + 1]), c = fold(sums[i + 2]), d = fold(sums[i + 3]);
    const Quad ab0 = SDPO_SHUFFLE4(a, b, 0, 4, 1, 5), ab1 = SDPO_SHUFFLE4(a, b, 2, 6, 3, 7);
    const Quad cd0 = SDPO_SHUFFLE4(c, d, 0, 4, 1, 5), cd1 = SDPO_SHUFFLE4(c, d, 2, 6, 3, 7);
    const Quad even = SDPO_SHUFFLE4(ab0, cd0, 0, 1, 4, 5) + SDPO_SHUFFLE4(ab1, cd1, 0, 1, 4, 5);
    const Quad odd = SDPO_SHUFFLE4(ab0, cd0, 2, 3, 6, 7) + SDPO_SHUFFLE4(ab1, cd1, 2, 3, 6, 7);
    const Quad total = even + odd;
    std::memcpy(to + i, &total, sizeof total);
  }
  for (; i < N; i++) {
    const Quad q = fold(sums[i]);
    to[i] = (q[0] + q[2]) + (q[1] + q[3]);
  }
}

// Rows of B that come next: each block asks for its share of them, so that memory and arithmetic overlap.
template <class T>
struct Ahead {
  const T* row;
  int left, share;
};

template <class T, int R, int C>
void dot_block(int64_t k, const float* a, int64_t lda, const T* b, int64_t ldb, float* c, int64_t ldc,
               Ahead<T>& ahead) {
  const int fetched = ahead.left < ahead.share ? ahead.left : ahead.share;
  Vec sum[R][C] = {};
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) {
    for (int j = 0; j < fetched; j++) __builtin_prefetch(ahead.row + j * ldb + i, 0, 2);
    Vec x[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) x[r] = load(a + r * lda + i);
#pragma GCC unroll 8
    for (int j = 0; j < C; j++) {
      const Vec y = load_vec(b + j * ldb + i);
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) sum[r][j] += x[r] * y;
    }
  }
  if (i < k) {
    for (int j = 0; j < C; j++) {
      const Vec y = load_tail(b + j * ldb + i, int(k - i));
      for (int r = 0; r < R; r++) sum[r][j] += load_tail(a + r * lda + i, int(k - i)) * y;
    }
  }
  float total[R * C];
  add_lanes<R * C>(&sum[0][0], total);
  for (int r = 0; r < R; r++) std::memcpy(c + r * ldc, total + r * C, sizeof(float) * C);
  ahead.left -= fetched;
  ahead.row += fetched * ldb;
}

template <class T, int R, int C>
void rows_of_columns(int64_t m, int64_t k, const float* a, int64_t lda, const T* b, int64_t ldb, float* c,
                     int64_t ldc, Ahead<T>& ahead) {
  for (; m >= R; m -= R, a += R * lda, c += R * ldc) dot_block<T, R, C>(k, a, lda, b, ldb, c, ldc, ahead);
  if constexpr (R > 1)
    if (m > 0) rows_of_columns<T, R - 1, C>(m, k, a, lda, b, ldb, c, ldc, ahead);
}

template <class T>
void all_columns(const RowsBlock& x, int64_t m, const float* a, float* c) {
  const T* b = static_cast<const T*>(x.b);
  const int groups = int((m + kRows - 1) / kRows), share = (kColumns + groups - 1) / groups;
  int64_t j = 0;
  for (; j + kColumns <= x.n; j += kColumns, b += kColumns * x.ldb) {
    const int64_t left = x.n - j - kColumns;
    Ahead<T> ahead = {b + kColumns * x.ldb, left < kColumns ? int(left) : kColumns, share};
    rows_of_columns<T, kRows, kColumns>(m, x.k, a, x.lda, b, x.ldb, c + j, x.ldc, ahead);
  }
  Ahead<T> none = {};
  for (; j < x.n; j++, b += x.ldb)
    rows_of_columns<T, kRows, 1>(m, x.k, a, x.lda, b, x.ldb, c + j, x.ldc, none);
}

}  // namespace

void gemm_rows(const RowsBlock& x) {
  const int64_t fit = kChunkBytes / 4 / (x.k + 1) / kRows * kRows, chunk = fit > kRows ? fit : kRows;
  for (int64_t i = 0; i < x.m; i += chunk) {
    const int64_t rows = x.m - i < chunk ? x.m - i : chunk;
    if (x.b_dtype == DType::F32)
      all_columns<float>(x, rows, x.a + i * x.lda, x.c + i * x.ldc);
    else
      all_columns<uint16_t>(x, rows, x.a + i * x.lda, x.c + i * x.ldc);
  }
}

}  // namespace SDPO_ISA
}  // namespace sdpo
