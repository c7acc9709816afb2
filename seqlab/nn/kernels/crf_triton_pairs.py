"""The Triton kernel for the gradient of a CRF's transitions; see `.crf_triton`.

A program owns a tile of the transitions and some sentences, whose counts it adds up in order; what
the programs of a tile have found is summed afterwards, in order as well. So results repeat.
"""

# Triton compiles these functions, so their types are Triton's, which mypy does not know.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from importlib.util import find_spec

if find_spec("triton") is not None:  # so that the file can be read where Triton is missing
    import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
    import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

    from seqlab.nn.kernels.crf_triton_parts import finite, log_product, numbers

    @triton.jit(do_not_specialize=["batch", "time", "each"])
    def pairs_kernel(
        weights,
        lengths,
        transitions,
        tags,
        step,
        difference,
        messages,
        wide,
        doubtful,
        out,
        batch,
        time,
        each,
        TAGS: tl.constexpr,
        TILE: tl.constexpr,
        SPAN: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """Compute the gradient of the transitions.

        Args:
            weights: ``(batch,)``, what the value of each sentence is multiplied with.
            lengths: as for :func:`sums_kernel`, like everything that is not described here.
            transitions: likewise.
            tags: likewise.
            step: likewise.
            difference: likewise.
            messages: likewise; of sentences that are not doubtful.
            wide: ``right`` of :func:`logs_kernel`, the same memory; of those that are.
            doubtful: likewise.
            out: ``(part, previous tag, next tag)``, written.
            batch: number of sentences.
            time: likewise.
            each: sentences of a program.
            TAGS: likewise.
            TILE: tags of a program, on either side.
            SPAN: how many positions are multiplied at once.
            BLOCK: how many tags are summed at once in logarithms.
        """
        before = tl.program_id(0) * TILE + tl.arange(0, TILE)
        after = tl.program_id(1) * TILE + tl.arange(0, TILE)
        part = tl.program_id(2).to(tl.int64)
        at = before[:, None] * TAGS + after[None, :]
        here = (before < TAGS)[:, None] & (after < TAGS)[None, :]
        products = tl.zeros((TILE, TILE), tl.float32)
        others = tl.zeros((TILE, TILE), tl.float32)
        for n in range(0, tl.minimum(each, batch - part * each)):
            row = part * each + n
            length = tl.load(lengths + row).to(tl.int32)
            weight = tl.load(weights + row)
            place = row * time
            if tl.load(doubtful + row) == 0:
                left = messages + place * 2 * TAGS
                right = left + time * TAGS
                for first in range(1, length, SPAN):
                    t = first + tl.arange(0, SPAN)
                    real = t < length
                    there = (before < TAGS)[:, None] & real[None, :]
                    lefts = left + (t - 1)[None, :] * TAGS + before[:, None]
                    l_t = tl.load(lefts, mask=there, other=0.0)
                    there = real[:, None] & (after < TAGS)[None, :]
                    rights = right + t[:, None] * TAGS + after[None, :]
                    r_t = tl.load(rights, mask=there, other=0.0) * weight
                    products = tl.dot(l_t, r_t, products, input_precision="ieee")
            else:
                added = tl.load(transitions + at, mask=here, other=float("-inf"))
                added = numbers(added).to(tl.float64)
                for t in range(1, length):
                    now = wide + (place + t) * TAGS
                    norm = log_product(now, transitions, before, 1, TAGS, TAGS, BLOCK)
                    r_d = tl.load(now + after, mask=after < TAGS, other=float("-inf"))
                    given = tl.exp(added + r_d[None, :] - finite(norm)[:, None])
                    back = difference + (place + t - 1) * TAGS + before
                    chance = -tl.load(back, mask=before < TAGS, other=0.0)
                    if tags is not None:
                        gold = tl.load(tags + place + t - 1)
                        chance += tl.where(before == gold, 1.0, 0.0)
                    others -= weight * (chance[:, None] * given).to(tl.float32)
            if tags is not None:
                for first in range(1, length, SPAN):
                    t = first + tl.arange(0, SPAN)
                    real = t < length
                    old = tl.load(tags + place + t - 1, mask=real, other=-1)
                    new = tl.load(tags + place + t, mask=real, other=-1)
                    seen_old = tl.where(before[:, None] == old[None, :], 1.0, 0.0)
                    seen_new = tl.where(new[:, None] == after[None, :], weight, 0.0)
                    others = tl.dot(seen_old, seen_new, others, input_precision="ieee")
        expected = products * tl.load(step + at, mask=here, other=0.0)
        tl.store(out + part * TAGS * TAGS + at, others - expected, mask=here)
