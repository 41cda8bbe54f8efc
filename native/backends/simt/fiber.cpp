#include "backends/simt/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__) && defined(__ELF__)
extern "C" void sdpo_simt_switch(void** save, void* load);
// `jmp` and not `ret`: a return to another stack is mispredicted every time.
asm(".text\n.hidden sdpo_simt_switch\n.globl sdpo_simt_switch\n.type sdpo_simt_switch,@function\n"
    "sdpo_simt_switch:\n"
    "pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n"
    "movq %rsp,(%rdi); movq %rsi,%rsp\n"
    "popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp\n"
    "popq %rcx; jmp *%rcx\n"
    ".size sdpo_simt_switch,.-sdpo_simt_switch\n");
#endif

namespace sdpo::simt {
namespace {

#ifdef __SANITIZE_ADDRESS__
const void* host_stack = nullptr;  // learnt when the first fiber is entered
size_t host_bytes = 0;

void announce(Context& from, const Context& to, bool leaving) {
  const void* low = to.stack ? to.stack + kGuardBytes : host_stack;
  const size_t bytes = to.stack ? kStackBytes - kGuardBytes : host_bytes;
  __sanitizer_start_switch_fiber(leaving ? nullptr : &from.fake_stack, low, bytes);
}

void arrived(const Context& self, bool from_host) {
  __sanitizer_finish_switch_fiber(self.fake_stack, from_host ? &host_stack : nullptr,
                                  from_host ? &host_bytes : nullptr);
}
#else
void announce(Context&, const Context&, bool) {}
void arrived(const Context&, bool) {}
#endif

bool from_host = false;  // who switched last

}  // namespace

char* new_stack() {
  void* memory =
      mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, kGuardBytes, PROT_NONE)) throw std::bad_alloc();
  return static_cast<char*>(memory);
}

void prepare(Context& context, char* stack, unsigned colour, void (*entry)()) {
  context.stack = stack;
  context.fake_stack = nullptr;
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(stack + kGuardBytes, kStackBytes - kGuardBytes);
#endif
  // Tops at different offsets: else the frames of all fibers share a few cache sets.
  const size_t bytes = kStackBytes - colour * 7 % 32 * 64;
#if defined(__x86_64__) && defined(__ELF__)
  auto* top = reinterpret_cast<uintptr_t*>(reinterpret_cast<uintptr_t>(stack + bytes) & ~uintptr_t(15));
  *--top = 0;  // a return address of 0 ends backtraces
  *--top = reinterpret_cast<uintptr_t>(entry);
  for (int i = 0; i < 6; i++) *--top = 0;
  context.stack_pointer = top;
#else
  getcontext(&context.state);
  context.state.uc_stack.ss_sp = stack + kGuardBytes;
  context.state.uc_stack.ss_size = bytes - kGuardBytes;
  context.state.uc_link = nullptr;
  makecontext(&context.state, entry, 0);
#endif
}

void switch_context(Context& from, Context& to, bool leaving) {
  from_host = from.stack == nullptr;
  announce(from, to, leaving);
#if defined(__x86_64__) && defined(__ELF__)
  sdpo_simt_switch(&from.stack_pointer, to.stack_pointer);
#else
  swapcontext(&from.state, &to.state);
#endif
  arrived(from, from_host);
}

void entered(const Context& self) { arrived(self, from_host); }

}  // namespace sdpo::simt
