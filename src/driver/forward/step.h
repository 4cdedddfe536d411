/* One step of a pass: tiles of rows and units, and what remains to be done when all are there. */
#ifndef FL_DRIVER_FORWARD_STEP_H
#define FL_DRIVER_FORWARD_STEP_H

#include "driver/forward/block_diagonal.h"

/* What the tiles of a step read and write. */
FL_INLINE void find_rows(const int plain, const pass *p, const worker_share *me, ptrdiff_t s,
                         int first, ptrdiff_t rows)
{
    const row_schedule when = seen_as(&p->when, plain);
    const step_rows *of = &p->of_rows;
    for (ptrdiff_t i = 0; i < rows; i++) {
        const ptrdiff_t rank = rank_at(&me->rows, i), b = row_of(&when, rank);
        const ptrdiff_t time = time_of(&when, rank, s), t = time - p->first;
        const int reset = is_reset(&when, rank, time);
        if (p->x.tokens) {
            of->token[i] = p->x.tokens[t * p->x.step + b];
        }
        of->x[i] = p->x.data ? source_at(&p->x, t, b) : NULL;
        if (reset) {
            of->h_before[i] = p->zeros;
        } else if (!plain && p->recurrent_mask) {
            of->h_before[i] = masked_h_row(p, s, b);
        } else {
            of->h_before[i] =
                first ? p->h + b * p->out_size : sink_at(&p->out, when.reverse ? t + 1 : t - 1, b);
        }
        const ptrdiff_t before = state_row(p, &when, s, rank);
        const ptrdiff_t after = state_row(p, &when, s + 1, rank);
        for (int state = FL_STATE_C; state < (plain ? FL_STATE_N : p->state_count); state++) {
            of->before[state][i] = reset ? p->zeros : p->states[state] + before;
            of->after[state][i] = p->states[state] + after;
        }
        of->h[i] = sink_at(&p->out, t, b);
        of->y[i] = p->y.data ? sink_at(&p->y, t, b) : NULL;
        if (!plain && p->second_input) {
            of->second_input[i] = p->second_input + kept_row(p, &when, s, rank) * p->hidden;
        }
    }
}

/* Zoneout's factors of a tile, in whole rows. */
static void draw_keep_of_tile(const pass *p, const worker_share *me, const step_tile *at,
                              const real **keep)
{
    const ptrdiff_t unit = at->block * p->k->lanes;
    const ptrdiff_t n = minimum(at->groups * p->k->lanes, p->hidden - unit);
    for (ptrdiff_t r = 0; r < at->rows; r++) {
        const ptrdiff_t rank = rank_at(&me->rows, at->i + r), b = row_of(&p->when, rank);
        const ptrdiff_t time = time_of(&p->when, rank, at->s);
        keep[r] = p->zoneout_keep + r * p->hidden;
        draw_zoneout_keep(p->k, &p->zoneout_c, time, b, unit, n,
                          p->zoneout_keep + r * p->hidden + unit);
    }
}

