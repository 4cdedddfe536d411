/* One step of a pass backward: from the gradients of its outputs and of the step after to those of
 * its pre-activations, tile by tile. */
#ifndef FL_DRIVER_BACKWARD_STEP_H
#define FL_DRIVER_BACKWARD_STEP_H

#include "driver/backward/recurrent.h"

/* tile += dz of the step after, times U: for rows that go on. */
FL_INLINE void add_recurrent(const int plain, const backward_pass *p, const real *const *dz,
                             const real *const *recurrent_mask, ptrdiff_t rows, ptrdiff_t group,
                             const void *next, real *tile)
{
    const ptrdiff_t size = 4 * p->k->lanes, n = p->out_size - group * size;
    const int masked = !plain && p->tape.recurrent_mask;
    _Alignas(FL_ALIGN) real local[FL_MAX_TILE];
    const real *init[FL_MAX_ROWS];
    real *out[FL_MAX_ROWS];
    for (ptrdiff_t r = 0; r < rows; r++) {
        init[r] = masked ? zeros : tile + r * size;
    }
    times_recurrent(plain, p, dz, rows, group, next, init, masked ? local : tile);
    if (masked) {
        for (ptrdiff_t r = 0; r < rows; r++) {
            init[r] = out[r] = local + r * size;
        }
        p->k->multiply(rows, minimum(n, size), init, recurrent_mask, out);
        for (ptrdiff_t r = 0; r < rows; r++) {
            out[r] = tile + r * size;
        }
        p->k->add(rows, minimum(n, size), init, out);
    }
}

/* One tile of a step.  Handed on by its address: loads of a copy just made would wait for its
 * stores (H = 16, one row: 8%). */
typedef struct {
    ptrdiff_t s;
    ptrdiff_t i, rows;  /* so many rows, from the i-th of this worker on */
    ptrdiff_t going_on; /* how many rows of this worker are active at the step after */
    ptrdiff_t group;    /* of 4*VL columns */
    const real *fetch;  /* lines that will be read later, or NULL */
} backward_tile;

/* dh of a tile: what comes in from above, and dz U from the step after.  Rows that end here get the
 * gradient of their final state instead; they are the last ones of a tile, because rows are taken
 * longest first.  Under zoneout p->dh has for all rows what passed by the step after. */
FL_INLINE void hidden_gradient(const int plain, const backward_pass *p, const row_schedule when,
                               const worker_share *me, const backward_tile *at, real *tile)
{
    const ptrdiff_t size = 4 * p->k->lanes, unit = at->group * size, n = p->out_size - unit;
    const ptrdiff_t left = at->going_on - at->i, go_on = left < 0 ? 0 : minimum(left, at->rows);
    const int passes = !plain && p->zoneout_h.rate > 0;
    const real *next = go_on > 0 ? dz_at(p, at->s + 1, rank_at(&me->rows, at->i)) : NULL;
    const real *dy[FL_MAX_ROWS], *dh[FL_MAX_ROWS], *dz[FL_MAX_ROWS], *recurrent_mask[FL_MAX_ROWS];
    for (ptrdiff_t r = 0; r < at->rows; r++) {
        const ptrdiff_t rank = rank_at(&me->rows, at->i + r), b = row_of(&when, rank);
        dy[r] = source_at(&p->dy, time_of(&when, rank, at->s), b) + unit;
        dh[r] = p->dh + b * p->out_size + unit;
        if (r < go_on) {
            const int cut = is_reset(&when, rank, time_of(&when, rank, at->s + 1));
            dz[r] = cut ? p->zeros : next + r * me->rows.step * p->dz_row;
        }
        if (!plain && p->tape.recurrent_mask) {
            recurrent_mask[r] = p->tape.recurrent_mask + b * p->out_size + unit;
        }
    }
    p->k->load(go_on, n, dy, passes ? dh : NULL, tile);
    p->k->load(at->rows - go_on, n, dy + go_on, dh + go_on, tile + go_on * size);
    if (go_on > 0) {
        add_recurrent(plain, p, dz, recurrent_mask, go_on, at->group, at->fetch, tile);
    }
}

