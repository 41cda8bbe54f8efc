// The one header of a kernel file (native/ops/*.cu). nvcc builds it for the GPU; a C++ compiler builds the
// same file against the SIMT backend, where every GPU thread is a fiber and every rule below is checked.
//
// Names beyond CUDA's own (threadIdx, __syncthreads, __shfl_xor_sync, atomicAdd, ...):
//   bf16, bf16x8, to_f32, to_bf16       the stored type; rounds to nearest even
//   ld16, st16, ld16_once, st16_once    one 16-byte access; `once`: not kept in the caches
//   Smem::take<T>(n, align), SHARED     dynamic and static shared memory; never `__shared__`. What other
//                                       blocks of a cluster reach is taken before the cluster_sync that they
//                                       wait for
//   exp2_fast, log2_fast                the special function unit's (ex2.approx, lg2.approx)
//   mma_bf16, ldmatrix_x4[_trans]       16x8x16 tensor core product, and its loads
//   copy16_async, copy_commit, copy_wait<n>   16 bytes global -> shared, this thread's groups
//   sm_90 only, inside #if DEV_HAS_CLUSTER, by launchers that looked at properties().arch:
//   cluster_rank, cluster_sync, cluster_map   blocks of one cluster and each other's shared memory
//   mbar_init, mbar_expect, mbar_arrive, mbar_wait, bulk_load          bulk copy global -> shared
//   bulk_fence, bulk_store, bulk_commit, bulk_wait_read<n>, bulk_wait<n>   and back: fence the writes first
// Host: launch(kernel, grid, block, shared bytes, stream, arguments...), launch_cluster(..., cluster, ...).
// Both throw Error. A thread may not return before a barrier that others still reach.
#pragma once
#include <cstdint>

#include "backends/plugin.h"

namespace sdpo {

struct alignas(2) bf16 {
  uint16_t bits;
};
struct alignas(16) bf16x8 {
  bf16 v[8];
};

}  // namespace sdpo

#ifdef __CUDACC__
#include "backends/cuda/device_cuda.cuh"
#else
#include "backends/simt/simt.h"
#endif
#define DEV_HAS_CLUSTER (DEV_ARCH >= 900)

namespace sdpo {

DEV_INLINE float to_f32(bf16 b) { return __uint_as_float(uint32_t(b.bits) << 16); }

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, void* stream,
            Arguments&&... arguments) {
  launch_cluster(kernel, grid, block, shared, 1, stream, static_cast<Arguments&&>(arguments)...);
}

}  // namespace sdpo
