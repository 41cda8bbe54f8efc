// Threads of a cluster as fibers: who runs next, warp collectives, block and cluster barriers, deadlocks.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <mutex>

#include "backends/simt/checker.h"
#include "backends/simt/runtime.h"
#include "core/error.h"

namespace sdpo::simt {

Machine machine;
Thread* cur = nullptr;

namespace {

std::mutex launching;

std::string who(const Thread& t) {
  const uint3 b = t.block->index, i = t.index;
  return str("block (", b.x, ",", b.y, ",", b.z, ") thread (", i.x, ",", i.y, ",", i.z, ")");
}

bool same_wait(const Thread& a, const Thread& b) {
  return a.block == b.block && a.waiting.site.file == b.waiting.site.file &&
         a.waiting.site.line == b.waiting.site.line && a.waiting.mask == b.waiting.mask;
}

[[noreturn]] void report_deadlock() {
  std::string text = "deadlock:";
  const std::vector<Thread>& all = machine.threads;
  for (size_t i = 0, shown = 0; i < all.size() && shown < 4;) {
    size_t end = i + 1;
    if (!all[i].done) {
      while (end < all.size() && !all[end].done && same_wait(all[i], all[end])) end++;
      const Waiting& w = all[i].waiting;
      char mask[32];
      std::snprintf(mask, sizeof mask, w.mask ? " (mask %08x)" : "", w.mask);
      text += str(" ", end - i, " thread(s) from ", who(all[i]), " wait in ", w.what, mask, " at ",
                  w.site.file, ":", w.site.line, ";");
      shown++;
    }
    i = end;
  }
  fail("%s", text.c_str());
}

// The thread to run next; null if there is none.
Thread* pick() {
  std::vector<Thread*>& ready = machine.ready;
  while (ready.empty() && land_one()) {
  }
  if (ready.empty()) return nullptr;
  Thread* next = ready.back();
  ready.pop_back();
  return next;
}

void thread_main();

void give_stack(Thread& t) {
  if (machine.free_stacks.empty()) {
    machine.stacks.push_back(new_stack());
    machine.free_stacks.push_back(machine.stacks.back());
  }
  prepare(t.context, machine.free_stacks.back(), t.number, thread_main);
  machine.free_stacks.pop_back();
}

void resume(Thread* next, bool leaving = false) {
  Thread* self = cur;
  if (next == self) return;
  if (!next->context.stack) give_stack(*next);
  cur = next;
  switch_context(self->context, next->context, leaving);
}

void to_host() {
  Thread* self = cur;
  cur = nullptr;
  switch_context(self->context, machine.host, true);
}

// All lanes of a rendezvous are there: the last one works for all.
void complete(Warp& warp, Rendezvous& r) {
  r.work(r.arrived, r.values);
  const uint32_t lanes = r.arrived;
  r.arrived = 0;
  for (int lane = 31; lane >= 0; lane--) {
    if (!(lanes >> lane & 1)) continue;
    Thread* t = &machine.threads[warp.first + unsigned(lane)];
    if (t != cur) wake(t);
  }
}

void check_exit(const Thread& t) {
  for (const Rendezvous& r : t.warp->open)
    if (r.arrived && (r.mask >> t.lane & 1))
      fail("early return: the thread ends while lanes %08x of its warp wait for it at %s:%d (mask %08x)",
           r.arrived, r.site.file, r.site.line, r.mask);
  if (t.block->arrived)
    fail("divergent barrier: the thread ends while %u threads wait in %s at %s:%d", t.block->arrived,
         t.block->barrier.what, t.block->barrier.site.file, t.block->barrier.site.line);
}

// Ends the current thread. Returns if its stack goes on with another thread that had not begun.
void end_thread() {
  Thread* self = cur;
  thread_copies_done();
  Block& block = *self->block;
  self->done = true;
  self->warp->exited |= 1u << self->lane;
  if (--block.live) {
    check_exit(*self);
  } else {
    close_shared(block);
    machine.live_blocks--;
  }
  Thread* next = pick();
  if (!next) {
    if (machine.live_blocks) report_deadlock();
    to_host();
  }
  if (!next->context.stack) {
    next->context.stack = self->context.stack;
    cur = next;
    return;
  }
  machine.free_stacks.push_back(self->context.stack);
  resume(next, true);
}

void thread_main() {
  entered(cur->context);
  for (;;) {
    machine.launch.run(machine.launch.arguments);
    end_thread();
  }
}

void fill_block(Block& block, unsigned rank, unsigned linear) {
  const Launch& launch = machine.launch;
  block.index = {linear % launch.grid.x, linear / launch.grid.x % launch.grid.y,
                 linear / launch.grid.x / launch.grid.y};
  block.rank = rank;
  block.first = rank * launch.threads;
  block.live = launch.threads;
  block.arrived = 0;
  block.warps.assign((launch.threads + 31) / 32, Warp{});
  for (unsigned i = 0; i < launch.threads; i++) {
    Warp& warp = block.warps[i / 32];
    warp.block = &block;
    warp.first = block.first + i / 32 * 32;
    warp.existing |= 1u << i % 32;
    Thread& t = machine.threads[block.first + i];
    t = Thread{};
    t.index = {i % launch.block.x, i / launch.block.x % launch.block.y, i / launch.block.x / launch.block.y};
    t.block = &block;
    t.warp = &warp;
    t.lane = i % 32;
    t.number = block.first + i;
  }
  for (Warp& warp : block.warps) warp.exited = ~warp.existing;
  open_shared(block);
}

void run_cluster(unsigned first_block) {
  Machine& m = machine;
  m.ready.clear();
  m.at_mbarrier.clear();
  m.at_cluster.clear();
  m.copies.clear();
  m.barriers.clear();
  m.cluster_arrived = 0;
  m.live_blocks = m.launch.cluster;
  checker::begin_cluster(m.threads.size());
  for (unsigned rank = 0; rank < m.launch.cluster; rank++)
    fill_block(m.blocks[rank], rank, first_block + rank);
  for (size_t i = m.threads.size(); i--;) wake(&m.threads[m.reverse ? m.threads.size() - 1 - i : i]);
  m.free_stacks = m.stacks;
  Thread* first = pick();
  give_stack(*first);
  cur = first;
  switch_context(m.host, first->context);
}

void check_launch(const Launch& launch) {
  const dim3 g = launch.grid, b = launch.block;
  const uint64_t threads = uint64_t(b.x) * b.y * b.z, most = shared_limit();
  auto refuse = [&](const std::string& why) {
    throw Error("ERR_SDPO_DEVICE", str("launch of ", kernel_name(launch.kernel), ": ", why));
  };
  if (!g.x || !g.y || !g.z || g.y > 65535 || g.z > 65535)
    refuse(str("grid (", g.x, ",", g.y, ",", g.z, "); x from 1, y and z from 1 to 65535"));
  if (!threads || threads > 1024 || b.z > 64)
    refuse(str("block (", b.x, ",", b.y, ",", b.z, "); 1 to 1024 threads, z at most 64"));
  if (launch.dynamic_bytes > most)
    refuse(str(launch.dynamic_bytes, " bytes of shared memory; at most ", most));
  if (launch.cluster > 1 && machine.arch < 90)
    refuse(str("a cluster needs sm_90, this device is sm_", machine.arch));
  if (!launch.cluster || launch.cluster > 16 || g.x % launch.cluster)
    refuse(str("cluster of ", launch.cluster, "; 1 to 16, a divisor of the grid's x = ", g.x));
}

}  // namespace

void run_launch(const Launch& launch) {
  std::lock_guard<std::mutex> lock(launching);
  machine.launch = launch;
  Launch& l = machine.launch;
  l.threads = l.block.x * l.block.y * l.block.z;
  check_launch(l);
  machine.blocks.resize(l.cluster);
  machine.threads.resize(size_t(l.cluster) * l.threads);
  const unsigned clusters = l.grid.x * l.grid.y * l.grid.z / l.cluster;
  checker::begin_launch(clusters);
  for (unsigned i = 0; i < clusters && machine.error.empty(); i++)
    run_cluster((machine.reverse ? clusters - 1 - i : i) * l.cluster);
  if (machine.error.empty()) return;
  std::string error;
  error.swap(machine.error);
  throw Error("ERR_SDPO_DEVICE", str("kernel ", kernel_name(l.kernel), ", ", error));
}

void fail(const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (!cur) throw Error("ERR_SDPO_DEVICE", text);
  machine.error = who(*cur) + ": " + text;
  for (Block& block : machine.blocks) close_shared(block);
  to_host();
  std::abort();
}

void wake(Thread* thread) { machine.ready.push_back(thread); }

void wait_in(const Waiting& waiting) {
  cur->waiting = waiting;
  Thread* next = pick();
  if (!next) report_deadlock();
  resume(next);
}

namespace {

// The open rendezvous of this mask, or a free one.
Rendezvous& find_rendezvous(Warp& warp, uint32_t mask, uint32_t self, const char* what, Site site) {
  Rendezvous* unused = nullptr;
  for (Rendezvous& r : warp.open) {
    if (!r.arrived) {
      if (!unused) unused = &r;
    } else if (r.mask == mask) {
      return r;
    } else if ((r.arrived & mask) && (r.mask & self)) {
      fail("wrong lane mask: %s at %s:%d has mask %08x, but lanes %08x already wait at %s:%d with mask %08x",
           what, site.file, site.line, mask, r.arrived, r.site.file, r.site.line, r.mask);
    }
  }
  if (!unused) fail("%s at %s:%d: more than 4 masks of a warp wait at a time", what, site.file, site.line);
  unused->mask = mask;
  unused->work = nullptr;
  return *unused;
}

}  // namespace

void collective(Collective work, uint32_t mask, void* value, bool orders_memory, const char* what,
                Site site) {
  Thread* self = cur;
  Warp& warp = *self->warp;
  const uint32_t me = 1u << self->lane;
  if (!(mask & me))
    fail("wrong lane mask: %s at %s:%d is called by lane %u, which is not in mask %08x", what, site.file,
         site.line, self->lane, mask);
  if (warp.exited & warp.existing & mask)
    fail("early return: %s at %s:%d has mask %08x, but lanes %08x have ended", what, site.file, site.line,
         mask, warp.exited & warp.existing & mask);
  Rendezvous& r = find_rendezvous(warp, mask, me, what, site);
  if (!r.work) {
    r.work = work;
    r.site = site;
  } else if (r.work != work || r.site.line != site.line || r.site.file != site.file) {
    fail("divergent collective: %s at %s:%d, but lanes %08x of the warp wait at %s:%d", what, site.file,
         site.line, r.arrived, r.site.file, r.site.line);
  }
  r.values[self->lane] = value;
  r.arrived |= me;
  if (((r.arrived | ~warp.existing) & mask) == mask) {
    if (orders_memory) checker::order_warp(warp, r.arrived);
    complete(warp, r);
  } else {
    wait_in({what, site, mask});
  }
}

void block_barrier(Site site) {
  Block& block = *cur->block;
  const Waiting& at = block.barrier;
  if (block.arrived && (at.site.line != site.line || at.site.file != site.file))
    fail("divergent barrier: __syncthreads at %s:%d, but %u threads wait at %s:%d", site.file, site.line,
         block.arrived, at.site.file, at.site.line);
  if (block.live != machine.launch.threads)
    fail("early return: __syncthreads at %s:%d after %u threads of the block have ended", site.file,
         site.line, machine.launch.threads - block.live);
  block.barrier = {"__syncthreads", site, 0};
  if (++block.arrived < block.live) return wait_in(block.barrier);
  block.arrived = 0;
  checker::order_block(block);
  for (unsigned i = block.live; i--;) {
    Thread* t = &machine.threads[block.first + (machine.reverse ? block.live - 1 - i : i)];
    if (t != cur) wake(t);
  }
}

void cluster_barrier(Site site) {
  Machine& m = machine;
  if (m.live_blocks != m.launch.cluster)
    fail("early return: cluster_sync at %s:%d after a block of the cluster has ended", site.file, site.line);
  if (++m.cluster_arrived < m.threads.size()) {
    m.at_cluster.push_back(cur);
    return wait_in({"cluster_sync", site, 0});
  }
  m.cluster_arrived = 0;
  checker::order_cluster();
  for (size_t i = m.at_cluster.size(); i--;) wake(m.at_cluster[i]);
  m.at_cluster.clear();
}

}  // namespace sdpo::simt
