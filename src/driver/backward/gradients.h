/* What follows from the gradients of the pre-activations, dz: the gradients of the inputs (dz W)
 * and of the weights (dz^T [x, h]).
 *
 * Segments lie at fixed multiples of a length that depends on the rows of a shard alone, and the
 * weight gradient of up to FL_TERMS terms is a sum of its own before it is added: the rounding does
 * not depend on threads, and grows with the number of such sums, not of terms. */
#ifndef FL_DRIVER_BACKWARD_GRADIENTS_H
#define FL_DRIVER_BACKWARD_GRADIENTS_H

#include "driver/backward/input_gradients.h"
#include "driver/backward/weight_gradients.h"

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
            if (of_x >= 0 && of_h >= 0 && p->db_hh) {
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
    const ptrdiff_t segment = segment_of(p->shard_rows); /* p->segment may be cut by a short call */
    const ptrdiff_t pieces = divide_up(segment * p->shard_rows, FL_TERMS);
    const ptrdiff_t piece = (p->first_step + s0) / segment * pieces + first / FL_TERMS;
    const real *from[FL_TERMS];
    real *to[FL_TERMS];
    for (ptrdiff_t i = 0; i < terms->n; i++) {
        from[i] = terms->dz[i] + columns.begin;
        to[i] = p->sums.recent + terms->token[i] * p->sums.row + columns.begin;
    }
    p->k->add(terms->n, columns.end - columns.begin, from, to);
    if (piece > 0 && piece % FL_RECENT == 0) { /* token_gradients settles the last ones */
        settle_tokens(&p->sums, p->k, columns);
    }
}

/* The columns of some groups of 4*VL. */
static inline fl_range columns_of(const backward_pass *p, fl_range groups, ptrdiff_t columns)
{
    const ptrdiff_t size = 4 * p->k->lanes;
    return (fl_range){groups.begin * size, minimum(groups.end * size, columns)};
}

/* What needs no more than the dz of the segment that begins at s0: single units, tokens, what the
 * products with dz are made of and, for the n rows of the segment, dx; n is 0 where it is there. */
static void prepare_terms(const backward_pass *p, const term_rows *terms, const matrix_gradient *m,
                          fl_worker *team, ptrdiff_t s0, ptrdiff_t first, ptrdiff_t n)
{
    enum { COLUMNS = FL_MATRICES, UNITS, TOKENS, INPUTS, KINDS };
    const dz_block block = dz_block_at(p, terms, 0);
    const ptrdiff_t size = 4 * p->k->lanes;
    const fl_kind kinds[KINDS] = {
        {divide_up(m[0].width, size), 1, 1},
        {divide_up(m[1].width, size), 1, 1},
        {divide_up(m[2].width, size), 1, 1},
        lines_to_pack(&block),
        {divide_up(p->hidden, size), 1, 1},
        {p->sums.recent ? divide_up(p->rows, size) : 0, 1, 1},
        {divide_up(n, p->k->rows), 1, p->dx.data ? divide_up(p->x_columns, size) : 0},
    };
    fl_work work = fl_begin(team, kinds, KINDS);
    for (fl_piece at; fl_next(&work, &at);) {
        switch (at.kind) {
        case COLUMNS: pack_dz(p, terms, &block, at.units); break;
        case UNITS: unit_gradients(p, terms, columns_of(p, at.units, p->hidden)); break;
        case TOKENS: sum_tokens(p, terms, s0, first, columns_of(p, at.units, p->rows)); break;
        case INPUTS: input_gradients(p, s0, n, at.units, at.time); break;
        default: pack_inputs(p, terms, &m[at.kind], at.units);
        }
    }
}

/* What the dz of a segment give: the gradients of a shard and, with the first of its terms, dx of
 * all rows.  Returns whether there are any terms. */
static int shard_gradients(const backward_pass *p, fl_worker *team, ptrdiff_t s0, ptrdiff_t s1,
                           int with_dx)
{
    const ptrdiff_t rows = with_dx ? rows_before(&p->when, s1) - rows_before(&p->when, s0) : 0;
    occurrence at = {s0, 0};
    for (ptrdiff_t first = 0;; first += FL_TERMS) {
        term_rows terms;
        matrix_gradient matrices[FL_MATRICES];
        at = find_terms(p, s0, s1, at, &terms);
        if (terms.n == 0) {
            return first > 0;
        }
        find_matrices(p, &terms, matrices);
        prepare_terms(p, &terms, matrices, team, s0, first, first == 0 ? rows : 0);
        dz_block block = dz_block_at(p, &terms, 0);
        for (ptrdiff_t i = 1; columns_in(&block) > 0; i++) {
            const dz_block next = dz_block_at(p, &terms, i);
            weight_gradients(p, &terms, matrices, &block, &next, team);
            block = next;
        }
    }
}

/* Everything that the dz of a segment give. */
static void segment_gradients(const backward_pass *p, fl_worker *team, ptrdiff_t s0, ptrdiff_t s1)
{
    int with_dx = 1;
    fl_meet(team); /* all dz of the segment are there */
    for (ptrdiff_t i = 0; i < shard_count(p); i++) {
        const backward_pass of_shard = pass_of_shard(p, i);
        with_dx &= !shard_gradients(&of_shard, team, s0, s1, with_dx);
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
        of_tokens.factors = p->rows;
        of_tokens.h_columns = 0;
        of_tokens.second_input_columns = 0;
        of_tokens.db_ih = NULL;
        of_tokens.at.gain = of_tokens.at.peephole = -1;
        of_tokens.sums.recent = NULL;
        of_tokens.shard = (fl_range){0, 1};
        fl_meet(team); /* the sums are settled */
        shard_gradients(&of_tokens, team, 0, p->sums.count, 1);
    }
}

#endif