/* Zoneout of the hidden state: what passes by a step goes to p->dh, what goes through it stays. */
static void pass_by(const backward_pass *p, const worker_share *me, const backward_tile *at,
                    real *tile)
{
    const ptrdiff_t size = 4 * p->k->lanes, unit = at->group * size;
    const ptrdiff_t n = minimum(size, p->out_size - unit);
    for (ptrdiff_t r = 0; r < at->rows; r++) {
        const ptrdiff_t rank = rank_at(&me->rows, at->i + r), b = row_of(&p->when, rank);
        const ptrdiff_t time = time_of(&p->when, rank, at->s);
        const real *keep =
            draw_zoneout_keep(p->k, &p->zoneout_h, time, b, unit, n, p->zoneout_keep);
        const real *dh = tile + r * size, *nothing = zeros;
        real *by = p->dh + b * p->out_size + unit, *through = tile + r * size;
        p->k->multiply(1, n, &keep, &dh, &by);
        p->k->mix(1, n, &keep, &nothing, &dh, &through);
        if (is_reset(&p->when, rank, time)) {
            memset(by, 0, (size_t)n * sizeof(real));
        }
    }
}

/* What the gradient kernels are given for a tile of a step: pointers, row by row. */
typedef struct {
    /* By state, as in fl_gradient. */
    const real *before[FL_MAX_STATES][FL_MAX_ROWS], *after[FL_MAX_STATES][FL_MAX_ROWS];
    real *d_states[FL_MAX_STATES][FL_MAX_ROWS];
    const real *zoneout_keep[FL_MAX_ROWS];
    int state_count;
    int reset[FL_MAX_ROWS];
    fl_gradient gradient;
} gradient_tile;

/* dh: gradients of the units before a projection, rows dh_row apart. */
FL_INLINE void find_gradient_tile(const int plain, const backward_pass *p, const row_schedule when,
                                  const worker_share *me, const backward_tile *at, const real *dh,
                                  ptrdiff_t dh_row, gradient_tile *t)
{
    const ptrdiff_t size = 4 * p->k->lanes, unit = at->group * size, h = p->hidden;
    const ptrdiff_t first = rank_at(&me->rows, at->i), row = at->s * p->when.batch + first;
    const ptrdiff_t gates = (row * p->blocks + 4 * at->group) * size;
    const int states = plain ? FL_STATE_N : state_count(p->stack);
    for (ptrdiff_t r = 0; r < at->rows; r++) {
        const ptrdiff_t rank = rank_at(&me->rows, at->i + r), b = row_of(&when, rank);
        const ptrdiff_t time = time_of(&when, rank, at->s);
        const ptrdiff_t before = (at->s * when.batch + rank) * h + unit;
        t->reset[r] = is_reset(&when, rank, time);
        for (int i = FL_STATE_C; i < states; i++) {
            t->before[i][r] = t->reset[r] ? p->zeros : p->tape.states[i] + before;
            t->after[i][r] = p->tape.states[i] + before + when.batch * h;
            t->d_states[i][r] = p->d_states[i] + b * h + unit;
        }
        if (!plain && p->zoneout_c.rate > 0) {
            const ptrdiff_t n = p->options.gain ? h : minimum(size, h - unit);
            t->zoneout_keep[r] =
                draw_zoneout_keep(p->k, &p->zoneout_c, time, b, unit, n, p->zoneout_keep + r * h);
        }
    }
    /* Field by field: to clear the others took 10% of a small step (H = 16, one row). */
    fl_gradient *g = &t->gradient;
    g->dh = dh;
    g->dh_row = dh_row;
    g->gates = p->tape.gates + gates;
    g->gates_row = me->rows.step * p->blocks * size;
    g->dz = dz_at(p, at->s, first) + unit;
    g->dz_row = me->rows.step * p->dz_row;
    g->gate_step = h;
    g->units = h - unit;
    t->state_count = states;
    for (int i = FL_STATE_C; i < states; i++) {
        g->before[i] = t->before[i];
        g->after[i] = t->after[i];
        g->d_states[i] = t->d_states[i];
    }
    if (!plain) {
        g->options = &p->options;
        g->block = 4 * at->group;
        g->blocks = p->options.gain ? p->blocks : 4;
        g->zoneout_keep = p->zoneout_c.rate > 0 ? t->zoneout_keep : NULL;
        g->preacts = p->tape.preacts ? p->tape.preacts + gates : NULL;
        g->scale = p->tape.scale ? p->tape.scale + row * FL_GATE_SLOTS : NULL;
        g->scale_row = me->rows.step * FL_GATE_SLOTS;
        g->d_shift = g->dz + p->at.shift;
        g->d_gain = g->dz + p->at.gain;
        g->d_peephole = g->dz + p->at.peephole;
        g->forget_slope = p->tape.forget_slope ? p->tape.forget_slope + row * h + unit : NULL;
        g->forget_slope_row = me->rows.step * h;
    }
}

