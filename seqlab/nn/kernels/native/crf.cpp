// Log-likelihood, log partition and exact gradient of a linear-chain CRF, in one call.
//
// Each sentence is swept forward and backward in the probability domain (Rabiner, 1989), with each
// position's emissions less their maximum and each message divided by the sum of the one before, which
// is known before it is needed. Marginals normalise themselves position by position. A sentence in
// which underflow may have taken a noticeable share is redone with logarithms in double precision.
#include <algorithm>
#include <numeric>

#include "crf_lanes.h"
#include "crf_single.h"

namespace seqlab {
namespace {

enum Reduction : int64_t { kNone = 0, kSum = 1, kMean = 2, kTokenMean = 3 };
struct Call {
  Given given;
  const int64_t* gold;  // (batch, time) or null, which asks for the log partition
  int64_t gold_batch, gold_time;
  const float* weights;  // (batch) of the gradient, or null: 1
  int64_t weights_stride, reduction;
  float* values;       // (batch), or one number where they are reduced
  float* d_emissions;  // (batch, time, tag) or null
  int64_t d_batch, d_time;
  float *d_start, *d_transitions, *d_end;  // or all null
};

// Whether `count` sentences are swept sooner side by side: there may be fewer multiplications then, as
// no lane is left over behind the last tag, and there is less to do around them.
bool fewer_at_once(int64_t tags, int64_t width, double count) {
  constexpr int64_t kAround = 60;
  return tags * tags + kAround < count * (tags * (width / kWidth) + kAround);
}

bool fewer_at_once(const Sweep* sweeps, int count) {  // sorted by length
  double sum = 0.0;
  for (int n = 0; n < count; ++n) sum += sweeps[n].length;
  return fewer_at_once(sweeps[0].scores.tags, sweeps[0].scores.width, sum / sweeps[0].length);
}

// Log partitions of sentences, none empty, from the longest to the shortest.
void sweep(const std::vector<Sweep>& sweeps, double* values, Room& room) {
  const int all = static_cast<int>(sweeps.size());
  for (int first = 0; first < all; first += kWidth) {
    const int count = std::min(kWidth, all - first);
    if (fewer_at_once(&sweeps[first], count)) {
      Lanes(&sweeps[first], count, room).run(values + first);
      continue;
    }
    for (int n = first; n < first + count; ++n) values[n] = sweep_single(sweeps[n], room);
  }
}

// Score of the given tags, all known; what was seen goes into the gradient.
double score_of(const Sweep& s) {
  double score = s.scores.start[s.tag(0)] + double(s.scores.end[s.tag(s.length - 1)]);
  for (int64_t t = 0; t < s.length; ++t) {
    const int64_t tag = s.tag(t);
    score += s.given.at(s.row, t)[tag];
    if (s.d_emissions) s.d_emissions[t * s.d_time + tag] += s.weight;
    if (t == 0) continue;
    score += s.scores.row(s.tag(t - 1))[tag];
    if (s.sums) s.sums->seen[s.tag(t - 1) * s.scores.width + tag] += s.weight;
  }
  if (s.sums) s.sums->start[s.tag(0)] += s.weight, s.sums->end[s.tag(s.length - 1)] += s.weight;
  return score;
}

enum Tags { kWrong, kAllKnown, kSomeKnown };

Tags kind_of(const int64_t* gold, int64_t stride, int64_t length, int64_t tags) {
  bool some = false;
  for (int64_t t = 0; t < length; ++t) {
    const int64_t tag = gold[t * stride];
    if (tag < kAnyTag || tag >= tags) return kWrong;
    some |= tag == kAnyTag;
  }
  return some ? kSomeKnown : kAllKnown;
}

// Everything about one call that its sentences share.
struct Batch {
  const Call& call;
  Scores scores;
  Steps steps;
  std::vector<int64_t> lengths;
  std::vector<Tags> kinds;
  float scale = 1.0f;  // of the gradient: what the reduction divides by

