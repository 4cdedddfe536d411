/* Rows as bytes, for weights of 8 bits. */
#ifndef FL_DRIVER_FORWARD_ROW_BYTES_H
#define FL_DRIVER_FORWARD_ROW_BYTES_H

#include "base/arena.h"
#include "kernels/table.h"
#include "layout/stack.h"

/* With FL_INT8, what the products read in place of rows: of x and h at this step, of the second
 * product's input, and of x at the steps that are projected ahead.  The units of each head are rows
 * of h of their own, those of the same head adjacent. */
typedef struct {
    fl_bytes x, h, second, ahead;
    ptrdiff_t head_rows; /* room of a head in h */
} row_bytes;

/* Those from the i-th row on. */
static inline fl_bytes bytes_from(const fl_bytes *of, ptrdiff_t i)
{
    return (fl_bytes){of->bytes + i * of->row, of->row, of->scales + i};
}

/* Room for bytes of so many rows of n elements for each worker; those of the next one follow, so
 * that one who is left alone has room for the rows of all. */
static fl_bytes take_bytes(arena *a, int workers, int worker, ptrdiff_t rows, ptrdiff_t n)
{
    const ptrdiff_t row = divide_up(n, FL_ALIGN) * FL_ALIGN;
    const ptrdiff_t size = divide_up(workers * rows * row, sizeof(real));
    const fl_bytes all = {(uint8_t *)arena_take(a, size), row, arena_take(a, workers * rows)};
    return a->base ? bytes_from(&all, worker * rows) : all;
}

/* Room for a worker's bytes, and how many elements of work space that is for all of them. */
static row_bytes row_bytes_at(const fl_forward_call *call, real *base, int worker, ptrdiff_t *size)
{
    const fl_stack *s = &call->stack;
    const ptrdiff_t above = s->layers > 1 ? input_size(s, 1) : 0;
    const ptrdiff_t inputs = s->input > above ? s->input : above;
    const ptrdiff_t most = call->plan.rows_worker;
    const ptrdiff_t rows = most > FL_MAX_ROWS ? most : FL_MAX_ROWS; /* or a tile of a table */
    const ptrdiff_t seconds = second_product_size(s) ? rows : 0;
    const int workers = call->plan.team.workers;
    arena a = {base, 0};
    row_bytes bytes = {0};
    if (s->weights == FL_INT8) {
        bytes.x = take_bytes(&a, workers, worker, rows, inputs);
        bytes.h = take_bytes(&a, workers, worker, s->heads * rows, head_size(s));
        bytes.head_rows = rows;
        bytes.second = take_bytes(&a, workers, worker, seconds, s->hidden);
        bytes.ahead = take_bytes(&a, workers, worker, call->plan.z_rows, inputs);
    }
    *size = a.used;
    return bytes;
}

#endif