/* The element-wise part of a step.  z: pre-activations of the tile. */
FL_INLINE void rest_of_tile(const int plain, const pass *p, const worker_share *me,
                            const step_tile *at, real *z, ptrdiff_t z_row)
{
    const ptrdiff_t block = at->block, vectors = 4 * p->k->lanes;
    const step_rows *of = &p->of_rows;
    const real *keep[FL_MAX_ROWS];
    fl_tile tile; /* field by field: to clear the others took 3 to 5% of a small step */
    tile.z = tile.gates = z;
    tile.z_row = tile.gates_row = z_row;
    tile.width = gate_width(p->hidden, p->k->lanes, block + at->groups - 1);
    tile.block = block;
    tile.units = p->hidden;
    tile.h = of->h + at->i;
    tile.y = p->y.data ? of->y + at->i : NULL;
    for (int state = FL_STATE_C; state < (plain ? FL_STATE_N : p->state_count); state++) {
        tile.before[state] = of->before[state] + at->i;
        tile.after[state] = of->after[state] + at->i;
    }
    const ptrdiff_t row = kept_row(p, &p->when, at->s, rank_at(&me->rows, at->i));
    if (p->gates) {
        tile.gates_row = me->rows.step * p->blocks * vectors;
        tile.gates = p->gates + (row * p->blocks + block) * vectors;
    }
    if (!plain) {
        tile.options = &p->options;
        tile.preacts = p->preacts ? p->preacts + (row * p->blocks + block) * vectors : NULL;
        tile.scale = p->scale ? p->scale + row * FL_GATE_SLOTS : NULL;
        tile.scale_row = me->rows.step * FL_GATE_SLOTS;
        tile.second_input = of->second_input + at->i;
        tile.forget_slope = p->forget_slope ? p->forget_slope + row * p->hidden : NULL;
        tile.forget_slope_row = me->rows.step * p->hidden;
        tile.zoneout_keep = NULL;
        tile.h = p->second_input && !p->second_is_candidate ? tile.second_input : tile.h;
        tile.y = ends_later(p) ? NULL : tile.y;
        if (p->zoneout_c.rate > 0) {
            draw_keep_of_tile(p, me, at, keep);
            tile.zoneout_keep = keep;
        }
    }
    p->k->tile[p->kind](at->rows, at->groups, &tile);
}

/* One tile, from the products to the element-wise part.  z: projections of its rows, or NULL. */
FL_INLINE void tile_of_step(const int plain, const pass *p, const worker_share *me,
                            const step_tile *at, const real *z, ptrdiff_t z_row)
{
    const ptrdiff_t block = at->block, vectors = 4 * p->k->lanes;
    const ptrdiff_t line = minimum(block * p->k->lanes, p->out_size - 1);
    const int projected = z || p->table || !p->x.data;
    const step_rows *of = &p->of_rows;
    _Alignas(FL_ALIGN) real local[FL_MAX_TILE];
    const real *init[FL_MAX_ROWS];
    real *to = local;
    ptrdiff_t to_row = at->groups * vectors;
    if (!plain && is_kept(p)) {
        const ptrdiff_t row = kept_row(p, &p->when, at->s, rank_at(&me->rows, at->i));
        to = p->gates + (row * p->blocks + block) * vectors;
        to_row = me->rows.step * p->blocks * vectors;
    }
    for (ptrdiff_t r = 0; r < at->rows; r++) {
        init[r] = z ? z + r * z_row : start_of(p, at->i + r, block, at->groups, to + r * to_row);
        /* Cold lines make stores wait: 1% (H = 128, B = 32). */
        FL_PREFETCH_WRITE(of->h[at->i + r] + line);
    }
    fl_term terms[2];
    terms[0] = term_of(p, of->x + at->i, &p->bytes.x, at->i, p->cell.w, block, p->input,
                       panel_to_fetch(p, at->next, at->number, p->cell.w, p->input));
    if (!plain && p->head_size < p->out_size) {
        add_products(p, at, init, projected ? NULL : terms, to, to_row);
    } else {
        terms[1] =
            term_of(p, of->h_before + at->i, &p->bytes.h, at->i, p->cell.u, block, p->out_size,
                    panel_to_fetch(p, at->next, at->number, p->cell.u, p->out_size));
        p->k->product[p->weights](at->rows, vectors_of_blocks(p, block, at->groups), init,
                                  terms + projected, 2 - projected, to, to_row);
    }
    if (plain || !p->whole_rows) {
        rest_of_tile(plain, p, me, at, to, to_row);
    }
}

static void run_tile(const pass *p, const worker_share *me, const step_tile *at, const real *z,
                     ptrdiff_t z_row)
{
    if (p->plain) {
        tile_of_step(1, p, me, at, z, z_row);
    } else {
        tile_of_step(0, p, me, at, z, z_row);
    }
}

