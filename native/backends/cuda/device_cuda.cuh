// device.cuh on a GPU. Each wrapper is the PTX instruction of the same meaning.
#pragma once
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#define DEV_INLINE __device__ __forceinline__
#ifdef __CUDA_ARCH__
#define DEV_ARCH __CUDA_ARCH__
#else
#define DEV_ARCH 0
#endif
#define SHARED(T, name, n) __shared__ T name[n]

namespace sdpo {

DEV_INLINE bf16 to_bf16(float x) { return bf16{__bfloat16_as_ushort(__float2bfloat16_rn(x))}; }

DEV_INLINE float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
DEV_INLINE float log2_fast(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// nvcc splits `*p` of a struct of eight bf16 into 2-byte accesses: hence these.
template <class V>
union Bits16 {
  static_assert(sizeof(V) == 16, "16 bytes");
  uint4 bits;
  V value;
  DEV_INLINE explicit Bits16(uint4 b) : bits(b) {}
  DEV_INLINE explicit Bits16(const V& v) : value(v) {}
};
template <class V>
DEV_INLINE V ld16(const V* p) {
  return Bits16<V>(*reinterpret_cast<const uint4*>(p)).value;
}
template <class V>
DEV_INLINE void st16(V* p, const V& v) {
  *reinterpret_cast<uint4*>(p) = Bits16<V>(v).bits;
}
template <class V>
DEV_INLINE V ld16_once(const V* p) {
  return Bits16<V>(__ldcs(reinterpret_cast<const uint4*>(p))).value;
}
template <class V>
DEV_INLINE void st16_once(V* p, const V& v) {
  __stcs(reinterpret_cast<uint4*>(p), Bits16<V>(v).bits);
}

class Smem {
 public:
  template <class T>
  DEV_INLINE T* take(uint32_t n, uint32_t align = 16) {
    extern __shared__ __align__(128) unsigned char dynamic_shared_memory[];
    const uint32_t at = (used_ + align - 1) & ~(align - 1);
    used_ = at + n * uint32_t(sizeof(T));
    return reinterpret_cast<T*>(dynamic_shared_memory + at);
  }

 private:
  uint32_t used_ = 0;
};

DEV_INLINE uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

DEV_INLINE void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DEV_INLINE void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
DEV_INLINE void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

DEV_INLINE void copy16_async(void* to_shared, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to_shared)), "l"(from)
               : "memory");
}
DEV_INLINE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int groups>
DEV_INLINE void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
}

#if DEV_ARCH >= 900
DEV_INLINE uint32_t cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
DEV_INLINE void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
template <class T>
DEV_INLINE T* cluster_map(T* p, uint32_t rank) {
  uint64_t there;
  asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(reinterpret_cast<uint64_t>(p)), "r"(rank));
  return reinterpret_cast<T*>(there);
}
DEV_INLINE void mbar_init(uint64_t* barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\nfence.mbarrier_init.release.cluster;" ::"r"(
                   shared_address(barrier)),
               "r"(arrivals)
               : "memory");
}
DEV_INLINE void mbar_expect(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(bytes)
               : "memory");
}
DEV_INLINE void mbar_arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
DEV_INLINE void mbar_wait(uint64_t* barrier, uint32_t parity) {
  uint32_t done = 0;
  while (!done) {
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
  }
}
DEV_INLINE void bulk_load(void* to_shared, const void* from, uint32_t bytes, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          shared_address(to_shared)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
}
DEV_INLINE void bulk_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
DEV_INLINE void bulk_store(void* to, const void* from_shared, uint32_t bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to),
               "r"(shared_address(from_shared)), "r"(bytes)
               : "memory");
}
DEV_INLINE void bulk_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
template <int groups>
DEV_INLINE void bulk_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(groups) : "memory");
}
template <int groups>
DEV_INLINE void bulk_wait() {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(groups) : "memory");
}
#endif

inline void check_cuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess)
    throw Error(error == cudaErrorMemoryAllocation ? "ERR_SDPO_MEMORY" : "ERR_SDPO_DEVICE",
                str(what, ": ", cudaGetErrorString(error)));
}

template <class... Parameters, class... Arguments>
void launch_cluster(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, unsigned cluster,
                    void* stream, Arguments&&... arguments) {
  if (shared > 48 * 1024)
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared)),
               "shared memory of a kernel");
  if (cluster > 8)
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1),
               "cluster size of a kernel");
  cudaLaunchAttribute attribute[1];
  attribute[0].id = cudaLaunchAttributeClusterDimension;
  attribute[0].val.clusterDim = {cluster, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = attribute;
  config.numAttrs = cluster > 1;
  check_cuda(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), "kernel launch");
}

}  // namespace sdpo
