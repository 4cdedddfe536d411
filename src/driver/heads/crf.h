/* The forward and backward recursions of a conditional random field.
 *
 * With a[t][j] the logarithm of the sum of all paths to tag j at step t, relative to the largest,
 * and the transitions T cut into the largest of a column and the rest, T_ij = c_j + log(E_ij):
 *
 *     p[t] = e^a[t],  q[t+1] = p[t] E,  a[t+1] = log(q[t+1]) + c + emissions[t+1] - its largest
 *
 * so that pairs of tags take a multiply-add, and no exponential.  Backward, g[t] are the
 * probabilities of the tags at a step, and the gradient of log Z:
 *
 *     d[t+1] = g[t+1] / q[t+1],  g[t] = p[t] * (d[t+1] E^T),  dT = E * sum over t of p[t]^T d[t+1]
 *
 * What is below the least number in p or E counts only where a q is very small itself: these are
 * summed again in logarithms, with the same result for any inputs. */
#ifndef FL_DRIVER_HEADS_CRF_H
#define FL_DRIVER_HEADS_CRF_H

#include "driver/heads/crf_space.h"
#include "driver/heads/log_of_sum.h"

/* Below it, a sum may lack what was too small for p and E. */
static const real crf_rare = FL_DOUBLE ? (real)0x1p-950 : (real)0x1p-90f;

/* A group of rows, the longest first, and where its worker computes. */
typedef struct {
    const fl_crf_call *call;
    const fl_kernels *k;
    const crf_tables *tables;
    const crf_tape *tape;
    ptrdiff_t n, row[FL_CRF_ROWS], length[FL_CRF_ROWS];
    double log_z[FL_CRF_ROWS];
    real *grads; /* [K*K + K + K] of the run so far, or NULL */
} crf_group;

static void crf_find_rows(crf_group *g, ptrdiff_t first)
{
    const fl_crf_call *call = g->call;
    g->n = minimum(FL_CRF_ROWS, call->batch - first);
    for (ptrdiff_t i = 0; i < g->n; i++) {
        const ptrdiff_t length = crf_length(call, first + i);
        ptrdiff_t r = i;
        for (; r > 0 && g->length[r - 1] < length; r--) {
            g->length[r] = g->length[r - 1];
            g->row[r] = g->row[r - 1];
        }
        g->length[r] = length;
        g->row[r] = first + i;
        g->log_z[i] = 0;
    }
}

/* How many rows have this step: the first ones. */
static ptrdiff_t crf_active(const crf_group *g, ptrdiff_t t)
{
    ptrdiff_t n = g->n;
    while (n > 0 && g->length[n - 1] <= t) {
        n--;
    }
    return n;
}

/* z = rows times a matrix in panels, the rows `row` apart from each other, and so those of z. */
static void crf_product(const crf_group *g, ptrdiff_t rows, const real *from, ptrdiff_t row,
                        const real *panels, real *z, ptrdiff_t z_row)
{
    const ptrdiff_t size = 4 * g->k->lanes, tags = g->call->tags, columns = aligned(tags);
    const real *init[FL_MAX_ROWS], *a[FL_MAX_ROWS];
    for (ptrdiff_t j = 0; j < columns; j += size) {
        tiling tiles = tile_rows(g->k, rows);
        for (ptrdiff_t i = 0, tile; i < rows; i += tile) {
            tile = next_tile(&tiles);
            for (ptrdiff_t r = 0; r < tile; r++) {
                init[r] = zeros;
                a[r] = from + (i + r) * row;
            }
            const fl_term term = {a, 1, panels + j * tags, tags, NULL, {0}};
            g->k->product[FL_SAME](tile, minimum(4, (columns - j) / g->k->lanes), init, &term, 1,
                                   z + i * z_row + j, z_row);
        }
    }
}

/* The logarithm of the sum of paths to tag j at step t by way of each tag before, whose parts of it
 * are left in `weights`. */
static double crf_exact(const crf_group *g, ptrdiff_t r, ptrdiff_t t, ptrdiff_t j, real *weights)
{
    const ptrdiff_t columns = g->tables->columns;
    const real *a = crf_at(g->tape->a, g->tape, r, t - 1), *to = g->tables->to + j * columns;
    const real before = g->tape->largest[r * g->call->steps + t - 1];
    real top;
    for (ptrdiff_t i = 0; i < columns; i++) {
        weights[i] = (a[i] - before) + to[i];
    }
    const real sum = g->k->exponentials(columns, weights, weights, &top);
    if (sum == 0) {
        return -INFINITY;
    }
    for (ptrdiff_t i = 0; i < columns; i++) {
        weights[i] /= sum;
    }
    return (double)top + log_of_sum((double)sum);
}

