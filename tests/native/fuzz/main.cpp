// Random programs of the native kernels, valid ones and others, and all else that the native layer
// offers, for builds with sanitizers. A case is made from bytes: those of libFuzzer, where it is
// built in (-DADDER_ONNX_LIBFUZZER=ON, with clang), else of a seed:
//
//   fuzz_native SEED 60s     cases of SEED, SEED + 1, … for 60 seconds
//   fuzz_native SEED 1000    a thousand of them; 1 repeats a case
//
// Whatever is wrong ends the process, with the seed of its case as the last line. Exit status 0: all
// went well.
#include <signal.h>
#if defined(_WIN32)
#include <io.h>
#else
#include <unistd.h>
#endif

#include <chrono>
#include <cstring>
#include <exception>
#include <random>

#include "fuzz/bytes.h"

namespace {

#if defined(_WIN32)
// There are no alarms, so a case that never ends is not told.
constexpr int SIGALRM = SIGABRT;
unsigned alarm(unsigned) { return 0; }
#endif

constexpr unsigned kMaxSeconds = 120;  // of one case, where a machine is busy

void try_case(const uint8_t* data, size_t size) {
  fuzz::Bytes bytes(data, size);
  switch (bytes.from(0, 11)) {
    case 0: return fuzz::try_gradient(bytes);
    case 1: return fuzz::try_roundings(bytes);
    case 2: return fuzz::try_hostile_conv(bytes);
    case 3:
    case 4:
    case 5: return fuzz::try_hostile_program(bytes);
    case 6:
    case 7: return fuzz::try_chain(bytes);
    default: return fuzz::try_program(bytes);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try_case(data, size);
  return 0;
}

#if !defined(ADDER_ONNX_LIBFUZZER)

// So that the seed is told, too, where undefined behaviour is met.
extern "C" const char* __ubsan_default_options() {
  return "abort_on_error=1:print_stacktrace=1";
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
extern "C" void __sanitizer_set_death_callback(void (*callback)());
#else
void __sanitizer_set_death_callback(void (*)()) {}
#endif

namespace {

uint64_t seed = 0;

void say_seed() {
  char text[64];
  const int size = std::snprintf(text, sizeof(text), "seed %llu\n",
                                 static_cast<unsigned long long>(seed));
  [[maybe_unused]] const auto written = write(2, text, static_cast<size_t>(size));
}

void end_by_signal(int number) {
  say_seed();
  signal(number, SIG_DFL);
  raise(number);
}

std::vector<uint8_t> bytes_of(uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<uint8_t> bytes(600);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s SEED COUNT|SECONDSs\n", argv[0]);
    return 2;
  }
  __sanitizer_set_death_callback(say_seed);
  for (int number : {SIGABRT, SIGALRM, SIGFPE, SIGILL}) signal(number, end_by_signal);
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  const uint64_t first = std::strtoull(argv[1], nullptr, 10);
  const uint64_t limit = std::strtoull(argv[2], nullptr, 10);
  const bool is_time = argv[2][std::strlen(argv[2]) - 1] == 's';
  const auto seconds = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  for (seed = first; is_time ? seconds() < static_cast<double>(limit) : seed - first < limit; ++seed) {
    alarm(kMaxSeconds);
    const std::vector<uint8_t> bytes = bytes_of(seed);
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  alarm(0);
  std::printf("%llu cases from seed %llu on in %.0f seconds: nothing wrong\n",
              static_cast<unsigned long long>(seed - first),
              static_cast<unsigned long long>(first), seconds());
  return 0;
}

#endif
