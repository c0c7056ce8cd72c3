/* Runs a chain of adder layers without onnxruntime: on the library's threads, then on its own.
 *
 *     chain FILE.adder HEIGHT WIDTH
 *
 * The file is one of adder-compile's --chains. Every input is filled with a made-up image of that size.
 * Prints the shape and a checksum (FNV-1a, 64 bits) of all outputs, which are the same bytes
 * whatever the threads. */
#include "adder_onnx.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 2, MOST_IMAGES = 8 };

typedef struct {
  pthread_mutex_t lock;
  size_t next, count;
  void (*task)(void* argument, size_t i);
  void* argument;
} work;

static void* work_off(void* pointer) {
  work* w = pointer;
  for (;;) {
    pthread_mutex_lock(&w->lock);
    const size_t i = w->next < w->count ? w->next++ : w->count;
    pthread_mutex_unlock(&w->lock);
    if (i == w->count) return NULL;
    w->task(w->argument, i);
  }
}

/* What adder_run_on calls. A program with a pool of threads has them wait for work instead. */
static void parallel_for(void* self, size_t count, void (*task)(void* argument, size_t i),
                         void* argument) {
  work w = {PTHREAD_MUTEX_INITIALIZER, 0, count, task, argument};
  pthread_t threads[THREADS - 1];
  size_t started = 0;
  (void)self;
  while (started < THREADS - 1 && !pthread_create(&threads[started], NULL, work_off, &w)) started++;
  work_off(&w);
  while (started > 0) pthread_join(threads[--started], NULL);
  pthread_mutex_destroy(&w.lock);
}

static const size_t size_of[] = {4, 2, 1}; /* by adder_type */

static size_t elements(adder_shape s) {
  return (size_t)s.batch * (size_t)s.channels * (size_t)s.height * (size_t)s.width;
}

/* The shape of an image for an input, which may leave the channels to us. */
static adder_shape shape_of(const adder_chain* chain, size_t number, int64_t height, int64_t width) {
  const int64_t channels = adder_input_channels(chain, number);
  const adder_shape shape = {1, channels < 0 ? 1 : channels, height, width};
  return shape;
}

/* An image of that shape, all zeros; exits where there is no memory. */
static adder_image make_image(adder_type type, adder_shape shape) {
  const adder_image image = {calloc(elements(shape) + 1, size_of[type]), type, shape};
  if (image.data == NULL) {
    fprintf(stderr, "chain: no memory\n");
    exit(2);
  }
  return image;
}

/* Floats from -1 to below 1, halves of ± 0.5 to below 1, or bytes. */
static void fill(adder_image image) {
  for (size_t i = 0; i < elements(image.shape); i++) {
    const uint32_t hash = (uint32_t)i * UINT32_C(2654435761);
    if (image.type == ADDER_FLOAT32) {
      ((float*)image.data)[i] = (float)(hash >> 16) / 32768 - 1;
    } else if (image.type == ADDER_FLOAT16) {
      ((uint16_t*)image.data)[i] = (uint16_t)(0x3800 | (hash >> 16 & 0x83ff));
    } else {
      ((uint8_t*)image.data)[i] = (uint8_t)(hash >> 24);
    }
  }
}

static uint64_t checksum(const adder_image* images, size_t count) {
  uint64_t sum = UINT64_C(14695981039346656037);
  for (size_t k = 0; k < count; k++) {
    const unsigned char* bytes = images[k].data;
    for (size_t i = 0; i < elements(images[k].shape) * size_of[images[k].type]; i++)
      sum = (sum ^ bytes[i]) * UINT64_C(1099511628211);
  }
  return sum;
}

static int fail(void) {
  fprintf(stderr, "chain: %s\n", adder_error());
  return 2;
}

int main(int count, char** arguments) {
  adder_chain* chain = NULL;
  if (count != 4) {
    fprintf(stderr, "chain FILE.adder HEIGHT WIDTH\n");
    return 2;
  }
  if (adder_abi() != ADDER_ONNX_ABI) {
    fprintf(stderr, "chain: the library is of another version than adder_onnx.h\n");
    return 2;
  }
  if (adder_open_file(arguments[1], &chain)) return fail();

  const size_t inputs = adder_input_count(chain), outputs = adder_output_count(chain);
  if (inputs > MOST_IMAGES || outputs > MOST_IMAGES) {
    fprintf(stderr, "chain: more inputs or outputs than %d\n", MOST_IMAGES);
    return 2;
  }
  const int64_t height = atoll(arguments[2]), width = atoll(arguments[3]);
  adder_shape in[MOST_IMAGES], out[MOST_IMAGES];
  adder_image x[MOST_IMAGES], y[MOST_IMAGES];
  for (size_t i = 0; i < inputs; i++) in[i] = shape_of(chain, i, height, width);
  if (adder_output_shapes(chain, in, out)) return fail();
  for (size_t i = 0; i < inputs; i++) fill(x[i] = make_image(adder_input_type(chain, i), in[i]));
  for (size_t i = 0; i < outputs; i++) y[i] = make_image(adder_output_type(chain, i), out[i]);

  if (adder_run(chain, x, y, THREADS)) return fail();
  const uint64_t theirs = checksum(y, outputs);
  for (size_t i = 0; i < outputs; i++) memset(y[i].data, 0, elements(out[i]) * size_of[y[i].type]);
  const adder_threads own = {parallel_for, NULL, THREADS};
  if (adder_run_on(chain, x, y, &own)) return fail();
  const uint64_t ours = checksum(y, outputs);

  for (size_t i = 0; i < outputs; i++)
    printf("output %" PRId64 " x %" PRId64 " x %" PRId64 "\n", out[i].channels, out[i].height,
           out[i].width);
  printf("library's threads %016" PRIx64 "\nown threads       %016" PRIx64 "\n", theirs, ours);
  for (size_t i = 0; i < inputs; i++) free(x[i].data);
  for (size_t i = 0; i < outputs; i++) free(y[i].data);
  adder_close(chain);
  return theirs == ours ? 0 : 1;
}