/* a, p and the largest a of a step, from a without that. */
static void crf_leave(crf_group *g, ptrdiff_t r, ptrdiff_t t)
{
    const crf_tape *tape = g->tape;
    real *a = crf_at(tape->a, tape, r, t), top;
    for (ptrdiff_t j = g->call->tags; j < g->tables->columns; j++) {
        a[j] = -(real)INFINITY;
    }
    g->k->exponentials(g->tables->columns, a, crf_at(tape->p, tape, r, t), &top);
    tape->largest[r * g->call->steps + t] = top > -(real)INFINITY ? top : 0;
}

static void crf_first_step(crf_group *g, ptrdiff_t r)
{
    const real *start = g->call->start, *e = crf_emissions(g->call, 0, g->row[r]);
    real *a = crf_at(g->tape->a, g->tape, r, 0);
    for (ptrdiff_t j = 0; j < g->call->tags; j++) {
        a[j] = start[j] + e[j];
    }
    crf_leave(g, r, 0);
}

static void crf_next_step(crf_group *g, ptrdiff_t r, ptrdiff_t t)
{
    const ptrdiff_t tags = g->call->tags;
    const real *q = crf_at(g->tape->q, g->tape, r, t), *largest = g->tables->largest;
    const real *e = crf_emissions(g->call, t, g->row[r]);
    real *a = crf_at(g->tape->a, g->tape, r, t);
    int rare = 0;
    g->k->activate(FL_LOG, q, a, tags);
    for (ptrdiff_t j = 0; j < tags; j++) {
        a[j] += largest[j] + e[j];
        rare += q[j] < crf_rare;
    }
    for (ptrdiff_t j = 0; rare && j < tags; j++) {
        if (q[j] < crf_rare) {
            a[j] = (real)crf_exact(g, r, t, j, g->tape->weights) + e[j];
        }
    }
    crf_leave(g, r, t);
}

/* log Z, and the probabilities of the last tags. */
static void crf_last_step(crf_group *g, ptrdiff_t r)
{
    const ptrdiff_t tags = g->call->tags, columns = g->tables->columns, last = g->length[r] - 1;
    const real *a = crf_at(g->tape->a, g->tape, r, last), *end = g->call->end;
    real *p = g->tape->g + r * columns, top;
    for (ptrdiff_t j = 0; j < columns; j++) {
        p[j] = j < tags ? a[j] + end[j] : -(real)INFINITY;
    }
    const real sum = g->k->exponentials(columns, p, p, &top);
    for (ptrdiff_t j = 0; sum != 0 && j < tags; j++) {
        p[j] /= sum;
    }
    for (ptrdiff_t t = 0; t < last; t++) {
        g->log_z[r] += (double)g->tape->largest[r * g->call->steps + t];
    }
    g->log_z[r] += sum == 0 ? -INFINITY : (double)top + log_of_sum((double)sum);
}

static int crf_forward(crf_group *g, fl_watch *watch)
{
    const ptrdiff_t columns = g->tables->columns, row = g->call->steps * columns;
    for (ptrdiff_t t = 0; t < g->length[0]; t++) {
        const ptrdiff_t rows = crf_active(g, t);
        if (fl_leaves(watch, (double)(rows * g->call->tags) * (double)columns)) {
            return 0;
        }
        if (t > 0) {
            crf_product(g, rows, crf_at(g->tape->p, g->tape, 0, t - 1), row, g->tables->forward,
                        crf_at(g->tape->q, g->tape, 0, t), row);
        }
        for (ptrdiff_t r = 0; r < rows; r++) {
            if (t > 0) {
                crf_next_step(g, r, t);
            } else {
                crf_first_step(g, r);
            }
            if (t == g->length[r] - 1) {
                crf_last_step(g, r);
            }
        }
    }
    return 1;
}

/* q becomes d, but for those that were summed in logarithms: what they lead to is added to `rest`.
 * Returns whether there are any. */
