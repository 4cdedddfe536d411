/* What follows from the gradients of the pre-activations, dz: the gradients of the inputs (dz W)
 * and of the weights (dz^T [x, h]).
 *
 * Segments lie at fixed multiples of a length that depends on the batch alone, and the weight
 * gradient of up to FL_TERMS terms is a sum of its own before it is added: the rounding does not
 * depend on threads, and grows with the number of such sums, not of terms. */
#ifndef FL_DRIVER_BACKWARD_GRADIENTS_H
#define FL_DRIVER_BACKWARD_GRADIENTS_H

#include "driver/backward/pass.h"

/* A product of rows of dz with W, stored into (or, with `add`, added to) out. */
static void rows_times_weights(const backward_pass *p, const real *const *dz, ptrdiff_t rows,
                               ptrdiff_t group, real *const *out, int add)
{
    const ptrdiff_t size = 4 * p->k->lanes, k = p->rows, n = p->input - group * size;
    _Alignas(FL_ALIGN) real tile[FL_MAX_TILE];
    const real *before[FL_MAX_ROWS], *init[FL_MAX_ROWS];
    real *to[FL_MAX_ROWS];
    for (ptrdiff_t r = 0; r < rows; r++) {
        to[r] = out[r] + group * size;
        before[r] = add ? to[r] : zeros;
        init[r] = tile + r * size;
    }
    p->k->load(rows, n, before, NULL, tile);
    const fl_term term = {dz, 1, p->cell.w + group * k * size, k, NULL};
    p->k->product(rows, vectors_of(p, n), init, &term, 1, tile, size);
    p->k->store(rows, n, tile, to);
}

/* dx for some tiles of the n rows of the segment that begins at s0, counted step by step. */
static void input_gradients(const backward_pass *p, ptrdiff_t s0, ptrdiff_t n, fl_range tiles,
                            ptrdiff_t group)
{
    const tiling cut = tile_rows(p->k, n);
    for (ptrdiff_t tile = tiles.begin; tile < tiles.end; tile++) {
        const fl_range rows = tile_at(&cut, tile);
        const real *dz[FL_MAX_ROWS];
        real *dx[FL_MAX_ROWS];
        occurrence at = occurrence_at(&p->when, s0, rows.begin);
        const real *first = dz_at(p, at.s, at.rank);
        for (ptrdiff_t r = 0; r < rows.end - rows.begin; r++, at = next_occurrence(&p->when, at)) {
            dz[r] = first + r * p->dz_row;
            dx[r] = sink_at(&p->dx, time_of(&p->when, at.rank, at.s), row_of(&p->when, at.rank));
        }
        rows_times_weights(p, dz, rows.end - rows.begin, group, dx, p->add_dx);
    }
}

/* Some terms of the weight gradients, one per step and row, and where their factors are. */
typedef struct {
    ptrdiff_t n;
    const real *dz[FL_TERMS], *x[FL_TERMS], *h[FL_TERMS], *second_input[FL_TERMS];
    const real *recurrent_mask[FL_TERMS]; /* what h is multiplied by */
    ptrdiff_t token[FL_TERMS];
} term_rows;

static void find_terms(const backward_pass *p, ptrdiff_t s0, ptrdiff_t first, term_rows *terms)
{
    occurrence at = occurrence_at(&p->when, s0, first);
    const real *dz = dz_at(p, at.s, at.rank);
    for (ptrdiff_t i = 0; i < terms->n; i++, at = next_occurrence(&p->when, at)) {
        const ptrdiff_t b = row_of(&p->when, at.rank), t = time_of(&p->when, at.rank, at.s);
        const ptrdiff_t row = at.s * p->when.batch + at.rank;
        terms->dz[i] = dz + i * p->dz_row;
        terms->x[i] = p->x_columns ? source_at(&p->x, t, b) : NULL;
        terms->h[i] = p->h_columns ? h_before(p, at.s, at.rank) : NULL;
        terms->second_input[i] =
            p->second_input_columns ? p->tape.second_input + row * p->hidden : NULL;
        terms->recurrent_mask[i] =
            p->tape.recurrent_mask ? p->tape.recurrent_mask + b * p->out_size : NULL;
        terms->token[i] = p->sums.recent ? p->x.tokens[t * p->x.step + b] : 0;
    }
}

