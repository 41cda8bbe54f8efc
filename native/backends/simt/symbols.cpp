// Names and lines of code, asked of addr2line when something has failed.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <ios>
#include <utility>

#include "backends/simt/runtime.h"
#include "core/error.h"

namespace sdpo::simt {
namespace {

// What addr2line says: the function, and file:line.
std::pair<std::string, std::string> look_up(const void* code) {
  std::pair<std::string, std::string> unknown("?", "?");
  Dl_info library;
  if (!dladdr(code, &library) || !library.dli_fname || std::strchr(library.dli_fname, '\'')) return unknown;
  const size_t offset = size_t(static_cast<const char*>(code) - static_cast<const char*>(library.dli_fbase));
  const std::string command =
      str("addr2line -Cfe '", library.dli_fname, "' 0x", std::hex, offset, " 2>/dev/null");
  FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) return unknown;
  char function[512] = "?", place[512] = "?";
  if (!std::fgets(function, sizeof function, pipe) || !std::fgets(place, sizeof place, pipe))
    function[0] = '?';
  pclose(pipe);
  function[std::strcspn(function, "\n")] = place[std::strcspn(place, " \n")] = 0;
  return {function, place};
}

void erase_all(std::string& text, const std::string& part) {
  for (size_t at; (at = text.find(part)) != std::string::npos;) text.erase(at, part.size());
}

}  // namespace

// Without namespaces, return type and parameters: "distill_resident<float, (Kind)2>".
std::string kernel_name(const void* kernel) {
  std::string name = look_up(kernel).first;
  for (const char* part : {"(anonymous namespace)::", "sdpo::", "void "}) erase_all(name, part);
  int depth = 0;
  for (size_t i = 0; i < name.size(); i++) {
    depth += (name[i] == '<') - (name[i] == '>');
    if (name[i] == '(' && !depth) return name.substr(0, i);
  }
  return name;
}

std::string code_place(const void* return_address) {
  return look_up(static_cast<const char*>(return_address) - 1).second;
}

}  // namespace sdpo::simt
