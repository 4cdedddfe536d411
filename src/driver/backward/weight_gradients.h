/* The gradients of the weights, dz^T [x, h]: products of columns of dz with panels of the inputs.
 */
#ifndef FL_DRIVER_BACKWARD_WEIGHT_GRADIENTS_H
#define FL_DRIVER_BACKWARD_WEIGHT_GRADIENTS_H

#include "driver/backward/pass.h"

/* Some terms of the weight gradients, one per step and row, and where their factors are. */
typedef struct {
    ptrdiff_t n; /* 0: there are no more */
    const real *dz[FL_TERMS], *x[FL_TERMS], *h[FL_TERMS], *second_input[FL_TERMS];
    const real *recurrent_mask[FL_TERMS]; /* what h is multiplied by */
    ptrdiff_t token[FL_TERMS];
} term_rows;

/* The next ones of the shard in a segment, from step s0 to s1; returns where they end. */
static occurrence find_terms(const backward_pass *p, ptrdiff_t s0, ptrdiff_t s1, occurrence at,
                             term_rows *terms)
{
    const ptrdiff_t before = rows_before(&p->when, s0);
    const real *dz = dz_at(p, s0, 0);
    ptrdiff_t i = 0;
    for (; i < FL_TERMS; i++, at.rank++) {
        at = first_of_rows(&p->when, p->shard, s1, at);
        if (at.s == s1) {
            break;
        }
        const ptrdiff_t b = row_of(&p->when, at.rank), t = time_of(&p->when, at.rank, at.s);
        const ptrdiff_t row = at.s * p->when.batch + at.rank;
        terms->dz[i] = dz + (rows_before(&p->when, at.s) - before + at.rank) * p->dz_row;
        terms->x[i] = p->x_columns ? source_at(&p->x, t, b) : NULL;
        terms->h[i] = p->h_columns ? h_before(p, at.s, at.rank) : NULL;
        terms->second_input[i] =
            p->second_input_columns ? p->tape.second_input + row * p->hidden : NULL;
        terms->recurrent_mask[i] =
            p->tape.recurrent_mask ? p->tape.recurrent_mask + b * p->out_size : NULL;
        terms->token[i] = p->sums.recent ? p->x.tokens[t * p->x.step + b] : 0;
    }
    terms->n = i;
    return at;
}

