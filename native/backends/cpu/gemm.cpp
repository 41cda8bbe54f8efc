#include "backends/cpu/gemm.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>

#include "backends/cpu/gemm_kernels.h"
#include "backends/cpu/gemm_onednn.h"
#include "core/error.h"
#include "core/parallel.h"

namespace sdpo {
namespace {

// Multiply-adds below which a task is not worth handing to another thread.
constexpr int64_t kTaskWork = 1 << 20, kRowsTaskWork = 1 << 19;
constexpr int64_t kOneDnnColumns = 1536, kOneDnnTasks = 64;
// Multiply-adds from which oneDNN's bfloat16 product is worth its fixed cost.
constexpr int64_t kBf16Work = 1 << 22;
// Up to so many rows, dot products with the rows of a transposed B are faster than packing it.
constexpr int64_t kFewRows = 32;

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

enum class Library { Builtin, OneDnn, Fastest, Bf16 };

Library parse(const std::string& name) {
  if (name == "fastest") return onednn_built() ? Library::Fastest : Library::Builtin;
  if (name == "builtin") return Library::Builtin;
  if (name != "onednn" && name != "bf16")
    throw Error("ERR_SDPO_ARGUMENT", str("SDPO_GEMM: expected builtin, onednn or bf16, got '", name, "'"));
  if (!onednn_built())
    throw Error("ERR_SDPO_DEVICE", str("GEMM '", name,
                                       "': the addon was built without oneDNN; install it (Debian: apt-get "
                                       "install libdnnl-dev) and rebuild, or use builtin"));
  if (name == "onednn") return Library::OneDnn;
  if (!cpu_has_bf16())
    throw Error("ERR_SDPO_DEVICE", "GEMM 'bf16': needs a processor with AVX-512 BF16 or AMX, and avx512");
  return Library::Bf16;
}

std::atomic<Library>& chosen() {
  static std::atomic<Library> library([] {
    const char* wish = std::getenv("SDPO_GEMM");
    return parse(wish && *wish ? wish : "fastest");
  }());
  return library;
}

struct Tiling {
  int64_t rows, columns;  // of a tile
};

// At least `wanted` tiles, as square as can be.
Tiling cut(int64_t m, int64_t n, int64_t most_columns, int64_t wanted) {
  int64_t down = 1, across = ceil_div(n, most_columns);
  while (down * across < wanted) {
    if (m * across > n * down)
      down++;
    else
      across++;
  }
  return {round_up(ceil_div(m, down), kGemmRowStep),
          std::min(most_columns, round_up(ceil_div(n, across), kGemmColumnStep))};
}

// body(i, j, rows, columns) for each tile of C.
template <class Body>
void for_tiles(int64_t m, int64_t n, const Tiling& tile, const Body& body) {
  const int64_t down = ceil_div(m, tile.rows), across = ceil_div(n, tile.columns);
  parallel_tasks(down * across, [&](int64_t task) {
    const int64_t i = task % down * tile.rows, j = task / down * tile.columns;
    body(i, j, std::min(tile.rows, m - i), std::min(tile.columns, n - j));
  });
}

int64_t tasks_worth(int64_t m, int64_t n, int64_t k, int64_t most) {
  return std::clamp<int64_t>(m * n / ceil_div(kTaskWork, k), 1, most);
}

// Elements do not depend on the tiling, so it may follow the number of threads.
void gemm_builtin(int64_t m, int64_t n, int64_t k, const GemmOperand& a, const GemmOperand& b, float beta,
                  float* c, int64_t ldc) {
  const int threads = thread_count();
  const int64_t wanted = threads > 1 ? tasks_worth(m, n, k, 4 * threads) : 1;
  for_tiles(m, n, cut(m, n, kGemmColumns, wanted), [&](int64_t i, int64_t j, int64_t rows, int64_t columns) {
    gemm_tile({rows, columns, k, part(a, i, 0), part(b, 0, j), beta, c + i * ldc + j, ldc, pack_buffer()});
  });
}

// oneDNN's elements may depend on the tiling, so that must not follow the number of threads. Its float32
// product with a transposed B is slow on small tiles.
Tiling onednn_tiling(int64_t m, int64_t n, int64_t k, bool large) {
  return cut(m, n, kOneDnnColumns, tasks_worth(m, n, k, kOneDnnTasks) / (large ? 8 : 1));
}

void gemm_onednn(int64_t m, int64_t n, int64_t k, const GemmOperand& a, const GemmOperand& b, float beta,
                 float* c, int64_t ldc) {
  const Tiling tiling = onednn_tiling(m, n, k, b.transposed);
  for_tiles(m, n, tiling, [&](int64_t i, int64_t j, int64_t rows, int64_t columns) {
    onednn_tile(rows, columns, k, part(a, i, 0), part(b, 0, j), beta, c + i * ldc + j, ldc);
  });
}

void gemm_onednn_bf16(int64_t m, int64_t n, int64_t k, GemmOperand a, const GemmOperand& b, float beta,
                      float* c, int64_t ldc) {
  std::unique_ptr<uint16_t[]> rounded;
  if (a.dtype == DType::F32) {
    const int64_t lines = a.transposed ? k : m, width = a.transposed ? m : k;
    rounded.reset(new uint16_t[size_t(lines * width)]);
    parallel_for(lines, ceil_div(1 << 14, width), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++)
        gemm_round(static_cast<const float*>(a.data) + i * a.ld, width, rounded.get() + i * width);
    });
    a = {rounded.get(), DType::BF16, width, a.transposed};
  }
  const Tiling tiling = onednn_tiling(m, n, k, false);
  for_tiles(m, n, tiling, [&](int64_t i, int64_t j, int64_t rows, int64_t columns) {
    onednn_bf16_tile(rows, columns, k, part(a, i, 0), part(b, 0, j), beta, c + i * ldc + j, ldc);
  });
}

}  // namespace

void gemm(int64_t m, int64_t n, int64_t k, const GemmOperand& a, const GemmOperand& b, float beta, float* c,
          int64_t ldc, bool bf16_compute) {
  if (m == 0 || n == 0) return;
  if (k == 0) {
    if (beta == 0)
      for (int64_t i = 0; i < m; i++) std::fill_n(c + i * ldc, n, 0.f);
    return;
  }
  const Library library = chosen();
  const bool plain = a.dtype == DType::F32 && b.dtype == DType::F32;
  const bool bf16 = bf16_compute && b.dtype == DType::BF16 && library != Library::Builtin && cpu_has_bf16() &&
                    (library == Library::Bf16 || m * n * k >= kBf16Work);
  const bool few_rows = m <= kFewRows && a.dtype == DType::F32 && !a.transposed && b.transposed && beta == 0;
  if (library == Library::OneDnn && plain)
    gemm_onednn(m, n, k, a, b, beta, c, ldc);
  else if (bf16)
    gemm_onednn_bf16(m, n, k, a, b, beta, c, ldc);
  else if (few_rows)
    gemm_row_invariant(m, n, k, static_cast<const float*>(a.data), a.ld, b.data, b.dtype, b.ld, c, ldc);
  else if (library != Library::Builtin && plain && !b.transposed)
    gemm_onednn(m, n, k, a, b, beta, c, ldc);
  else
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

std::string gemm_name() {
  switch (chosen()) {
    case Library::OneDnn:
      return onednn_name();
    case Library::Fastest:
      return onednn_name() + " and built-in";
    case Library::Bf16:
      return onednn_name() + " and built-in, bf16 wherever it may be";
    default:
      return "built-in";
  }
}

void set_gemm(const std::string& name) { chosen() = parse(name); }

}  // namespace sdpo
