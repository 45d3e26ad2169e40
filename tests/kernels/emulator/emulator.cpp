// The emulator's scheduler and warp operations; see emulator.h.
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "emulator.h"
#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace ultron::emulator {

dim3 block_index, block_size, grid_size, thread_index;

namespace {

constexpr int WARP = 32, SLOT_BYTES = 64, GUARD_BYTES = 4096, MAX_THREADS = 1024;
constexpr size_t STACK_BYTES = 256 * 1024;
constexpr unsigned char GUARD = 0xa5;

enum class State { ready, at_warp_operation, at_block_barrier, done };

struct Copy {
  void* to;
  const void* from;
  bool live;
};

struct Fiber {
#if defined(__x86_64__)
  void* stack_pointer;
#else
  ucontext_t context;
#endif
  char* stack = nullptr;
  State state;
  unsigned operations;  // of its warp, so far
  std::vector<Copy> copies;
};

struct Warp {
  int arrived;
  const char* kind;
  alignas(16) char slots[2][WARP * SLOT_BYTES];
};

Fiber fibers[MAX_THREADS], scheduler;
Warp warps[MAX_THREADS / WARP];
int current;
bool backwards;
char* memory;
const std::function<void()>* body;
std::string error;

void fail(const std::string& what) {
  if (error.empty()) {
    error = "emulator: " + what + " (block " + std::to_string(block_index.x) + ", " + std::to_string(block_index.y)
            + "; thread " + std::to_string(current) + ")";
  }
}

#if defined(__x86_64__)
extern "C" void ultron_switch_fiber(void** save, void* restore);
asm(R"(
.text
.globl ultron_switch_fiber
.type ultron_switch_fiber, @function
ultron_switch_fiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size ultron_switch_fiber, .-ultron_switch_fiber
)");
void switch_fiber(Fiber& from, Fiber& to) { ultron_switch_fiber(&from.stack_pointer, to.stack_pointer); }
#else
void switch_fiber(Fiber& from, Fiber& to) { swapcontext(&from.context, &to.context); }
#endif

void pause(State state) {
  fibers[current].state = state;
  switch_fiber(fibers[current], scheduler);
}

void enter() {
  (*body)();
  if (!fibers[current].copies.empty()) fail("a thread ended with asynchronous copies that nobody waited for");
  pause(State::done);
  std::abort();
}

void start(Fiber& fiber) {
  if (fiber.stack == nullptr) {
    fiber.stack = static_cast<char*>(mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (fiber.stack == MAP_FAILED) std::abort();
  }
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(fiber.stack, STACK_BYTES);  // the last run left it without returning
#endif
#if defined(__x86_64__)
  // As a call leaves it: the entry as return address, and the stack 8 bytes off a multiple of 16 once it is taken.
  void** top = reinterpret_cast<void**>(fiber.stack + STACK_BYTES) - 2;
  top[0] = reinterpret_cast<void*>(&enter);
  top[1] = nullptr;
  for (int i = 1; i <= 6; ++i) top[-i] = nullptr;
  fiber.stack_pointer = top - 6;
#else
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = STACK_BYTES;
  makecontext(&fiber.context, enter, 0);
#endif
  fiber.state = State::ready;
  fiber.operations = 0;
  fiber.copies.clear();
}

bool run_warp(int warp) {
  bool any = false;
  for (bool again = true; again && error.empty();) {
    again = false;
    for (int i = 0; i < WARP && error.empty(); ++i) {
      const int thread = warp * WARP + (backwards ? WARP - 1 - i : i);
      if (fibers[thread].state != State::ready) continue;
      current = thread;
      thread_index = dim3(thread, 0, 0);
      switch_fiber(scheduler, fibers[thread]);
      again = any = true;
    }
  }
  return any;
}

void run_block(int threads) {
  for (int i = 0; i < threads; ++i) start(fibers[i]);
  for (int i = 0; i < threads / WARP; ++i) warps[i].arrived = 0;
  while (error.empty()) {
    bool any = false;
    for (int i = 0; i < threads / WARP; ++i) any |= run_warp(backwards ? threads / WARP - 1 - i : i);
    if (any || !error.empty()) continue;
    int waiting = 0, done = 0;
    for (int i = 0; i < threads; ++i) {
      waiting += fibers[i].state == State::at_block_barrier;
      done += fibers[i].state == State::done;
    }
    if (done == threads) return;
    if (waiting != threads) {
      fail(std::to_string(waiting) + " threads wait at __syncthreads, " + std::to_string(done) + " have ended, " +
           std::to_string(threads - waiting - done) + " wait for their warp");
      return;
    }
    for (int i = 0; i < threads; ++i) fibers[i].state = State::ready;
  }
}

uint32_t pair_at(const void* row, int index) {
  uint32_t pair;
  std::memcpy(&pair, static_cast<const char*>(row) + 4 * index, sizeof(pair));
  return pair;
}

void read_matrices(uint32_t (&r)[4], uint32_t address, bool transposed) {
  const void* row = memory + address;
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) fail("ldmatrix at an address that is no multiple of 16");
  const char* all = exchange(&row, sizeof(row), transposed ? "ldmatrix.trans" : "ldmatrix");
  const int g = lane() / 4, t = lane() % 4;
  const auto row_of = [all](int i) {
    const void* pointer;
    std::memcpy(&pointer, all + i * SLOT_BYTES, sizeof(pointer));
    return pointer;
  };
  for (int matrix = 0; matrix < 4; ++matrix) {
    if (!transposed) {
      r[matrix] = pair_at(row_of(matrix * 8 + g), t);
      continue;
    }
    uint16_t low, high;
    std::memcpy(&low, static_cast<const char*>(row_of(matrix * 8 + 2 * t)) + 2 * g, 2);
    std::memcpy(&high, static_cast<const char*>(row_of(matrix * 8 + 2 * t + 1)) + 2 * g, 2);
    r[matrix] = low | static_cast<uint32_t>(high) << 16;
  }
}

}  // namespace

