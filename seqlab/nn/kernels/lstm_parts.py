"""What both kernels of the LSTM family are made of: Triton functions, see `.lstm`.

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
    def tanh(x):
        """Hyperbolic tangent, exact to a rounding of one."""
        return 2 * tl.sigmoid(2 * x) - 1

    @triton.jit
    def arrive(counter):
        """Tell the neighbours that everything which this program has stored may be read."""
        tl.debug_barrier()  # all threads of the program have stored
        tl.atomic_add(counter, 1, sem="release")

    @triton.jit
    def wait(counter, arrivals):
        """Wait until the neighbours have arrived so often, all of them together."""
        while tl.atomic_add(counter, 0, sem="acquire") < arrivals:
            pass

    @triton.jit
    def write(i, f, g, c, FORGET: tl.constexpr):
        """Compute the new cell from gates, candidate and old cell."""
        if FORGET == "gate":
            new = f * c + i * g
        elif FORGET == "coupled":
            new = c + i * (g - c)
        else:
            new = c + i * g
        return new

    @triton.jit
    def tile(right, here, k, SIZE: tl.constexpr, PITCH: tl.constexpr, CHUNK: tl.constexpr):
        """Load ``CHUNK`` rows, from row k, of a matrix whose ``SIZE`` rows lie ``PITCH`` apart."""
        row = k + tl.arange(0, CHUNK)[:, None]
        return tl.load(right + row * PITCH, mask=here & (row < SIZE), other=0.0)

    @triton.jit
    def product(
        left,
        dropped,
        left_here,
        right,
        right_here,
        held,
        total,
        SIZE: tl.constexpr,
        PITCH: tl.constexpr,
        CHUNK: tl.constexpr,
        PRECISION: tl.constexpr,
    ):
        """Add a matrix product to ``total``.

        Args:
            left: pointers ``(rows, 1)`` to rows of ``SIZE`` numbers that other programs wrote.
            dropped: likewise to factors of these numbers, or None.
            left_here: ``(rows, 1)``, which of them exist.
            right: pointers ``(1, columns)`` to columns of ``SIZE`` numbers ``PITCH`` apart.
            right_here: ``(1, columns)``, which of them exist.
            held: the columns as :func:`tile` loads them, used where they fit into one chunk.
            total: ``(rows, columns)``.
            SIZE: length of the sum.
            PITCH: see ``right``.
            CHUNK: how many numbers of a row are multiplied at once.
            PRECISION: of products of float32.
        """
        for k in range(0, SIZE, CHUNK):
            column = k + tl.arange(0, CHUNK)[None, :]
            here = left_here & (column < SIZE)
            # Past the first-level cache, which belongs to one multiprocessor.
            a = tl.load(left + column, mask=here, other=0.0, cache_modifier=".cg")
            if dropped is not None:
                a *= tl.load(dropped + column, mask=here, other=0.0)
            b = held if CHUNK >= SIZE else tile(right, right_here, k, SIZE, PITCH, CHUNK)
            total = tl.dot(a, b, total, input_precision=PRECISION, out_dtype=total.dtype)
        return total

    @triton.jit
    def looks(peephole, way, units, HIDDEN: tl.constexpr, ACC: tl.constexpr):
        """Load the peephole weights of some units for the input, forget and output gates."""
        at = peephole + way * 3 * HIDDEN + units[None, :]
        here = (units < HIDDEN)[None, :]
        p_i = tl.load(at, mask=here, other=0.0).to(ACC)
        p_f = tl.load(at + HIDDEN, mask=here, other=0.0).to(ACC)
        p_o = tl.load(at + 2 * HIDDEN, mask=here, other=0.0).to(ACC)
        return p_i, p_f, p_o