  explicit Batch(const Call& call) : call(call), scores(call.given), steps(scores) {}
};

float weight_of(const Batch& batch, int64_t b) {
  const Call& call = batch.call;
  return batch.scale * (call.weights ? call.weights[b * call.weights_stride] : 1.0f);
}

// The sweeps of one sentence: over all sequences, and over those that agree with its tags where some
// of these are unknown. Clears the gradient of its padding.
void add_sweeps(const Batch& batch, int64_t b, Sums* sums, std::vector<Sweep>& to) {
  const Call& call = batch.call;
  const int64_t length = batch.lengths[b];
  float* gradient = call.d_emissions ? call.d_emissions + b * call.d_batch : nullptr;
  for (int64_t t = length; gradient && t < call.given.time; ++t)
    std::fill_n(gradient + t * call.d_time, call.given.tags, 0.0f);
  if (length == 0) return;
  const float weight = weight_of(batch, b);
  Sweep all{call.given, batch.scores, batch.steps, b, length, nullptr, 0,
            call.gold ? -weight : weight, gradient, call.d_time, false, sums, nullptr};
  to.push_back(all);
  if (!call.gold) return;
  all.weight = weight, all.adds = true;
  all.known = call.gold + b * call.gold_batch, all.known_stride = call.gold_time;
  if (batch.kinds[b] == kSomeKnown) to.push_back(all);
}

// How a batch is shared out: sorted by length and cut into chunks, of which each part takes every
// parts-th. That depends on nothing but the batch: whatever the number of threads, the same numbers
// are added in the same order.
struct Shares {
  std::vector<int64_t> rows;  // from the longest to the shortest
  int64_t chunk, parts;