/* The gradient of a matrix: columns of dz times rows of its input. */
typedef struct {
    const real *const *inputs; /* as in term_rows */
    ptrdiff_t width;           /* columns of the matrix */
    ptrdiff_t begin, end;      /* columns of dz: slots, which are rows of the matrix */
    int of_u;                  /* as in gate_of_slot; -1: slots are just the rows */
    const real *const *masks;  /* what the inputs are multiplied by, or NULL */
    real *out;
    real *panels; /* [groups][FL_TERMS][4*VL] */
} matrix_gradient;

enum { FL_MATRICES = 3 };

static void find_matrices(const backward_pass *p, const term_rows *terms, matrix_gradient *m)
{
    const ptrdiff_t size = 4 * p->k->lanes, panel = FL_TERMS * size;
    real *const of_h = p->panels + divide_up(p->x_columns, size) * panel;
    real *const of_second_input = of_h + divide_up(p->h_columns, size) * panel;
    const int mapped = gate_slots_differ(p->stack);
    m[0] = (matrix_gradient){terms->x,        p->x_columns, 0,     p->rows,
                             mapped ? 0 : -1, NULL,         p->dw, p->panels};
    m[1] = (matrix_gradient){terms->h,
                             p->h_columns,
                             0,
                             p->recurrent,
                             mapped ? 1 : -1,
                             p->tape.recurrent_mask ? terms->recurrent_mask : NULL,
                             p->du,
                             of_h};
    m[2] = (matrix_gradient){terms->second_input,
                             p->second_input_columns,
                             p->at.second,
                             p->at.second + second_product_size(p->stack),
                             -1,
                             NULL,
                             p->d_second,
                             of_second_input};
}

/* Some groups of columns of the inputs. */
static void pack_inputs(const backward_pass *p, const term_rows *terms, const matrix_gradient *m,
                        fl_range groups)
{
    const ptrdiff_t size = 4 * p->k->lanes;
    const real *row[FL_TERMS], *mask[FL_TERMS];
    real *packed[FL_TERMS];
    for (ptrdiff_t group = groups.begin; group < groups.end; group++) {
        real *panel = m->panels + group * FL_TERMS * size;
        for (ptrdiff_t i = 0; i < terms->n; i++) {
            row[i] = m->inputs[i] + group * size;
        }
        p->k->load(terms->n, m->width - group * size, row, NULL, panel);
        for (ptrdiff_t i = 0; m->masks && i < terms->n; i++) {
            row[i] = packed[i] = panel + i * size;
            mask[i] = m->masks[i] + group * size;
        }
        if (m->masks) {
            const ptrdiff_t n = minimum(size, m->width - group * size);
            p->k->multiply(terms->n, n, row, mask, packed);
        }
    }
}

/* The row of W (or U) and of its bias that a column of dz belongs to; -1: none.  Divisions for
 * all cells would take 3% (H = 256). */
static inline ptrdiff_t row_of_column(const backward_pass *p, int of_u, ptrdiff_t column)
{
    const ptrdiff_t gate = gate_of_slot(p->stack, of_u, column / p->hidden);
    return gate < 0 ? -1 : gate * p->hidden + column % p->hidden;
}