/* Where a state is reset, no gradient passes to the step before. */
static inline void cut_states(const gradient_tile *t, ptrdiff_t rows, ptrdiff_t units)
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (int i = FL_STATE_C; t->reset[r] && i < t->state_count; i++) {
            memset(t->d_states[i][r], 0, (size_t)units * sizeof(real));
        }
    }
}

/* The gradient of a tile of outputs; that of a projected state goes to its columns of dz. */
static void output_tile(const backward_pass *p, const worker_share *me, const backward_tile *at,
                        real *dh)
{
    const ptrdiff_t unit = at->group * 4 * p->k->lanes;
    real *out[FL_MAX_ROWS];
    hidden_gradient(0, p, p->when, me, at, dh);
    if (p->zoneout_h.rate > 0) {
        pass_by(p, me, at, dh);
    }
    if (p->stack->projection) {
        for (ptrdiff_t r = 0; r < at->rows; r++) {
            out[r] = dz_at(p, at->s, rank_at(&me->rows, at->i + r)) + p->at.second + unit;
        }
        p->k->store(at->rows, p->out_size - unit, dh, out);
    }
}

/* Through the second product, to the gradients of its inputs: its columns of dz, times a panel
 * [k][4*VL] of packed weights. */
static void second_input_gradient(const backward_pass *p, const worker_share *me,
                                  const backward_tile *at, const real *weights, ptrdiff_t k,
                                  real *tile)
{
    const ptrdiff_t size = 4 * p->k->lanes;
    const real *dz[FL_MAX_ROWS], *init[FL_MAX_ROWS];
    for (ptrdiff_t r = 0; r < at->rows; r++) {
        dz[r] = dz_at(p, at->s, rank_at(&me->rows, at->i + r)) + p->at.second;
        init[r] = zeros;
    }
    const fl_term term = {dz, 1, weights, k, NULL, {0}};
    memset(tile, 0, (size_t)(at->rows * size) * sizeof(real));
    p->k->product[FL_SAME](at->rows, vectors_of(p, p->hidden - at->group * size), init, &term, 1,
                           tile, size);
}

/* One tile of a step: dz, and dc for the step before; or, before a layer norm, only what comes from
 * above, which is left in dh_rows. */
static void options_tile(const backward_pass *p, const worker_share *me, const backward_tile *at)
{
    const ptrdiff_t size = 4 * p->k->lanes, units = p->hidden - at->group * size;
    gradient_tile tile;
    _Alignas(FL_ALIGN) real dh[FL_MAX_TILE];
    if (p->stack->projection) {
        const ptrdiff_t k = p->stack->projection;
        second_input_gradient(p, me, at, p->cell.projection + at->group * k * size, k, dh);
    } else {
        output_tile(p, me, at, dh);
    }
    if (p->options.gain) {
        for (ptrdiff_t r = 0; r < at->rows; r++) {
            real *row = p->dh_rows + rank_at(&me->rows, at->i + r) * p->dh_row;
            memcpy(row + at->group * size, dh + r * size, (size_t)size * sizeof(real));
        }
        return;
    }
    find_gradient_tile(0, p, p->when, me, at, dh, size, &tile);
    p->k->gradient[p->stack->cell](at->rows, &tile.gradient);
    if (!second_is_candidate(p->stack)) { /* there, more of dc follows */
        cut_states(&tile, at->rows, minimum(size, units));
    }
}

/* Whole rows, through a layer norm. */
static void norm_tile(const backward_pass *p, const worker_share *me, const backward_tile *at)
{
    const real *dh = p->dh_rows + rank_at(&me->rows, at->i) * p->dh_row;
    gradient_tile tile;
    find_gradient_tile(0, p, p->when, me, at, dh, me->rows.step * p->dh_row, &tile);
    p->k->gradient[p->stack->cell](at->rows, &tile.gradient);
    cut_states(&tile, at->rows, p->hidden);
}

/* From the gradient of a candidate of a second product to those of r and, through r * h, of h. */
static void reset_tile(const backward_pass *p, const worker_share *me, const backward_tile *at)
{
    const ptrdiff_t size = 4 * p->k->lanes, units = p->hidden - at->group * size;
    const real *weights = p->cell.u + (at->group * p->rows + p->at.second) * size;
    gradient_tile tile;
    _Alignas(FL_ALIGN) real d_second_input[FL_MAX_TILE];
    second_input_gradient(p, me, at, weights, p->hidden, d_second_input);
    find_gradient_tile(0, p, p->when, me, at, d_second_input, size, &tile);
    p->k->reset_gradient[p->stack->cell](at->rows, &tile.gradient);
    cut_states(&tile, at->rows, minimum(size, units));
}

