"""The Triton kernel that runs the LSTM family backwards in time; see `.lstm`.

Programs own and wait as in `.lstm_forward`. Here a program multiplies the gradients of *all* gates
of the step after with the weights that lead there from its own units.
"""

# Triton compiles these functions, so their types are Triton's, which mypy does not know.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from importlib.util import find_spec

if find_spec("triton") is not None:  # so that the file can be read where Triton is missing
    import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
    import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

    from seqlab.nn.kernels.lstm_parts import arrive, looks, product, tanh, tile, wait, write

    @triton.jit(do_not_specialize=["first", "last", "time", "batch", "tile_from"])
    def backward_kernel(
        w,
        peephole,
        dropped,
        hold_hidden,
        hold_cell,
        cells,
        gates,
        d_states,
        d_cells,
        d_gates,
        d_hidden,
        d_cell,
        d_peephole,
        counters,
        first,
        last,
        time,
        batch,
        tile_from,
        HIDDEN: tl.constexpr,
        FORGET: tl.constexpr,
        ROWS: tl.constexpr,
        UNITS: tl.constexpr,
        CHUNK: tl.constexpr,
        TOGETHER: tl.constexpr,
        PRECISION: tl.constexpr,
    ):
        """Compute the gradients of steps ``last - 1`` down to ``first``.

        Args:
            w: as in :func:`forward_kernel`, like everything that is not described here.
            peephole: likewise.
            dropped: likewise.
            hold_hidden: likewise.
            hold_cell: likewise.
            cells: likewise.
            gates: likewise.
            d_states: ``(direction, time, batch, hidden)``, the gradient from outside, or None.
            d_cells: likewise, of the cells.
            d_gates: ``(direction, time, batch, gate)``, written: before the nonlinearities.
            d_hidden: ``(direction, batch, hidden)``, zero at first: what zoneout passes on from
                step ``last``, and in the end from step ``first``, to the one before; or None.
            d_cell: likewise, the gradient of the cell.
            d_peephole: ``(tile, direction, 3, hidden)``, zero at first, added to; or None.
            counters: likewise.
            first: likewise.
            last: likewise.
            time: likewise.
            batch: likewise.
            tile_from: likewise.
            HIDDEN: likewise.
            FORGET: likewise.
            ROWS: likewise.
            UNITS: likewise.
            CHUNK: see :func:`product`, where the sum is over all gates.
            TOGETHER: likewise.
            PRECISION: likewise.
        """
        GATES: tl.constexpr = 4 if FORGET == "gate" else 3
        WIDTH: tl.constexpr = GATES * HIDDEN
        way = tl.program_id(2).to(tl.int64)
        group = (tile_from + tl.program_id(1)) * tl.num_programs(2) + tl.program_id(2)
        rows = (tile_from + tl.program_id(1)) * ROWS + tl.arange(0, ROWS)[:, None]
        units = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
        at = rows * HIDDEN + units[None, :]
        gate_at = rows * WIDTH + units[None, :]
        here = (rows < batch) & (units < HIDDEN)[None, :]
        right = w + way * HIDDEN * WIDTH + units[None, :] * WIDTH
        right_here = (units < HIDDEN)[None, :]
        held = tile(right, right_here, 0, WIDTH, 1, CHUNK)
        own = way * batch * HIDDEN + at
        dc = tl.load(d_cell + own, mask=here, other=0.0)
        ACC: tl.constexpr = dc.dtype
        if dropped is not None:
            drop = tl.load(dropped + own, mask=here, other=0.0).to(ACC)
        if peephole is not None:
            p_i, p_f, p_o = looks(peephole, way, units, HIDDEN, ACC)
            sum_i = tl.zeros((ROWS, UNITS), ACC)
            sum_f = tl.zeros((ROWS, UNITS), ACC)
            sum_o = tl.zeros((ROWS, UNITS), ACC)
        if hold_hidden is not None:
            from_h = tl.load(d_hidden + own, mask=here, other=0.0)
        for back in tl.range(0, last - first, num_stages=1):  # as in the forward kernel
            t = last - 1 - back
            step = (way * time + t) * batch
            g_t = gates + step * WIDTH + gate_at
            i = tl.load(g_t, mask=here, other=0.0).to(ACC)
            f = tl.load(g_t + HIDDEN, mask=here, other=0.0).to(ACC)
            g = tl.load(g_t + (GATES - 2) * HIDDEN, mask=here, other=0.0).to(ACC)
            o = tl.load(g_t + (GATES - 1) * HIDDEN, mask=here, other=0.0).to(ACC)
            c = tl.load(cells + (step + way * batch) * HIDDEN + at, mask=here, other=0.0)
            dh = tl.zeros((ROWS, UNITS), ACC)
            if d_cells is not None:
                dc += tl.load(d_cells + step * HIDDEN + at, mask=here, other=0.0).to(ACC)
            if d_states is not None:
                given = tl.load(d_states + step * HIDDEN + at, mask=here, other=0.0).to(ACC)
            if TOGETHER:
                wait(counters + group, back * tl.num_programs(0))
            if t < time - 1:
                dh = product(
                    d_gates + (step + batch) * WIDTH + rows * WIDTH,
                    None,
                    rows < batch,
                    right,
                    right_here,
                    held,
                    dh,
                    WIDTH,
                    1,
                    CHUNK,
                    PRECISION,
                )
            if dropped is not None:
                dh *= drop
            if d_states is not None:
                dh += given
            if hold_hidden is not None:
                dh += from_h
                held_at = (t * tl.num_programs(2) + way) * batch * HIDDEN + at
                from_h = dh * tl.load(hold_hidden + held_at, mask=here, other=0.0).to(ACC)
                from_c = dc * tl.load(hold_cell + held_at, mask=here, other=0.0).to(ACC)
                dh -= from_h
                dc -= from_c
            new = write(i, f, g, c, FORGET)
            shown = tanh(new)
            d_o = dh * shown * o * (1 - o)
            dc += dh * o * (1 - shown * shown)
            if peephole is not None:
                dc += d_o * p_o
            d_i = dc * (g - c if FORGET == "coupled" else g) * i * (1 - i)
            d_f = dc * c * f * (1 - f)
            d_g = dc * i * (1 - g * g)
            d_t = d_gates + step * WIDTH + gate_at
            tl.store(d_t, d_i.to(d_gates.dtype.element_ty), mask=here)
            if GATES == 4:
                tl.store(d_t + HIDDEN, d_f.to(d_gates.dtype.element_ty), mask=here)
            tl.store(d_t + (GATES - 2) * HIDDEN, d_g.to(d_gates.dtype.element_ty), mask=here)
            tl.store(d_t + (GATES - 1) * HIDDEN, d_o.to(d_gates.dtype.element_ty), mask=here)
            if TOGETHER:
                arrive(counters + group)
            if FORGET == "gate":
                dc *= f
            elif FORGET == "coupled":
                dc *= 1 - i
            if peephole is not None:
                dc += d_i * p_i + d_f * p_f
                sum_i += d_i * c
                sum_f += d_f * c
                sum_o += d_o * new
            if hold_hidden is not None:
                dc += from_c
        tl.store(d_cell + own, dc, mask=here)
        if hold_hidden is not None:
            tl.store(d_hidden + own, from_h, mask=here)
        if peephole is not None:
            look = d_peephole + group * 3 * HIDDEN + units
            there = units < HIDDEN
            tl.store(look, tl.load(look, mask=there) + tl.sum(sum_i, 0), mask=there)
            look += HIDDEN
            tl.store(look, tl.load(look, mask=there) + tl.sum(sum_f, 0), mask=there)
            look += HIDDEN
            tl.store(look, tl.load(look, mask=there) + tl.sum(sum_o, 0), mask=there)
