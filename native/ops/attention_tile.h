// Small matrix products for the attention kernels; for *.simd.cpp files only.
// An element of the product is one chain of multiply-adds over the depth, in order: its bits depend on its
// row of a and its column of b alone, not on where the tiles fall.
#pragma once
#include "core/simd.h"

namespace sdpo {
namespace SDPO_ISA {
namespace {

constexpr int kTileRows = kLanes == 16 ? 8 : 4;
constexpr int kTileVectors = kLanes == 16 ? 2 : 3;

enum class Into { Store, Add, Scale };  // c = ab, c += ab, c = c * scale[row] + ab

// Element (i, l) at data[i * row + l * step].
struct Left {
  const float* data;
  int64_t row, step;
};

template <int rows, int vectors, Into into>
inline void tile(const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t ldb, int64_t depth,
                 float* c, int64_t ldc, const float* scale) {
  Vec sum[rows][vectors] = {};
  for (int64_t l = 0; l < depth; l++) {
    Vec right[vectors];
    for (int j = 0; j < vectors; j++) right[j] = load(b + l * ldb + j * kLanes);
    for (int i = 0; i < rows; i++) {
      const Vec left = splat(a[i * a_row + l * a_step]);
      for (int j = 0; j < vectors; j++) sum[i][j] += left * right[j];
    }
  }
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < vectors; j++) {
      float* to = c + i * ldc + j * kLanes;
      if (into == Into::Add) sum[i][j] += load(to);
      if (into == Into::Scale) sum[i][j] += load(to) * splat(scale[i]);
      store(to, sum[i][j]);
    }
}

template <int rows, int vectors, Into into>
inline int64_t tile_rows(int64_t from, int64_t m, int64_t depth, const Left& a, const float* b, int64_t ldb,
                         float* c, int64_t ldc, const float* scale) {
  for (; from + rows <= m; from += rows)
    tile<rows, vectors, into>(a.data + from * a.row, a.row, a.step, b, ldb, depth, c + from * ldc, ldc,
                              into == Into::Scale ? scale + from : nullptr);
  return from;
}

template <int vectors, Into into>
inline void tile_columns(int64_t m, int64_t depth, const Left& a, const float* b, int64_t ldb, float* c,
                         int64_t ldc, const float* scale) {
  int64_t row = tile_rows<kTileRows, vectors, into>(0, m, depth, a, b, ldb, c, ldc, scale);
  row = tile_rows<3, vectors, into>(row, m, depth, a, b, ldb, c, ldc, scale);
  tile_rows<1, vectors, into>(row, m, depth, a, b, ldb, c, ldc, scale);
}

// c [m, n] from a [m, depth] and b [depth, n]; n is a multiple of kLanes.
template <Into into>
inline void multiply(int64_t m, int64_t n, int64_t depth, const Left& a, const float* b, int64_t ldb,
                     float* c, int64_t ldc, const float* scale = nullptr) {
  int64_t column = 0;
  for (; column + kTileVectors * kLanes <= n; column += kTileVectors * kLanes)
    tile_columns<kTileVectors, into>(m, depth, a, b + column, ldb, c + column, ldc, scale);
  if (kTileVectors > 2 && column + 2 * kLanes <= n) {
    tile_columns<2, into>(m, depth, a, b + column, ldb, c + column, ldc, scale);
    column += 2 * kLanes;
  }
  if (column < n) tile_columns<1, into>(m, depth, a, b + column, ldb, c + column, ldc, scale);
}

}  // namespace
}  // namespace SDPO_ISA
}  // namespace sdpo
