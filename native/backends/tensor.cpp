#include "backends/tensor.h"

#include <algorithm>

#include "backends/device.h"

namespace sdpo {

std::string shape_text(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); i++) text += str(i ? "," : "", shape[i]);
  return text + "]";
}

int64_t element_count(const Shape& shape) {
  if (shape.size() > SDPO_MAX_RANK)
    throw Error("ERR_SDPO_ARGUMENT",
                str("shape ", shape_text(shape), ": at most ", SDPO_MAX_RANK, " dimensions"));
  // Sizes beside a 0 are limited as well: products of some of them are taken elsewhere.
  int64_t count = 1;
  bool empty = false;
  for (int64_t n : shape) {
    if (n < 0 || __builtin_mul_overflow(count, std::max<int64_t>(n, 1), &count) || count > (int64_t(1) << 48))
      throw Error("ERR_SDPO_ARGUMENT", str("shape ", shape_text(shape), ": negative or too large"));
    empty = empty || n == 0;
  }
  return empty ? 0 : count;
}

Storage::Storage(std::shared_ptr<Device> device, uint64_t bytes)
    : device_(std::move(device)), bytes_(bytes), data_(device_->allocate(bytes)) {}

Storage::~Storage() { device_->release(data_, bytes_); }

Tensor Tensor::empty(const std::shared_ptr<Device>& device, DType dtype, const Shape& shape) {
  Tensor t;
  t.dtype_ = dtype;
  t.shape_ = shape;
  t.elements_ = element_count(shape);
  t.storage_ = std::make_shared<Storage>(device, t.bytes());
  return t;
}

Tensor Tensor::zeros(const std::shared_ptr<Device>& device, DType dtype, const Shape& shape) {
  Tensor t = empty(device, dtype, shape);
  t.fill_zero();
  return t;
}

Tensor Tensor::from_host(const std::shared_ptr<Device>& device, DType dtype, const Shape& shape,
                         const void* host) {
  Tensor t = empty(device, dtype, shape);
  t.write(host);
  return t;
}

void Tensor::write(const void* host) const {
  checked("copy to device", [&](sdpo_message m) {
    return device()->backend().copy_in(device()->handle(), data(), host, bytes(), nullptr, m);
  });
}

void Tensor::to_host(void* host) const {
  checked("copy from device", [&](sdpo_message m) {
    return device()->backend().copy_out(device()->handle(), host, data(), bytes(), nullptr, m);
  });
}

void Tensor::copy_from(const Tensor& other) const {
  if (other.dtype_ != dtype_ || other.elements_ != elements_)
    throw Error("ERR_SDPO_ARGUMENT", str("copy of ", dtype_name(other.dtype_), shape_text(other.shape_),
                                         " into ", dtype_name(dtype_), shape_text(shape_)));
  checked("copy", [&](sdpo_message m) {
    return device()->backend().copy(device()->handle(), data(), other.data(), bytes(), nullptr, m);
  });
}

void Tensor::fill_zero() const {
  checked("fill", [&](sdpo_message m) {
    return device()->backend().fill_zero(device()->handle(), data(), bytes(), nullptr, m);
  });
}

Tensor Tensor::view(int64_t offset, const Shape& shape) const {
  Tensor t = *this;
  t.shape_ = shape;
  t.elements_ = element_count(shape);
  if (offset < 0 || offset + t.elements_ > elements_)
    throw Error("ERR_SDPO_ARGUMENT",
                str("view ", shape_text(shape), " at ", offset, " leaves ", shape_text(shape_)));
  t.offset_ = offset_ + offset;
  return t;
}

Tensor Tensor::reshape(const Shape& shape) const {
  if (element_count(shape) != elements_)
    throw Error("ERR_SDPO_ARGUMENT", str("reshape of ", shape_text(shape_), " to ", shape_text(shape)));
  return view(0, shape);
}

Tensor Tensor::rows(int64_t begin, int64_t end) const {
  if (shape_.empty() || begin < 0 || begin > end || end > shape_[0])
    throw Error("ERR_SDPO_ARGUMENT", str("rows [", begin, ",", end, ") leave ", shape_text(shape_)));
  Shape shape = shape_;
  const int64_t row = elements_ / std::max<int64_t>(1, shape[0]);
  shape[0] = end - begin;
  return view(begin * row, shape);
}

sdpo_tensor Tensor::raw() const {
  sdpo_tensor raw{};
  if (!storage_) return raw;
  raw.data = data();
  raw.dtype = int32_t(dtype_);
  raw.rank = int32_t(shape_.size());
  int64_t stride = 1;
  for (size_t i = shape_.size(); i-- > 0;) {
    raw.shape[i] = shape_[i];
    raw.stride[i] = stride;
    stride *= shape_[i];
  }
  return raw;
}

}  // namespace sdpo