/* The layer norm and what follows it: whole rows of the products of a step. */
static void end_rows(const pass *p, const worker_share *me, ptrdiff_t s, ptrdiff_t rows)
{
    const ptrdiff_t row = p->blocks * 4 * p->k->lanes;
    tiling tiles = tile_rows(p->k, rows);
    for (ptrdiff_t i = 0, tile; i < rows; i += tile) {
        tile = next_tile(&tiles);
        real *z = p->gates + kept_row(p, &p->when, s, rank_at(&me->rows, i)) * row;
        const step_tile at = {.s = s, .i = i, .rows = tile, .groups = p->blocks};
        rest_of_tile(0, p, me, &at, z, me->rows.step * row);
    }
}

/* The second product of a tile, four blocks of its rows: local = start + it. */
static void second_sums(const pass *p, const step_tile *at, const real *const *start, real *local)
{
    const ptrdiff_t size = 4 * p->k->lanes, group = at->block / 4, n = p->out_size - group * size;
    const real *init[FL_MAX_ROWS];
    for (ptrdiff_t r = 0; r < at->rows; r++) {
        init[r] = local + r * size;
    }
    const real *const *rows = (const real *const *)p->of_rows.second_input + at->i;
    const fl_term term =
        term_of(p, rows, &p->bytes.second, at->i, p->cell.second, group, p->hidden, NULL);
    p->k->load(at->rows, n, start, NULL, local);
    p->k->product[p->weights](at->rows, minimum(4, divide_up(n, p->k->lanes)), init, &term, 1,
                              local, size);
}

static void projection_tile(const pass *p, const step_tile *at)
{
    const ptrdiff_t unit = at->block * p->k->lanes;
    _Alignas(FL_ALIGN) real local[FL_MAX_TILE];
    const real *start[FL_MAX_ROWS];
    real *h[FL_MAX_ROWS];
    for (ptrdiff_t r = 0; r < at->rows; r++) {
        h[r] = p->of_rows.h[at->i + r] + unit;
        start[r] = zeros;
    }
    second_sums(p, at, start, local);
    p->k->store(at->rows, p->out_size - unit, local, h);
}

/* The candidate of a GRU that resets before it; until then h has what comes from x. */
static void candidate_tile(const pass *p, const worker_share *me, const step_tile *at)
{
    const ptrdiff_t size = 4 * p->k->lanes, unit = at->block * p->k->lanes;
    const ptrdiff_t row = kept_row(p, &p->when, at->s, rank_at(&me->rows, at->i));
    const step_rows *of = &p->of_rows;
    _Alignas(FL_ALIGN) real local[FL_MAX_TILE];
    const real *start[FL_MAX_ROWS];
    for (ptrdiff_t r = 0; r < at->rows; r++) {
        start[r] = of->h[at->i + r] + unit;
    }
    second_sums(p, at, start, local);
    const fl_tile tile = {
        .z = local,
        .z_row = size,
        .gates = p->gates + (row * p->blocks + at->block) * size,
        .gates_row = me->rows.step * p->blocks * size,
        .block = at->block,
        .units = p->out_size,
        .before[FL_STATE_C] = of->before[FL_STATE_C] + at->i,
        .after[FL_STATE_C] = of->after[FL_STATE_C] + at->i,
        .h = of->h + at->i,
        .y = p->y.data ? of->y + at->i : NULL,
    };
    p->k->next[p->kind](at->rows, &tile);
}

static void second_group(const pass *p, const worker_share *me, ptrdiff_t s, ptrdiff_t rows,
                         ptrdiff_t group)
{
    tiling tiles = tile_rows(p->k, rows);
    for (ptrdiff_t i = 0, tile; i < rows; i += tile) {
        tile = next_tile(&tiles);
        const step_tile at = {.s = s, .i = i, .rows = tile, .block = 4 * group, .groups = 4};
        if (p->second_is_candidate) {
            candidate_tile(p, me, &at);
        } else {
            projection_tile(p, &at);
        }
    }
}

