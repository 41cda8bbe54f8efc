// Kernels of the checked variant are compiled with -fsanitize=thread, but libtsan is not linked: its entry
// points are the ones below. Every byte of the arena has a Cell: its state or its last write, and its last
// read. An access is stamped with its thread and that thread's time; a meeting (barrier, __syncwarp) advances
// the time of who met and notes what each has seen of whom, so a race is found in whatever order threads ran.
// An arrival at an mbarrier counts as seen by the whole cluster: coarser than hardware, never a false alarm.
#include "backends/simt/checker.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "core/error.h"

#ifdef SDPO_SIMT_CHECKED

namespace sdpo::simt::checker {
namespace {

// A stamp: valid 1, atomic 1, scope 2, cluster 20, thread 14, time 26 bits. Below 8: a state.
struct Cell {
  uint64_t write, read;
};
constexpr uint64_t kValid = 1ull << 63, kAtomic = 1ull << 62;
constexpr size_t kArena = size_t(8) << 30;

// Who could run at the same time as whom; the widest of a byte's readers is kept.
enum Scope : unsigned { Ordered, Lanes, Warps, Blocks };

struct Known {
  uint32_t time = 1;                        // of the thread
  uint32_t block = 0, cluster = 0, by = 0;  // its time at its last barriers, at its last mbarrier arrival
  uint32_t lanes[32] = {};                  // times of the warp's lanes as it knows them
};

char* base = nullptr;
Cell* cells = nullptr;
size_t used = 4096;
std::vector<Known> known;
uint32_t first_cluster = 0, clusters = 0, cluster = 0;

uint32_t cluster_of(uint64_t s) { return s >> 40 & 0xfffff; }
uint32_t thread_of(uint64_t s) { return s >> 26 & 0x3fff; }
uint32_t time_of(uint64_t s) { return s & 0x3ffffff; }
Scope scope_of(uint64_t s) { return Scope(s >> 60 & 3); }
uint64_t stamp(const Thread& t) {
  return kValid | uint64_t(cluster & 0xfffff) << 40 | uint64_t(t.number) << 26 |
         (known[t.number].time & 0x3ffffff);
}

bool in_this_launch(uint64_t s) { return ((cluster_of(s) - first_cluster) & 0xfffff) < clusters; }

// The scope in which a stamped access and the current thread are not ordered.
Scope relation(uint64_t s, uint64_t me) {
  if (cluster_of(s) != cluster_of(me)) return in_this_launch(s) ? Blocks : Ordered;
  const uint32_t other = thread_of(s), time = time_of(s);
  if (other == cur->number) return Ordered;
  const Known& theirs = known[other];
  if (theirs.cluster > time || theirs.by > time) return Ordered;
  const Thread& thread = machine.threads[other];
  if (thread.block != cur->block) return Blocks;
  if (theirs.block > time) return Ordered;
  if (thread.warp != cur->warp) return Warps;
  return known[cur->number].lanes[thread.lane] > time ? Ordered : Lanes;
}

// Readers (or atomic writers) were several, in `scope` around the last one: has everyone of it met since?
bool still_open(uint64_t s, uint64_t me) {
  if (cluster_of(s) != cluster_of(me)) return in_this_launch(s);
  const Known& theirs = known[thread_of(s)];
  const uint32_t time = time_of(s);
  if (theirs.cluster > time || theirs.by > time) return false;
  if (scope_of(s) == Blocks) return true;
  if (theirs.block > time) return false;
  const Thread& thread = machine.threads[thread_of(s)];
  return scope_of(s) == Warps || thread.warp != cur->warp || known[cur->number].lanes[thread.lane] <= time;
}

bool concurrent(uint64_t s, uint64_t me) { return relation(s, me) || (scope_of(s) && still_open(s, me)); }

// The scope in which others than the current thread have accesses of the same kind open.
uint64_t with_others(uint64_t s, uint64_t me) {
  if (!s) return 0;
  const Scope now = relation(s, me), before = still_open(s, me) ? scope_of(s) : Ordered;
  return uint64_t(std::max(now, before)) << 60;
}

// Where the access stands in the source: a site, or a return address that is only looked up for a report.
struct Place {
  Site site;
  const void* code;
};

[[noreturn]] void report(const char* what, const char* p, size_t bytes, Access kind, uint64_t earlier,
                         Place at) {
  static const char* const names[] = {"read", "write", "atomic"};
  const std::string place = at.code ? code_place(at.code) : str(at.site.file, ":", at.site.line);
  std::string other;
  if (earlier & kValid) {
    other = cluster_of(earlier) == (cluster & 0xfffff)
                ? str("; the other access by thread ", thread_of(earlier) % machine.launch.threads,
                      " of block rank ", thread_of(earlier) / machine.launch.threads)
                : std::string("; the other access by another block");
    if (scope_of(earlier)) other += " and others";
  }
  fail("%s: %zu-byte %s at %s of %s%s", what, bytes, names[int(kind)], place.c_str(), describe(p).c_str(),
       other.c_str());
}

void check_byte(const char* p, size_t bytes, Access kind, uint64_t me, Place at) {
  Cell& c = cells[p - base];
  const bool atomic = kind == Access::Atomic, writes = kind != Access::Read;
  if (c.write == uint64_t(Bytes::Unallocated)) report("out of bounds", p, bytes, kind, 0, at);
  if (c.write == uint64_t(Bytes::Arriving)) report("use of data still in flight", p, bytes, kind, 0, at);
  if (c.write == uint64_t(Bytes::Leaving) && writes)
    report("write over data still in flight", p, bytes, kind, 0, at);
  if (c.write == uint64_t(Bytes::Undefined) && kind != Access::Write)
    report("uninitialised read", p, bytes, kind, 0, at);
  const uint64_t w = c.write & kValid ? c.write : 0;
  if (w && !(atomic && w & kAtomic) && concurrent(w, me)) report("race", p, bytes, kind, w, at);
  const uint64_t r = c.read & kValid ? c.read : 0;
  if (writes) {
    if (r && !(atomic && r & kAtomic) && concurrent(r, me)) report("race", p, bytes, kind, r, at);
    c.write = atomic ? me | kAtomic | with_others(w, me) : me;
    c.read = atomic ? c.write : 0;
    return;
  }
  c.read = me | with_others(r, me);
}

bool in_arena(const void* p) { return base && size_t(static_cast<const char*>(p) - base) < kArena; }

void check(const void* address, size_t bytes, Access kind, Place at) {
  if (!cur || !in_arena(address)) return;
  const char* p = static_cast<const char*>(address);
  const uint64_t me = stamp(*cur);
  for (size_t i = 0; i < bytes; i++) check_byte(p + i, bytes, kind, me, at);
}

}  // namespace

char* arena(size_t bytes) {
  if (!base) {
    auto reserve = [](size_t n) {
      void* memory =
          mmap(nullptr, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (memory == MAP_FAILED) throw std::bad_alloc();
      return memory;
    };
    cells = static_cast<Cell*>(reserve(kArena * sizeof(Cell)));
    base = static_cast<char*>(reserve(kArena));
  }
  char* p = base + used;
  used += (bytes + 8191) / 4096 * 4096;  // at least a page between two
  if (used > kArena) throw std::bad_alloc();
  return p;
}

void set(const void* p, size_t bytes, Bytes state) {
  if (!in_arena(p) || !bytes) return;
  Cell* first = cells + (static_cast<const char*>(p) - base);
  std::fill(first, first + bytes, Cell{uint64_t(state), 0});
}

void forget(char* p, size_t bytes) {
  const size_t pages = (bytes + 4095) / 4096 * 4096;
  madvise(p, pages, MADV_DONTNEED);
  madvise(cells + (p - base), pages * sizeof(Cell), MADV_DONTNEED);
}

void begin_launch(unsigned count) {
  first_cluster = cluster + 1;
  clusters = count;
}

void begin_cluster(size_t threads) {
  cluster++;
  known.assign(threads, Known{});
}

void order_warp(const Warp& warp, uint32_t lanes) {
  uint32_t seen[32] = {};
  for (unsigned i = 0; i < 32; i++) {
    if (!(lanes >> i & 1)) continue;
    Known& k = known[warp.first + i];
    for (unsigned j = 0; j < 32; j++) seen[j] = std::max(seen[j], k.lanes[j]);
    seen[i] = std::max(seen[i], ++k.time);
  }
  for (unsigned i = 0; i < 32; i++)
    if (lanes >> i & 1) std::copy(seen, seen + 32, known[warp.first + i].lanes);
}

void order_block(const Block& block) {
  for (unsigned i = 0; i < machine.launch.threads; i++)
    known[block.first + i].block = ++known[block.first + i].time;
}

void order_cluster() {
  for (Known& k : known) k.cluster = ++k.time;
}

void release(const Thread& thread) { known[thread.number].by = ++known[thread.number].time; }

void access(const void* p, size_t bytes, Access kind, Site site) { check(p, bytes, kind, {site, nullptr}); }

}  // namespace sdpo::simt::checker

using sdpo::simt::checker::Access;
using sdpo::simt::checker::check;

namespace {

void check_plain(void* p, size_t bytes, bool writes, const void* code) {
  check(p, bytes, writes ? Access::Write : Access::Read, {{}, code});
}

void check_unaligned(void* p, size_t bytes, bool writes, const void* code) {
  if (sdpo::simt::cur && reinterpret_cast<uintptr_t>(p) % bytes && sdpo::simt::checker::in_arena(p))
    sdpo::simt::fail("misaligned: %zu-byte %s at %s of %s", bytes, writes ? "write" : "read",
                     sdpo::simt::code_place(code).c_str(), sdpo::simt::describe(p).c_str());
  check_plain(p, bytes, writes, code);
}

}  // namespace

// What the compiler calls.
#define SDPO_TSAN(n)                                                                                    \
  void __tsan_read##n(void* p) { check_plain(p, n, false, __builtin_return_address(0)); }               \
  void __tsan_write##n(void* p) { check_plain(p, n, true, __builtin_return_address(0)); }               \
  void __tsan_unaligned_read##n(void* p) { check_unaligned(p, n, false, __builtin_return_address(0)); } \
  void __tsan_unaligned_write##n(void* p) { check_unaligned(p, n, true, __builtin_return_address(0)); }
extern "C" {
SDPO_TSAN(1) SDPO_TSAN(2) SDPO_TSAN(4) SDPO_TSAN(8) SDPO_TSAN(16) void __tsan_read_range(void* p, size_t n) {
  check_plain(p, n, false, __builtin_return_address(0));
}
void __tsan_write_range(void* p, size_t n) { check_plain(p, n, true, __builtin_return_address(0)); }
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
#endif
