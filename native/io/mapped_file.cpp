// POSIX implementation: open, fstat, mmap(PROT_READ, MAP_PRIVATE).
#include "io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace sdpo {
namespace {

class Descriptor {
 public:
  // O_NONBLOCK: opening a named pipe must not wait for a writer.
  explicit Descriptor(const std::string& path)
      : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

[[noreturn]] void fail(const std::string& path, const char* doing) {
  const int reason = errno;
  throw Error("ERR_SDPO_FILE", str(path, ": cannot ", doing, ": ", std::strerror(reason)));
}

}  // namespace

MappedFile::MappedFile(const std::string& path, int64_t expected_size) : path_(path) {
  const Descriptor file(path);
  if (file.get() < 0) fail(path, "open");
  struct stat info;
  if (::fstat(file.get(), &info) != 0) fail(path, "read its size");
  if (!S_ISREG(info.st_mode)) throw Error("ERR_SDPO_FILE", str(path, ": is not a regular file"));
  size_ = info.st_size;
  if (expected_size >= 0 && size_ != expected_size)
    throw Error("ERR_SDPO_FILE", str(path, ": is ", size_, " bytes, expected ", expected_size,
                                     "; it changed while it was being read, load it again"));
  if (size_ == 0) return;
  void* data = ::mmap(nullptr, size_t(size_), PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) fail(path, "map into memory");
  data_ = static_cast<const uint8_t*>(data);
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<uint8_t*>(data_), size_t(size_));
}

const uint8_t* MappedFile::range(int64_t offset, int64_t bytes) const {
  if (offset < 0 || bytes < 0 || offset > size_ || bytes > size_ - offset)
    throw Error("ERR_SDPO_FILE", str(path_, ": ", bytes, " bytes at offset ", offset,
                                     " do not lie inside its ", size_, " bytes"));
  return data_ + offset;
}

}  // namespace sdpo