static void second_product(const pass *p, const worker_share *me, ptrdiff_t s, ptrdiff_t rows)
{
    const fl_kind groups = {divide_up(p->out_size, 4 * p->k->lanes), 1, 1};
    if (p->weights == FL_INT8) {
        const real *const *inputs = (const real *const *)p->of_rows.second_input;
        p->k->quantize(rows, p->hidden, inputs, &p->bytes.second);
    }
    fl_work work = fl_begin(me->team, &groups, 1);
    for (fl_piece at; fl_next(&work, &at);) {
        for (ptrdiff_t group = at.units.begin; group < at.units.end; group++) {
            second_group(p, me, s, rows, group);
        }
    }
}

/* Zoneout of the hidden state, its second copy, and what U reads at the next step. */
static void end_hidden(const pass *p, const worker_share *me, ptrdiff_t s, int first,
                       ptrdiff_t rows)
{
    const fl_range part = outputs_of(p, me);
    const ptrdiff_t n = part.end - part.begin;
    for (ptrdiff_t i = 0; i < rows && n > 0; i++) {
        const ptrdiff_t rank = rank_at(&me->rows, i), b = row_of(&p->when, rank);
        const ptrdiff_t time = time_of(&p->when, rank, s), t = time - p->first;
        real *h = sink_at(&p->out, t, b) + part.begin;
        if (p->zoneout_h.rate > 0) {
            const real *keep =
                draw_zoneout_keep(p->k, &p->zoneout_h, time, b, part.begin, n, p->zoneout_keep);
            const real *before = first ? p->h + b * p->out_size
                                       : sink_at(&p->out, p->when.reverse ? t + 1 : t - 1, b);
            before = is_reset(&p->when, rank, time) ? p->zeros : before + part.begin;
            p->k->mix(1, n, &keep, &before, (const real *const *)&h, &h);
        }
        if (ends_later(p) && p->y.data) {
            memcpy(sink_at(&p->y, t, b) + part.begin, h, (size_t)n * sizeof(real));
        }
        if (p->recurrent_mask) {
            const real *mask = p->recurrent_mask + b * p->out_size + part.begin;
            real *masked_h = masked_h_row(p, s + 1, b) + part.begin;
            p->k->multiply(1, n, (const real *const *)&h, &mask, &masked_h);
        }
    }
}

/* What remains of a step when its tiles are done. */
static void end_step(const pass *p, const worker_share *me, ptrdiff_t s, int first, ptrdiff_t rows)
{
    if (p->whole_rows) {
        end_rows(p, me, s, rows);
    }
    if (p->second_input) {
        second_product(p, me, s, rows);
    }
    if (ends_later(p) || p->recurrent_mask) {
        end_hidden(p, me, s, first, rows);
        fl_meet(me->team);
    }
}

/* Blocks that are computed together: of one row, several.  At least two calls for a step where
 * there are two pairs of blocks: the pair of the last call is then still in L1 for the first call
 * of the next step (H = 64: 94 instead of 103 us for 100 steps). */
static inline ptrdiff_t groups_of_tile(const fl_kernels *k, ptrdiff_t rows, ptrdiff_t blocks)
{
    if (rows > 1) {
        return 1;
    }
    return blocks > k->groups || blocks < 4 ? k->groups : 2;
}

static fl_tile_size tile_size(const void *kernels, ptrdiff_t rows, ptrdiff_t blocks)
{
    const fl_kernels *k = kernels;
    const tiling cut = tile_rows(k, rows);
    const ptrdiff_t groups = minimum(groups_of_tile(k, rows, blocks), blocks);
    return (fl_tile_size){cut.size + (cut.larger > 0), groups * k->lanes};
}

