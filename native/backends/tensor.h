// A tensor that owns device memory: contiguous, row-major. Copies share the memory.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "core/error.h"

namespace sdpo {

class Device;

using Shape = std::vector<int64_t>;

std::string shape_text(const Shape& shape);  // "[8,97]"
int64_t element_count(const Shape& shape);   // throws Error on negative or overflowing shapes

// A block of device memory; released to its device when the last tensor that uses it goes.
class Storage {
 public:
  Storage(std::shared_ptr<Device> device, uint64_t bytes);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  void* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }
  const std::shared_ptr<Device>& device() const { return device_; }

 private:
  std::shared_ptr<Device> device_;
  uint64_t bytes_;
  void* data_ = nullptr;
};

class Tensor {
 public:
  Tensor() = default;
  static Tensor empty(const std::shared_ptr<Device>& device, DType dtype, const Shape& shape);
  static Tensor zeros(const std::shared_ptr<Device>& device, DType dtype, const Shape& shape);
  static Tensor from_host(const std::shared_ptr<Device>& device, DType dtype, const Shape& shape,
                          const void* host);

  explicit operator bool() const { return storage_ != nullptr; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t size(int dim) const { return shape_[size_t(dim)]; }
  int64_t elements() const { return elements_; }
  uint64_t bytes() const { return uint64_t(elements_) * uint64_t(dtype_bytes(dtype_)); }
  void* data() const { return static_cast<char*>(storage_->data()) + offset_ * dtype_bytes(dtype_); }
  template <class T>
  T* as() const {
    return static_cast<T*>(data());
  }
  const std::shared_ptr<Device>& device() const { return storage_->device(); }
  const Storage* storage() const { return storage_.get(); }

  Tensor reshape(const Shape& shape) const;               // the same elements
  Tensor rows(int64_t begin, int64_t end) const;          // a view of rows of the first dimension
  Tensor view(int64_t offset, const Shape& shape) const;  // elements from `offset` on, as `shape`
  void to_host(void* host) const;
  void write(const void* host) const;         // all elements, from host memory
  void copy_from(const Tensor& other) const;  // same dtype and number of elements
  void fill_zero() const;
  sdpo_tensor raw() const;

 private:
  std::shared_ptr<Storage> storage_;
  DType dtype_ = DType::F32;
  Shape shape_;
  int64_t offset_ = 0, elements_ = 0;
};

}  // namespace sdpo
