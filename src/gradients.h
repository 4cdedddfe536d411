/* What follows from the gradients of the pre-activations, dz: the gradients of the inputs (dz W)
 * and of the weights (dz^T [x, h]).
 *
 * Segments lie at fixed multiples of a length that depends on the batch alone, and the weight
 * gradient of up to FL_TERMS terms is a sum of its own before it is added: the rounding does not
 * depend on threads, and grows with the number of such sums, not of terms. */
#ifndef FL_GRADIENTS_H
#define FL_GRADIENTS_H

#include "forward.h"

/* Terms of a weight gradient that are summed in registers: panels of so many rows fit L2. */
enum { FL_TERMS = 256 };

/* Steps of a segment of a long sequence. */
static ptrdiff_t segment_of(ptrdiff_t batch) { return batch < FL_TERMS ? FL_TERMS / batch : 1; }

static const _Alignas(FL_ALIGN) real zeros[FL_MAX_TILE];

/* With tokens, gradients of the pre-activations are summed for each token: FL_RECENT pieces of
 * FL_TERMS terms in `recent`, which is then added to `all`, so that rounding grows with the number
 * of such sums.  Gradients of W and of the table are products with the sums. */
enum { FL_RECENT = 8 };

typedef struct {
    real *recent, *all; /* [count][row]; NULL without tokens */
    ptrdiff_t count, row;
} token_sums;

static inline ptrdiff_t sums_row_of(const fl_shape *s) { return aligned(slots_of(s) * s->hidden); }

static ptrdiff_t sums_size(const fl_shape *s, ptrdiff_t count)
{
    return s->directions * 2 * count * sums_row_of(s);
}

/* One layer and direction, backward.  Steps s are in the order of the forward computation. */
typedef struct {
    const fl_kernels *k;
    const fl_shape *shape;
    backward_cell cell;
    tape_cell tape;
    timetable when;
    ptrdiff_t input, hidden, blocks, width, segment;
    ptrdiff_t rows;                 /* of W and U by slot: slots*H */
    ptrdiff_t x_columns, h_columns; /* of W and U whose gradients follow from dz, x and h */
    ptrdiff_t first_step;           /* as in the call */
    int earlier, later;
    source x, dy;
    sink dx;                       /* data NULL: not wanted */
    int add_dx;                    /* add to what the other direction left there */
    real *dh, *dc;                 /* [B][H] */
    real *dz;                      /* ring of two segments: rows that live, dz_row apart */
    ptrdiff_t dz_row;              /* see dz_row_of */
    real *panels;                  /* [groups of I, then of H][FL_TERMS][4*VL] */
    real *dw, *du, *db_ih, *db_hh; /* biases NULL without */
    token_sums sums;               /* with tokens: dw and dx follow from these */
    real *edge;                    /* [B][4H] */
    const real *zeros;             /* [slots*H] */
} backward_pass;

/* 4H, and a line more: the weight gradients read columns of dz, and rows a power of two apart would
 * share few sets of the caches (H = 512: 1.5% slower). */
static inline ptrdiff_t dz_row_of(const fl_shape *s)
{
    return aligned(slots_of(s) * s->hidden) + FL_ALIGN / (ptrdiff_t)sizeof(real);
}

/* Rows that live in a segment are adjacent, and the segment next to it has the other half of the
 * ring. */
static inline real *dz_at(const backward_pass *p, ptrdiff_t s, ptrdiff_t place)
{
    const ptrdiff_t s0 = s - s % p->segment, half = s / p->segment % 2;
    const ptrdiff_t row = rows_before(&p->when, s) - rows_before(&p->when, s0) + place;
    return p->dz + (half * p->segment * p->when.batch + row) * p->dz_row;
}

/* h before step s: the output of the step before it, or an initial state. */
static inline const real *h_before(const backward_pass *p, ptrdiff_t s, ptrdiff_t place)
{
    const ptrdiff_t b = row_of(&p->when, place), time = time_of(&p->when, place, s);
    if (starts_anew(&p->when, place, time)) {
        return p->zeros;
    }
    if (s == 0) {
        return p->tape.h0 + b * p->hidden;
    }
    const ptrdiff_t before = p->when.reverse ? time + 1 : time - 1;
    const ptrdiff_t offset = p->when.reverse ? p->hidden : 0;
    return p->tape.out + (before * p->when.batch + b) * p->width + offset;
}

