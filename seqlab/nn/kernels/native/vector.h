// Vectors of floats, as wide as the instruction set that the file is compiled for.
//
// The widths are those of AVX-512 (16), AVX2 (8) and anything else (4: SSE2, NEON, or plain loops that
// the compiler makes of it). GCC's and clang's vector types do the arithmetic: `a * b + c` on them
// becomes a fused multiply-add where the machine has one (-ffp-contract=fast).
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace seqlab {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
constexpr int kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kWidth = 8;
constexpr int kRegisters = 16;
#else
constexpr int kWidth = 4;
constexpr int kRegisters = 16;
#endif

typedef float Vec __attribute__((vector_size(kWidth * 4)));
typedef int32_t IVec __attribute__((vector_size(kWidth * 4)));

inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }

inline Vec splat(float x) { return x - Vec{}; }  // not `Vec{} + x`, which makes 0 of -0

// The first `n` numbers (1 to kWidth - 1, or kWidth), the others replaced by `filler`.
inline Vec load_some(const float* p, int n, float filler) {
#if defined(__AVX512F__)
  const __mmask16 mask = static_cast<__mmask16>((1u << n) - 1u);
  return reinterpret_cast<Vec>(_mm512_mask_loadu_ps(_mm512_set1_ps(filler), mask, p));
#else
  Vec v = splat(filler);
  std::memcpy(&v, p, static_cast<size_t>(n) * sizeof(float));
  return v;
#endif
}

inline void store_some(float* p, Vec v, int n) {
#if defined(__AVX512F__)
  const __mmask16 mask = static_cast<__mmask16>((1u << n) - 1u);
  _mm512_mask_storeu_ps(p, mask, reinterpret_cast<__m512>(v));
#else
  std::memcpy(p, &v, static_cast<size_t>(n) * sizeof(float));
#endif
}

inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }
inline Vec smaller(Vec a, Vec b) { return a < b ? a : b; }

// Sums over a vector in one fixed order, whatever its width: halves are added to halves.
inline float sum(Vec v) {
  float x[kWidth];
  std::memcpy(x, &v, sizeof v);
  for (int half = kWidth / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) x[i] += x[i + half];
  return x[0];
}

inline float greatest(Vec v) {
  float x[kWidth];
  std::memcpy(x, &v, sizeof v);
  float top = x[0];
  for (int i = 1; i < kWidth; ++i) top = x[i] > top ? x[i] : top;
  return top;
}

// Chooses element by element: `yes` where the comparison `mask` holds.
inline Vec choose(IVec mask, Vec yes, Vec no) { return mask ? yes : no; }

// exp(x) with a relative error of about 1e-7; 0 below -87.3 (-inf too), and NaN for NaN. Above 88 it
// stays at exp(88).
//
// x = n log 2 + r with |r| <= log(2) / 2, log 2 in two parts (Cody and Waite, 1980); a polynomial with
// the coefficients of Cephes' expf (Moshier) gives exp(r), and n goes into the exponent's bits.
inline Vec exponential(Vec x) {
  const Vec low = splat(-87.33654f), high = splat(88.0f);
  const IVec dead = x < low;
  const IVec strange = x != x;
  Vec bounded = smaller(larger(x, low), high);
  const Vec scaled = bounded * 1.44269504088896341f;
  const Vec rounder = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
  const Vec n = (scaled + rounder) - rounder;
  Vec r = bounded - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  Vec p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const IVec power = (__builtin_convertvector(n, IVec) + 127) << 23;
  Vec scale;
  std::memcpy(&scale, &power, sizeof scale);
  p = p * scale;
  p = choose(dead, Vec{}, p);
  return choose(strange, x, p);
}

inline Vec sigmoid(Vec x) { return 1.0f / (1.0f + exponential(-x)); }

// tanh(x) = 2 sigmoid(2 x) - 1: its absolute error is that of a float near 1.
inline Vec hyperbolic_tangent(Vec x) { return 2.0f * sigmoid(x + x) - 1.0f; }

}  // namespace seqlab
