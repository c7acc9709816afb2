// A decoder with input feeding forwards: see decoder.h.

#include <cmath>

#include "decoder.h"

namespace seqlab {
namespace {

template <typename Factors>
struct Forward {
  Slices slices;
  int64_t words;            // of a state or a feature, as factors
  int64_t read, state;      // distances of rows
  int64_t room_of_task;
  float *gates, *output, *tasks;

  // What a task has for itself. A row that is read is the feature, then the hidden state.
  struct Task {
    float *read, *cell;
    const float **both, **hidden;
    float **sums, **raw;
    Task(const Forward& all, Room& room) {
      read = room.take(all.slices.rows * all.read);
      cell = room.take(all.slices.rows * all.state);
      both = room.take<const float*>(all.slices.rows);
      hidden = room.take<const float*>(all.slices.rows);
      sums = room.take<float*>(all.slices.rows);
      raw = room.take<float*>(all.slices.rows);
    }
  };

  Forward(const Decoding& decoding, Room& room)
      : slices(decoding),
        words(Factors::words(decoding.size)),
        read(spaced(2 * words)),
        state(spaced(decoding.size)) {
    gates = room.take(packed_size(2 * words, decoding.columns()));
    output = room.take(packed_size(words, decoding.size));
    Room one(nullptr);
    Task(*this, one);
    room_of_task = one.used();
    tasks = room.take(slices.count * room_of_task);
  }
};

template <typename Factors>
void pack_gates(const Decoding& decoding, const Forward<Factors>& all, int64_t panel) {
  const int64_t columns = decoding.columns();
  float* to = all.gates + 2 * all.words * panel * kPanel;
  Factors::pack_panel_transposed(decoding.fed, decoding.size, columns, panel, to);
  Factors::pack_panel_transposed(decoding.recurrent, decoding.size, columns, panel,
                                 to + all.words * panel_width(panel, columns));
}

// From the sums of the gates to the gates, the cell and the hidden state.
template <typename Factors>
void activate(int64_t size, float* gates, float* cell, float* factors, float* state, float* cells) {
  for (int64_t j = 0; j < size; j += kWidth) {
    const int64_t left = size - j;
    const auto sums = [&](int k) { return load_up_to(gates + k * size + j, left); };
    const Vec i = sigmoid(sums(0)), f = sigmoid(sums(1)), o = sigmoid(sums(3));
    const Vec g = hyperbolic_tangent(sums(2));
    const Vec c = f * load(cell + j) + i * g;
    const Vec h = o * hyperbolic_tangent(c);
    store(cell + j, c);
    Factors::put(factors, j, h, left);
    store_up_to(state + j, h, left);
    store_up_to(cells + j, c, left);
    const Vec each[4] = {i, f, g, o};
    for (int k = 0; k < 4; ++k) store_up_to(gates + k * size + j, each[k], left);
  }
}

// Attends to a source: the weights, and the sum of the values.
void attend(const Decoding& decoding, int64_t sequence, const float* state, float* weights,
            float* context) {
  const int64_t size = decoding.size, length = decoding.lengths[sequence];
  const float* keys = decoding.keys + sequence * decoding.source * size;
  const float* values = decoding.values + sequence * decoding.source * size;
  float most = -INFINITY;
  for (int64_t i = 0; i < length; ++i) {
    weights[i] = inner(keys + i * size, state, size);
    most = std::max(most, weights[i]);
  }
  float total = 0.0f;
  for (int64_t i = 0; i < length; ++i) {
    weights[i] = std::exp(weights[i] - most);
    total += weights[i];
  }
  std::fill_n(context, size, 0.0f);
  for (int64_t i = 0; i < length; ++i) {
    weights[i] /= total;
    add_multiple(weights[i], values + i * size, size, context);
  }
  std::fill(weights + length, weights + decoding.source, 0.0f);
}

// From the sums of a feature to the feature, before and after dropout.
template <typename Factors>
void finish(int64_t size, const float* kept, float* raw, float* feature, float* factors) {
  for (int64_t j = 0; j < size; j += kWidth) {
    const int64_t left = size - j;
    const Vec all = hyperbolic_tangent(load_up_to(raw + j, left));
    const Vec some = kept ? all * load_up_to(kept + j, left) : all;
    store_up_to(raw + j, all, left);
    store_up_to(feature + j, some, left);
    Factors::put(factors, j, some, left);
  }
}

template <typename Factors>
void decode(const Decoding& decoding, const Forward<Factors>& all, int64_t task) {
  Room room(all.tasks + task * all.room_of_task);
  const typename Forward<Factors>::Task own(all, room);
  const int64_t size = decoding.size, columns = decoding.columns();
  const int64_t count = all.slices.rows_of(task, decoding.batch);
  std::fill_n(own.read, all.slices.rows * all.read, 0.0f);
  for (int64_t row = 0; row < count; ++row) {
    const int64_t sequence = all.slices.sequence(task, row);
    own.both[row] = own.read + row * all.read;
    own.hidden[row] = own.both[row] + all.words;
    std::copy_n(decoding.cell + sequence * size, size, own.cell + row * all.state);
    Factors::put_row(decoding.hidden + sequence * size, size,
                     own.read + row * all.read + all.words);
  }
  for (int64_t step = 0; step < decoding.time; ++step) {
    for (int64_t row = 0; row < count; ++row) {
      const int64_t token = decoding.token(all.slices.sequence(task, row), step);
      own.sums[row] = decoding.activated + token * columns;
      own.raw[row] = decoding.raw + token * size;
      std::copy_n(decoding.gates + token * columns, columns, own.sums[row]);
    }
    multiply_all<Factors>(2 * all.words, own.both, count, all.gates, columns, own.sums, true,
                          nullptr);
    for (int64_t row = 0; row < count; ++row) {
      const int64_t sequence = all.slices.sequence(task, row);
      const int64_t token = decoding.token(sequence, step);
      float* state = decoding.states + token * size;
      activate<Factors>(size, own.sums[row], own.cell + row * all.state,
                        own.read + row * all.read + all.words, state,
                        decoding.cells + token * size);
      attend(decoding, sequence, state, decoding.weights + token * decoding.source, own.raw[row]);
    }
    multiply_all<Factors>(all.words, own.hidden, count, all.output, size, own.raw, true, nullptr);
    for (int64_t row = 0; row < count; ++row) {
      const int64_t token = decoding.token(all.slices.sequence(task, row), step);
      finish<Factors>(size, decoding.kept ? decoding.kept + token * size : nullptr, own.raw[row],
                      decoding.features + token * size, own.read + row * all.read);
    }
  }
}

template <typename Factors>
void run(const Decoding& decoding) {
  Room room(decoding.scratch);
  const Forward<Factors> all(decoding, room);
  const int64_t gates = panels(decoding.columns()), outputs = panels(decoding.size);
#pragma omp parallel num_threads(static_cast<int>(decoding.threads))
  {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < gates + outputs; ++i) {
      if (i < gates)
        pack_gates(decoding, all, i);
      else
        Factors::pack_panel_transposed(decoding.output, decoding.size, decoding.size, i - gates,
                                       all.output + all.words * (i - gates) * kPanel);
    }
#pragma omp for schedule(static)
    for (int64_t i = 0; i < all.slices.count; ++i) decode(decoding, all, i);
  }
}

}  // namespace
}  // namespace seqlab

extern "C" {

// How many floats of scratch memory the way forwards takes.
int64_t seqlab_decoder_room(const seqlab::Decoding* decoding) {
  return seqlab::with_factors(*decoding, [decoding](auto factors) {
    seqlab::Room room(nullptr);
    seqlab::Forward<decltype(factors)>(*decoding, room);
    return room.used();
  });
}

void seqlab_decoder(const seqlab::Decoding* decoding) {
  seqlab::with_factors(*decoding, [decoding](auto factors) {
    seqlab::run<decltype(factors)>(*decoding);
  });
}

}  // extern "C"
