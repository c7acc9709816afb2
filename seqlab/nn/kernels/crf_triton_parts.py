"""What the kernels of the CRF are made of: Triton functions, see `.crf_triton`.

Imported inside functions only, as Triton comes with the CUDA build of torch alone. Names in
capitals are known when a kernel is compiled.
"""

# Triton compiles these functions, so their types are Triton's, which mypy does not know.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from importlib.util import find_spec

if find_spec("triton") is not None:  # so that the file can be read where Triton is missing
    import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
    import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

    @triton.jit
    def numbers(x):
        """Make ``+inf`` NaN: differences of infinities would become it anyway."""
        return tl.where(x == float("inf"), float("nan"), x)

    @triton.jit
    def finite(x):
        """Make ``-inf`` 0: a shift that never makes NaN."""
        return tl.where(x == float("-inf"), 0.0, x)

    @triton.jit
    def log(x):
        """Logarithm whose value at 0 is ``-inf`` without a warning in the interpreter."""
        return tl.where(x == 0, float("-inf"), tl.log(tl.where(x == 0, 1.0, x)))

    @triton.jit
    def wide_log(x):
        """Logarithm in float64 of normal float32 numbers, to 1e-7 in absolute terms.

        The exponent is exact and the mantissa's logarithm small, while a logarithm in float64
        would take a hundred instructions.
        """
        bits = x.to(tl.int32, bitcast=True)
        exponent = (bits >> 23) - 127
        mantissa = ((bits & 0x7FFFFF) | 0x3F800000).to(tl.float32, bitcast=True)
        return exponent.to(tl.float64) * 0.6931471805599453 + tl.log(mantissa).to(tl.float64)

    @triton.jit
    def log_sum(x):
        """Logarithm of the summed exponentials of a vector."""
        peak = finite(tl.max(x, 0))
        return peak + log(tl.sum(tl.exp(x - peak), 0))

    @triton.jit
    def log_product(
        message,
        matrix,
        ids,
        PITCH: tl.constexpr,
        PITCH_OUT: tl.constexpr,
        TAGS: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """Multiply a vector of logarithms with a matrix of logarithms, in float64.

        Args:
            message: pointer to ``TAGS`` logarithms in float64, which the whole program may read.
            matrix: pointer to the matrix; ``PITCH`` lies between two numbers that are summed.
            ids: which results are wanted; ``PITCH_OUT`` lies between two.
            PITCH: see ``matrix``.
            PITCH_OUT: see ``ids``.
            TAGS: number of tags.
            BLOCK: how many are summed at once.

        Returns:
            as many logarithms as there are ids.
        """
        top = tl.full(ids.shape, float("-inf"), tl.float64)
        total = tl.zeros(ids.shape, tl.float64)
        for k in range(0, TAGS, BLOCK):
            some = k + tl.arange(0, BLOCK)
            given = tl.load(message + some, mask=some < TAGS, other=float("-inf"))
            here = (some < TAGS)[:, None] & (ids < TAGS)[None, :]
            at = matrix + some[:, None] * PITCH + ids[None, :] * PITCH_OUT
            added = numbers(tl.load(at, mask=here, other=float("-inf"))).to(tl.float64)
            added += given[:, None]
            higher = tl.maximum(top, tl.max(added, 0))
            shift = finite(higher)
            total = total * tl.exp(top - shift) + tl.sum(tl.exp(added - shift[None, :]), 0)
            top = higher
        return finite(top) + log(total)

    @triton.jit
    def path_score(
        emitted,
        tags,
        length,
        start,
        transitions,
        end,
        TAGS: tl.constexpr,
        SPAN: tl.constexpr,
    ):
        """Score of one tag sequence, in float64.

        Args:
            emitted: pointer to a sentence's emissions ``(time, tag)``.
            tags: pointer to its tags, int64.
            length: its number of tokens.
            start: as everywhere.
            transitions: likewise.
            end: likewise.
            TAGS: number of tags.
            SPAN: how many tokens are taken at once.
        """
        total = tl.zeros((SPAN,), tl.float64)
        for first in range(0, length, SPAN):
            t = first + tl.arange(0, SPAN)
            real = t < length
            follows = real & (t > 0)
            tag = tl.load(tags + t, mask=real, other=0)
            before = tl.load(tags + t - 1, mask=follows, other=0)
            e = tl.load(emitted + t * TAGS + tag, mask=real, other=0.0)
            step = tl.load(transitions + before * TAGS + tag, mask=follows, other=0.0)
            opens = tl.load(start + tag, mask=real & (t == 0), other=0.0)
            closes = tl.load(end + tag, mask=t == length - 1, other=0.0)
            total += numbers(e).to(tl.float64) + numbers(step).to(tl.float64)
            total += numbers(opens).to(tl.float64) + numbers(closes).to(tl.float64)
        return tl.sum(total, 0)