  Shares(const Batch& batch) : rows(batch.lengths.size()) {
    const int64_t count = rows.size(), tags = batch.scores.tags, width = batch.scores.width;
    std::iota(rows.begin(), rows.end(), 0);
    const auto longer = [&](int64_t a, int64_t b) { return batch.lengths[a] > batch.lengths[b]; };
    if (!std::is_sorted(rows.begin(), rows.end(), longer)) std::stable_sort(rows.begin(), rows.end(), longer);
    const int64_t together = std::min<int64_t>(count, kWidth);
    chunk = fewer_at_once(tags, width, together) ? together : 1;
    const int64_t most = std::max<int64_t>(8, std::min<int64_t>(32, (1 << 22) / (tags * width)));
    parts = std::min((count + chunk - 1) / chunk, most);
  }
};

// The gradients of start, end and transition scores, one after the other.
size_t sums_size(const Scores& scores) {
  return static_cast<size_t>(scores.width) * (scores.tags + 2);
}

Sums cleared_sums(const Scores& scores, float* memory, Room& room) {
  const size_t width = scores.width, all = width * scores.tags;
  double* seen = reinterpret_cast<double*>(room.of(2 * all));
  std::fill_n(memory, sums_size(scores), 0.0f);
  std::fill_n(seen, all, 0.0);
  return {memory, memory + width, memory + 2 * width, seen};
}

// The sentences of one part, and its sums into the memory.
void take_part(const Batch& batch, const Shares& shares, int64_t part, float* memory, double* values) {
  static thread_local Room room, room_of_sums;
  const Call& call = batch.call;
  const Scores& scores = batch.scores;
  Sums sums = memory ? cleared_sums(scores, memory, room_of_sums) : Sums{};
  std::vector<Sweep> sweeps;
  const int64_t count = call.given.batch;
  for (int64_t first = part * shares.chunk; first < count; first += shares.parts * shares.chunk)
    for (int64_t n = first; n < std::min(count, first + shares.chunk); ++n)
      add_sweeps(batch, shares.rows[n], memory ? &sums : nullptr, sweeps);
  std::vector<double> found(sweeps.size());
  sweep(sweeps, found.data(), room);
  for (size_t n = 0; n < sweeps.size(); ++n) {
    const Sweep& s = sweeps[n];
    values[s.row] += s.known || !call.gold ? found[n] : -found[n];
    if (s.known || !call.gold || batch.kinds[s.row] != kAllKnown) continue;
    Sweep gold = s;
    gold.known = call.gold + s.row * call.gold_batch, gold.known_stride = call.gold_time;
    gold.weight = -s.weight;
    values[s.row] += score_of(gold);
  }
  for (int64_t n = 0; memory && n < int64_t(scores.width) * scores.tags; ++n)
    sums.pairs[n] = float(sums.seen[n] + double(sums.pairs[n]) * batch.steps.forward[n]);
  room.shrink();
  room_of_sums.shrink();
}

// Adds up the parts, in their order, into the gradients of the parameters.
void add_parts(const Batch& batch, int64_t parts, const float* memory) {
  const Call& call = batch.call;
  const Scores& scores = batch.scores;
  const int tags = scores.tags, width = scores.width;
  const size_t size = sums_size(scores);
  auto total = [&](const float* first, const uint8_t* forbidden, float* to) {
    for (int v = 0; v < width; v += kWidth) {
      Vec all = {};
      for (int64_t p = 0; p < parts; ++p) all += load(first + p * size + v);
      const int n = std::min(kWidth, tags - v);
      if (n == kWidth) store(to + v, all); else store_some(to + v, all, n);
    }
    for (int j = 0; forbidden && j < tags; ++j)
      if (forbidden[j]) to[j] = 0.0f;
  };
  const Given& given = call.given;
  total(memory, given.no_start, call.d_start);
  total(memory + width, given.no_end, call.d_end);
  const float* transitions = memory + 2 * width;
  each(tags, parts * tags * width > (1 << 20) ? given.threads : 1, [&](int64_t i) {
    const uint8_t* forbidden = given.no_transitions ? given.no_transitions + i * tags : nullptr;
    total(transitions + i * width, forbidden, call.d_transitions + i * tags);
  });
}

int64_t likelihood(const Call& call) {
  const Given& given = call.given;
  Batch batch(call);
  if (!lengths_of(given, batch.lengths)) return kHole;
  batch.kinds.resize(given.batch);
  int64_t tokens = 0;
  for (int64_t b = 0; b < given.batch; ++b) {
    tokens += batch.lengths[b];
    if (!call.gold) continue;
    batch.kinds[b] = kind_of(call.gold + b * call.gold_batch, call.gold_time, batch.lengths[b], given.tags);
    if (batch.kinds[b] == kWrong) return kNoTag;
  }
  if (call.reduction == kMean) batch.scale = 1.0f / given.batch;
  if (call.reduction == kTokenMean) batch.scale = 1.0f / std::max<int64_t>(1, tokens);
  const Shares shares(batch);
  const int64_t parts = shares.parts;
  static thread_local Room room;
  float* memory = call.d_transitions ? room.of(sums_size(batch.scores) * parts) : nullptr;
  std::vector<double> values(given.batch);
  each(parts, given.threads, [&](int64_t part) {
    float* own = memory ? memory + sums_size(batch.scores) * part : nullptr;
    take_part(batch, shares, part, own, values.data());
  });
  if (memory) add_parts(batch, parts, memory);
  room.shrink();
  double sum = 0.0;
  int64_t answer = 0;
  for (int64_t b = 0; b < given.batch; ++b) {
    if (!(values[b] > kNever)) answer = kSuspect;
    if (call.reduction == kNone) call.values[b] = float(values[b]);
    sum += values[b];
  }
  if (call.reduction == kNone) return answer;
  const double over = call.reduction == kMean ? given.batch : call.reduction == kTokenMean ? tokens : 1;
  call.values[0] = float(sum / std::max(1.0, over));
  return answer;
}

struct PathCall {
  Given given;
  int64_t count;
  const int64_t *rows, *starts, *begins, *tags;
  float* chances;
};

// Sorts queries by their rows.
Queries queries_of(const PathCall& call) {
  Queries q{call.starts, call.begins, call.tags, call.chances, {}, {}};
  q.order.resize(call.count);
  q.firsts.resize(call.given.batch + 1);
  for (int64_t n = 0; n < call.count; ++n) ++q.firsts[call.rows[n] + 1];
  for (int64_t b = 0; b < call.given.batch; ++b) q.firsts[b + 1] += q.firsts[b];
  std::vector<int64_t> next = q.firsts;
  for (int64_t n = 0; n < call.count; ++n) q.order[next[call.rows[n]]++] = n;
  return q;
}

int64_t paths(const PathCall& call) {
  const Scores scores(call.given);
  const Steps steps(scores);
  const Queries queries = queries_of(call);
  std::vector<int64_t> lengths;
  if (!lengths_of(call.given, lengths)) return kHole;
  std::vector<double> values(call.given.batch);
  each(call.given.batch, call.given.threads, [&](int64_t b) {
    static thread_local Room room;
    const Sweep s{call.given, scores, steps, b, lengths[b], nullptr, 0, 1.0f, nullptr, 0, false, nullptr, &queries};
    if (s.length > 0) values[b] = sweep_single(s, room);
    else answer(s, [](auto...) { return 1.0; }, [](auto...) { return 1.0; });
    room.shrink();
  });
  for (double value : values)
    if (!(value > kNever)) return kSuspect;
  return 0;
}

}  // namespace
}  // namespace seqlab

extern "C" int64_t seqlab_crf_paths(const seqlab::PathCall* call) { return seqlab::paths(*call); }
extern "C" int64_t seqlab_crf_likelihood(const seqlab::Call* call) { return seqlab::likelihood(*call); }