/* Vectors of a group of which `columns` columns are left. */
static inline ptrdiff_t vectors_of(const backward_pass *p, ptrdiff_t columns)
{
    return minimum(4, divide_up(columns, p->k->lanes));
}

/* A product of rows of dz with packed weights, stored into (or, with `add`, added to) out. */
static void rows_times_weights(const backward_pass *p, const real *const *dz, ptrdiff_t rows,
                               const real *weights, ptrdiff_t group, ptrdiff_t columns,
                               real *const *out, int add)
{
    const ptrdiff_t size = 4 * p->k->lanes, k = p->rows, n = columns - group * size;
    _Alignas(FL_ALIGN) real tile[FL_MAX_TILE];
    const real *before[FL_MAX_ROWS], *init[FL_MAX_ROWS];
    real *to[FL_MAX_ROWS];
    for (ptrdiff_t r = 0; r < rows; r++) {
        to[r] = out[r] + group * size;
        before[r] = add ? to[r] : zeros;
        init[r] = tile + r * size;
    }
    p->k->load(rows, n, before, NULL, tile);
    const fl_term term = {dz, 1, weights + group * k * size, k};
    p->k->product(rows, vectors_of(p, n), init, &term, 1, tile, size);
    p->k->store(rows, n, tile, to);
}

/* dx for some rows of the segment that begins at s0, counted step by step. */
static void input_gradients(const backward_pass *p, ptrdiff_t s0, fl_range rows)
{
    const ptrdiff_t groups = divide_up(p->x_columns, 4 * p->k->lanes);
    for (ptrdiff_t group = 0; p->dx.data && group < groups; group++) {
        tiling tiles = tile_rows(p->k, rows.end - rows.begin);
        for (ptrdiff_t i = rows.begin, tile; i < rows.end; i += tile) {
            tile = next_tile(&tiles);
            const real *dz[FL_MAX_ROWS];
            real *dx[FL_MAX_ROWS];
            occurrence at = occurrence_at(&p->when, s0, i);
            const real *first = dz_at(p, at.s, at.place);
            for (ptrdiff_t r = 0; r < tile; r++, at = next_occurrence(&p->when, at)) {
                dz[r] = first + r * p->dz_row;
                dx[r] =
                    sink_at(&p->dx, time_of(&p->when, at.place, at.s), row_of(&p->when, at.place));
            }
            rows_times_weights(p, dz, tile, p->cell.w, group, p->input, dx, p->add_dx);
        }
    }
}

/* Some terms of the weight gradients, one per step and row, and where their factors are. */
typedef struct {
    ptrdiff_t n;
    const real *dz[FL_TERMS], *x[FL_TERMS], *h[FL_TERMS];
    ptrdiff_t token[FL_TERMS];
} term_rows;

static void find_terms(const backward_pass *p, ptrdiff_t s0, ptrdiff_t first, term_rows *terms)
{
    occurrence at = occurrence_at(&p->when, s0, first);
    const real *dz = dz_at(p, at.s, at.place);
    for (ptrdiff_t i = 0; i < terms->n; i++, at = next_occurrence(&p->when, at)) {
        const ptrdiff_t b = row_of(&p->when, at.place), t = time_of(&p->when, at.place, at.s);
        terms->dz[i] = dz + i * p->dz_row;
        terms->x[i] = p->x_columns ? source_at(&p->x, t, b) : NULL;
        terms->h[i] = p->h_columns ? h_before(p, at.s, at.place) : NULL;
        terms->token[i] = p->sums.recent ? p->x.tokens[t * p->x.step + b] : 0;
    }
}