static int crf_divide(crf_group *g, ptrdiff_t r, ptrdiff_t t, real *rest)
{
    const ptrdiff_t tags = g->call->tags, columns = g->tables->columns;
    const real *p = g->tape->g + r * columns;
    real *q = crf_at(g->tape->q, g->tape, r, t), *weights = g->tape->weights;
    int rare = 0;
    for (ptrdiff_t j = 0; j < tags; j++) {
        rare += q[j] < crf_rare;
    }
    for (ptrdiff_t i = 0; rare && i < columns; i++) {
        rest[i] = 0;
    }
    for (ptrdiff_t j = 0; rare && j < tags; j++) {
        if (!(q[j] < crf_rare) || p[j] == 0) {
            continue;
        }
        crf_exact(g, r, t, j, weights);
        for (ptrdiff_t i = 0; i < tags; i++) {
            const real part = weights[i] * p[j];
            rest[i] += part;
            if (g->grads) {
                g->grads[i * tags + j] += part;
            }
        }
    }
    for (ptrdiff_t j = 0; j < tags; j++) {
        q[j] = q[j] < crf_rare ? 0 : p[j] / q[j];
    }
    return rare;
}

/* Probabilities of a step, minus 1 for the label if the row has a possible path. */
static void crf_leave_marginals(crf_group *g, ptrdiff_t r, ptrdiff_t t)
{
    const fl_crf_call *call = g->call;
    const ptrdiff_t tags = call->tags, row = t * call->batch + g->row[r];
    const real *p = g->tape->g + r * g->tables->columns;
    real *out = (real *)call->marginals + row * tags;
    memcpy(out, p, (size_t)tags * sizeof(real));
    if (!g->grads) {
        return;
    }
    if (g->log_z[r] != -INFINITY) {
        out[call->labels[row]] -= 1;
    }
    for (ptrdiff_t j = 0; t == 0 && j < tags; j++) {
        g->grads[tags * tags + j] += out[j];
    }
    for (ptrdiff_t j = 0; t == g->length[r] - 1 && j < tags; j++) {
        g->grads[tags * tags + tags + j] += out[j];
    }
}

static int crf_backward(crf_group *g, fl_watch *watch)
{
    const ptrdiff_t tags = g->call->tags, columns = g->tables->columns;
    const ptrdiff_t row = g->call->steps * columns;
    for (ptrdiff_t t = g->length[0] - 1; t >= 0; t--) {
        const ptrdiff_t rows = crf_active(g, t);
        int has_rest[FL_CRF_ROWS];
        if (fl_leaves(watch, (double)(rows * tags) * (double)columns)) {
            return 0;
        }
        for (ptrdiff_t r = 0; r < rows; r++) {
            crf_leave_marginals(g, r, t);
            has_rest[r] = t > 0 && crf_divide(g, r, t, g->tape->rest + r * columns);
        }
        if (t == 0) {
            break;
        }
        crf_product(g, rows, crf_at(g->tape->q, g->tape, 0, t), row, g->tables->backward,
                    g->tape->u, columns);
        for (ptrdiff_t r = 0; r < rows; r++) {
            const real *p = crf_at(g->tape->p, g->tape, r, t - 1), *u = g->tape->u + r * columns;
            const real *rest = has_rest[r] ? g->tape->rest + r * columns : g->tables->zeros;
            for (ptrdiff_t i = 0; i < tags; i++) {
                g->tape->g[r * columns + i] = p[i] * u[i] + rest[i];
            }
        }
    }
    return 1;
}

/* Adds p^T d of a row to the sums. */
static void crf_pairs(const crf_group *g, ptrdiff_t r)
{
    const ptrdiff_t size = 4 * g->k->lanes, tags = g->call->tags, columns = g->tables->columns;
    const ptrdiff_t pairs = g->length[r] - 1;
    const real *p = crf_at(g->tape->p, g->tape, r, 0), *a[FL_MAX_ROWS], *init[FL_MAX_ROWS];
    const fl_range groups = {0, divide_up(columns, size)};
    pack_columns(crf_at(g->tape->q, g->tape, r, 1), pairs, columns, size, groups, g->tape->panels);
    for (ptrdiff_t j = 0; j < columns; j += size) {
        for (ptrdiff_t i = 0; i < tags; i += g->k->rows) {
            const ptrdiff_t tile = minimum(g->k->rows, tags - i);
            real *sums = g->tape->sums + i * columns + j;
            for (ptrdiff_t n = 0; n < tile; n++) {
                a[n] = p + i + n;
                init[n] = sums + n * columns;
            }
            const fl_term term = {a, columns, g->tape->panels + j * pairs, pairs, NULL, {0}};
            g->k->product[FL_SAME](tile, minimum(4, (columns - j) / g->k->lanes), init, &term, 1,
                                   sums, columns);
        }
    }
}

