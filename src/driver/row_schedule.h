/* Which rows of a batch are active at a step, where they are in time, and whose state is reset.
 *
 * Rows of different lengths are taken longest first, so that those active at a step are the
 * first of them; a row's number in that order is its rank.  Step s of the reverse direction is the
 * s-th from a row's own end. */
#ifndef FL_DRIVER_ROW_SCHEDULE_H
#define FL_DRIVER_ROW_SCHEDULE_H

#include "base/real.h"
#include "base/team.h"
#include "fastlstm.h"

typedef struct {
    fl_rows rows; /* of the call */
    ptrdiff_t steps, batch;
    int reverse;
} row_schedule;

/* Rows of one length whose states are never reset. */
static inline int is_plain(const row_schedule *t) { return !t->rows.order && !t->rows.reset; }

/* A copy.  Where `plain` is a constant 1 the compiler sees that there is nothing to look up: 5% of
 * the time of a small layer (H = 32, B = 16). */
FL_INLINE row_schedule seen_as(const row_schedule *t, const int plain)
{
    row_schedule copy = *t;
    if (plain) {
        copy.rows = (fl_rows){NULL, NULL, NULL, NULL};
    }
    return copy;
}

static inline ptrdiff_t row_of(const row_schedule *t, ptrdiff_t rank)
{
    return t->rows.order ? t->rows.order[rank] : rank;
}

static inline ptrdiff_t length_of(const row_schedule *t, ptrdiff_t rank)
{
    return t->rows.lengths ? t->rows.lengths[rank] : t->steps;
}

static inline ptrdiff_t time_of(const row_schedule *t, ptrdiff_t rank, ptrdiff_t s)
{
    return t->reverse ? length_of(t, rank) - 1 - s : s;
}

/* Whether the state is zero before a row's step: an episode starts there, or ends, in reverse. */
static inline int is_reset(const row_schedule *t, ptrdiff_t rank, ptrdiff_t time)
{
    const ptrdiff_t edge = time + t->reverse;
    return t->rows.reset && edge < length_of(t, rank) && edge < t->steps &&
           t->rows.reset[edge * t->batch + row_of(t, rank)];
}

/* Active rows of the steps before s: where those of step s begin in a list of all. */
static inline ptrdiff_t rows_before(const row_schedule *t, ptrdiff_t s)
{
    return t->rows.starts ? t->rows.starts[s] : s * t->batch;
}

/* Some ranks: first, first + step, ...  Workers that share rows take turns in the order of
 * lengths, so that all have long and short ones. */
typedef struct {
    ptrdiff_t first, step, count;
} ranks;

static inline ranks all_ranks(ptrdiff_t batch) { return (ranks){0, 1, batch}; }

static inline ranks ranks_of_worker(const row_schedule *t, int worker, int workers)
{
    if (t->rows.order) {
        const ptrdiff_t more = t->batch - worker + workers - 1;
        return (ranks){worker, workers, more < 0 ? 0 : more / workers};
    }
    const fl_range part = fl_part(t->batch, workers, worker);
    return (ranks){part.begin, 1, part.end - part.begin};
}

static inline ptrdiff_t rank_at(const ranks *p, ptrdiff_t i) { return p->first + i * p->step; }

/* How many of them are active at step s, if `n` are at a step next to it. */
static inline ptrdiff_t active_rows(const row_schedule *t, const ranks *p, ptrdiff_t s, ptrdiff_t n)
{
    if (!t->rows.lengths) {
        return p->count;
    }
    while (n > 0 && length_of(t, rank_at(p, n - 1)) <= s) {
        n--;
    }
    while (n < p->count && length_of(t, rank_at(p, n)) > s) {
        n++;
    }
    return n;
}

/* The step and rank of the i-th of the rows active from step s0 on. */
typedef struct {
    ptrdiff_t s, rank;
} occurrence;

static inline occurrence occurrence_at(const row_schedule *t, ptrdiff_t s0, ptrdiff_t i)
{
    if (!t->rows.starts) {
        return (occurrence){s0 + i / t->batch, i % t->batch};
    }
    const ptrdiff_t target = t->rows.starts[s0] + i;
    ptrdiff_t low = s0, high = t->steps; /* starts[low] <= target < starts[high] */
    while (high - low > 1) {
        const ptrdiff_t middle = low + (high - low) / 2;
        if (t->rows.starts[middle] <= target) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return (occurrence){low, target - t->rows.starts[low]};
}

/* The first one, of this or a later one of the steps before `end`, that is of some rows. */
static inline occurrence first_of_rows(const row_schedule *t, fl_range rows, ptrdiff_t end,
                                       occurrence at)
{
    while (at.s < end) {
        const ptrdiff_t active = rows_before(t, at.s + 1) - rows_before(t, at.s);
        if (at.rank >= active) {
            at = (occurrence){at.s + 1, 0};
            continue;
        }
        const ptrdiff_t row = row_of(t, at.rank);
        if (row >= rows.begin && row < rows.end) {
            break;
        }
        /* Without an order ranks are rows: those of a shard are adjacent. */
        at.rank = t->rows.order ? at.rank + 1 : row < rows.begin ? rows.begin : active;
    }
    return at;
}

/* The one after it. */
static inline occurrence next_occurrence(const row_schedule *t, occurrence at)
{
    if (at.rank + 1 < rows_before(t, at.s + 1) - rows_before(t, at.s)) {
        return (occurrence){at.s, at.rank + 1};
    }
    return (occurrence){at.s + 1, 0};
}

#endif
