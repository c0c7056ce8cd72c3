/* libadder_onnx: chains of adder layers without Python, onnxruntime or anything else.
 *
 * A chain is what `adder-compile MODEL.onnx --chains FOLDER` writes: the adder layers of a network
 * between its other nodes, with all their constants. Images are (N, C, H, W) in C order.
 *
 * Functions that may fail return 0 where they did not; else `adder_error` says why. All may be called
 * from several threads at once, with the same chain too, but for adder_close. */
#ifndef ADDER_ONNX_H
#define ADDER_ONNX_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define ADDER_API __declspec(dllexport)
#else
#define ADDER_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define ADDER_ONNX_ABI 1 /* grows where a function changes; none will without it */

typedef struct adder_chain adder_chain;

typedef enum { ADDER_FLOAT32 = 0, ADDER_FLOAT16 = 1, ADDER_UINT8 = 2 } adder_type;

typedef struct {
  int64_t batch, channels, height, width;
} adder_shape;

typedef struct {
  void* data; /* aligned to its elements; only read of an input */
  adder_type type;
  adder_shape shape;
} adder_image;

/* Threads of the caller's. `parallel_for` calls task(argument, i) for each i below count, in any order
 * and on any threads, and returns when all calls have ended; it may call them one after the other. */
typedef struct {
  void (*parallel_for)(void* self, size_t count, void (*task)(void* argument, size_t i),
                       void* argument);
  void* self;
  int count; /* that are worth asking for: at most so many calls are made at the same time */
} adder_threads;

/* ADDER_ONNX_ABI of the library. */
ADDER_API int adder_abi(void);

/* Why the last function that failed on this thread did; valid until the next one fails there. */
ADDER_API const char* adder_error(void);

/* Reads a chain from a file, or from memory, which may be freed afterwards. Nothing of it is trusted.
 * Instructions are the best of this machine, or those that the variable ADDER_ONNX_CPU_ISA names. */
ADDER_API int adder_open_file(const char* path, adder_chain** chain);
ADDER_API int adder_open(const void* bytes, size_t size, adder_chain** chain);
/* Of a chain that nobody runs; null does nothing. */
ADDER_API void adder_close(adder_chain* chain);

ADDER_API size_t adder_input_count(const adder_chain* chain);
ADDER_API size_t adder_output_count(const adder_chain* chain);
/* Of one that there is. */
ADDER_API adder_type adder_input_type(const adder_chain* chain, size_t number);
ADDER_API adder_type adder_output_type(const adder_chain* chain, size_t number);
/* The channels that an input must have; -1 where any number will do. Its other sizes are the caller's. */
ADDER_API int64_t adder_input_channels(const adder_chain* chain, size_t number);

/* The sizes of all outputs for inputs of these sizes. */
ADDER_API int adder_output_shapes(const adder_chain* chain, const adder_shape* inputs,
                                  adder_shape* outputs);

/* Computes the outputs, which share no memory with anything else. What a run needs for its shapes is kept
 * for the sixteen combinations used last, and memory for as many runs as there have been at the
 * same time, at most eight. On the library's own threads it uses `threads` at most. */
ADDER_API int adder_run(const adder_chain* chain, const adder_image* inputs,
                        const adder_image* outputs, int threads);
/* The same on the caller's. */
ADDER_API int adder_run_on(const adder_chain* chain, const adder_image* inputs,
                           const adder_image* outputs, const adder_threads* threads);

#ifdef __cplusplus
}
#endif

#endif
