// The checker: what every byte of device memory holds, and which accesses are ordered. Real in the `checked`
// variant (checker.cpp says how), nothing elsewhere.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "backends/simt/runtime.h"

namespace sdpo::simt::checker {

// Arriving: a copy is about to land there. Leaving: a copy has yet to read from there.
enum class Bytes : uint8_t { Unallocated, Undefined, Defined, Arriving, Leaving };
enum class Access : uint8_t { Read, Write, Atomic };

#ifdef SDPO_SIMT_CHECKED
char* arena(size_t bytes);  // zeroed address space that has shadows; never given back
void set(const void* p, size_t bytes, Bytes state);
void begin_launch(unsigned clusters);
void begin_cluster(size_t threads);
void forget(char* p, size_t bytes);  // unallocated again, and its pages given back
void order_warp(const Warp& warp, uint32_t lanes);
void order_block(const Block& block);
void order_cluster();
void release(const Thread& thread);  // it has arrived at an mbarrier
void access(const void* p, size_t bytes, Access kind, Site site);
#else
inline void set(const void*, size_t, Bytes) {}
inline void begin_launch(unsigned) {}
inline void begin_cluster(size_t) {}
inline void order_warp(const Warp&, uint32_t) {}
inline void order_block(const Block&) {}
inline void order_cluster() {}
inline void release(const Thread&) {}
inline void access(const void*, size_t, Access, Site) {}
#endif

}  // namespace sdpo::simt::checker
