// Global memory and the shared memory of blocks. Arrays of shared memory lie apart, with redzones between
// them, aligned to what was asked for and no more, and filled with NaN.
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <new>

#include "backends/simt/checker.h"
#include "backends/simt/runtime.h"
#include "core/error.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, bytes) ((void)(p))
#define ASAN_UNPOISON_MEMORY_REGION(p, bytes) ((void)(p))
#endif

namespace sdpo::simt {
namespace {

constexpr unsigned char kRedzoneByte = 0xa5;

std::map<const char*, size_t> allocations;

#ifdef SDPO_SIMT_CHECKED
std::multimap<size_t, char*> freed_blocks;

char* pages(size_t bytes) { return checker::arena(bytes); }
#else
char* pages(size_t bytes) {
  void* memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return static_cast<char*>(memory);
}
#endif

char* slot(unsigned rank) {
  while (machine.shared.size() <= rank) {
    machine.shared.push_back(pages(kSharedSlot));
  }
  return machine.shared[rank];
}

char* place(Block& block, const Array& wanted, size_t align) {
  // Twice the alignment plus one of it: aligned to `align` and to no more.
  const size_t step = 2 * (align < 4 ? 4 : align);
  const size_t at = (block.shared_used + kRedzone + step - 1) / step * step + step / 2;
  if (at + wanted.bytes + kRedzone > kSharedSlot)
    fail("shared memory: the arrays and their redzones do not fit");
  char* data = block.shared + at;
  checker::set(data, wanted.bytes, checker::Bytes::Undefined);
  ASAN_UNPOISON_MEMORY_REGION(block.shared + block.shared_used,
                              at + wanted.bytes + kRedzone - block.shared_used);
  std::memset(block.shared + block.shared_used, kRedzoneByte, at - block.shared_used);
  std::memset(data, kFill, wanted.bytes);
  std::memset(data + wanted.bytes, kRedzoneByte, kRedzone);
  ASAN_POISON_MEMORY_REGION(block.shared + block.shared_used, at - block.shared_used);
  ASAN_POISON_MEMORY_REGION(data + wanted.bytes, kRedzone);
  block.shared_used = at + wanted.bytes;
  block.arrays.push_back(wanted);
  block.arrays.back().data = data;
  return data;
}

}  // namespace

uint64_t shared_limit() { return (machine.arch >= 90 ? 227 : 163) * 1024; }

void open_shared(Block& block) {
  block.shared = slot(block.rank);
  block.shared_used = block.static_bytes = 0;
  block.arrays.clear();
}

void close_shared(Block& block) {
  ASAN_UNPOISON_MEMORY_REGION(block.shared, block.shared_used + kRedzone);
  for (size_t i = 0; i < block.arrays.size() && machine.error.empty(); i++) {
    const Array& a = block.arrays[i];
    for (size_t k = 0; k < kRedzone; k++)
      if (static_cast<unsigned char>(a.data[a.bytes + k]) != kRedzoneByte)
        fail("out of bounds: shared array %zu (%zu bytes) was written %zu bytes past its end", i, a.bytes, k);
  }
  if (machine.launch.cluster > 1) std::memset(block.shared, kFill, block.shared_used);
  checker::set(block.shared, block.shared_used, checker::Bytes::Unallocated);
  block.arrays.clear();
}

void* dynamic_array(size_t offset, size_t bytes, size_t align, Site site) {
  Block& block = *cur->block;
  for (const Array& a : block.arrays) {
    if (a.key) continue;
    if (a.offset == offset && a.bytes == bytes) return a.data;
    if (a.offset < offset + bytes && offset < a.offset + a.bytes)
      fail(
          "shared memory: bytes %zu to %zu, taken at %s:%d, are another array already; take once, use it "
          "twice",
          offset, offset + bytes, site.file, site.line);
  }
  if (offset + bytes > machine.launch.dynamic_bytes)
    fail("shared memory: %s:%d takes %zu bytes of dynamic shared memory, launched with %zu", site.file,
         site.line, offset + bytes, machine.launch.dynamic_bytes);
  return place(block, {nullptr, offset, bytes, nullptr}, align);
}

void* static_array(const void* key, size_t bytes, size_t align) {
  Block& block = *cur->block;
  for (const Array& a : block.arrays)
    if (a.key == key) return a.data;
  block.static_bytes += bytes;
  if (block.static_bytes > 48 * 1024 || block.static_bytes + machine.launch.dynamic_bytes > shared_limit())
    fail("shared memory: %zu bytes of static and %zu of dynamic shared memory are too many",
         block.static_bytes, machine.launch.dynamic_bytes);
  return place(block, {key, 0, bytes, nullptr}, align);
}

void* map_rank(const void* pointer, unsigned rank) {
  const Block& block = *cur->block;
  const size_t offset = size_t(static_cast<const char*>(pointer) - block.shared);
  if (offset >= kSharedSlot) fail("cluster_map: the pointer is not into this block's shared memory");
  if (rank >= machine.launch.cluster)
    fail("cluster_map: rank %u of a cluster of %u", rank, machine.launch.cluster);
  return machine.blocks[rank].shared + offset;
}

#ifdef SDPO_SIMT_CHECKED
void* allocate(size_t bytes) {
  char* memory;
  auto found = freed_blocks.find(bytes);
  if (found != freed_blocks.end()) {
    memory = found->second;
    freed_blocks.erase(found);
  } else {
    memory = checker::arena(bytes);
  }
  checker::set(memory, bytes, checker::Bytes::Undefined);
  std::memset(memory, kFill, bytes);
  allocations[memory] = bytes;
  return memory;
}

void release(void* pointer) {
  char* memory = static_cast<char*>(pointer);
  checker::forget(memory, allocations[memory]);
  freed_blocks.emplace(allocations[memory], memory);
  allocations.erase(memory);
}
#else
void* allocate(size_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 256, bytes ? bytes : 1)) return nullptr;
  std::memset(memory, kFill, bytes);
  allocations[static_cast<char*>(memory)] = bytes;
  return memory;
}

void release(void* pointer) {
  allocations.erase(static_cast<char*>(pointer));
  std::free(pointer);
}
#endif

std::string describe(const void* pointer) {
  const char* p = static_cast<const char*>(pointer);
  for (const Block& block : machine.blocks) {
    if (size_t(p - block.shared) >= kSharedSlot) continue;
    for (size_t i = block.arrays.size(); i--;) {
      const Array& a = block.arrays[i];
      if (p + kRedzone >= a.data && p < a.data + a.bytes + kRedzone)
        return str("shared array ", i, " of block rank ", block.rank, ", byte ", p - a.data, " of ", a.bytes);
    }
    return str("shared memory of block rank ", block.rank, ", outside of every array");
  }
  auto next = allocations.upper_bound(p);
  if (next == allocations.begin()) return "unknown memory";
  const auto& [start, bytes] = *--next;
  return p < start + bytes + 4096 ? str("global memory, byte ", p - start, " of ", bytes) : "unknown memory";
}

}  // namespace sdpo::simt