/* What is done with a tile of some rows and a group of columns. */
typedef enum { OUTPUT, OPTIONS, NORM, RESET } sweep;

/* `rows` rows of this worker active at step s, `going_on` of them also at the step after. */
static void sweep_group(const sweep kind, const backward_pass *p, const worker_share *me,
                        ptrdiff_t group, ptrdiff_t s, ptrdiff_t rows, ptrdiff_t going_on)
{
    _Alignas(FL_ALIGN) real dh[FL_MAX_TILE];
    tiling tiles = tile_rows(p->k, rows);
    for (ptrdiff_t i = 0, tile; i < rows; i += tile) {
        tile = next_tile(&tiles);
        const backward_tile at = {s, i, tile, going_on, group, NULL};
        switch (kind) {
        case OUTPUT: output_tile(p, me, &at, dh); break;
        case OPTIONS: options_tile(p, me, &at); break;
        case NORM: norm_tile(p, me, &at); break;
        case RESET: reset_tile(p, me, &at); break;
        }
    }
}

static void sweep_tiles(const sweep kind, const backward_pass *p, const worker_share *me,
                        ptrdiff_t columns, ptrdiff_t s, ptrdiff_t rows, ptrdiff_t going_on)
{
    const fl_kind groups = {divide_up(columns, 4 * p->k->lanes), 1, 1};
    fl_work work = fl_begin(me->team, &groups, 1);
    for (fl_piece at; fl_next(&work, &at);) {
        for (ptrdiff_t group = at.units.begin; group < at.units.end; group++) {
            sweep_group(kind, p, me, group, s, rows, going_on);
        }
    }
}

static void options_step(const backward_pass *p, const worker_share *me, ptrdiff_t s,
                         ptrdiff_t rows, ptrdiff_t going_on)
{
    if (p->stack->projection) {
        sweep_tiles(OUTPUT, p, me, p->out_size, s, rows, going_on);
    }
    sweep_tiles(OPTIONS, p, me, p->hidden, s, rows, going_on);
    if (p->options.gain) {
        sweep_tiles(NORM, p, me, 1, s, rows, going_on);
    }
    if (second_is_candidate(p->stack)) {
        sweep_tiles(RESET, p, me, p->hidden, s, rows, going_on);
    }
}

static void state_gradient(const backward_pass *p, const worker_share *me, ptrdiff_t rows,
                           ptrdiff_t group)
{
    const ptrdiff_t size = 4 * p->k->lanes;
    tiling tiles = tile_rows(p->k, rows);
    for (ptrdiff_t i = 0, tile; i < rows; i += tile) {
        tile = next_tile(&tiles);
        _Alignas(FL_ALIGN) real local[FL_MAX_TILE];
        const real *dz[FL_MAX_ROWS], *before[FL_MAX_ROWS], *recurrent_mask[FL_MAX_ROWS];
        real *dh[FL_MAX_ROWS];
        for (ptrdiff_t r = 0; r < tile; r++) {
            const ptrdiff_t rank = rank_at(&me->rows, i + r), b = row_of(&p->when, rank);
            const int reset = is_reset(&p->when, rank, time_of(&p->when, rank, 0));
            dz[r] = reset ? p->zeros : dz_at(p, 0, rank);
            dh[r] = p->dh + b * p->out_size + group * size;
            before[r] = p->zoneout_h.rate > 0 ? dh[r] : zeros;
            if (p->tape.recurrent_mask) {
                recurrent_mask[r] = p->tape.recurrent_mask + b * p->out_size + group * size;
            }
        }
        p->k->load(tile, p->out_size - group * size, before, NULL, local);
        add_recurrent(0, p, dz, recurrent_mask, tile, group, NULL, local);
        p->k->store(tile, p->out_size - group * size, local, dh);
    }
}

/* The gradient of the initial hidden state, dz[0] U, of the rows that have a step; under zoneout
 * also what passed by it. */
static void state_gradients(const backward_pass *p, const worker_share *me, ptrdiff_t rows)
{
    const fl_kind groups = {divide_up(p->out_size, 4 * p->k->lanes), 1, 1};
    fl_work work = fl_begin(me->team, &groups, 1);
    for (fl_piece at; fl_next(&work, &at);) {
        for (ptrdiff_t group = at.units.begin; group < at.units.end; group++) {
            state_gradient(p, me, rows, group);
        }
    }
}

#endif
