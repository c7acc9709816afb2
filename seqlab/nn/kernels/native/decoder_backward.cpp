// A decoder with input feeding backwards: see decoder.h.
//
// Step by step from the end, the gradients of what the gates, the features and the scores of the
// attention were taken of. What is left, the gradients of weights, keys and values, are products over
// all steps, which Python makes.

#include "decoder.h"

namespace seqlab {
namespace {

template <typename Factors>
struct Backward {
  Slices slices;
  int64_t deep, words;         // of the gradients of gates and of a feature, as factors
  int64_t wide, narrow, state;  // distances of rows
  int64_t room_of_task;
  float *fed, *recurrent, *output, *tasks;

  struct Task {
    float *d_fed, *d_hidden, *d_cell, *d_gates, *d_raw;
    const float **gates, **raw;
    float **feds, **hiddens;
    Task(const Backward& all, Room& room) {
      const int64_t rows = all.slices.rows;
      d_fed = room.take(rows * all.state);
      d_hidden = room.take(rows * all.state);
      d_cell = room.take(rows * all.state);
      d_gates = room.take(rows * all.wide);
      d_raw = room.take(rows * all.narrow);
      gates = room.take<const float*>(rows);
      raw = room.take<const float*>(rows);
      feds = room.take<float*>(rows);
      hiddens = room.take<float*>(rows);
    }
  };

