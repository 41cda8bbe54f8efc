// Copies that land late: only when no thread of the cluster can run, or when their thread waits for them. The
// destination holds NaN until then, so that a missing wait shows. And the mbarriers that count them.
#include <algorithm>
#include <cstring>

#include "backends/simt/checker.h"
#include "backends/simt/runtime.h"

namespace sdpo::simt {
namespace {

MBarrier& find_barrier(const void* address, const char* what, Site site) {
  for (MBarrier& b : machine.barriers)
    if (b.address == address) return b;
  fail("%s at %s:%d: mbarrier used before mbar_init", what, site.file, site.line);
}

void advance(MBarrier& b) {
  if (b.pending || b.bytes) return;
  b.phase ^= 1;
  b.pending = b.count;
  std::vector<Thread*>& waiting = machine.at_mbarrier;
  auto there =
      std::partition(waiting.begin(), waiting.end(), [&](Thread* t) { return t->barrier != b.address; });
  for (auto t = waiting.end(); t-- != there;) wake(*t);
  waiting.erase(there, waiting.end());
}

void land(const Copy& copy) {
  if (copy.kind == Copy::BulkStore) checker::set(copy.from, copy.bytes, checker::Bytes::Defined);
  checker::set(copy.to, copy.bytes, checker::Bytes::Defined);
  std::memcpy(copy.to, copy.from, copy.bytes);
  if (copy.kind != Copy::BulkLoad) return;
  MBarrier& b = find_barrier(copy.barrier, "bulk_load", {"?", 0});
  b.bytes -= copy.bytes;
  advance(b);
}

unsigned& open_group(Thread& t, Copy::Kind kind) { return kind == Copy::Async ? t.open_copies : t.open_bulk; }

void need_sm90(const char* what, Site site) {
  if (machine.arch < 90)
    fail("%s at %s:%d needs sm_90, this device is sm_%d", what, site.file, site.line, machine.arch);
}

}  // namespace

void mbar_init(uint64_t* barrier, uint32_t arrivals, Site site) {
  need_sm90("mbar_init", site);
  if (reinterpret_cast<uintptr_t>(barrier) % 8) fail("misaligned: mbar_init at %s:%d", site.file, site.line);
  if (!arrivals) fail("mbar_init at %s:%d: 0 arrivals", site.file, site.line);
  for (const MBarrier& b : machine.barriers)
    if (b.address == barrier) fail("mbar_init at %s:%d: initialised twice", site.file, site.line);
  machine.barriers.push_back({barrier, 0, arrivals, arrivals, 0});
}

void mbar_arrive(uint64_t* barrier, uint32_t bytes, Site site) {
  MBarrier& b = find_barrier(barrier, "mbar_arrive", site);
  if (!b.pending)
    fail("mbar_arrive at %s:%d: more arrivals than its count of %u", site.file, site.line, b.count);
  checker::release(*cur);
  b.bytes += bytes;
  b.pending--;
  advance(b);
}

void mbar_wait(uint64_t* barrier, uint32_t parity, Site site) {
  // Looked up again after each wait: the table may have grown.
  while (find_barrier(barrier, "mbar_wait", site).phase == (parity & 1)) {
    cur->barrier = barrier;
    machine.at_mbarrier.push_back(cur);
    wait_in({"mbar_wait", site, 0});
  }
}

void start_copy(Copy::Kind kind, void* to, const void* from, uint32_t bytes, uint64_t* barrier, Site site) {
  const char* what = kind == Copy::BulkLoad    ? "bulk_load"
                     : kind == Copy::BulkStore ? "bulk_store"
                                               : "copy16_async";
  if (kind != Copy::Async) need_sm90(what, site);
  if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from) | bytes) % 16)
    fail("misaligned: %s at %s:%d: addresses and size must be multiples of 16 (%p, %p, %u bytes)", what,
         site.file, site.line, to, from, bytes);
  if (barrier) find_barrier(barrier, what, site);
  Copy copy{kind, static_cast<char*>(to), static_cast<const char*>(from), bytes, cur, barrier, 0};
  if (kind != Copy::BulkLoad) copy.group = open_group(*cur, kind);
  checker::access(from, bytes, checker::Access::Read, site);
  checker::access(to, bytes, checker::Access::Write, site);
  checker::set(to, bytes, checker::Bytes::Arriving);
  if (kind == Copy::BulkStore)
    checker::set(from, bytes, checker::Bytes::Leaving);
  else
    std::memset(to, kFill, bytes);
  machine.copies.push_back(copy);
}

void commit_copies(Copy::Kind kind) { open_group(*cur, kind)++; }

void wait_copies(Copy::Kind kind, unsigned groups) {
  const unsigned committed = open_group(*cur, kind);
  std::vector<Copy>& copies = machine.copies;
  for (size_t i = 0; i < copies.size();) {
    const Copy copy = copies[i];
    if (copy.by != cur || copy.kind != kind || copy.group + groups >= committed) {
      i++;
      continue;
    }
    copies.erase(copies.begin() + long(i));
    land(copy);
  }
}

bool land_one() {
  std::vector<Copy>& copies = machine.copies;
  auto load = [](const Copy& c) { return c.kind == Copy::BulkLoad; };
  auto at = machine.reverse ? copies.end() : std::find_if(copies.begin(), copies.end(), load);
  if (machine.reverse) {
    auto last = std::find_if(copies.rbegin(), copies.rend(), load);
    if (last != copies.rend()) at = std::prev(last.base());
  }
  if (at == copies.end()) return false;
  const Copy copy = *at;
  copies.erase(at);
  land(copy);
  return true;
}

void thread_copies_done() {
  for (const Copy& c : machine.copies)
    if (c.by == cur && c.kind != Copy::BulkLoad)
      fail("missing wait: the thread ends while a copy of %u bytes that it started is in flight", c.bytes);
}

}  // namespace sdpo::simt