char* dynamic_memory() { return memory; }
int lane() { return current % WARP; }
void block_barrier() { pause(State::at_block_barrier); }
void warp_barrier() { exchange(nullptr, 0, "__syncwarp"); }

const char* exchange(const void* own, int bytes, const char* kind) {
  const int warp_number = current / WARP;
  Warp& warp = warps[warp_number];
  if (warp.arrived == 0) warp.kind = kind;
  if (std::strcmp(warp.kind, kind) != 0) fail(std::string("lanes of a warp are at different operations: ") + warp.kind + " and " + kind);
  // Two buffers in turn: no lane can be two operations ahead of another.
  char* slots = warp.slots[fibers[current].operations++ % 2];
  if (bytes > 0) std::memcpy(slots + lane() * SLOT_BYTES, own, bytes);
  if (++warp.arrived < WARP) {
    pause(State::at_warp_operation);
  } else {
    warp.arrived = 0;
    for (int i = 0; i < WARP; ++i) fibers[warp_number * WARP + i].state = State::ready;
  }
  return slots;
}

void mma(const MmaLane& own, float (&c)[4]) {
  static_assert(sizeof(MmaLane) <= SLOT_BYTES);
  const MmaLane* all = reinterpret_cast<const MmaLane*>(exchange(&own, sizeof(own), "mma"));
  const auto of = [all](int i) -> const MmaLane& { return *reinterpret_cast<const MmaLane*>(reinterpret_cast<const char*>(all) + i * SLOT_BYTES); };
  const int g = lane() / 4, t = lane() % 4;
  for (int i = 0; i < 4; ++i) {
    const int row = g + i / 2 * 8, column = 2 * t + i % 2;
    double sum = 0.0;
    for (int k = 0; k < 16; ++k) {
      const float a = of(row % 8 * 4 + k % 8 / 2).a[(row / 8 + k / 8 * 2) * 2 + k % 2];
      const float b = of(column * 4 + k % 8 / 2).b[k / 8 * 2 + k % 2];
      sum += static_cast<double>(a) * b;
    }
    c[i] = static_cast<float>(c[i] + sum);
  }
}

