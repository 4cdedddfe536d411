/* A step of a plain layer backward: all products, then all gradients. */
#ifndef FL_DRIVER_BACKWARD_PLAIN_STEP_H
#define FL_DRIVER_BACKWARD_PLAIN_STEP_H

#include "driver/backward/step.h"

/* dh of a tile of a plain layer: tiles of a group are adjacent. */
static inline real *plain_dh_at(const backward_pass *p, const worker_share *me,
                                const backward_tile *at)
{
    const ptrdiff_t rank = rank_at(&me->rows, at->i);
    return p->dh_rows + (at->group * p->when.batch + rank) * 4 * p->k->lanes;
}

/* dz of a tile of a plain layer, and dc for the step before. */
static void plain_gradient(const backward_pass *p, const worker_share *me, const backward_tile *at,
                           const real *dh)
{
    gradient_tile tile;
    find_gradient_tile(1, p, seen_as(&p->when, 1), me, at, dh, 4 * p->k->lanes, &tile);
    p->k->gradient[p->stack->cell](at->rows, &tile.gradient);
}

/* What the products of a step ask for meanwhile: weights that may not be in L2, and the part of the
 * tape that the gradients of this step read, which is in L3 at best.  Where U is larger than L2, it
 * keeps L3 busy enough.  (H = 64 and 128: the tape 4% of backward; H = 512 and 650: U 4%, with the
 * tape too 2 to 3.) */
typedef struct {
    const real *tape, *end; /* of which nothing is asked for yet */
    ptrdiff_t panel;        /* elements of one of U */
    fl_range share;         /* of groups */
} step_fetch;

static step_fetch fetch_of(const backward_pass *p, const worker_share *me, fl_range share,
                           ptrdiff_t s, ptrdiff_t rows)
{
    const ptrdiff_t groups = divide_up(p->hidden, 4 * p->k->lanes),
                    row = p->blocks * 4 * p->k->lanes;
    const real *tape = p->tape.gates + (s * p->when.batch + rank_at(&me->rows, 0)) * row;
    const int whole = p->fetches_tape && me->rows.step == 1 && share.end - share.begin == groups;
    return (step_fetch){tape, whole ? tape + rows * row : tape, p->rows * 4 * p->k->lanes, share};
}

/* What the tile of that number of a group asks for; `next` is the group that follows. */
static const void *next_to_fetch(step_fetch *fetch, const backward_pass *p, ptrdiff_t next,
                                 int number)
{
    const int there = next >= fetch->share.begin && next < fetch->share.end;
    const real *weights = NULL;
    if (p->fetches_weights && there) {
        weights = part_to_fetch(p->k, p->cell.u + next * fetch->panel, p->rows, number);
    }
    if (weights || fetch->tape >= fetch->end) {
        return weights;
    }
    const real *tape = fetch->tape;
    fetch->tape += p->recurrent * FL_ALIGN / (ptrdiff_t)sizeof(real);
    return tape;
}

/* Some groups of a step of a plain layer.  All products come first: they read the weights without a
 * break, and the gradients the tape in its order (H = 256 and 512: 2%).  One group needs no rows
 * that lie beside those of other workers (two of them, H = 32: 6%). */
static void plain_groups(const backward_pass *p, const worker_share *me, fl_range groups,
                         fl_range share, ptrdiff_t s, ptrdiff_t rows, ptrdiff_t going_on)
{
    const int one = groups.end - groups.begin == 1;
    step_fetch fetch = fetch_of(p, me, share, s, rows);
    const tiling cut = tile_rows(p->k, rows);
    _Alignas(FL_ALIGN) real local[FL_MAX_TILE];
    const ptrdiff_t opposite = share.begin + share.end - groups.end;
    groups = s % 2 ? (fl_range){opposite, opposite + groups.end - groups.begin} : groups;
    for (ptrdiff_t done = 0; done < groups.end - groups.begin; done++) {
        const ptrdiff_t group = s % 2 ? groups.end - 1 - done : groups.begin + done;
        const ptrdiff_t next = s % 2 ? group - 1 : group + 1;
        int number = 0;
        tiling tiles = cut;
        for (ptrdiff_t i = 0, tile; i < rows; i += tile) {
            tile = next_tile(&tiles);
            const void *lines = next_to_fetch(&fetch, p, next, number++);
            const backward_tile at = {s, i, tile, going_on, group, lines};
            real *dh = one ? local : plain_dh_at(p, me, &at);
            hidden_gradient(1, p, seen_as(&p->when, 1), me, &at, dh);
            if (one) {
                plain_gradient(p, me, &at, dh);
            }
        }
    }
    tiling tiles = cut;
    for (ptrdiff_t i = 0, tile; i < rows && !one; i += tile) {
        tile = next_tile(&tiles);
        for (ptrdiff_t group = groups.begin; group < groups.end; group++) {
            const backward_tile at = {s, i, tile, going_on, group, NULL};
            plain_gradient(p, me, &at, plain_dh_at(p, me, &at));
        }
    }
}

static void plain_step(const backward_pass *p, const worker_share *me, ptrdiff_t s, ptrdiff_t rows,
                       ptrdiff_t going_on)
{
    const fl_kind groups = {divide_up(p->hidden, 4 * p->k->lanes), 1, 1};
    fl_work work = fl_begin(me->team, &groups, 1);
    for (fl_piece at; fl_next(&work, &at);) {
        plain_groups(p, me, at.units, at.share, s, rows, going_on);
    }
}

#endif
