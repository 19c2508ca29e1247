/* The C interface to mcc's sessions on the host; docs/embedding.md describes it. Made by cbindgen: do not edit. */

#ifndef MCC_H
#define MCC_H

#include <stddef.h>
#include <stdint.h>

// How a call ended.
enum MccStatus
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // The call did what it says.
  MCC_STATUS_OK = 0,
  // The model cannot be read, or mcc does not support it.
  MCC_STATUS_MODEL = 1,
  // Number, size or alignment of the tensors is not what the model's inputs and outputs need, or they overlap.
  MCC_STATUS_TENSOR = 2,
  // A pointer is null, a text is not UTF-8, or options do not go together.
  MCC_STATUS_ARGUMENT = 3,
  // Another thread runs this session.
  MCC_STATUS_BUSY = 4,
  // A fault of mcc. A session that it happened in can only be freed.
  MCC_STATUS_INTERNAL = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum MccStatus MccStatus;
#else
typedef int32_t MccStatus;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The type of a tensor's elements, in the machine's byte order.
enum MccDtype
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // No element type: of a null port.
  MCC_DTYPE_NONE = 0,
  MCC_DTYPE_F32 = 1,
  MCC_DTYPE_I64 = 2,
  MCC_DTYPE_I32 = 3,
  MCC_DTYPE_I16 = 4,
  MCC_DTYPE_I8 = 5,
  MCC_DTYPE_U8 = 6,
  // One byte, 0 or 1.
  MCC_DTYPE_BOOL = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum MccDtype MccDtype;
#else
typedef int32_t MccDtype;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How a model is compiled. Where a function takes options, null means the defaults.
typedef struct MccOptions MccOptions;

// An input or output of a session. It lives as long as its session, and any thread may look at it at any time.
typedef struct MccPort MccPort;

// A model compiled for this machine.
//
// Any thread may use it, one at a time: a second one that runs it meanwhile gets `MCC_STATUS_BUSY`. Threads that run at
// the same time need a session each. Ports may be looked at any time.
typedef struct MccSession MccSession;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the library, such as "0.1.0".
const char *mcc_version(void);

// The stable code of the last error in this thread, such as "E0601"; empty where there was none.
//
// The text is valid until the next call of this library that fails in the same thread, and until the thread ends.
const char *mcc_last_error_code(void);

// The message of the last error in this thread, in UTF-8; empty where there was none.
//
// The text is valid until the next call of this library that fails in the same thread, and until the thread ends.
const char *mcc_last_error_message(void);

// Options with their defaults, to be freed with `mcc_options_free`; null only after a fault of mcc.
MccOptions *mcc_options_new(void);

// Frees options; sessions that were made with them do not mind. Null is allowed.
//
// # Safety
// `options` must be null or come from `mcc_options_new`, and not be used again.
void mcc_options_free(MccOptions *options);

// Gives a symbolic dimension of the model, such as "batch", its size.
//
// # Safety
// `options` must be null or a live handle that no other thread uses; `name` null or a text that ends with a zero.
MccStatus mcc_options_set_input_dim(MccOptions *options,
                                    const char *name,
                                    size_t size);

// Gives an input of the model a whole shape, of `rank` dimensions, outermost first.
//
// # Safety
// `options` must be null or a live handle that no other thread uses; `name` null or a text that ends with a zero;
// `shape` null or point to `rank` sizes.
MccStatus mcc_options_set_input_shape(MccOptions *options,
                                      const char *name,
                                      const size_t *shape,
                                      size_t rank);

// The name in the model, in UTF-8; null of a null port.
//
// # Safety
// `port` must be null or a port of a live session.
const char *mcc_port_name(const MccPort *port);

// The element type.
//
// # Safety
// `port` must be null or a port of a live session.
MccDtype mcc_port_dtype(const MccPort *port);

// Number of dimensions; 0 of a null port.
//
// # Safety
// `port` must be null or a port of a live session.
size_t mcc_port_rank(const MccPort *port);

