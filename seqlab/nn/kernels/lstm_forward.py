"""The Triton kernel that runs the LSTM family forwards in time; see `.lstm`.

A program owns the cells of some hidden units, of some rows of the batch, of one direction, at all
steps. At every step it multiplies the hidden state of *all* units with the weights that lead to its
own gates, and therefore waits until its neighbours, the programs of the same rows and direction,
have written theirs. A counter for each such group, which only ever grows, tells them.
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
    def forward_kernel(
        x,
        w,
        peephole,
        dropped,
        hold_hidden,
        hold_cell,
        states,
        cells,
        gates,
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
        """Compute steps ``first`` to ``last`` of a layer.

        Args:
            x: ``(direction, time, batch, gate)``, the input's part of the gates.
            w: ``(direction, hidden, gate)``.
            peephole: ``(direction, 3, hidden)`` or None.
            dropped: ``(direction, batch, hidden)``, recurrent dropout, or None.
            hold_hidden: ``(time, direction, batch, hidden)``, zoneout, or None, as for hold_cell.
            hold_cell: likewise, of the cell.
            states: ``(direction, time + 1, batch, hidden)``, that before ``first`` given, later
                ones written.
            cells: likewise.
            gates: ``(direction, time, batch, gate)``, written: gates after their nonlinearities.
            counters: ``(tile, direction)`` int32, zero at first.
            first: a step.
            last: the step to end before.
            time: number of steps.
            batch: number of rows.
            tile_from: the first tile of rows that is computed.
            HIDDEN: number of units.
            FORGET: ``gate``, ``coupled`` or ``none``.
            ROWS: rows of a program.
            UNITS: units of a program.
            CHUNK: see :func:`product`.
            TOGETHER: whether neighbours run at the same time and wait for one another.
            PRECISION: of products of float32.
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
        # The weights to the gates of one unit stand side by side, in four columns.
        lanes = tl.arange(0, 4 * UNITS)
        of_unit = tl.program_id(0) * UNITS + lanes // 4
        right = w + way * HIDDEN * WIDTH + ((lanes % 4) * HIDDEN + of_unit)[None, :]
        right_here = ((lanes % 4 < GATES) & (of_unit < HIDDEN))[None, :]
        held = tile(right, right_here, 0, HIDDEN, WIDTH, CHUNK)
        start = (way * (time + 1) + first) * batch * HIDDEN
        c = tl.load(cells + start + at, mask=here, other=0.0)
        ACC: tl.constexpr = c.dtype
        drop = None if dropped is None else dropped + way * batch * HIDDEN + rows * HIDDEN
        if peephole is not None:
            p_i, p_f, p_o = looks(peephole, way, units, HIDDEN, ACC)
        if hold_hidden is not None:
            h = tl.load(states + start + at, mask=here, other=0.0).to(ACC)
        # One stage: steps must not be overlapped, as each reads what the one before has written.
        for t in tl.range(first, last, num_stages=1):
            step = (way * time + t) * batch
            x_t = x + step * WIDTH + gate_at
            i = tl.load(x_t, mask=here, other=0.0).to(ACC)
            f = tl.load(x_t + HIDDEN, mask=here, other=0.0).to(ACC)  # with a forget gate
            g = tl.load(x_t + (GATES - 2) * HIDDEN, mask=here, other=0.0).to(ACC)
            o = tl.load(x_t + (GATES - 1) * HIDDEN, mask=here, other=0.0).to(ACC)
            before = (way * (time + 1) + t) * batch * HIDDEN
            after = before + batch * HIDDEN
            if TOGETHER:
                wait(counters + group, (t - first) * tl.num_programs(0))
            z = product(
                states + before + rows * HIDDEN,
                drop,
                rows < batch,
                right,
                right_here,
                held,
                tl.zeros((ROWS, 4 * UNITS), ACC),
                HIDDEN,
                WIDTH,
                CHUNK,
                PRECISION,
            )
            even, odd = tl.split(tl.reshape(z, (ROWS, UNITS, 2, 2)))
            z_0, z_2 = tl.split(even)
            z_1, z_3 = tl.split(odd)
            i += z_0
            if GATES == 4:
                f += z_1
                g += z_2
                o += z_3
            else:
                g += z_1
                o += z_2
            if peephole is not None:
                i += p_i * c
                f += p_f * c
            i, f, g = tl.sigmoid(i), tl.sigmoid(f), tanh(g)
            new = write(i, f, g, c, FORGET)
            if peephole is not None:
                o += p_o * new
            o = tl.sigmoid(o)
            out = o * tanh(new)
            if hold_hidden is not None:
                held_at = (t * tl.num_programs(2) + way) * batch * HIDDEN + at
                out += (h - out) * tl.load(hold_hidden + held_at, mask=here, other=0.0).to(ACC)
                new += (c - new) * tl.load(hold_cell + held_at, mask=here, other=0.0).to(ACC)
                h = out
            c = new
            tl.store(states + after + at, out.to(states.dtype.element_ty), mask=here)
            if TOGETHER:
                arrive(counters + group)  # what follows is read by later kernels only
            tl.store(cells + after + at, c, mask=here)
            g_t = gates + step * WIDTH + gate_at
            tl.store(g_t, i.to(gates.dtype.element_ty), mask=here)
            if GATES == 4:
                tl.store(g_t + HIDDEN, f.to(gates.dtype.element_ty), mask=here)
            tl.store(g_t + (GATES - 2) * HIDDEN, g.to(gates.dtype.element_ty), mask=here)
            tl.store(g_t + (GATES - 1) * HIDDEN, o.to(gates.dtype.element_ty), mask=here)