/* Rows of x and h, group by group. */
static void pack_inputs(const backward_pass *p, const term_rows *terms, fl_range groups)
{
    const ptrdiff_t size = 4 * p->k->lanes, input_groups = divide_up(p->x_columns, size);
    const real *row[FL_TERMS];
    for (ptrdiff_t group = groups.begin; group < groups.end; group++) {
        const int of_x = group < input_groups;
        const ptrdiff_t at = (of_x ? group : group - input_groups) * size;
        for (ptrdiff_t i = 0; i < terms->n; i++) {
            row[i] = (of_x ? terms->x[i] : terms->h[i]) + at;
        }
        p->k->load(terms->n, (of_x ? p->x_columns : p->h_columns) - at, row, NULL,
                   p->panels + group * FL_TERMS * size);
    }
}

/* The row of W (or U) and of its bias that a column of dz belongs to; -1: none. */
static inline ptrdiff_t row_of_column(const backward_pass *p, int of_u, ptrdiff_t column)
{
    if (p->shape->cell != FL_GRU) { /* the same rows; divisions would take 3% (H = 256) */
        return column;
    }
    const ptrdiff_t gate = gate_of_slot(p->shape, of_u, column / p->hidden);
    return gate < 0 ? -1 : gate * p->hidden + column % p->hidden;
}

/* Adds the products of columns of dz and the packed inputs to the gradients of some tiles. */
static void weight_gradients(const backward_pass *p, const term_rows *terms, fl_range tiles)
{
    const ptrdiff_t rows = p->k->rows, size = 4 * p->k->lanes;
    const ptrdiff_t input_groups = divide_up(p->x_columns, size);
    const ptrdiff_t groups = input_groups + divide_up(p->h_columns, size);
    for (ptrdiff_t group = 0; group < groups; group++) {
        const int of_x = group < input_groups;
        const ptrdiff_t columns = of_x ? p->x_columns : p->h_columns;
        const ptrdiff_t at = (of_x ? group : group - input_groups) * size;
        real *out = (of_x ? p->dw : p->du) + at;
        for (ptrdiff_t tile = tiles.begin; tile < tiles.end; tile++) {
            const ptrdiff_t end = minimum((tile + 1) * rows, p->rows);
            _Alignas(FL_ALIGN) real tile_sums[FL_MAX_TILE];
            const real *a[FL_MAX_ROWS], *init[FL_MAX_ROWS], *sums[FL_MAX_ROWS];
            real *to[FL_MAX_ROWS];
            ptrdiff_t width = 0;
            for (ptrdiff_t column = tile * rows; column < end; column++) {
                const ptrdiff_t row = row_of_column(p, !of_x, column);
                if (row >= 0) {
                    init[width] = zeros;
                    sums[width] = tile_sums + width * size;
                    a[width] = terms->dz[0] + column;
                    to[width] = out + row * columns;
                    fetch_to_write(to[width], minimum(size, columns - at)); /* 4% (H = 256) */
                    width++;
                }
            }
            const fl_term term = {a, p->dz_row, p->panels + group * FL_TERMS * size, terms->n};
            const ptrdiff_t n = minimum(size, columns - at);
            if (width > 0) {
                p->k->product(width, vectors_of(p, n), init, &term, 1, tile_sums, size);
                p->k->add(width, n, sums, to);
            }
        }
    }
}

/* One sum of columns of dz, slot by slot, is the gradient of b_ih, of b_hh, or of both. */
static void bias_gradients(const backward_pass *p, const term_rows *terms, fl_range columns)
{
    for (ptrdiff_t begin = columns.begin; p->db_ih && begin < columns.end;) {
        const ptrdiff_t slot = begin / p->hidden;
        const ptrdiff_t n = minimum(columns.end, (slot + 1) * p->hidden) - begin;
        const ptrdiff_t of_x = row_of_column(p, 0, begin), of_h = row_of_column(p, 1, begin);
        real *to = of_x < 0 ? p->db_hh + of_h : p->db_ih + of_x;
        p->k->add_columns(terms->n, n, terms->dz, begin, to);
        if (of_x >= 0 && of_h >= 0) {
            memcpy(p->db_hh + of_h, to, (size_t)n * sizeof(real));
        }
        begin += n;
    }
}

