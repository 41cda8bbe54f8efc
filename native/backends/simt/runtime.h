// The SIMT machine: what one launch consists of, and what the device functions in simt.h call.
//
// One operating-system thread runs one cluster at a time, block by block in grid order (or reversed); every
// GPU thread of it is a fiber, which runs until it has to wait. The fiber woken last runs first. A thread
// gets a stack when it first runs, and a thread that ends hands its stack to the next: kernels that never
// wait need one. All state is global and guarded by one lock, held for a launch: `cur` needs no thread
// storage.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "backends/simt/fiber.h"
#include "backends/simt/vectors.h"

namespace sdpo::simt {

struct Block;
struct Warp;

struct Site {
  const char* file = nullptr;
  int line = 0;
};

// What a thread waits in, for reports.
struct Waiting {
  const char* what = "";
  Site site;
  uint32_t mask = 0;
};

struct Thread {
  uint3 index{};
  Block* block = nullptr;
  Warp* warp = nullptr;
  unsigned lane = 0, number = 0;  // in the warp; in the cluster
  bool done = false;
  Context context;
  Waiting waiting;
  const void* barrier = nullptr;            // the mbarrier it waits for
  unsigned open_copies = 0, open_bulk = 0;  // groups committed so far, of each kind
};

using Collective = void (*)(uint32_t lanes, void* const* values);

// Lanes that have arrived at a collective; at most a few masks of a warp are open at a time.
struct Rendezvous {
  uint32_t mask = 0, arrived = 0;
  Collective work = nullptr;
  Site site;
  void* values[32];
};

struct Warp {
  Block* block = nullptr;
  unsigned first = 0;   // number of its first thread
  uint32_t exited = 0;  // lanes that have ended or never were
  uint32_t existing = 0;
  Rendezvous open[4];
};

// A named piece of a block's shared memory. `offset` is where a GPU has it; statics are keyed by an address.
struct Array {
  const void* key;
  size_t offset, bytes;
  char* data;
};

struct Block {
  uint3 index{};
  unsigned rank = 0, first = 0, live = 0, arrived = 0;
  Waiting barrier;  // where `arrived` threads wait
  char* shared = nullptr;
  size_t shared_used = 0, static_bytes = 0;
  std::vector<Array> arrays;
  std::vector<Warp> warps;
};

// A copy that was issued and has not landed.
struct Copy {
  enum Kind { BulkLoad, BulkStore, Async } kind;
  char* to;
  const char* from;
  uint32_t bytes;
  Thread* by;
  uint64_t* barrier;   // BulkLoad
  unsigned group;      // of `by`, for the others
  uint32_t stamp = 0;  // the checker's
};

struct MBarrier {
  uint64_t* address;
  unsigned phase, pending, count;
  int64_t bytes;
};

struct Launch {
  dim3 grid, block;
  unsigned cluster = 1, threads = 0;  // threads of a block
  size_t dynamic_bytes = 0;
  void (*run)(void*) = nullptr;
  void* arguments = nullptr;
  const void* kernel = nullptr;
};

struct Machine {
  Launch launch;
  std::vector<Block> blocks;    // of the running cluster
  std::vector<Thread> threads;  // likewise
  std::vector<Thread*> ready, at_mbarrier, at_cluster;
  std::vector<Copy> copies;
  std::vector<MBarrier> barriers;
  unsigned live_blocks = 0, cluster_arrived = 0;
  std::vector<char*> stacks, free_stacks;
  std::vector<char*> shared;  // one slot a rank
  Context host;
  std::string error;
  int arch = 90;
  bool reverse = false;
};

extern Machine machine;
extern Thread* cur;  // null while the host runs

constexpr size_t kRedzone = 64, kSharedSlot = 512 * 1024;
constexpr unsigned char kFill = 0xff;  // NaN in f32 and bf16, -1 in integers

// Ends the launch; the message gets kernel, block and thread in front.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
uint64_t shared_limit();  // bytes of a block

// symbols.cpp; "?" without addr2line
std::string kernel_name(const void* kernel);
std::string code_place(const void* return_address);  // file:line

// scheduler.cpp
void run_launch(const Launch& launch);
void wait_in(const Waiting& waiting);  // runs others until this thread is woken
void wake(Thread* thread);
void collective(Collective work, uint32_t mask, void* value, bool orders_memory, const char* what, Site site);
void block_barrier(Site site);
void cluster_barrier(Site site);

// memory.cpp
void* allocate(size_t bytes);  // null where there is no memory
void release(void* pointer);
void open_shared(Block& block);
void close_shared(Block& block);  // looks at the redzones, poisons the rest
void* dynamic_array(size_t offset, size_t bytes, size_t align, Site site);
void* static_array(const void* key, size_t bytes, size_t align);
void* map_rank(const void* pointer, unsigned rank);
std::string describe(const void* pointer);

// copies.cpp
void mbar_init(uint64_t* barrier, uint32_t arrivals, Site site);
void mbar_arrive(uint64_t* barrier, uint32_t bytes, Site site);
void mbar_wait(uint64_t* barrier, uint32_t parity, Site site);
void start_copy(Copy::Kind kind, void* to, const void* from, uint32_t bytes, uint64_t* barrier, Site site);
void commit_copies(Copy::Kind kind);
void wait_copies(Copy::Kind kind, unsigned groups);
bool land_one();            // the next copy of the cluster, when nothing else can run; false: none is left
void thread_copies_done();  // at a thread's end: nothing of its may be in flight

}  // namespace sdpo::simt