uint32_t shared_address(const void* pointer) { return static_cast<uint32_t>(static_cast<const char*>(pointer) - memory); }
void load_matrices(uint32_t (&r)[4], uint32_t row) { read_matrices(r, row, false); }
void load_matrices_transposed(uint32_t (&r)[4], uint32_t row) { read_matrices(r, row, true); }

void copy_async(void* to, const void* from, bool live) {
  if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % 16 != 0) fail("cp.async at an address that is no multiple of 16");
  fibers[current].copies.push_back({to, from, live});
}

void copy_async_wait() {
  for (const Copy& copy : fibers[current].copies) {
    if (copy.live) {
      std::memcpy(copy.to, copy.from, 16);
    } else {
      std::memset(copy.to, 0, 16);
    }
  }
  fibers[current].copies.clear();
}

float half_to_float(uint16_t bits) {
  static const std::vector<float> table = [] {
    std::vector<float> values(1 << 16);
    for (int i = 0; i < 1 << 16; ++i) {
      const int exponent = i >> 10 & 31, fraction = i & 1023;
      float value = exponent == 31 ? (fraction != 0 ? NAN : INFINITY)
                    : exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                    : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
      values[i] = i >> 15 ? -value : value;
    }
    return values;
  }();
  return table[bits];
}

uint16_t float_to_half(float x) {
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  if (std::isnan(x)) return 0x7fff;
  const float size = std::fabs(x);
  if (size >= 65520.0f) return sign | 0x7c00;
  int exponent;
  std::frexp(size, &exponent);
  exponent = size == 0.0f || exponent < -13 ? -13 : exponent;  // below: subnormal, steps of 2^-24
  const long fraction = std::lrint(std::ldexp(static_cast<double>(size), 11 - exponent));  // to nearest, ties to even
  // A fraction of 2048 carries into the exponent by itself.
  return sign | static_cast<uint16_t>(fraction < 1024 ? fraction : ((exponent + 13) << 10) + fraction);
}

const char* run(dim3 grid, int threads, int shared_bytes, const std::function<void()>& kernel) {
  error.clear();
  if (threads <= 0 || threads % WARP != 0 || threads > MAX_THREADS || grid.y > 65535 || grid.z > 65535 || shared_bytes > 99 * 1024) {
    error = "emulator: no device would launch " + std::to_string(threads) + " threads with " + std::to_string(shared_bytes) + " bytes";
    return error.c_str();
  }
#if defined(__SANITIZE_ADDRESS__)
  const int guard = 0;  // the sanitizer watches the ends itself
#else
  const int guard = GUARD_BYTES;
#endif
  char* whole = static_cast<char*>(std::aligned_alloc(128, (shared_bytes + 127) / 128 * 128 + 2 * guard + (shared_bytes == 0 ? 128 : 0)));
  memory = whole + guard;
  body = &kernel;
  grid_size = grid;
  block_size = dim3(threads);
  const int64_t blocks = static_cast<int64_t>(grid.x) * grid.y * grid.z;
  for (int64_t i = 0; i < blocks && error.empty(); ++i) {
    const int64_t block = backwards ? blocks - 1 - i : i;
    block_index = dim3(static_cast<unsigned>(block % grid.x), static_cast<unsigned>(block / grid.x % grid.y), static_cast<unsigned>(block / grid.x / grid.y));
    std::memset(whole, GUARD, guard);
    std::memset(memory, POISON, shared_bytes);
    std::memset(memory + shared_bytes, GUARD, guard);
    run_block(threads);
    for (int j = 0; j < guard; ++j) {
      if (static_cast<unsigned char>(whole[j]) != GUARD || static_cast<unsigned char>(memory[shared_bytes + j]) != GUARD) fail("shared memory overrun");
    }
  }
  std::free(whole);
  return error.empty() ? nullptr : error.c_str();
}

extern "C" void emulator_run_backwards(int yes) { backwards = yes != 0; }

}  // namespace ultron::emulator