/* Adds the products of columns of dz and one group of the packed inputs to some tiles. */
static void matrix_tiles(const backward_pass *p, const term_rows *terms, const matrix_gradient *m,
                         ptrdiff_t group, fl_range tiles)
{
    const ptrdiff_t rows = p->k->rows, size = 4 * p->k->lanes;
    const ptrdiff_t n = minimum(size, m->width - group * size);
    real *out = m->out + group * size;
    for (ptrdiff_t tile = tiles.begin; tile < tiles.end; tile++) {
        const ptrdiff_t end = minimum(m->begin + (tile + 1) * rows, m->end);
        _Alignas(FL_ALIGN) real tile_sums[FL_MAX_TILE];
        const real *a[FL_MAX_ROWS], *init[FL_MAX_ROWS], *sums[FL_MAX_ROWS];
        real *to[FL_MAX_ROWS];
        ptrdiff_t width = 0;
        for (ptrdiff_t column = m->begin + tile * rows; column < end; column++) {
            const ptrdiff_t row =
                m->of_u < 0 ? column - m->begin : row_of_column(p, m->of_u, column);
            if (row >= 0) {
                init[width] = zeros;
                sums[width] = tile_sums + width * size;
                a[width] = terms->dz[0] + column;
                to[width] = out + row * m->width;
                fetch_to_write(to[width], n); /* 4% (H = 256) */
                width++;
            }
        }
        const fl_term term = {a, p->dz_row, m->panels + group * FL_TERMS * size, terms->n, NULL};
        if (width > 0) {
            p->k->product(width, vectors_of(p, n), init, &term, 1, tile_sums, size);
            p->k->add(width, n, sums, to);
        }
    }
}

/* Adds the sums of columns of dz, which for the units of a slot begin at `begin`, to `out`. */
static void add_unit_sums(const backward_pass *p, const term_rows *terms, ptrdiff_t begin,
                          real *out, fl_range units)
{
    p->k->add_columns(terms->n, units.end - units.begin, terms->dz, begin + units.begin,
                      out + units.begin);
}

/* Parameters of single units: biases, peepholes, gains.  One sum of columns, slot by slot, is the
 * gradient of b_ih, of b_hh, or of both. */