/* The gradient of a matrix: columns of dz times rows of its input. */
typedef struct {
    const real *const *inputs; /* as in term_rows */
    ptrdiff_t width;           /* elements of an input */
    ptrdiff_t columns;         /* of the matrix: as many or, of U, as many as a head has units */
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
    m[0] = (matrix_gradient){terms->x,        p->x_columns, p->x_columns, 0,        p->rows,
                             mapped ? 0 : -1, NULL,         p->dw,        p->panels};
    m[1] = (matrix_gradient){terms->h,
                             p->h_columns,
                             p->head_size,
                             0,
                             p->recurrent,
                             mapped ? 1 : -1,
                             p->tape.recurrent_mask ? terms->recurrent_mask : NULL,
                             p->du,
                             of_h};
    m[2] = (matrix_gradient){terms->second_input,
                             p->second_input_columns,
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

/* Some columns of dz: column c, term i is at first + c * column_step + i * term_step. */
typedef struct {
    fl_range columns;
    const real *first;
    ptrdiff_t column_step, term_step;
    real *packed; /* [columns][FL_COLUMN_SIZE], or NULL: they are read where they are */
} dz_block;

/* The i-th of them, maybe beyond the last. */
static dz_block dz_block_at(const backward_pass *p, const term_rows *terms, ptrdiff_t i)
{
    if (!p->packs_dz) {
        return (dz_block){{i * p->factors, p->factors}, terms->dz[0], 1, p->dz_row, NULL};
    }
    real *packed = p->columns + i % 2 * FL_COLUMNS * FL_COLUMN_SIZE;
    const fl_range columns = {i * FL_COLUMNS, minimum((i + 1) * FL_COLUMNS, p->factors)};
    return (dz_block){columns, packed, FL_COLUMN_SIZE, 1, packed};
}

static inline ptrdiff_t columns_in(const dz_block *block)
{
    return block->columns.end - block->columns.begin;
}

/* Packing a block: cache lines of a row of dz, the last one with the columns that are left. */
static inline fl_kind lines_to_pack(const dz_block *block)
{
    const ptrdiff_t n = block->packed ? columns_in(block) : 0;
    return (fl_kind){n > 0 ? divide_up(n, FL_SUM_LANES) : 0, 1, 1};
}

static void pack_dz(const backward_pass *p, const term_rows *terms, const dz_block *block,
                    fl_range lines)
{
    const ptrdiff_t begin = lines.begin * FL_SUM_LANES;
    const ptrdiff_t end = minimum(lines.end * FL_SUM_LANES, columns_in(block));
    p->k->transpose(terms->n, end - begin, terms->dz, block->columns.begin + begin,
                    block->packed + begin * FL_COLUMN_SIZE, FL_COLUMN_SIZE);
}

/* The row of W (or U) and of its bias that a column of dz belongs to; -1: none.  Divisions for
 * all cells would take 3% (H = 256). */
static inline ptrdiff_t row_of_column(const backward_pass *p, int of_u, ptrdiff_t column)
{
    const ptrdiff_t gate = gate_of_slot(p->stack, of_u, column / p->hidden);
    return gate < 0 ? -1 : gate * p->hidden + column % p->hidden;
}

/* The rows of a matrix, or slots of it, whose columns of dz are in the block. */
static inline fl_range slots_in(const matrix_gradient *m, const dz_block *block)
{
    const ptrdiff_t first = block->columns.begin, end = minimum(m->end, block->columns.end);
    return (fl_range){m->begin > first ? m->begin : first, end};
}

/* Adds the products of some columns of dz, up to a tile, and some of the packed inputs: `own` of
 * those of one group, of which the first is column `begin` of the matrix. */
static void matrix_tile(const backward_pass *p, const term_rows *terms, const matrix_gradient *m,
                        const dz_block *block, fl_range columns, fl_range own, ptrdiff_t begin)
{
    const ptrdiff_t lanes = p->k->lanes, size = 4 * lanes, group = own.begin / size;
    const ptrdiff_t n = own.end - own.begin, lane = own.begin % lanes;
    const ptrdiff_t first = own.begin % size - lane; /* of whole vectors */
    real *const out = m->out + begin;
    _Alignas(FL_ALIGN) real tile_sums[FL_MAX_TILE];
    const real *a[FL_MAX_ROWS], *init[FL_MAX_ROWS], *sums[FL_MAX_ROWS];
    real *to[FL_MAX_ROWS];
    ptrdiff_t width = 0;
    for (ptrdiff_t column = columns.begin; column < columns.end; column++) {
        const ptrdiff_t row = m->of_u < 0 ? column - m->begin : row_of_column(p, m->of_u, column);
        if (row >= 0) {
            init[width] = zeros;
            sums[width] = tile_sums + width * size + lane;
            a[width] = block->first + (column - block->columns.begin) * block->column_step;
            to[width] = out + row * m->columns;
            fetch_to_write(to[width], n); /* 4% (H = 256) */
            width++;
        }
    }
    const real *panel = m->panels + group * FL_TERMS * size + first;
    const fl_term term = {a, block->term_step, panel, terms->n, NULL, {0}};
    if (width > 0) {
        p->k->product[FL_SAME](width, vectors_of(p, lane + n), init, &term, 1, tile_sums, size);
        p->k->add(width, n, sums, to);
    }
}

/* The same for some tiles of columns and a group of inputs.  Where inputs are of several heads, so
 * are columns: a tile is cut between them, and each has the inputs of its own head. */
static void matrix_tiles(const backward_pass *p, const term_rows *terms, const matrix_gradient *m,
                         const dz_block *block, ptrdiff_t group, fl_range tiles)
{
    const fl_range slots = slots_in(m, block);
    const fl_range inputs = units_of_part(4 * p->k->lanes, group, m->width);
    const ptrdiff_t rows = p->k->rows, size = m->columns;
    for (ptrdiff_t tile = tiles.begin; tile < tiles.end; tile++) {
        const ptrdiff_t end = minimum(slots.begin + (tile + 1) * rows, slots.end);
        fl_range columns = {slots.begin + tile * rows, end};
        if (size == m->width) {
            matrix_tile(p, terms, m, block, columns, inputs, inputs.begin);
            continue;
        }
        for (; columns.begin < end; columns.begin = columns.end) {
            const ptrdiff_t head = columns.begin % p->hidden / size;
            const fl_range own = units_of_head(size, head, inputs);
            columns.end = minimum(end, (columns.begin / size + 1) * size);
            if (own.begin < own.end) {
                matrix_tile(p, terms, m, block, columns, own, own.begin % size);
            }
        }
    }
}

/* The gradients of the weights from some terms and a block of dz; packs the next one. */
static void weight_gradients(const backward_pass *p, const term_rows *terms,
                             const matrix_gradient *m, const dz_block *block, const dz_block *next,
                             fl_worker *team)
{
    fl_kind kinds[FL_MATRICES + 1];
    for (int matrix = 0; matrix < FL_MATRICES; matrix++) {
        const fl_range slots = slots_in(&m[matrix], block);
        const ptrdiff_t n = slots.end - slots.begin;
        kinds[matrix] = (fl_kind){n > 0 ? divide_up(n, p->k->rows) : 0, FL_TILES_AT_ONCE,
                                  divide_up(m[matrix].width, 4 * p->k->lanes)};
    }
    kinds[FL_MATRICES] = lines_to_pack(next);
    fl_work work = fl_begin(team, kinds, FL_MATRICES + 1);
    for (fl_piece at; fl_next(&work, &at);) {
        if (at.kind == FL_MATRICES) {
            pack_dz(p, terms, next, at.units);
        } else {
            matrix_tiles(p, terms, &m[at.kind], block, at.time, at.units);
        }
    }
}

#endif
