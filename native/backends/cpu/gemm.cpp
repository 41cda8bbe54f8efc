#include "backends/cpu/gemm.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "backends/cpu/gemm_kernels.h"
#include "core/error.h"
#include "core/parallel.h"

namespace sdpo {
namespace {

// Multiply-adds below which a task is not worth handing to another thread.
constexpr int64_t kTaskWork = 1 << 20, kRowsTaskWork = 1 << 19;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

GemmOperand part(GemmOperand x, int64_t row, int64_t column) {
  const int64_t offset = x.transposed ? column * x.ld + row : row * x.ld + column;
  x.data = static_cast<const char*>(x.data) + offset * dtype_bytes(x.dtype);
  return x;
}

float* pack_buffer() {
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  thread_local std::unique_ptr<float, Free> buffer;
  if (!buffer) buffer.reset(static_cast<float*>(std::aligned_alloc(64, kGemmPackFloats * sizeof(float))));
  if (!buffer) throw std::bad_alloc();
  return buffer.get();
}

struct Tiling {
  int64_t rows, columns;  // of a tile
};

// Enough tiles for the threads, as square as can be. Elements do not depend on the tiling, so it may follow
// the number of threads.
Tiling choose_tiling(int64_t m, int64_t n, int64_t k) {
  const int64_t wanted = std::min<int64_t>(4 * thread_count(), ceil_div(m * n, ceil_div(kTaskWork, k)));
  int64_t down = 1, across = ceil_div(n, kGemmColumns);
  while (thread_count() > 1 && down * across < wanted) {
    if (m * across > n * down)
      down++;
    else
      across++;
  }
  return {round_up(ceil_div(m, down), kGemmRowStep),
          std::min(kGemmColumns, round_up(ceil_div(n, across), kGemmColumnStep))};
}

void gemm_builtin(int64_t m, int64_t n, int64_t k, const GemmOperand& a, const GemmOperand& b, float beta,
                  float* c, int64_t ldc) {
  const Tiling tile = choose_tiling(m, n, k);
  const int64_t down = ceil_div(m, tile.rows), across = ceil_div(n, tile.columns);
  parallel_tasks(down * across, [&](int64_t task) {
    const int64_t i = task % down * tile.rows, j = task / down * tile.columns;
    const int64_t rows = std::min(tile.rows, m - i), columns = std::min(tile.columns, n - j);
    gemm_tile({rows, columns, k, part(a, i, 0), part(b, 0, j), beta, c + i * ldc + j, ldc, pack_buffer()});
  });
}

}  // namespace

void gemm(int64_t m, int64_t n, int64_t k, const GemmOperand& a, const GemmOperand& b, float beta, float* c,
          int64_t ldc) {
  if (m == 0 || n == 0) return;
  if (k == 0) {
    if (beta == 0)
      for (int64_t i = 0; i < m; i++) std::fill_n(c + i * ldc, n, 0.f);
    return;
  }
  gemm_builtin(m, n, k, a, b, beta, c, ldc);
}

void gemm_row_invariant(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const void* b,
                        DType b_dtype, int64_t ldb, float* c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  const int64_t step = 24, columns = round_up(ceil_div(kRowsTaskWork, m * (k + 1)), step);
  parallel_tasks(ceil_div(n, columns), [&](int64_t task) {
    const int64_t j = task * columns;
    const char* from = static_cast<const char*>(b) + j * ldb * dtype_bytes(b_dtype);
    gemm_rows({m, std::min(columns, n - j), k, a, lda, from, b_dtype, ldb, c + j, ldc});
  });
}

const char* gemm_name() { return "built-in"; }

}  // namespace sdpo