/* Adds recent sums to the others, some columns of them. */
static void settle_tokens(const token_sums *sums, const fl_kernels *k, fl_range columns)
{
    const ptrdiff_t n = columns.end - columns.begin;
    for (ptrdiff_t i = 0; i < sums->count && n > 0; i++) {
        real *recent = sums->recent + i * sums->row + columns.begin;
        const real *from = recent;
        real *to = sums->all + i * sums->row + columns.begin;
        k->add(1, n, &from, &to);
        memset(recent, 0, (size_t)n * sizeof(real));
    }
}

/* Adds some columns of dz to the sums of the tokens they belong to.  Pieces are counted from the
 * first step of the whole sequence. */
static void sum_tokens(const backward_pass *p, const term_rows *terms, ptrdiff_t s0,
                       ptrdiff_t first, fl_range columns)
{
    const ptrdiff_t pieces = divide_up(p->segment * p->when.batch, FL_TERMS);
    const ptrdiff_t piece = (p->first_step + s0) / p->segment * pieces + first / FL_TERMS;
    const real *from[FL_TERMS];
    real *to[FL_TERMS];
    for (ptrdiff_t i = 0; i < terms->n; i++) {
        from[i] = terms->dz[i] + columns.begin;
        to[i] = p->sums.recent + terms->token[i] * p->sums.row + columns.begin;
    }
    p->k->add(terms->n, columns.end - columns.begin, from, to);
    if (piece % FL_RECENT == 0) {
        settle_tokens(&p->sums, p->k, columns);
    }
}

/* Everything that the dz of a segment give: a worker makes its part of each. */
static void segment_gradients(const backward_pass *p, fl_barrier *barrier, int worker, int workers,
                              ptrdiff_t s0, ptrdiff_t s1)
{
    const ptrdiff_t size = 4 * p->k->lanes;
    const ptrdiff_t n = rows_before(&p->when, s1) - rows_before(&p->when, s0);
    const ptrdiff_t groups = divide_up(p->x_columns, size) + divide_up(p->h_columns, size);
    const fl_range tiles = fl_part(divide_up(p->rows, p->k->rows), workers, worker);
    const fl_range columns = {tiles.begin * p->k->rows, minimum(tiles.end * p->k->rows, p->rows)};
    fl_barrier_wait(barrier, workers); /* all dz of the segment are there */
    input_gradients(p, s0, fl_part(n, workers, worker));
    for (ptrdiff_t first = 0; first < n; first += FL_TERMS) {
        term_rows terms = {.n = minimum(FL_TERMS, n - first)};
        find_terms(p, s0, first, &terms);
        pack_inputs(p, &terms, fl_part(groups, workers, worker));
        bias_gradients(p, &terms, columns);
        if (p->sums.recent) {
            sum_tokens(p, &terms, s0, first, columns);
        }
        fl_barrier_wait(barrier, workers);
        weight_gradients(p, &terms, tiles);
        fl_barrier_wait(barrier, workers);
    }
}

/* Gradients of W and of the table from the sums of all steps: the tokens take the places of steps.
 * Without a table, the gradients of W are the sums themselves. */
static void token_gradients(const backward_pass *p, fl_barrier *barrier, int worker, int workers)
{
    const fl_range columns = fl_part(p->rows, workers, worker);
    settle_tokens(&p->sums, p->k, columns);
    if (p->x.data) {
        backward_pass of_tokens = *p;
        of_tokens.dz = p->sums.all;
        of_tokens.dz_row = p->sums.row;
        of_tokens.segment = p->sums.count;
        of_tokens.when = (timetable){.steps = p->sums.count, .batch = 1};
        of_tokens.x = (source){p->x.data, p->x.row, 0, NULL};
        of_tokens.x_columns = p->input;
        of_tokens.h_columns = 0;
        of_tokens.db_ih = NULL;
        of_tokens.sums.recent = NULL;
        segment_gradients(&of_tokens, barrier, worker, workers, 0, p->sums.count);
        return;
    }
    for (ptrdiff_t j = columns.begin; j < columns.end; j++) {
        const ptrdiff_t row = row_of_column(p, 0, j);
        for (ptrdiff_t i = 0; row >= 0 && i < p->sums.count; i++) {
            p->dw[row * p->input + i] += p->sums.all[i * p->sums.row + j];
        }
    }
}

#endif
