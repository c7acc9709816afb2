"""The Triton kernel that sums over all tag sequences and gives the gradient; see `.crf_triton`.

A program owns a sentence. In one loop it goes through it from both ends at once, two chains that
do not wait for each other, with the transitions in registers. In a second loop, over many positions
at a time, it joins what both chains have left behind.
"""

# Triton compiles these functions, so their types are Triton's, which mypy does not know.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from importlib.util import find_spec

if find_spec("triton") is not None:  # so that the file can be read where Triton is missing
    import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
    import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

    from seqlab.nn.kernels.crf_triton_parts import finite, numbers, path_score, wide_log

    # A message is a sum of products of numbers of at most 1. What underflows in one was below the
    # smallest normal float32, so while the sum of all products of both messages is 1 / eps^2 times
    # greater than that, all losses together are below rounding (`seqlab.nn.crf_kernels._trusted`).
    SMALLEST = tl.constexpr(1.1754944e-38)
    ENOUGH = tl.constexpr(1.1754944e-38 / 1.1920929e-07**2)

    @triton.jit
    def product(
        message,
        emitted,
        shift,
        matrix,
        ids,
        TAGS: tl.constexpr,
        PADDED: tl.constexpr,
        BLOCK: tl.constexpr,
        WEIGHED: tl.constexpr,
    ):
        """Multiply a message in memory with a matrix that is too large for registers.

        Args:
            message: pointer to ``TAGS`` numbers, which the whole program may read.
            emitted: pointer to emissions, whose exponentials belong to the message as well.
            shift: what these are less.
            matrix: pointer to rows of ``TAGS`` numbers, one for each number of the message.
            ids: the places in a row.
            TAGS: number of tags.
            PADDED: number of ids.
            BLOCK: how many rows are taken at once.
            WEIGHED: whether the emissions are to be looked at.
        """
        total = tl.zeros((PADDED,), tl.float32)
        for k in range(0, TAGS, BLOCK):
            some = k + tl.arange(0, BLOCK)
            given = tl.load(message + some, mask=some < TAGS, other=0.0)
            if WEIGHED:
                e = tl.load(emitted + some, mask=some < TAGS, other=float("-inf"))
                given *= tl.exp(numbers(e) - shift)
            here = (some < TAGS)[:, None] & (ids < TAGS)[None, :]
            rows = tl.load(matrix + some[:, None] * TAGS + ids[None, :], mask=here, other=0.0)
            total += tl.sum(given[:, None] * rows, 0)
        return total

    @triton.jit(do_not_specialize=["time"])
    def sums_kernel(
        emissions,
        lengths,
        start,
        transitions,
        end,
        tags,
        peak,
        step,
        step_back,
        value,
        difference,
        messages,
        doubtful,
        time,
        TAGS: tl.constexpr,
        PADDED: tl.constexpr,
        BLOCK: tl.constexpr,
        CHUNK: tl.constexpr,
        SPAN: tl.constexpr,
    ):
        """Compute log-likelihoods, or minus log partitions, and their gradients.

        Args:
            emissions: ``(batch, time, tag)``.
            lengths: ``(batch,)`` int64.
            start: ``(tag,)``.
            transitions: ``(previous tag, next tag)``.
            end: ``(tag,)``.
            tags: ``(batch, time)`` int64, or None for minus the log partition.
            peak: the greatest transition.
            step: ``(previous tag, next tag)``, exponentials of transitions less the peak.
            step_back: its transpose.
            value: ``(batch,)`` float64, written.
            difference: ``(batch, time, tag)``, written: seen minus expected, 0 at padding.
            messages: ``(batch, 2, time, tag)``, written at real positions: left and right, such
                that ``left[t - 1, i] * step[i, j] * right[t, j]`` is the probability of tags i, j.
            doubtful: ``(batch,)`` int32, written: 1 where underflow may have taken too much.
            time: width of the batch.
            TAGS: number of tags.
            PADDED: the power of two that holds them.
            BLOCK: how many rows of transitions are taken at once; all are kept where it holds them.
            CHUNK: how many positions are joined at once.
            SPAN: how many tokens of the tags are scored at once.
        """
        row = tl.program_id(0).to(tl.int64)
        length = tl.load(lengths + row).to(tl.int32)
        ids = tl.arange(0, PADDED)
        known = ids < TAGS
        emitted = emissions + row * time * TAGS
        left = messages + row * 2 * time * TAGS
        right = left + time * TAGS
        if BLOCK == PADDED:
            square = ids[:, None] * TAGS + ids[None, :]
            there = known[:, None] & known[None, :]
            # Each chain has its own copy, so that both sum down the columns, inside of threads.
            held = tl.load(step + square, mask=there, other=0.0)
            held_back = tl.load(step_back + square, mask=there, other=0.0)
        opening = tl.load(start + ids, mask=known, other=float("-inf"))
        closing = tl.load(end + ids, mask=known, other=float("-inf"))
        open_peak, close_peak = finite(tl.max(opening, 0)), finite(tl.max(closing, 0))
        f = tl.exp(numbers(opening) - open_peak)
        b = tl.exp(numbers(closing) - close_peak)
        some = ids < tl.where(length > 0, TAGS, 0)
        e_f = tl.load(emitted + ids, mask=some, other=float("-inf"))
        e_b = tl.load(emitted + (length - 1) * TAGS + ids, mask=some, other=float("-inf"))
        # One stage: steps must not be overlapped, as each may read what the one before has written.
        for t in tl.range(0, length, num_stages=1):
            back = length - 1 - t
            shift_f, shift_b = finite(tl.max(e_f, 0)), finite(tl.max(e_b, 0))
            w_f, w_b = tl.exp(numbers(e_f) - shift_f), tl.exp(numbers(e_b) - shift_b)
            # The next emissions come in while this step is computed.
            more = ids < tl.where(t + 1 < length, TAGS, 0)
            e_f = tl.load(emitted + (t + 1) * TAGS + ids, mask=more, other=float("-inf"))
            e_b = tl.load(emitted + (back - 1) * TAGS + ids, mask=more, other=float("-inf"))
            f *= w_f
            tl.store(left + t * TAGS + ids, f, mask=known)
            tl.store(right + back * TAGS + ids, b, mask=known)
            b *= w_b
            scale_f, scale_b = (
                tl.maximum(tl.sum(f, 0), SMALLEST),
                tl.maximum(tl.sum(b, 0), SMALLEST),
            )
            if BLOCK == PADDED:
                f = tl.sum(f[:, None] * held, 0)
                b = tl.sum(b[:, None] * held_back, 0)
            else:
                tl.debug_barrier()  # all threads of the program have stored
                f_at, b_at, e_at = left + t * TAGS, right + back * TAGS, emitted + back * TAGS
                f = product(f_at, e_at, 0.0, step, ids, TAGS, PADDED, BLOCK, False)
                b = product(b_at, e_at, shift_b, step_back, ids, TAGS, PADDED, BLOCK, True)
            f /= scale_f
            b /= scale_b
        tl.debug_barrier()
        logs = tl.zeros((CHUNK,), tl.float64)
        doubts = tl.zeros((CHUNK,), tl.int32)
        for first in tl.range(0, time, CHUNK, num_stages=1):
            now = first + tl.arange(0, CHUNK)
            real = now < length
            at = now[:, None] * TAGS + ids[None, :]
            here = real[:, None] & known[None, :]
            l_t = tl.load(left + at, mask=here, other=0.0)
            r_t = tl.load(right + at, mask=here, other=0.0)
            e_t = tl.load(emitted + at, mask=here, other=float("-inf"))
            shift = finite(tl.max(e_t, 1))
            w_t = tl.exp(numbers(e_t) - shift[:, None])
            share = l_t * r_t
            total, scale = tl.sum(share, 1), tl.sum(l_t, 1)
            enough = total > ENOUGH  # False for NaN
            doubts += tl.where(real & (enough == 0), 1, 0)
            per_total = 1.0 / tl.where(enough, total, 1.0)
            per_scale = 1.0 / tl.where(enough, scale, 1.0)
            change = -share * per_total[:, None]
            if tags is not None:
                gold = tl.load(tags + row * time + now, mask=real, other=-1)
                change += tl.where(gold[:, None] == ids[None, :], 1.0, 0.0)
            inside = (now < time)[:, None] & known[None, :]
            tl.store(difference + row * time * TAGS + at, change, mask=inside)
            tl.store(left + at, l_t * per_scale[:, None], mask=here)
            tl.store(right + at, r_t * w_t * per_total[:, None], mask=here)
            scale = tl.where(real & enough, tl.where(now == length - 1, total, scale), 1.0)
            logs += wide_log(scale)
            logs += tl.where(real, shift, 0.0).to(tl.float64)
        steps = tl.load(peak).to(tl.float64) * (length - 1)
        borders = open_peak.to(tl.float64) + close_peak.to(tl.float64)
        found = -(tl.sum(logs, 0) + borders + steps)
        if tags is not None:
            found += path_score(
                emitted, tags + row * time, length, start, transitions, end, TAGS, SPAN
            )
        tl.store(value + row, tl.where(length > 0, found, 0.0))
        tl.store(doubtful + row, tl.minimum(tl.sum(doubts, 0), 1))
