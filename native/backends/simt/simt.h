// device.cuh for a C++ compiler: CUDA's names, each as a call into the SIMT machine (runtime.h).
// Collectives and barriers take the place they are called from as default arguments.
#pragma once
#include <cmath>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "backends/simt/checker.h"
#include "backends/simt/runtime.h"

#define DEV_INLINE inline __attribute__((always_inline))
#define DEV_ARCH 900
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define SDPO_SIMT_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define SDPO_SIMT_AT \
  ::sdpo::simt::Site { file, line }
#define threadIdx (::sdpo::simt::cur->index)
#define blockIdx (::sdpo::simt::cur->block->index)
#define blockDim (::sdpo::simt::machine.launch.block)
#define gridDim (::sdpo::simt::machine.launch.grid)
#define SHARED(T, name, n)          \
  static const char name##_key = 0; \
  T(&name)                          \
  [n] = *reinterpret_cast<T(*)[n]>( \
      ::sdpo::simt::static_array(&name##_key, sizeof(T) * (n), alignof(T) < 16 ? 16 : alignof(T)))

// The machine's own work on a thread's values is not the kernel's: the checker must not see it.
#define SDPO_SIMT_UNCHECKED __attribute__((no_sanitize("thread")))

namespace sdpo::simt {

template <class T>
struct Shuffle {
  T in, out;
  unsigned source;
  Site site;
};

template <class T>
SDPO_SIMT_UNCHECKED void shuffle_lanes(uint32_t lanes, void* const* values) {
  for (unsigned lane = 0; lane < 32; lane++) {
    if (!(lanes >> lane & 1)) continue;
    auto* own = static_cast<Shuffle<T>*>(values[lane]);
    if (!(lanes >> own->source & 1))
      fail("wrong lane mask: lane %u shuffles at %s:%d from lane %u, which does not take part (%08x)", lane,
           own->site.file, own->site.line, own->source, lanes);
    std::memcpy(&own->out, &static_cast<Shuffle<T>*>(values[own->source])->in, sizeof(T));
  }
}

template <class T>
SDPO_SIMT_UNCHECKED T shuffle(uint32_t mask, T value, unsigned source, const char* what, Site site) {
  Shuffle<T> own{value, value, source, site};
  collective(shuffle_lanes<T>, mask, &own, false, what, site);
  return own.out;
}

struct Vote {
  bool in;
  uint32_t out;
};
void vote_lanes(uint32_t lanes, void* const* values);
inline SDPO_SIMT_UNCHECKED uint32_t vote(uint32_t mask, bool in, const char* what, Site site) {
  Vote own{in, 0};
  collective(vote_lanes, mask, &own, false, what, site);
  return own.out;
}
void meet_lanes(uint32_t lanes, void* const* values);

struct Product {
  const uint32_t *a, *b;
  float* c;
};
void mma_lanes(uint32_t lanes, void* const* values);
struct MatrixLoad {
  const void* row;
  uint32_t* to;
  bool transposed;
  Site site;
};
void ldmatrix_lanes(uint32_t lanes, void* const* values);

inline void check_aligned(const void* p, const char* what, Site site) {
  if (reinterpret_cast<uintptr_t>(p) % 16)
    fail("misaligned: %s at %s:%d from an address that is no multiple of 16 (%s)", what, site.file, site.line,
         describe(p).c_str());
}

// One at a time by nature: fibers switch only where they wait.
template <class T, class Change>
SDPO_SIMT_UNCHECKED T atomic(T* p, Change change, Site site) {
  checker::access(p, sizeof(T), checker::Access::Atomic, site);
  const T old = *p;
  *p = change(old);
  return old;
}

template <class... Parameters>
struct Packed {
  void (*kernel)(Parameters...);
  std::tuple<std::decay_t<Parameters>...> arguments;
  static void run(void* self) {
    auto* packed = static_cast<Packed*>(self);
    std::apply(packed->kernel, packed->arguments);
  }
};

}  // namespace sdpo::simt

constexpr int warpSize = 32;

inline void __syncthreads(SDPO_SIMT_SITE) { sdpo::simt::block_barrier(SDPO_SIMT_AT); }
inline void __syncwarp(uint32_t mask = ~0u, SDPO_SIMT_SITE) {
  sdpo::simt::collective(sdpo::simt::meet_lanes, mask, nullptr, true, "__syncwarp", SDPO_SIMT_AT);
}
template <class T>
T __shfl_sync(uint32_t mask, T value, int source, int width = 32, SDPO_SIMT_SITE) {
  const unsigned lane = sdpo::simt::cur->lane,
                 from = (lane & ~unsigned(width - 1)) | unsigned(source & (width - 1));
  return sdpo::simt::shuffle(mask, value, from, "__shfl_sync", SDPO_SIMT_AT);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int bits, int width = 32, SDPO_SIMT_SITE) {
  const unsigned lane = sdpo::simt::cur->lane, other = lane ^ unsigned(bits), segment = ~unsigned(width - 1);
  const unsigned from = (other & segment) > (lane & segment) ? lane : other;
  return sdpo::simt::shuffle(mask, value, from, "__shfl_xor_sync", SDPO_SIMT_AT);
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, unsigned by, int width = 32, SDPO_SIMT_SITE) {
  const unsigned lane = sdpo::simt::cur->lane;
  const unsigned from = (lane & unsigned(width - 1)) + by < unsigned(width) ? lane + by : lane;
  return sdpo::simt::shuffle(mask, value, from, "__shfl_down_sync", SDPO_SIMT_AT);
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, unsigned by, int width = 32, SDPO_SIMT_SITE) {
  const unsigned lane = sdpo::simt::cur->lane, from = (lane & unsigned(width - 1)) >= by ? lane - by : lane;
  return sdpo::simt::shuffle(mask, value, from, "__shfl_up_sync", SDPO_SIMT_AT);
}
inline uint32_t __ballot_sync(uint32_t mask, int predicate, SDPO_SIMT_SITE) {
  return sdpo::simt::vote(mask, predicate, "__ballot_sync", SDPO_SIMT_AT);
}
inline int __any_sync(uint32_t mask, int predicate, SDPO_SIMT_SITE) {
  return sdpo::simt::vote(mask, predicate, "__any_sync", SDPO_SIMT_AT) != 0;
}
inline int __all_sync(uint32_t mask, int predicate, SDPO_SIMT_SITE) {
  return sdpo::simt::vote(mask, !predicate, "__all_sync", SDPO_SIMT_AT) == 0;
}

template <class T>
T atomicAdd(T* p, T value, SDPO_SIMT_SITE) {
  return sdpo::simt::atomic(p, [=](T old) { return T(old + value); }, SDPO_SIMT_AT);
}
template <class T>
T atomicMax(T* p, T value, SDPO_SIMT_SITE) {
  return sdpo::simt::atomic(p, [=](T old) { return old < value ? value : old; }, SDPO_SIMT_AT);
}
template <class T>
T atomicMin(T* p, T value, SDPO_SIMT_SITE) {
  return sdpo::simt::atomic(p, [=](T old) { return value < old ? value : old; }, SDPO_SIMT_AT);
}
template <class T>
T atomicOr(T* p, T value, SDPO_SIMT_SITE) {
  return sdpo::simt::atomic(p, [=](T old) { return T(old | value); }, SDPO_SIMT_AT);
}
template <class T>
T atomicExch(T* p, T value, SDPO_SIMT_SITE) {
  return sdpo::simt::atomic(p, [=](T) { return value; }, SDPO_SIMT_AT);
}
template <class T>
T atomicCAS(T* p, T compare, T value, SDPO_SIMT_SITE) {
  return sdpo::simt::atomic(p, [=](T old) { return old == compare ? value : old; }, SDPO_SIMT_AT);
}
inline void __threadfence() {}
inline void __threadfence_block() {}

inline float __uint_as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float __int_as_float(int bits) { return __uint_as_float(uint32_t(bits)); }
inline int __float_as_int(float x) { return int(__float_as_uint(x)); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline int __popc(uint32_t x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(uint32_t(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return uint32_t(uint64_t(a) * b >> 32); }
using std::isfinite;
using std::isinf;
using std::isnan;
using std::max;
using std::min;

namespace sdpo {

inline bf16 to_bf16(float x) {
  const uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return bf16{0x7fff};
  return bf16{uint16_t((bits + 0x7fffu + (bits >> 16 & 1)) >> 16)};
}
inline float exp2_fast(float x) { return std::exp2(x); }
inline float log2_fast(float x) { return std::log2(x); }

// 16-byte accesses: one instruction, which faults where the address is no multiple of 16.
template <class V>
SDPO_SIMT_UNCHECKED V ld16(const V* p, SDPO_SIMT_SITE) {
  static_assert(sizeof(V) == 16, "16 bytes");
  simt::check_aligned(p, "ld16", SDPO_SIMT_AT);
  simt::checker::access(p, 16, simt::checker::Access::Read, SDPO_SIMT_AT);
  return *p;
}
template <class V>
SDPO_SIMT_UNCHECKED void st16(V* p, const V& v, SDPO_SIMT_SITE) {
  static_assert(sizeof(V) == 16, "16 bytes");
  simt::check_aligned(p, "st16", SDPO_SIMT_AT);
  simt::checker::access(p, 16, simt::checker::Access::Write, SDPO_SIMT_AT);
  *p = v;
}
template <class V>
V ld16_once(const V* p, SDPO_SIMT_SITE) {
  return ld16(p, file, line);
}
template <class V>
void st16_once(V* p, const V& v, SDPO_SIMT_SITE) {
  st16(p, v, file, line);
}

class Smem {
 public:
  template <class T>
  T* take(uint32_t n, uint32_t align = 16, SDPO_SIMT_SITE) {
    const uint32_t at = (used_ + align - 1) & ~(align - 1);
    used_ = at + n * uint32_t(sizeof(T));
    return static_cast<T*>(simt::dynamic_array(at, n * sizeof(T), align, SDPO_SIMT_AT));
  }

 private:
  uint32_t used_ = 0;
};

inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], SDPO_SIMT_SITE) {
  simt::Product own{a, b, c};
  simt::collective(simt::mma_lanes, ~0u, &own, false, "mma_bf16", SDPO_SIMT_AT);
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, SDPO_SIMT_SITE) {
  simt::MatrixLoad own{row, r, false, SDPO_SIMT_AT};
  simt::collective(simt::ldmatrix_lanes, ~0u, &own, false, "ldmatrix_x4", SDPO_SIMT_AT);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, SDPO_SIMT_SITE) {
  simt::MatrixLoad own{row, r, true, SDPO_SIMT_AT};
  simt::collective(simt::ldmatrix_lanes, ~0u, &own, false, "ldmatrix_x4_trans", SDPO_SIMT_AT);
}

inline void copy16_async(void* to_shared, const void* from, SDPO_SIMT_SITE) {
  simt::start_copy(simt::Copy::Async, to_shared, from, 16, nullptr, SDPO_SIMT_AT);
}
inline void copy_commit() { simt::commit_copies(simt::Copy::Async); }
template <int groups>
void copy_wait() {
  simt::wait_copies(simt::Copy::Async, groups);
}

inline uint32_t cluster_rank() { return simt::cur->block->rank; }
inline void cluster_sync(SDPO_SIMT_SITE) { simt::cluster_barrier(SDPO_SIMT_AT); }
template <class T>
T* cluster_map(T* p, uint32_t rank) {
  return static_cast<T*>(simt::map_rank(p, rank));
}
inline void mbar_init(uint64_t* barrier, uint32_t arrivals, SDPO_SIMT_SITE) {
  simt::mbar_init(barrier, arrivals, SDPO_SIMT_AT);
}
inline void mbar_expect(uint64_t* barrier, uint32_t bytes, SDPO_SIMT_SITE) {
  simt::mbar_arrive(barrier, bytes, SDPO_SIMT_AT);
}
inline void mbar_arrive(uint64_t* barrier, SDPO_SIMT_SITE) { simt::mbar_arrive(barrier, 0, SDPO_SIMT_AT); }
inline void mbar_wait(uint64_t* barrier, uint32_t parity, SDPO_SIMT_SITE) {
  simt::mbar_wait(barrier, parity, SDPO_SIMT_AT);
}
inline void bulk_load(void* to_shared, const void* from, uint32_t bytes, uint64_t* barrier, SDPO_SIMT_SITE) {
  simt::start_copy(simt::Copy::BulkLoad, to_shared, from, bytes, barrier, SDPO_SIMT_AT);
}
inline void bulk_fence() {}
inline void bulk_store(void* to, const void* from_shared, uint32_t bytes, SDPO_SIMT_SITE) {
  simt::start_copy(simt::Copy::BulkStore, to, const_cast<void*>(from_shared), bytes, nullptr, SDPO_SIMT_AT);
}
inline void bulk_commit() { simt::commit_copies(simt::Copy::BulkStore); }
template <int groups>
void bulk_wait_read() {
  simt::wait_copies(simt::Copy::BulkStore, groups);
}
template <int groups>
void bulk_wait() {
  simt::wait_copies(simt::Copy::BulkStore, groups);
}

template <class... Parameters, class... Arguments>
void launch_cluster(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, unsigned cluster,
                    void*, Arguments&&... arguments) {
  using Packed = simt::Packed<Parameters...>;
  Packed packed{kernel, {static_cast<std::decay_t<Parameters>>(arguments)...}};
  simt::Launch launch;
  launch.grid = grid;
  launch.block = block;
  launch.cluster = cluster;
  launch.dynamic_bytes = shared;
  launch.run = Packed::run;
  launch.arguments = &packed;
  launch.kernel = reinterpret_cast<const void*>(kernel);
  simt::run_launch(launch);
}

}  // namespace sdpo
