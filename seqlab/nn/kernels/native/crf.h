// What both kernels of the CRF share: what they are asked, its sentences, and its scores.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "vector.h"

namespace seqlab {

// Before a loop whose bounds are known: what it fills then stays in registers.
#define UNROLLED _Pragma("GCC unroll 16")

#define INLINED inline __attribute__((always_inline))

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr float kTooMuch = std::numeric_limits<float>::infinity();

// What a call is answered with: 0, or the sum of these.
enum Answer : int64_t {
  kHole = 1,     // a mask hides a position before a real one: nothing was computed
  kNoTag = 2,    // an id is no tag: nothing can be used
  kSuspect = 4,  // a sentence has probability 0, or none at all: what was computed is right
};

// Emissions with what tells their sentences, and the parameters. All numbers are of 8 bytes, so that
// Python packs them in one go; strides count elements.
struct Given {
  const float* emissions;  // (batch, time, tag)
  int64_t batch, time, tags, batch_stride, time_stride;
  const uint8_t* mask;  // (batch, time), or null: all are real
  int64_t mask_batch, mask_time;
  const float *start, *transitions, *end;
  const uint8_t *no_start, *no_transitions, *no_end;  // what the grammar forbids, or null
  int64_t threads;

  const float* at(int64_t row, int64_t position) const {
    return emissions + row * batch_stride + position * time_stride;
  }
};

// Memory that is kept from call to call, unless it is much.
class Room {
 public:
  float* of(size_t numbers) {
    if (numbers > size_) {
      data_.reset(new (std::align_val_t(64)) float[numbers]);
      size_ = numbers;
    }
    return data_.get();
  }
  void shrink() {
    if (size_ > kKept) data_.reset(), size_ = 0;
  }

 private:
  static constexpr size_t kKept = 1 << 20;
  struct Free {
    void operator()(float* p) const { ::operator delete[](p, std::align_val_t(64)); }
  };
  std::unique_ptr<float[], Free> data_;
  size_t size_ = 0;
};

// The number of real positions of a sentence, or -1 where a hidden one comes before a real one.
inline int64_t length_of(const Given& given, int64_t row) {
  if (!given.mask) return given.time;
  const uint8_t* mask = given.mask + row * given.mask_batch;
  int64_t length = 0;
  while (length < given.time && mask[length * given.mask_time]) ++length;
  for (int64_t t = length; t < given.time; ++t)
    if (mask[t * given.mask_time]) return -1;
  return length;
}

inline bool lengths_of(const Given& given, std::vector<int64_t>& lengths) {
  lengths.resize(given.batch);
  for (int64_t b = 0; b < given.batch; ++b)
    if ((lengths[b] = length_of(given, b)) < 0) return false;
  return true;
}

inline int width_of(int64_t tags) {
  return static_cast<int>((tags + kWidth - 1) / kWidth) * kWidth;
}

// Scores with -inf where the grammar forbids and behind the last tag.
struct Scores {
  int tags, width;
  std::vector<float> start, end, transitions;  // (width), (width), (tag, width): previous tag first

  explicit Scores(const Given& given)
      : tags(static_cast<int>(given.tags)),
        width(width_of(given.tags)),
        start(width, kNever),
        end(width, kNever),
        transitions(static_cast<size_t>(tags) * width, kNever) {
    fill(start.data(), given.start, given.no_start);
    fill(end.data(), given.end, given.no_end);
    for (int i = 0; i < tags; ++i)
      fill(row(i), given.transitions + i * tags,
           given.no_transitions ? given.no_transitions + i * tags : nullptr);
  }

  float* row(int i) { return transitions.data() + static_cast<size_t>(i) * width; }
  const float* row(int i) const { return transitions.data() + static_cast<size_t>(i) * width; }

 private:
  void fill(float* to, const float* from, const uint8_t* forbidden) const {
    for (int j = 0; j < tags; ++j) to[j] = forbidden && forbidden[j] ? kNever : from[j];
  }
};

inline bool strange(const float* values, size_t n) {  // NaN or +inf among them
  bool found = false;
  for (size_t i = 0; i < n; ++i) found |= !(values[i] < kTooMuch);
  return found;
}

// The vector at `v` of a position's emissions, `filler` behind the last tag.
inline Vec emitted(const float* emissions, int v, int tags, float filler) {
  const int left = tags - v * kWidth;
  return left >= kWidth ? load(emissions + v * kWidth) : load_some(emissions + v * kWidth, left, filler);
}

// Runs `task(n)` for n = 0, 1, ..., count - 1, each by one thread, in any order.
template <typename Task>
void each(int64_t count, int64_t threads, Task task) {
#ifdef _OPENMP
  if (threads > 1 && count > 1) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(static_cast<int>(threads))
    for (int64_t n = 0; n < count; ++n) task(n);
    return;
  }
#endif
  for (int64_t n = 0; n < count; ++n) task(n);
}

}  // namespace seqlab
