// Packed, cache-blocked product of one tile, after the scheme of BLIS (Van Zee and van de Geijn, "BLIS: A
// framework for rapidly instantiating BLAS functionality", 2015): panels of A and B are copied in the order
// in which the micro-kernel reads them, which also takes care of transposition and of bfloat16.
#include "backends/cpu/gemm_kernels.h"
#include "core/simd.h"

namespace sdpo {
namespace SDPO_ISA {
namespace {

// Rows x vectors of the micro-kernel's accumulators: what the registers of the instruction set hold.
constexpr int kRows = SDPO_VECTOR_BYTES == 64 ? 12 : 4;
constexpr int kVectors = SDPO_VECTOR_BYTES == 32 ? 3 : 2;
constexpr int kColumns = kVectors * kLanes;
static_assert(kGemmColumns % kColumns == 0 && kGemmRowStep % kRows == 0, "tiles of whole panels");
// Packing B costs about as much as this many rows save by it.
constexpr int64_t kRowsInPlace = SDPO_VECTOR_BYTES == 64 ? 96 : 48;

typedef float Quad __attribute__((vector_size(16)));
typedef uint32_t QuadU __attribute__((vector_size(16)));

inline Quad load_quad(const float* p) {
  Quad q;
  std::memcpy(&q, p, sizeof q);
  return q;
}
inline Quad load_quad(const uint16_t* p) {
  typedef uint16_t Half __attribute__((vector_size(8)));
  Half h;
  std::memcpy(&h, p, sizeof h);
  const QuadU wide = __builtin_convertvector(h, QuadU) << 16;
  return (Quad)wide;
}
inline float load_one(const float* p) { return *p; }
inline float load_one(const uint16_t* p) {
  const uint32_t bits = uint32_t(*p) << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}
inline Vec load_vec(const float* p) { return load(p); }
inline Vec load_vec(const uint16_t* p) { return load_bf16(p); }

// to[k * width + w] for 4 values of w and k.
template <class T>
inline void transpose_quads(const T* from, int64_t ld, int64_t width, float* to) {
  const Quad a = load_quad(from), b = load_quad(from + ld), c = load_quad(from + 2 * ld),
             d = load_quad(from + 3 * ld);
  const Quad ab0 = SDPO_SHUFFLE4(a, b, 0, 4, 1, 5), ab1 = SDPO_SHUFFLE4(a, b, 2, 6, 3, 7);
  const Quad cd0 = SDPO_SHUFFLE4(c, d, 0, 4, 1, 5), cd1 = SDPO_SHUFFLE4(c, d, 2, 6, 3, 7);
  const Quad out[4] = {SDPO_SHUFFLE4(ab0, cd0, 0, 1, 4, 5), SDPO_SHUFFLE4(ab0, cd0, 2, 3, 6, 7),
                       SDPO_SHUFFLE4(ab1, cd1, 0, 1, 4, 5), SDPO_SHUFFLE4(ab1, cd1, 2, 3, 6, 7)};
  for (int i = 0; i < 4; i++) std::memcpy(to + i * width, &out[i], sizeof(Quad));
}

// A panel of `count` lines that are contiguous along k. Whole cache lines are read at a time: lines whose
// distance is a power of two would otherwise push each other out.
template <class T>
void pack_along(const T* from, int64_t ld, int64_t count, int64_t depth, int64_t width, float* to) {
  for (int64_t k0 = 0; k0 < depth; k0 += 16) {
    const int64_t k1 = k0 + 16 < depth ? k0 + 16 : depth;
    for (int64_t w = 0; w < count; w += 4) {
      int64_t k = k0;
      if (w + 4 <= count)
        for (; k + 4 <= k1; k += 4) transpose_quads(from + w * ld + k, ld, width, to + k * width + w);
      for (; k < k1; k++)
        for (int64_t i = w; i < w + 4 && i < count; i++) to[k * width + i] = load_one(from + i * ld + k);
    }
    for (int64_t k = k0; k < k1; k++)
      for (int64_t w = count; w < width; w++) to[k * width + w] = 0;
  }
}

// A panel whose `count` elements of one k are contiguous.
template <class T>
void pack_across(const T* from, int64_t ld, int64_t count, int64_t depth, int64_t width, float* to) {
  for (int64_t k = 0; k < depth; k++, from += ld, to += width) {
    int64_t w = 0;
    for (; w + kLanes <= count; w += kLanes) store(to + w, load_vec(from + w));
    for (; w + 4 <= count; w += 4) {
      const Quad q = load_quad(from + w);
      std::memcpy(to + w, &q, sizeof q);
    }
    for (; w < count; w++) to[w] = load_one(from + w);
    for (; w < width; w++) to[w] = 0;
  }
}

// to[k * width + w] = x(w, k) for w < count, 0 for count <= w < width; `along`: neighbours in k are
// neighbours in memory.
template <class T>
void pack(const T* data, int64_t ld, bool along, int64_t w0, int64_t count, int64_t k0, int64_t depth,
          int64_t width, float* to) {
  if (along)
    pack_along(data + w0 * ld + k0, ld, count, depth, width, to);
  else
    pack_across(data + k0 * ld + w0, ld, count, depth, width, to);
}

void pack(const GemmOperand& x, bool along, int64_t w0, int64_t count, int64_t k0, int64_t depth,
          int64_t width, float* to) {
  if (x.dtype == DType::F32)
    pack(static_cast<const float*>(x.data), x.ld, along, w0, count, k0, depth, width, to);
  else
    pack(static_cast<const uint16_t*>(x.data), x.ld, along, w0, count, k0, depth, width, to);
}

// C[R, V vectors] (+)= A panel [depth, R] * B [depth, V vectors], whose lines are `ldb` apart; `last` lanes
// of the last vector count.
template <int R, int V>
void micro_kernel(int64_t depth, const float* a, const float* b, int64_t ldb, float* c, int64_t ldc, bool add,
                  int last) {
  Vec sum[R][V] = {};
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
    for (int v = 0; v < V; v++) __builtin_prefetch(c + r * ldc + v * kLanes, 1);
  for (int64_t k = 0; k < depth; k++, a += R, b += ldb) {
    Vec line[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) line[v] = load(b + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const Vec x = splat(a[r]);
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) sum[r][v] += x * line[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
      float* to = c + r * ldc + v * kLanes;
      if (v < V - 1 || last == kLanes)
        store(to, add ? load(to) + sum[r][v] : sum[r][v]);
      else
        store_part(to, add ? load_part(to, last, 0) + sum[r][v] : sum[r][v], last);
    }
  }
}

using MicroKernel = void (*)(int64_t, const float*, const float*, int64_t, float*, int64_t, bool, int);

template <int R, int V>
MicroKernel find_micro_kernel(int rows, int vectors) {
  if constexpr (V > 1)
    if (vectors < V) return find_micro_kernel<R, V - 1>(rows, vectors);
  if constexpr (R > 1)
    if (rows < R) return find_micro_kernel<R - 1, V>(rows, vectors);
  return micro_kernel<R, V>;
}

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// `count` columns of B: packed, or where they lie in a row-major B.
struct Panel {
  const float* b;
  int64_t ldb;
  int count, vectors;
};

// Packs what is worth it: for few rows of A a panel of whole vectors is read where it lies.
int make_panels(const GemmTile& t, int64_t k0, int64_t depth, float* to, Panel* panels) {
  const bool in_place = t.m <= kRowsInPlace && t.b.dtype == DType::F32 && !t.b.transposed;
  int made = 0;
  for (int64_t j = 0; j < t.n; j += kColumns) {
    const int64_t count = least(kColumns, t.n - j), vectors = (count + kLanes - 1) / kLanes;
    Panel& panel = panels[made++];
    if (in_place && count == vectors * kLanes) {
      panel = {static_cast<const float*>(t.b.data) + k0 * t.b.ld + j, t.b.ld, int(count), int(vectors)};
    } else {
      panel = {to + j * depth, vectors * kLanes, int(count), int(vectors)};
      pack(t.b, t.b.transposed, j, count, k0, depth, vectors * kLanes, to + j * depth);
    }
  }
  return made;
}

void multiply_block(const GemmTile& t, int64_t k0, int64_t depth, bool add) {
  Panel panels[kGemmColumns / kColumns];
  float* panel_a = t.pack;
  const int made = make_panels(t, k0, depth, t.pack + kGemmDepth * kGemmRowStep, panels);
  for (int64_t i = 0; i < t.m; i += kRows) {
    const int rows = int(least(kRows, t.m - i));
    pack(t.a, !t.a.transposed, i, rows, k0, depth, rows, panel_a);
    const MicroKernel whole = find_micro_kernel<kRows, kVectors>(rows, kVectors);
    for (int p = 0; p < made; p++) {
      const auto [b, ldb, count, vectors] = panels[p];
      const MicroKernel kernel =
          vectors == kVectors ? whole : find_micro_kernel<kRows, kVectors>(rows, vectors);
      kernel(depth, panel_a, b, ldb, t.c + i * t.ldc + p * kColumns, t.ldc, add,
             count - (vectors - 1) * kLanes);
    }
  }
}

}  // namespace

void gemm_tile(const GemmTile& tile) {
  const int64_t blocks = (tile.k + kGemmDepth - 1) / kGemmDepth;
  for (int64_t i = 0; i < blocks; i++) {
    const int64_t begin = tile.k * i / blocks, end = tile.k * (i + 1) / blocks;
    multiply_block(tile, begin, end - begin, i > 0 || tile.beta != 0);
  }
}

void gemm_round(const float* from, int64_t n, uint16_t* to) {
  for (int64_t i = 0; i < n; i++) {
    uint32_t bits;
    std::memcpy(&bits, from + i, 4);
    const uint32_t nan = (bits >> 16) | 0x40u, near = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    to[i] = uint16_t((bits & 0x7fffffffu) > 0x7f800000u ? nan : near);
  }
}

}  // namespace SDPO_ISA
}  // namespace sdpo
