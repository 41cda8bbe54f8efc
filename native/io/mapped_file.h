// A file mapped read-only into memory. Nothing is copied; pages are read when first touched.
// Hazard: a file cut short by another process while it is mapped raises SIGBUS, so keep mappings short-lived.
#pragma once
#include <cstdint>
#include <string>

namespace sdpo {

class MappedFile {
 public:
  // Opens a regular file whose size must be `expected_size` bytes, unless that is negative.
  // Throws ERR_SDPO_FILE with the path and the system's reason.
  explicit MappedFile(const std::string& path, int64_t expected_size = -1);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  int64_t size() const { return size_; }
  const uint8_t* data() const { return data_; }

  // The bytes [offset, offset + bytes); throws ERR_SDPO_FILE where they do not lie inside the file.
  const uint8_t* range(int64_t offset, int64_t bytes) const;

 private:
  std::string path_;
  int64_t size_ = 0;
  const uint8_t* data_ = nullptr;  // nullptr for an empty file
};

}  // namespace sdpo
