// Stacks and the switch between them: x86-64 assembly (about 10 ns), ucontext elsewhere (about 170 ns).
#pragma once
#include <cstddef>
#if !(defined(__x86_64__) && defined(__ELF__))
#include <ucontext.h>
#endif

namespace sdpo::simt {

constexpr size_t kGuardBytes = 4096;
#ifdef __SANITIZE_ADDRESS__
constexpr size_t kStackBytes = 256 * 1024;
#else
constexpr size_t kStackBytes = 64 * 1024;
#endif

// A place where execution stands. The lowest page of a stack is a guard.
struct Context {
#if defined(__x86_64__) && defined(__ELF__)
  void* stack_pointer = nullptr;
#else
  ucontext_t state;
#endif
  char* stack = nullptr;       // lowest address; null for the host's
  void* fake_stack = nullptr;  // AddressSanitizer's
};

char* new_stack();  // a mapping that lives as long as the process
void prepare(Context& context, char* stack, unsigned colour, void (*entry)());
// `leaving`: `from` will never run again.
void switch_context(Context& from, Context& to, bool leaving = false);
void entered(const Context& self);  // the first thing a new context does

}  // namespace sdpo::simt
