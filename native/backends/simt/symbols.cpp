// Names and lines of code, asked of addr2line when something has failed.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>

#include "backends/simt/runtime.h"
#include "core/error.h"

namespace sdpo::simt {
namespace {

// Two lines: the function, and file:line.
void look_up(const void* code, char (&function)[256], char (&place)[256]) {
  std::strcpy(function, "?");
  std::strcpy(place, "?");
  Dl_info library;
  if (!dladdr(code, &library) || !library.dli_fname) return;
  const size_t offset = size_t(static_cast<const char*>(code) - static_cast<const char*>(library.dli_fbase));
  char command[1024];
  const int length = std::snprintf(command, sizeof command, "addr2line -Cfe '%s' %#zx 2>/dev/null",
                                   library.dli_fname, offset);
  if (length < 0 || size_t(length) >= sizeof command || std::strchr(library.dli_fname, '\'')) return;
  FILE* pipe = popen(command, "r");
  if (!pipe) return;
  if (!std::fgets(function, sizeof function, pipe)) std::strcpy(function, "?");
  if (!std::fgets(place, sizeof place, pipe)) std::strcpy(place, "?");
  pclose(pipe);
  function[std::strcspn(function, "(\n")] = 0;
  place[std::strcspn(place, " \n")] = 0;
}

}  // namespace

std::string kernel_name(const void* kernel) {
  char function[256], place[256];
  look_up(kernel, function, place);
  const char* last = std::strstr(function, "sdpo::");
  return last ? last + 6 : function;
}

std::string code_place(const void* return_address) {
  char function[256], place[256];
  look_up(static_cast<const char*>(return_address) - 1, function, place);
  return place;
}

}  // namespace sdpo::simt