// The sizes of the dimensions, outermost first, as many as `mcc_port_rank` says; null of a null port.
//
// # Safety
// `port` must be null or a port of a live session.
const size_t *mcc_port_shape(const MccPort *port);

// Number of elements, which lie row-major; 0 of a null port.
//
// # Safety
// `port` must be null or a port of a live session.
size_t mcc_port_elements(const MccPort *port);

// Number of bytes that `mcc_session_run` takes for this port; 0 of a null port.
//
// # Safety
// `port` must be null or a port of a live session.
size_t mcc_port_bytes(const MccPort *port);

// What the integers of a quantised tensor stand for: real = scale * (q - zero_point). Returns 1 and sets both, or 0
// where the tensor is not quantised as a whole. Either pointer may be null.
//
// # Safety
// `port` must be null or a port of a live session, `scale` and `zero_point` null or point to one writable element.
int32_t mcc_port_quantization(const MccPort *port,
                              float *scale,
                              int32_t *zero_point);

// Compiles an ONNX file (or a graph in the text form, `.mcc`) and puts the session into `*session`, to be freed with
// `mcc_session_free`. After a failure `*session` is null.
//
// # Safety
// `path` must be null or a text in UTF-8 that ends with a zero; `options` null or a live handle that no other thread
// changes; `session` null or point to a writable pointer.
MccStatus mcc_session_from_file(const char *path,
                                const MccOptions *options,
                                MccSession **session);

// As `mcc_session_from_file`, of an ONNX file that lies in memory: `size` bytes, which are needed during the call
// only. Models whose weights are in other files are refused.
//
// # Safety
// `model` must be null or point to `size` bytes; `options` null or a live handle that no other thread changes; `session`
// null or point to a writable pointer.
MccStatus mcc_session_from_bytes(const void *model,
                                 size_t size,
                                 const MccOptions *options,
                                 MccSession **session);

// Frees a session and its ports. Null is allowed.
//
// # Safety
// `session` must be null or come from this library, not be in use by another thread, and not be used again.
void mcc_session_free(MccSession *session);

// Number of inputs; 0 of a null session.
//
// # Safety
// `session` must be null or a live session.
size_t mcc_session_input_count(const MccSession *session);

// Number of outputs; 0 of a null session.
//
// # Safety
// `session` must be null or a live session.
size_t mcc_session_output_count(const MccSession *session);

// An input, counted from 0 in the model's order; null of a null session and where there is none.
//
// # Safety
// `session` must be null or a live session.
const MccPort *mcc_session_input(const MccSession *session, size_t index);

// An output, counted from 0 in the model's order; null of a null session and where there is none.
//
// # Safety
// `session` must be null or a live session.
const MccPort *mcc_session_output(const MccSession *session, size_t index);

// Bytes of working memory; 0 of a null session.
//
// # Safety
// `session` must be null or a live session.
size_t mcc_session_arena_bytes(const MccSession *session);

// Bytes of constants as laid out for the kernels; 0 of a null session.
//
// # Safety
// `session` must be null or a live session.
size_t mcc_session_weights_bytes(const MccSession *session);

// Runs the model once: reads the inputs, fills the outputs. Allocates nothing unless it fails, and copies no tensor that
// the model can read or write in place.
//
// `inputs[i]` points to `input_bytes[i]` bytes, which must be as many as `mcc_port_bytes` says,
// aligned for the elements; so for outputs. Outputs may not overlap other tensors. What outputs hold after a failure is
// not defined.
//
// # Safety
// `session` must be null or a live session. Each array must be null or have as many elements as the count beside it says;
// each pointer in it must be null or point to as many bytes as are given for it, writable ones for outputs, and no other
// thread may write inputs or touch outputs during the call.
MccStatus mcc_session_run(MccSession *session,
                          const void *const *inputs,
                          const size_t *input_bytes,
                          size_t input_count,
                          void *const *outputs,
                          const size_t *output_bytes,
                          size_t output_count);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MCC_H */
