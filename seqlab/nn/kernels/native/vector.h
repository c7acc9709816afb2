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

// A part of a vector at the end of a row: its first numbers, or all.
inline Vec load_up_to(const float* p, int64_t left) {
  return left >= kWidth ? load(p) : load_some(p, static_cast<int>(left), 0.0f);
}

inline void store_up_to(float* p, Vec v, int64_t left) {
  if (left >= kWidth)
    store(p, v);
  else
    store_some(p, v, static_cast<int>(left));
}

// Of two numbers one of which is NaN they give the second.
#if defined(__AVX512F__)
inline Vec larger(Vec a, Vec b) {
  return reinterpret_cast<Vec>(
      _mm512_max_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
}
inline Vec smaller(Vec a, Vec b) {
  return reinterpret_cast<Vec>(
      _mm512_min_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
}
#elif defined(__AVX2__)
inline Vec larger(Vec a, Vec b) {
  return reinterpret_cast<Vec>(
      _mm256_max_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
}
inline Vec smaller(Vec a, Vec b) {
  return reinterpret_cast<Vec>(
      _mm256_min_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
}
#else
inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }
inline Vec smaller(Vec a, Vec b) { return a < b ? a : b; }
#endif

typedef float Quarter __attribute__((vector_size(16)));  // as wide as the narrowest vectors

// Sums over a vector in one fixed order, whatever its width: halves are added to halves.
inline float sum(Vec v) {
  Quarter x;
#if defined(__AVX512F__)
  const __m512 whole = reinterpret_cast<__m512>(v);
  const __m256 upper = _mm512_extractf32x8_ps(whole, 1);
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(whole), upper);
#elif defined(__AVX2__)
  const __m256 half = reinterpret_cast<__m256>(v);
#endif
#if defined(__AVX512F__) || defined(__AVX2__)
  x = reinterpret_cast<Quarter>(
      _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
#else
  x = v;
#endif
  return (x[0] + x[2]) + (x[1] + x[3]);
}

// The greatest number; which of its neighbours wins against NaN is left open.
inline float greatest(Vec v) {
  Quarter x;
#if defined(__AVX512F__)
  const __m512 whole = reinterpret_cast<__m512>(v);
  const __m256 upper = _mm512_extractf32x8_ps(whole, 1);
  const __m256 half = _mm256_max_ps(_mm512_castps512_ps256(whole), upper);
#elif defined(__AVX2__)
  const __m256 half = reinterpret_cast<__m256>(v);
#endif
#if defined(__AVX512F__) || defined(__AVX2__)
  x = reinterpret_cast<Quarter>(
      _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
#else
  x = v;
#endif
  const float even = x[0] > x[2] ? x[0] : x[2], odd = x[1] > x[3] ? x[1] : x[3];
  return even > odd ? even : odd;
}

// The first place where a comparison holds, kWidth where it holds nowhere.
inline int first_true(IVec mask) {
#if defined(__AVX512F__)
  const unsigned bits = _mm512_movepi32_mask(reinterpret_cast<__m512i>(mask));
  return bits ? __builtin_ctz(bits) : kWidth;
#elif defined(__AVX2__)
  const int bits = _mm256_movemask_ps(reinterpret_cast<__m256>(mask));
  return bits ? __builtin_ctz(static_cast<unsigned>(bits)) : kWidth;
#else
  for (int i = 0; i < kWidth; ++i)
    if (mask[i]) return i;
  return kWidth;
#endif
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
  const Vec bounded = smaller(high, larger(low, x));  // in this order NaN stays
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
  return choose(x < low, Vec{}, p);
}

// 2^x for x between -126 and 126, and NaN for NaN: the whole part of x goes into the exponent, and a
// polynomial gives the power of what is left, between -1/2 and 1/2 (relative error 1.6e-8, minimax).
inline Vec power_of_two(Vec x) {
#if defined(__AVX512F__)
  const __m512 given = reinterpret_cast<__m512>(x);
  const Vec n = reinterpret_cast<Vec>(_mm512_roundscale_ps(given, 0));
#else
  const Vec rounder = splat(12582912.0f);  // as above
  const Vec n = (x + rounder) - rounder;
#endif
  const Vec r = x - n;
  Vec p = splat(1.534581097e-4f);
  p = p * r + 1.33999309e-3f;
  p = p * r + 9.618489072e-3f;
  p = p * r + 5.550328642e-2f;
  p = p * r + 2.402264625e-1f;
  p = p * r + 6.931471825e-1f;
  p = p * r + 1.0f;
#if defined(__AVX512F__)
  return reinterpret_cast<Vec>(
      _mm512_scalef_ps(reinterpret_cast<__m512>(p), reinterpret_cast<__m512>(n)));
#else
  const IVec power = (__builtin_convertvector(n, IVec) + 127) << 23;
  Vec scale;
  std::memcpy(&scale, &power, sizeof scale);
  return p * scale;
#endif
}

// x, but not below -126 and not above 126; NaN for NaN.
inline Vec within_powers(Vec x) {
#if defined(__AVX512F__)
  const __m512 low = _mm512_max_ps(_mm512_set1_ps(-126.0f), reinterpret_cast<__m512>(x));
  return reinterpret_cast<Vec>(_mm512_min_ps(_mm512_set1_ps(126.0f), low));
#else
  return smaller(splat(126.0f), larger(splat(-126.0f), x));
#endif
}

// Both with an absolute error of about 1e-7; x times log2(e) is rounded, which they hardly feel.
inline Vec sigmoid(Vec x) {
  return 1.0f / (1.0f + power_of_two(within_powers(x * -1.44269504088896341f)));
}

inline Vec hyperbolic_tangent(Vec x) {
  return 1.0f - 2.0f / (1.0f + power_of_two(within_powers(x * 2.88539008177792681f)));
}

}  // namespace seqlab
