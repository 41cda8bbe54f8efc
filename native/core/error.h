// The one exception type of the native code. The binding turns it into an SdpoError with the same code.
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>

namespace sdpo {

class Error : public std::runtime_error {
 public:
  Error(std::string code, const std::string& message) : std::runtime_error(message), code_(std::move(code)) {}
  const char* code() const { return code_.c_str(); }

 private:
  std::string code_;
};

// str(a, b, c): the arguments printed one after the other.
template <class... Args>
std::string str(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

}  // namespace sdpo
