"""The Triton kernel that redoes in logarithms what underflowed in `.crf_triton_sums`.

A program owns a sentence, and ends at once where nothing is to be done. Otherwise it computes in
float64, as plain PyTorch does: float32 cannot tell paths apart that are 10,000 nats from another.
"""

# Triton compiles these functions, so their types are Triton's, which mypy does not know.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from importlib.util import find_spec

if find_spec("triton") is not None:  # so that the file can be read where Triton is missing
    import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
    import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

    from seqlab.nn.kernels.crf_triton_parts import finite, log_product, log_sum, numbers, path_score

    @triton.jit(do_not_specialize=["time"])
    def logs_kernel(
        emissions,
        lengths,
        start,
        transitions,
        end,
        tags,
        value,
        difference,
        right,
        forward,
        doubtful,
        time,
        TAGS: tl.constexpr,
        PADDED: tl.constexpr,
        BLOCK: tl.constexpr,
        SPAN: tl.constexpr,
    ):
        """Compute value and gradient of doubtful sentences again.

        Args:
            emissions: as for :func:`sums_kernel`, like everything that is not described here.
            lengths: likewise.
            start: likewise.
            transitions: likewise.
            end: likewise.
            tags: likewise.
            value: likewise.
            difference: likewise.
            right: ``(batch, time, tag)`` float64, the memory of ``messages``; written: logarithms
                of the messages that come from the right, each with its own emission.
            forward: ``(batch, tag)`` float64, scratch.
            doubtful: ``(batch,)`` int32, which sentences are to be done.
            time: likewise.
            TAGS: likewise.
            PADDED: likewise.
            BLOCK: how many tags are summed at once.
            SPAN: likewise.
        """
        row = tl.program_id(0).to(tl.int64)
        if tl.load(doubtful + row) != 0:
            length = tl.load(lengths + row).to(tl.int32)
            ids = tl.arange(0, PADDED)
            known = ids < TAGS
            emitted = emissions + row * time * TAGS
            right += row * time * TAGS
            forward += row * TAGS
            opening = tl.load(start + ids, mask=known, other=float("-inf"))
            opening = numbers(opening).to(tl.float64)
            b = numbers(tl.load(end + ids, mask=known, other=float("-inf"))).to(tl.float64)
            total = tl.full((), 0.0, tl.float64)
            for t in tl.range(0, length, num_stages=1):
                back = (length - 1 - t) * TAGS
                e = tl.load(emitted + back + ids, mask=known, other=float("-inf"))
                b += numbers(e).to(tl.float64)
                tl.store(right + back + ids, b, mask=known)
                tl.debug_barrier()  # all threads of the program have stored
                if t == length - 1:
                    total = log_sum(opening + b)
                else:
                    b = log_product(right + back, transitions, ids, 1, TAGS, TAGS, BLOCK)
            f = opening
            for t in tl.range(0, length, num_stages=1):
                at = t * TAGS + ids
                b = tl.load(right + at, mask=known, other=float("-inf"))
                change = -tl.exp(f + b - finite(total)).to(tl.float32)
                if tags is not None:
                    gold = tl.load(tags + row * time + t)
                    change += tl.where(ids == gold, 1.0, 0.0)
                tl.store(difference + row * time * TAGS + at, change, mask=known)
                e = tl.load(emitted + at, mask=known, other=float("-inf"))
                tl.store(forward + ids, f + numbers(e).to(tl.float64), mask=known)
                tl.debug_barrier()
                f = log_product(forward, transitions, ids, TAGS, 1, TAGS, BLOCK)
                tl.debug_barrier()  # all threads have read before any writes the next one
            found = -total
            if tags is not None:
                found += path_score(
                    emitted, tags + row * time, length, start, transitions, end, TAGS, SPAN
                )
            tl.store(value + row, found)