/* The gradient of the transitions, whose part from sums in logarithms is there. */
static int crf_transitions(crf_group *g, fl_watch *watch)
{
    const fl_crf_call *call = g->call;
    const ptrdiff_t tags = call->tags, columns = g->tables->columns;
    memset(g->tape->sums, 0, (size_t)(tags * columns) * sizeof(real));
    for (ptrdiff_t r = 0; r < g->n && g->length[r] > 1; r++) {
        if (fl_leaves(watch, (double)(g->length[r] * tags) * (double)columns)) {
            return 0;
        }
        crf_pairs(g, r);
    }
    for (ptrdiff_t i = 0; i < tags; i++) {
        for (ptrdiff_t j = 0; j < tags; j++) {
            const ptrdiff_t at = i * tags + j;
            g->grads[at] += g->tables->e[at] * g->tape->sums[i * columns + j];
        }
    }
    for (ptrdiff_t r = 0; r < g->n; r++) {
        const ptrdiff_t *label = call->labels + g->row[r];
        for (ptrdiff_t t = 1; t < g->length[r] && g->log_z[r] != -INFINITY; t++) {
            g->grads[label[(t - 1) * call->batch] * tags + label[t * call->batch]] -= 1;
        }
    }
    return 1;
}

/* The score of the labels of a row. */
static double crf_score(const fl_crf_call *call, ptrdiff_t row, ptrdiff_t length)
{
    const real *transitions = call->transitions, *start = call->start, *end = call->end;
    double score = 0;
    ptrdiff_t before = 0;
    for (ptrdiff_t t = 0; t < length; t++) {
        const ptrdiff_t label = call->labels[t * call->batch + row];
        score += (double)(t > 0 ? transitions[before * call->tags + label] : start[label]);
        score += (double)crf_emissions(call, t, row)[label];
        before = label;
    }
    return length > 0 ? score + (double)end[before] : 0;
}

static void crf_leave_losses(const crf_group *g)
{
    const fl_crf_call *call = g->call;
    for (ptrdiff_t r = 0; r < g->n; r++) {
        const ptrdiff_t row = g->row[r];
        const double z = g->log_z[r];
        ((real *)call->nll)[row] = !call->labels ? (real)z
                                   : z == -INFINITY
                                       ? (real)INFINITY
                                       : (real)(z - crf_score(call, row, g->length[r]));
        for (ptrdiff_t t = g->length[r]; t < call->steps; t++) {
            real *out = (real *)call->marginals + (t * call->batch + row) * call->tags;
            memset(out, 0, (size_t)call->tags * sizeof(real));
        }
    }
}

static int crf_group_of(crf_group *g, fl_watch *watch)
{
    if (!crf_forward(g, watch) || !crf_backward(g, watch) ||
        (g->grads && !crf_transitions(g, watch))) {
        return 0;
    }
    crf_leave_losses(g);
    return 1;
}

/* Groups one after the other, whose gradients are summed. */
static int crf_run_of(const fl_crf_call *call, const crf_space *space, const crf_tape *tape,
                      ptrdiff_t run, fl_watch *watch)
{
    const ptrdiff_t groups = crf_groups(call), runs = crf_runs(call), size = crf_grads_size(call);
    real *grads = call->labels ? space->grads + run * size : NULL;
    if (grads) {
        memset(grads, 0, (size_t)size * sizeof(real));
    }
    for (ptrdiff_t i = groups * run / runs; i < groups * (run + 1) / runs; i++) {
        crf_group g = {.call = call,
                       .k = call->kernels,
                       .tables = &space->tables,
                       .tape = tape,
                       .grads = grads};
        crf_find_rows(&g, i * FL_CRF_ROWS);
        if (!crf_group_of(&g, watch)) {
            return 0;
        }
    }
    return 1;
}

static void crf(void *argument, fl_worker *team)
{
    const fl_crf_call *call = argument;
    const crf_space space = crf_space_at(call);
    const fl_fpu saved = fl_fpu_enter();
    const fl_kind runs = {crf_runs(call), 1, 1};
    const crf_tape tape = crf_tape_at(call, &space, team->number);
    fl_watch watch = fl_watch_of(call->interrupt, team->number, 0);
    int going_on = 1;
    if (team->number == 0) {
        crf_prepare(call, &space.tables);
    }
    fl_meet(team);
    fl_work work = fl_begin(team, &runs, 1);
    for (fl_piece at; fl_next(&work, &at);) {
        for (ptrdiff_t run = at.units.begin; going_on && run < at.units.end; run++) {
            going_on = crf_run_of(call, &space, &tape, run, &watch);
        }
    }
    if (team->number == 0 && call->labels) {
        crf_add_grads(call, &space);
    }
    fl_fpu_leave(saved);
}

#endif