/* Blocks outside, rows inside: a block's panel stays in cache for all rows.  Every other step takes
 * the blocks in the opposite order: what the caches still hold of the weights is what comes first.
 */
static void step_blocks(const pass *p, const worker_share *me, ptrdiff_t s, ptrdiff_t rows,
                        ptrdiff_t projected, const fl_piece *at, ptrdiff_t most)
{
    const ptrdiff_t vectors = 4 * p->k->lanes;
    const z_place place = z_place_of(p, at->share, at->share.begin);
    const real *z = projected < 0 ? NULL : place.first + projected * place.row;
    const ptrdiff_t blocks = at->units.end - at->units.begin;
    const ptrdiff_t opposite = at->share.begin + at->share.end - at->units.end;
    const ptrdiff_t begin = s % 2 ? opposite : at->units.begin;
    const tiling cut = tile_rows(p->k, rows);
    for (ptrdiff_t done = 0; done < blocks; done += most) {
        const ptrdiff_t groups = minimum(most, blocks - done);
        const ptrdiff_t block = begin + (s % 2 ? blocks - done - groups : done);
        const ptrdiff_t follows = s % 2 ? block - 1 : block + groups;
        const int is_there = follows >= at->share.begin && follows < at->share.end;
        const ptrdiff_t next = is_there ? follows : -1;
        int number = 0;
        tiling tiles = cut;
        for (ptrdiff_t i = 0, tile; i < rows; i += tile) {
            tile = next_tile(&tiles);
            const step_tile tile_at = {s, i, tile, block, groups, number++, next};
            const ptrdiff_t offset = i * place.row + (block - at->share.begin) * vectors;
            run_tile(p, me, &tile_at, z ? z + offset : NULL, place.row);
        }
    }
}

/* Of the units of each head. */
static void quantize_h(const pass *p, ptrdiff_t rows)
{
    for (ptrdiff_t unit = 0; unit < p->out_size; unit += p->head_size) {
        const ptrdiff_t place = unit / p->head_size * p->bytes.head_rows;
        for (ptrdiff_t i = 0; i < rows; i++) {
            const real *h = p->of_rows.h_before[i] + unit;
            const fl_bytes to = bytes_from(&p->bytes.h, place + i);
            p->k->quantize(1, p->head_size, &h, &to);
        }
    }
}

/* Of h, and of x where it is not projected yet; for itself, because workers take any block. */
static void quantize_rows(const pass *p, ptrdiff_t rows, ptrdiff_t projected)
{
    quantize_h(p, rows);
    if (projected < 0 && p->x.data && !p->table) {
        p->k->quantize(rows, p->input, p->of_rows.x, &p->bytes.x);
    }
}

/* Blocks of a piece of work: with 2, taking them would be 5% of a small step (H = 128, one row). */
enum { FL_BLOCKS_AT_ONCE = 4 };

/* `projected`: the first of this step's rows among those whose input is projected; -1: none is. */
static void run_step(const pass *p, const worker_share *me, ptrdiff_t s, int first, ptrdiff_t rows,
                     ptrdiff_t projected)
{
    const ptrdiff_t share = divide_up(p->blocks, me->team->workers);
    const ptrdiff_t most = groups_of_tile(p->k, rows, share);
    const fl_kind blocks = {p->blocks, most > FL_BLOCKS_AT_ONCE ? most : FL_BLOCKS_AT_ONCE, 1};
    if (p->plain) {
        find_rows(1, p, me, s, first, rows);
    } else {
        find_rows(0, p, me, s, first, rows);
    }
    if (p->weights == FL_INT8) {
        quantize_rows(p, rows, projected);
    }
    fl_work work = fl_begin(me->team, &blocks, 1);
    for (fl_piece at; fl_next(&work, &at);) {
        step_blocks(p, me, s, rows, projected, &at, most);
    }
    if (!p->plain) {
        end_step(p, me, s, first, rows);
    }
}

#endif