static void unit_gradients(const backward_pass *p, const term_rows *terms, fl_range units)
{
    const ptrdiff_t hidden = p->hidden, shift = p->at.shift < 0 ? 0 : p->at.shift;
    for (ptrdiff_t slot = 0; slot < gate_slot_count(p->stack); slot++) {
        const ptrdiff_t of_x = gate_of_slot(p->stack, 0, slot);
        const ptrdiff_t of_h = gate_of_slot(p->stack, 1, slot);
        const ptrdiff_t peephole = peephole_of_slot(p->stack, slot);
        if (p->db_ih && (of_x >= 0 || of_h >= 0)) {
            real *to = of_x < 0 ? p->db_hh + of_h * hidden : p->db_ih + of_x * hidden;
            add_unit_sums(p, terms, shift + slot * hidden, to, units);
            if (of_x >= 0 && of_h >= 0) {
                memcpy(p->db_hh + of_h * hidden + units.begin, to + units.begin,
                       (size_t)(units.end - units.begin) * sizeof(real));
            }
        }
        if (p->at.gain >= 0 && of_x >= 0) {
            add_unit_sums(p, terms, p->at.gain + slot * hidden, p->d_gain + of_x * hidden, units);
        }
        if (p->at.peephole >= 0 && peephole >= 0) {
            add_unit_sums(p, terms, p->at.peephole + slot * hidden,
                          p->d_peephole + peephole * hidden, units);
        }
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
    const ptrdiff_t segment = segment_of(p->when.batch); /* p->segment may be cut by a short call */
    const ptrdiff_t pieces = divide_up(segment * p->when.batch, FL_TERMS);
    const ptrdiff_t piece = (p->first_step + s0) / segment * pieces + first / FL_TERMS;
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

/* The columns of some groups of 4*VL. */
static inline fl_range columns_of(const backward_pass *p, fl_range groups, ptrdiff_t columns)
{
    const ptrdiff_t size = 4 * p->k->lanes;
    return (fl_range){groups.begin * size, minimum(groups.end * size, columns)};
}

/* What needs no more than the dz of the segment that begins at s0: dx, single units, tokens, and
 * what the products with dz are made of. */
static void prepare_terms(const backward_pass *p, const term_rows *terms, const matrix_gradient *m,
                          fl_worker *team, ptrdiff_t s0, ptrdiff_t first, ptrdiff_t n)
{
    enum { UNITS = FL_MATRICES, TOKENS, INPUTS, KINDS };
    const ptrdiff_t size = 4 * p->k->lanes;
    const int with_dx = p->dx.data && first == 0; /* of the whole segment at once */
    const fl_kind kinds[KINDS] = {
        {divide_up(m[0].width, size), 1, 1},
        {divide_up(m[1].width, size), 1, 1},
        {divide_up(m[2].width, size), 1, 1},
        {divide_up(p->hidden, size), 1, 1},
        {p->sums.recent ? divide_up(p->rows, size) : 0, 1, 1},
        {divide_up(n, p->k->rows), 1, with_dx ? divide_up(p->x_columns, size) : 0},
    };
    fl_work work = fl_begin(team, kinds, KINDS);
    for (fl_piece at; fl_next(&work, &at);) {
        switch (at.kind) {
        case UNITS: unit_gradients(p, terms, columns_of(p, at.units, p->hidden)); break;
        case TOKENS: sum_tokens(p, terms, s0, first, columns_of(p, at.units, p->rows)); break;
        case INPUTS: input_gradients(p, s0, n, at.units, at.time); break;
        default: pack_inputs(p, terms, &m[at.kind], at.units);
        }
    }
}

/* The gradients of the weights from some terms. */
static void weight_gradients(const backward_pass *p, const term_rows *terms,
                             const matrix_gradient *m, fl_worker *team)
{
    fl_kind kinds[FL_MATRICES];
    for (int i = 0; i < FL_MATRICES; i++) {
        kinds[i] = (fl_kind){divide_up(m[i].end - m[i].begin, p->k->rows), FL_TILES_AT_ONCE,
                             divide_up(m[i].width, 4 * p->k->lanes)};
    }
    fl_work work = fl_begin(team, kinds, FL_MATRICES);
    for (fl_piece at; fl_next(&work, &at);) {
        matrix_tiles(p, terms, &m[at.kind], at.time, at.units);
    }
}

/* Everything that the dz of a segment give. */
static void segment_gradients(const backward_pass *p, fl_worker *team, ptrdiff_t s0, ptrdiff_t s1)
{
    const ptrdiff_t n = rows_before(&p->when, s1) - rows_before(&p->when, s0);
    fl_meet(team); /* all dz of the segment are there */
    for (ptrdiff_t first = 0; first < n; first += FL_TERMS) {
        term_rows terms = {.n = minimum(FL_TERMS, n - first)};
        matrix_gradient matrices[FL_MATRICES];
        find_terms(p, s0, first, &terms);
        find_matrices(p, &terms, matrices);
        prepare_terms(p, &terms, matrices, team, s0, first, n);
        weight_gradients(p, &terms, matrices, team);
    }
}

/* Gradients of W and of the table from the sums of all steps: the tokens take the place of steps.
 * Without a table, the gradients of W are the sums themselves. */
static void token_gradients(const backward_pass *p, fl_worker *team)
{
    const fl_kind groups = {divide_up(p->rows, 4 * p->k->lanes), 1, 1};
    fl_work work = fl_begin(team, &groups, 1);
    for (fl_piece at; fl_next(&work, &at);) {
        const fl_range columns = columns_of(p, at.units, p->rows);
        settle_tokens(&p->sums, p->k, columns);
        for (ptrdiff_t j = columns.begin; !p->x.data && j < columns.end; j++) {
            const ptrdiff_t row = row_of_column(p, 0, j);
            for (ptrdiff_t i = 0; row >= 0 && i < p->sums.count; i++) {
                p->dw[row * p->input + i] += p->sums.all[i * p->sums.row + j];
            }
        }
    }
    if (p->x.data) {
        backward_pass of_tokens = *p;
        of_tokens.dz = p->sums.all;
        of_tokens.dz_row = p->sums.row;
        of_tokens.segment = p->sums.count;
        of_tokens.when = (row_schedule){.steps = p->sums.count, .batch = 1};
        of_tokens.x = (source){p->x.data, p->x.row, 0, NULL};
        of_tokens.x_columns = p->input;
        of_tokens.h_columns = 0;
        of_tokens.second_input_columns = 0;
        of_tokens.db_ih = NULL;
        of_tokens.at.gain = of_tokens.at.peephole = -1;
        of_tokens.sums.recent = NULL;
        segment_gradients(&of_tokens, team, 0, p->sums.count);
    }
}

#endif