  Backward(const Decoding& decoding, Room& room)
      : slices(decoding),
        deep(Factors::words(decoding.columns())),
        words(Factors::words(decoding.size)),
        wide(spaced(deep)),
        narrow(spaced(words)),
        state(spaced(decoding.size)) {
    fed = room.take(packed_size(deep, decoding.size));
    recurrent = room.take(packed_size(deep, decoding.size));
    output = room.take(packed_size(words, decoding.size));
    Room one(nullptr);
    Task(*this, one);
    room_of_task = one.used();
    tasks = room.take(slices.count * room_of_task);
  }
};

// From the gradient of a feature to that of what its tanh was taken of.
template <typename Factors>
void differentiate_feature(const Decoding& decoding, int64_t token, const float* d_fed,
                           float* factors) {
  const int64_t size = decoding.size, at = token * size;
  for (int64_t j = 0; j < size; j += kWidth) {
    const int64_t left = size - j;
    const Vec raw = load_up_to(decoding.raw + at + j, left);
    Vec slope = 1.0f - raw * raw;
    if (decoding.kept) slope = slope * load_up_to(decoding.kept + at + j, left);
    const Vec found =
        (load_up_to(decoding.d_features + at + j, left) + load(d_fed + j)) * slope;
    store_up_to(decoding.d_raw + at + j, found, left);
    Factors::put(factors, j, found, left);
  }
}

// From the gradient of the context, which is that of the feature's sum, to those of the scores, and
// what these hand to the state.
void differentiate_attention(const Decoding& decoding, int64_t sequence, int64_t token,
                             float* d_hidden) {
  const int64_t size = decoding.size, length = decoding.lengths[sequence];
  const float* keys = decoding.keys + sequence * decoding.source * size;
  const float* values = decoding.values + sequence * decoding.source * size;
  const float* weights = decoding.weights + token * decoding.source;
  const float* d_context = decoding.d_raw + token * size;
  float* d_scores = decoding.d_weights + token * decoding.source;
  float mean = 0.0f;
  for (int64_t i = 0; i < length; ++i) {
    d_scores[i] = inner(d_context, values + i * size, size);
    mean += weights[i] * d_scores[i];
  }
  for (int64_t i = 0; i < length; ++i) {
    d_scores[i] = weights[i] * (d_scores[i] - mean);
    add_multiple(d_scores[i], keys + i * size, size, d_hidden);
  }
  std::fill(d_scores + length, d_scores + decoding.source, 0.0f);
}

// From the gradient of a state to those of the sums of its gates.
template <typename Factors>
void differentiate_gates(const Decoding& decoding, int64_t token, const float* before,
                         const float* d_hidden, float* d_cell, float* factors) {
  const int64_t size = decoding.size;
  const float* gates = decoding.activated + token * decoding.columns();
  float* to = decoding.d_gates + token * decoding.columns();
  for (int64_t j = 0; j < size; j += kWidth) {
    const int64_t left = size - j;
    const auto gate = [&](int k) { return load_up_to(gates + k * size + j, left); };
    const Vec i = gate(0), f = gate(1), g = gate(2), o = gate(3);
    const Vec squashed = hyperbolic_tangent(load_up_to(decoding.cells + token * size + j, left));
    const Vec d_h = load(d_hidden + j);
    const Vec d_c = load(d_cell + j) + d_h * o * (1.0f - squashed * squashed);
    store(d_cell + j, d_c * f);
    const Vec found[4] = {d_c * g * i * (1.0f - i),
                          d_c * load_up_to(before + j, left) * f * (1.0f - f),
                          d_c * i * (1.0f - g * g), d_h * squashed * o * (1.0f - o)};
    for (int k = 0; k < 4; ++k) {
      store_up_to(to + k * size + j, found[k], left);
      Factors::put(factors, k * size + j, found[k], left);
    }
  }
}

template <typename Factors>
void go_back(const Decoding& decoding, const Backward<Factors>& all, int64_t task) {
  Room room(all.tasks + task * all.room_of_task);
  const typename Backward<Factors>::Task own(all, room);
  const int64_t size = decoding.size, count = all.slices.rows_of(task, decoding.batch);
  std::fill_n(own.d_fed, all.slices.rows * all.state, 0.0f);
  std::fill_n(own.d_hidden, all.slices.rows * all.state, 0.0f);
  std::fill_n(own.d_cell, all.slices.rows * all.state, 0.0f);
  std::fill_n(own.d_gates, all.slices.rows * all.wide, 0.0f);
  std::fill_n(own.d_raw, all.slices.rows * all.narrow, 0.0f);
  for (int64_t row = 0; row < count; ++row) {
    own.gates[row] = own.d_gates + row * all.wide;
    own.raw[row] = own.d_raw + row * all.narrow;
    own.feds[row] = own.d_fed + row * all.state;
    own.hiddens[row] = own.d_hidden + row * all.state;
  }
  for (int64_t step = decoding.time - 1; step >= 0; --step) {
    for (int64_t row = 0; row < count; ++row) {
      const int64_t sequence = all.slices.sequence(task, row);
      const int64_t token = decoding.token(sequence, step);
      differentiate_feature<Factors>(decoding, token, own.feds[row], own.d_raw + row * all.narrow);
      differentiate_attention(decoding, sequence, token, own.hiddens[row]);
    }
    multiply_all<Factors>(all.words, own.raw, count, all.output, size, own.hiddens, true, nullptr);
    for (int64_t row = 0; row < count; ++row) {
      const int64_t sequence = all.slices.sequence(task, row);
      const int64_t token = decoding.token(sequence, step);
      const float* before =
          step ? decoding.cells + (token - 1) * size : decoding.cell + sequence * size;
      differentiate_gates<Factors>(decoding, token, before, own.hiddens[row],
                                   own.d_cell + row * all.state, own.d_gates + row * all.wide);
    }
    multiply_all<Factors>(all.deep, own.gates, count, all.recurrent, size, own.hiddens, false,
                          nullptr);
    if (step)
      multiply_all<Factors>(all.deep, own.gates, count, all.fed, size, own.feds, false, nullptr);
  }
  for (int64_t row = 0; row < count; ++row) {
    const int64_t sequence = all.slices.sequence(task, row);
    std::copy_n(own.hiddens[row], size, decoding.d_hidden + sequence * size);
    std::copy_n(own.d_cell + row * all.state, size, decoding.d_cell + sequence * size);
  }
}

template <typename Factors>
void run(const Decoding& decoding) {
  Room room(decoding.scratch);
  const Backward<Factors> all(decoding, room);
  const int64_t each = panels(decoding.size);
#pragma omp parallel num_threads(static_cast<int>(decoding.threads))
  {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < 3 * each; ++i) {
      const int64_t panel = i % each, first = panel * kPanel;
      if (i < each)
        Factors::pack_panel(decoding.fed, decoding.columns(), decoding.size, panel,
                            all.fed + all.deep * first);
      else if (i < 2 * each)
        Factors::pack_panel(decoding.recurrent, decoding.columns(), decoding.size, panel,
                            all.recurrent + all.deep * first);
      else
        Factors::pack_panel(decoding.output, decoding.size, decoding.size, panel,
                            all.output + all.words * first);
    }
#pragma omp for schedule(static)
    for (int64_t i = 0; i < all.slices.count; ++i) go_back(decoding, all, i);
  }
}

}  // namespace
}  // namespace seqlab

extern "C" {

// How many floats of scratch memory the way backwards takes.
int64_t seqlab_decoder_backward_room(const seqlab::Decoding* decoding) {
  return seqlab::with_factors(*decoding, [decoding](auto factors) {
    seqlab::Room room(nullptr);
    seqlab::Backward<decltype(factors)>(*decoding, room);
    return room.used();
  });
}

void seqlab_decoder_backward(const seqlab::Decoding* decoding) {
  seqlab::with_factors(*decoding, [decoding](auto factors) {
    seqlab::run<decltype(factors)>(*decoding);
  });
}

}  // extern "C"
