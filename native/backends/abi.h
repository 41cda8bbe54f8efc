/* The one interface between the engine and a backend: plain C data, no C++ type, exception or allocation
 * crosses it. Pointers and streams may be borrowed, so that another process's runtime can call a backend.
 * Every function returns 0 or a non-zero status with a text in `message` (never longer than message_bytes).
 */
#ifndef SDPO_BACKENDS_ABI_H
#define SDPO_BACKENDS_ABI_H
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SDPO_ABI_VERSION 1
#define SDPO_MAX_RANK 6

enum { SDPO_F32 = 0, SDPO_BF16 = 1, SDPO_I32 = 2, SDPO_U8 = 3 };
enum { SDPO_OK = 0, SDPO_FAILED = 1, SDPO_OUT_OF_MEMORY = 2 };

/* Strides are in elements. data is NULL for an optional tensor that was not given. */
typedef struct sdpo_tensor {
  void* data;
  int32_t dtype;
  int32_t rank;
  int64_t shape[SDPO_MAX_RANK];
  int64_t stride[SDPO_MAX_RANK];
} sdpo_tensor;

/* One call of an op: tensors and attributes in the order of the op's schema. A null attribute is NaN;
 * booleans are 0 or 1; an enumeration is the index of its value. */
typedef struct sdpo_op_call {
  const sdpo_tensor* inputs;
  const sdpo_tensor* outputs;
  const double* attributes;
  void* scratch;
  uint64_t scratch_bytes;
  void* stream;
  char* message;
  uint64_t message_bytes;
} sdpo_op_call;

typedef struct sdpo_device sdpo_device;
typedef struct sdpo_kernel sdpo_kernel;

typedef struct sdpo_message {
  char* text;
  uint64_t bytes;
} sdpo_message;

typedef struct sdpo_backend {
  uint32_t abi_version;
  const char* name;
  int (*device_count)(int* count, sdpo_message message);
  int (*open)(int index, sdpo_device** device, sdpo_message message);
  void (*close)(sdpo_device* device);
  int (*describe)(sdpo_device* device, sdpo_message text); /* a line for people */
  int (*allocate)(sdpo_device* device, uint64_t bytes, void** pointer, sdpo_message message);
  void (*release)(sdpo_device* device, void* pointer, uint64_t bytes);
  int (*copy_in)(sdpo_device* device, void* to, const void* host, uint64_t bytes, void* stream,
                 sdpo_message m);
  int (*copy_out)(sdpo_device* device, void* host, const void* from, uint64_t bytes, void* stream,
                  sdpo_message m);
  int (*copy)(sdpo_device* device, void* to, const void* from, uint64_t bytes, void* stream, sdpo_message m);
  int (*fill_zero)(sdpo_device* device, void* to, uint64_t bytes, void* stream, sdpo_message m);
  int (*stream_create)(sdpo_device* device, void** stream, sdpo_message m);
  void (*stream_destroy)(sdpo_device* device, void* stream);
  int (*synchronize)(sdpo_device* device, void* stream, sdpo_message m);
  int (*event_create)(sdpo_device* device, void** event, sdpo_message m);
  void (*event_destroy)(sdpo_device* device, void* event);
  int (*event_record)(sdpo_device* device, void* event, void* stream, sdpo_message m);
  int (*event_milliseconds)(sdpo_device* device, void* from, void* to, float* milliseconds, sdpo_message m);
  /* NULL where the backend has no kernel of that name. */
  const sdpo_kernel* (*find_kernel)(const char* op);
  int (*run)(sdpo_device* device, const sdpo_kernel* kernel, const sdpo_op_call* call);
  /* Collectives over the ranks of a communicator; NULL until a backend has them. */
  int (*all_reduce)(sdpo_device*, void* communicator, const sdpo_tensor* in, sdpo_tensor* out, void* stream,
                    sdpo_message m);
  int (*all_gather)(sdpo_device*, void* communicator, const sdpo_tensor* in, sdpo_tensor* out, void* stream,
                    sdpo_message m);
  int (*reduce_scatter)(sdpo_device*, void* communicator, const sdpo_tensor* in, sdpo_tensor* out,
                        void* stream, sdpo_message m);
  int (*broadcast)(sdpo_device*, void* communicator, int root, sdpo_tensor* tensor, void* stream,
                   sdpo_message m);
} sdpo_backend;

/* A plugin exports this symbol as `sdpo_backend_get`; NULL where the version is not one it speaks. */
typedef const sdpo_backend* (*sdpo_backend_get_fn)(uint32_t abi_version);

#ifdef __cplusplus
}
#endif
#endif
