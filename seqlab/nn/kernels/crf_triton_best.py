"""The Triton kernel that finds the best tag sequences of a CRF; see `.crf_triton`.

A program owns a sentence. Scores are added in the order of `seqlab.nn.crf_search`, in float32, so
that every choice between equals, and between what rounding makes equal, is the same.
"""

# Triton compiles these functions, so their types are Triton's, which mypy does not know.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from importlib.util import find_spec

if find_spec("triton") is not None:  # so that the file can be read where Triton is missing
    import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
    import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

    from seqlab.nn.kernels.crf_triton_parts import finite, path_score

    @triton.jit
    def unsound(x):
        """1 where a number is NaN or ``+inf``."""
        return tl.where(x < float("inf"), 0, 1)

    @triton.jit
    def sound(x):
        """Make NaN and ``+inf`` impossible, so that comparisons mean something."""
        return tl.where(x < float("inf"), x, float("-inf"))

    @triton.jit(do_not_specialize=["time"])
    def best_kernel(
        emissions,
        lengths,
        start,
        transitions,
        end,
        table,
        tags,
        score,
        time,
        TAGS: tl.constexpr,
        PADDED: tl.constexpr,
        BLOCK: tl.constexpr,
        SPAN: tl.constexpr,
        SETTLE_EVERY: tl.constexpr,
    ):
        """Find the best sequences and their scores.

        Args:
            emissions: ``(batch, time, tag)``.
            lengths: ``(batch,)`` int64.
            start: ``(tag,)``.
            transitions: ``(previous tag, next tag)``.
            end: ``(tag,)``.
            table: ``(batch, time, tag)``, written: best score of what ends in each tag.
            tags: ``(batch, time)`` int64, written; -1 at padding.
            score: ``(batch,)``, written; ``-inf`` where nothing is possible, NaN where the numbers
                hold NaN or ``+inf``.
            time: width of the batch.
            TAGS: number of tags.
            PADDED: the power of two that holds them.
            BLOCK: how many rows of transitions are taken at once; all are kept where it holds them.
            SPAN: how many tokens are scored at once.
            SETTLE_EVERY: steps between two subtractions of the best score.
        """
        row = tl.program_id(0).to(tl.int64)
        length = tl.load(lengths + row).to(tl.int32)
        ids = tl.arange(0, PADDED)
        known = ids < TAGS
        emitted = emissions + row * time * TAGS
        table += row * time * TAGS
        tags += row * time
        # A token that follows another one is there or not: only then transitions count.
        pairs = ids < tl.where(length > 1, TAGS, 0)
        if BLOCK == PADDED:
            square = transitions + ids[:, None] * TAGS + ids[None, :]
            there = known[:, None] & pairs[None, :]
            held = tl.load(square, mask=there, other=float("-inf"))
            bad = tl.max(unsound(held), 0)
            held = sound(held)
        else:
            bad = tl.zeros((PADDED,), tl.int32)
            for k in range(0, TAGS, BLOCK):
                some = k + tl.arange(0, BLOCK)
                square = transitions + some[:, None] * TAGS + ids[None, :]
                there = (some < TAGS)[:, None] & pairs[None, :]
                tile = tl.load(square, mask=there, other=float("-inf"))
                bad = tl.maximum(bad, tl.max(unsound(tile), 0))
        opening = tl.load(start + ids, mask=known, other=float("-inf"))
        closing = tl.load(end + ids, mask=known, other=float("-inf"))
        some_token = ids < tl.where(length > 0, TAGS, 0)
        e = tl.load(emitted + ids, mask=some_token, other=float("-inf"))
        bad = tl.maximum(bad, tl.maximum(unsound(opening), unsound(closing)))
        bad = tl.maximum(bad, unsound(e))
        best = sound(e) + sound(opening)
        tl.store(table + ids, best, mask=some_token)
        e = tl.load(emitted + TAGS + ids, mask=pairs, other=float("-inf"))
        # One stage: steps must not be overlapped, as each may read what the one before has written.
        for t in tl.range(1, length, num_stages=1):
            now = e
            more = ids < tl.where(t + 1 < length, TAGS, 0)
            e = tl.load(emitted + (t + 1) * TAGS + ids, mask=more, other=float("-inf"))
            if BLOCK == PADDED:
                best = tl.max(best[:, None] + held, 0)
            else:
                tl.debug_barrier()  # all threads of the program have stored
                best = tl.full((PADDED,), float("-inf"), tl.float32)
                for k in range(0, TAGS, BLOCK):
                    some = k + tl.arange(0, BLOCK)
                    before = table + (t - 1) * TAGS + some
                    given = tl.load(before, mask=some < TAGS, other=float("-inf"))
                    square = transitions + some[:, None] * TAGS + ids[None, :]
                    there = (some < TAGS)[:, None] & known[None, :]
                    tile = sound(tl.load(square, mask=there, other=float("-inf")))
                    best = tl.maximum(best, tl.max(given[:, None] + tile, 0))
            bad = tl.maximum(bad, unsound(now))
            best += sound(now)
            if t % SETTLE_EVERY == 0:
                best -= finite(tl.max(best, 0))
            tl.store(table + t * TAGS + ids, best, mask=known)
        final = best + sound(closing)
        highest = tl.max(final, 0)
        bad = tl.maximum(bad, unsound(final))
        tag = tl.argmax(final, 0)
        if length > 0:
            tl.store(tags + length - 1, tag.to(tl.int64))
        tl.debug_barrier()
        at = tl.maximum(length - 2, 0) * TAGS + ids
        line = tl.load(table + at, mask=pairs, other=float("-inf"))
        for back in tl.range(2, length + 1, num_stages=1):
            now = line
            more = ids < tl.where(back < length, TAGS, 0)
            line = tl.load(table + (length - back - 1) * TAGS + ids, mask=more, other=float("-inf"))
            into = tl.load(transitions + ids * TAGS + tag, mask=known, other=float("-inf"))
            tag = tl.argmax(now + sound(into), 0)
            tl.store(tags + length - back, tag.to(tl.int64))
        tl.debug_barrier()
        for first in range(0, time, SPAN):
            places = first + tl.arange(0, SPAN)
            tl.store(
                tags + places,
                tl.full((SPAN,), -1, tl.int64),
                mask=(places >= length) & (places < time),
            )
        found = path_score(emitted, tags, length, start, transitions, end, TAGS, SPAN)
        found = tl.where(highest == float("-inf"), float("-inf"), found)
        found = tl.where(tl.max(bad, 0) != 0, float("nan"), found)
        tl.store(score + row, tl.where(length > 0, found, 0.0).to(tl.float32))
