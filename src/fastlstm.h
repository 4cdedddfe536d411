/* The C API: what the binding (fastlstm/_core/) sees of the driver.
 *
 * Letters: L layers, D directions, T steps, B batch rows, I input size, H hidden size, P size of
 * the projection, Hout size of an output.
 * Sizes and strides are counted in elements.  Data pointers are void because float and double
 * share these structs: each driver reads them as its own element type.
 *
 * Nothing here allocates or fails.  The caller checks shapes, asks for sizes, allocates
 * (FL_ALIGN-aligned), and then runs the same job in every thread of a team. */
#ifndef FASTLSTM_H
#define FASTLSTM_H

#include <stddef.h>
#include <stdint.h>

#include "base/align.h"
#include "base/fpu.h"
#include "base/interrupt.h"
#include "base/team.h"
#include "base/team_size.h"
#include "base/threads.h"
#include "cells.h"
#include "weight_types.h"

typedef struct {
    int kind; /* fl_function_kind */
    double alpha, beta;
} fl_function;

/* What a cell of FL_LSTM_OPTIONS can have beyond a plain one; fastlstm/reference/options.py defines
 * it. */
typedef struct {
    int peephole, coupled, layer_norm;
    double layer_norm_eps;         /* added to variances, above 0 */
    double preact_clip, cell_clip; /* infinity: none */
    double zoneout_h, zoneout_c;   /* rates */
    fl_function functions[2][3];   /* by direction: of gates, candidate and cell state */
} fl_options;

/* A stack of layers.  Flat parameters and gradients are, for each layer and direction,
 * W [GH, I or D*Hout], U [GH, Hout / heads] and, with bias, b_ih [GH], b_hh [GH] (if the cell has
 * it), where G is the number of gates; then the projection [P, H], peepholes [3H] (i, f, o; if
 * coupled [2H]), gains of the layer norm [GH], if there are any.  Hidden states and outputs have
 * Hout = P units, or H without a projection. */
typedef struct {
    ptrdiff_t layers, directions, input, hidden;
    ptrdiff_t projection; /* P, or 0; of an LSTM */
    ptrdiff_t heads;      /* H units in so many parts: U leads from each to itself alone */
    int bias;
    int cell;    /* fl_cell */
    int weights; /* fl_weight_type; what is not FL_SAME is float32, and runs forward only */
    fl_options options;
} fl_stack;

/* What one instruction set provides: the kernels of both element types (struct fl_kernels_f32 and
 * fl_kernels_f64 in kernels/table.h). */
typedef struct {
    const char *name; /* as in FASTLSTM_ISA and fastlstm.isas() */
    const void *f32, *f64;
} fl_isa;

/* The i-th instruction set that this CPU and operating system can run, best first, or NULL. */
const fl_isa *fl_isa_at(int i);

/* Rows of different lengths, and states that are reset.  Lengths count from the first step of the
 * call: a row whose length is above `steps` goes on in a later call, one below 1 has ended. */
typedef struct {
    const ptrdiff_t *order;     /* [B]: rows, longest first; NULL: all as long as the call */
    const ptrdiff_t *lengths;   /* [B] in that order */
    const ptrdiff_t *starts;    /* [T+1]: how many rows were active at all steps before */
    const unsigned char *reset; /* [T,B]: the state is zero before this step; NULL: never */
} fl_rows;

/* Weights from the order of parameters to that of the kernels.  Where they have fewer bits, the
 * flat vector has values that need no more: rounded ones, or integers. */
typedef struct {
    const fl_stack *stack;
    const void *kernels;
    const void *flat;
    const void
        *scales;  /* FL_INT8: of the rows of W, U and the projection of each layer, direction */
    void *packed; /* forward_size or backward_size elements */
} fl_pack_call;

/* The data caches of a core. */
typedef struct {
    ptrdiff_t l1d, l2, l3;      /* bytes; l3 is 0 where there is none */
    int l2_sharers, l3_sharers; /* cores that share one, at least 1 */
    int siblings;               /* hardware threads of a core */
    int l3_rate;                /* bytes a cycle that a core reads from L3, assumed by the maker */
} fl_caches;

/* Those of this machine, asked once. */
const fl_caches *fl_machine_caches(void);

/* Those that Linux describes in a folder, /sys/devices/system/cpu/cpu0/cache; whether it does. */
int fl_linux_caches(const char *folder, fl_caches *caches);

/* How many workers a call may have.  `processors` of them can run at a time. */
typedef struct {
    int threads, processors;
    int most;                /* for a while, because teams lose time: see base/team_size.h */
    int live;                /* a step or a block of a stream, which somebody waits for */
    const fl_caches *caches; /* the plan is made for this L2 */
} fl_team_limits;

/* Input as numbers of rows: x is then a table [count, I], and step t, row b reads row
 * rows[t * B + b] of it.  Without a table (x is NULL) the rows are those of the unit matrix, count
 * = I. */
typedef struct {
    const ptrdiff_t *rows; /* [T,B]; NULL: x is a sequence */
    ptrdiff_t count;
} fl_tokens;

/* How a call is shared among threads, cut along time, and laid out in its work space. */
typedef struct {
    fl_team_plan team;
    int split_units;  /* workers share the hidden units (and meet each step), not the rows */
    ptrdiff_t blocks; /* of VL hidden units */
    ptrdiff_t chunk;  /* forward: steps that one layer runs before the next layer starts */
    ptrdiff_t ahead;  /* forward: steps whose input projection precedes the recurrence, or 0 */
    int fetches_weights,
        fetches_tape;  /* backward: U, the tape are asked for before they are read */
    ptrdiff_t segment; /* backward: steps whose gate gradients are kept for those of W, U and x */
    ptrdiff_t between[2]; /* forward: where the outputs of lower layers lie in the work space */
    ptrdiff_t row_pointers, rows_worker; /* forward: where pointers to rows lie; rows of a worker */
    ptrdiff_t bytes;                     /* forward: where rows lie as bytes */
    ptrdiff_t z, z_worker; /* forward: where the projections lie, and their size for a worker */
    ptrdiff_t z_rows;      /* of them */
    ptrdiff_t zeros, zeros_worker; /* where zero states lie, and how many for a worker */
    ptrdiff_t gates;               /* forward: where rows of gates wait for the rest of a step */
    ptrdiff_t second_input;        /* forward: where rows for the second product of a step lie */
    ptrdiff_t masked_h; /* forward: where what U reads lies, after recurrent dropout: two steps */
    ptrdiff_t zoneout_keep, zoneout_keep_worker; /* where zoneout's factors lie, as above */
    ptrdiff_t table;   /* forward: where the projected table lies: [D][count][blocks][4][VL] */
    int project_table; /* forward: project the table's rows, not those of the steps */
    ptrdiff_t scratch; /* elements of work space */
} fl_plan;

/* Random choices of training: see driver/dropout.h. */
typedef struct {
    uint64_t key;
    double rate;      /* between layers; 0: none */
    double recurrent; /* of what U reads: a mask for all steps; 0: none */
    int zoneout;      /* at random; 0: by its rates, as in inference */
    /* Rows of the batch that the rows of the call are a part of, and the first of them: a row draws
     * the same whatever part it is in.  0, 0: the batch is that of the call. */
    ptrdiff_t batch, first_row;
} fl_dropout;

/* Rows in shards, whose gradients are sums of their own: they do not depend on what other rows are
 * in the call. */
typedef struct {
    ptrdiff_t count;         /* 0: all rows are one, and the rest of this is not read */
    const ptrdiff_t *starts; /* [count + 1]: where they begin, and where the last one ends */
    ptrdiff_t most_rows;     /* of a shard of the whole batch, those of other calls included */
} fl_shards;

/* One call, forward. */
typedef struct {
    fl_stack stack;
    const void *kernels;
    const void *packed; /* see pack_forward */
    ptrdiff_t steps, batch;
    ptrdiff_t first_step; /* where the call stands in a longer one: counts for dropout */
    const void *x;        /* [T,B,I], features adjacent */
    ptrdiff_t x_step, x_row;
    fl_tokens tokens;
    fl_rows rows;
    void *y; /* [T,B,D*Hout], features adjacent; must not overlap x */
    ptrdiff_t y_step, y_row;
    /* In the order of cells.h, [L*D,B,state_size] contiguous: initial state in, final state out. */
    void *states[FL_MAX_STATES];
    void *tape;         /* tape_size elements: what backward needs; NULL for inference */
    fl_dropout dropout; /* zeros without a tape */
    void *scratch;
    fl_interrupt *interrupt; /* or NULL; a call that ends early leaves nothing of use */
    fl_plan plan;
} fl_forward_call;

/* One call, backward.  Parameters, x, tape and dropout must be those of the forward call. */
typedef struct {
    fl_stack stack;
    const void *kernels;
    const void *packed; /* see pack_backward */
    ptrdiff_t steps, batch;
    ptrdiff_t first_step;
    const void *x;
    ptrdiff_t x_step, x_row;
    fl_tokens tokens;
    fl_rows rows;
    const void *tape;
    fl_dropout dropout;
    const void *dy; /* [T,B,D*Hout], features adjacent */
    ptrdiff_t dy_step, dy_row;
    void *dstates[FL_MAX_STATES]; /* like states: gradients of the final ones in, of initial out */
    void *dx;                     /* like x, features adjacent, or NULL if not wanted */
    ptrdiff_t dx_step, dx_row;
    fl_shards
        shards;  /* there are `count` of grads, sums, and tables of dx then, one after another */
    void *grads; /* flat, zeroed by the caller before the last steps of a sequence */
    void *sums;  /* with tokens, sums_size elements, zeroed likewise */
    /* A sequence may be back-propagated in calls, the last steps first, each of a whole number of
     * segments.  What passes between them are gradients of pre-activations, not of h: so the chain
     * of a sum does not end where a call does. */
    int earlier, later; /* whether there are calls for earlier steps, and for later ones */
    void *boundary_dz;  /* [L*D,B,4H]: of the step after the last in, of the first step out */
    void *scratch;
    fl_interrupt *interrupt; /* as forward */
    fl_plan plan;
} fl_backward_call;

/* A head: a linear layer, and the loss of N predictions of V values: -log p(target) after a
 * softmax, or half the sum of squared errors.  Matrices are in rows of adjacent elements, W in rows
 * of H; nothing overlaps.  What is NULL is left out:
 *
 *     z = y W^T + bias, or given
 *     losses of z, and z = their gradient, if there are losses
 *     z_out = z,  dy = z W,  dweight += z^T y,  dbias += the sum of z
 *
 * So z without losses is the gradient of a linear layer's outputs, and with losses, what they are
 * of: then there need not be y and W. */
typedef struct {
    const void *kernels;
    ptrdiff_t n, hidden, classes;
    const void *y; /* [N,H] */
    ptrdiff_t y_row;
    const void *weight, *bias; /* [V,H], [V] */
    const void *z;             /* [N,V] */
    const ptrdiff_t *targets;  /* [N], each in [0, V); or NULL: */
    const void *values;        /* [N,V], what squared errors are from */
    void *losses;              /* [N] */
    double scale;              /* of all losses, in their gradient */
    const void *weights; /* [N]: of each one, a factor of its scale; NULL: 1.  Of 0: no gradient */
    void *z_out;         /* [N,V] */
    void *dy;            /* [N,H] */
    ptrdiff_t dy_row;
    ptrdiff_t batch;       /* rows of a step: predictions are [N / batch][batch] */
    fl_shards shards;      /* of these rows: there are `count` of dweight and dbias then, */
    ptrdiff_t grads_step;  /* so far apart */
    void *dweight, *dbias; /* [V,H], [V] */
    void *scratch;
    ptrdiff_t scratch_size; /* elements; this and the team's size come from plan_head */
    fl_team_plan team;
} fl_head_call;

/* A conditional random field: the score of the tags of a row is that of its first tag to begin
 * with, of each tag at its step, of each pair of neighbours, and of the last tag to end with. */
typedef struct {
    const void *kernels;
    ptrdiff_t steps, batch, tags;
    const void *emissions; /* [T,B,K], scores of tags adjacent */
    ptrdiff_t emissions_step, emissions_row;
    const void *transitions, *start, *end; /* [K,K] from, to; [K], [K] */
    const ptrdiff_t *lengths;              /* [B], or NULL: T */
    const ptrdiff_t *labels;               /* [T,B], each in [0, K); or NULL: */
    void *nll;       /* [B]: -log p(labels); log of the sum of all paths without labels */
    void *marginals; /* [T,B,K]: p(tag at a step), minus 1 for the labels: gradients of nll */
    void *grads;     /* with labels, [K*K + K + K]: of the sum of nll, transitions, start, end */
    ptrdiff_t *path; /* [T,B]: decode leaves the best one, and only that */
    void *scratch;
    ptrdiff_t scratch_size; /* elements; this and the team's size come from plan_crf */
    fl_interrupt *interrupt;
    fl_team_plan team;
} fl_crf_call;

/* Connectionist temporal classification of rows of logits [T,B,K]. */
typedef struct {
    const void *kernels;
    ptrdiff_t steps, batch, symbols;
    const void *logits; /* [T,B,K], symbols adjacent */
    ptrdiff_t logits_step, logits_row;
    const ptrdiff_t *lengths; /* [B] */
    const ptrdiff_t *targets; /* [B,S], in [0, K) without the blank */
    ptrdiff_t targets_row;
    const ptrdiff_t *target_lengths; /* [B] */
    ptrdiff_t most_targets;          /* the largest of them */
    ptrdiff_t blank;
    void *nll;     /* [B]; infinity where no path leads to the target, */
    void *dlogits; /* [T,B,K]: gradients of nll; 0 there, and beyond the end of a row */
    void *scratch;
    ptrdiff_t scratch_size; /* elements; this and the team's size come from plan_ctc */
    fl_interrupt *interrupt;
    fl_team_plan team;
} fl_ctc_call;

/* What is computed in one call of a kernel. */
typedef struct {
    ptrdiff_t rows, units;
} fl_tile_size;

/* Fields of a tape that can be read: gate slots 0 to 3, and from here on the states. */
enum { FL_TRACE_STATES = 4 };

/* The driver for one element type.  The plans are made by one thread and read by all workers;
 * every worker of the team calls the job. */
typedef struct {
    ptrdiff_t (*parameters_size)(const fl_stack *stack);
    ptrdiff_t (*scales_size)(const fl_stack *stack);           /* of fl_pack_call */
    ptrdiff_t (*state_size)(const fl_stack *stack, int state); /* units of a row of one state */
    ptrdiff_t (*forward_size)(const fl_stack *stack, const void *kernels);
    ptrdiff_t (*backward_size)(const fl_stack *stack, const void *kernels);
    fl_job pack_forward, pack_backward; /* of an fl_pack_call */
    ptrdiff_t (*tape_size)(const fl_stack *stack, const void *kernels, ptrdiff_t steps,
                           ptrdiff_t batch, const fl_dropout *dropout);
    ptrdiff_t (*sums_size)(const fl_stack *stack, ptrdiff_t count);
    ptrdiff_t (*segment)(ptrdiff_t batch); /* steps of a segment of a long sequence */
    void (*plan_forward)(fl_forward_call *call, fl_team_limits limits, int training);
    void (*plan_backward)(fl_backward_call *call, fl_team_limits limits);
    /* The largest tile forward, of so many rows and blocks of a worker. */
    fl_tile_size (*tile_size)(const void *kernels, ptrdiff_t rows, ptrdiff_t blocks);
    fl_job forward;  /* of an fl_forward_call */
    fl_job backward; /* of an fl_backward_call */
    void (*read_tape)(const fl_forward_call *call, ptrdiff_t layer, ptrdiff_t direction, int field,
                      void *out);
    void (*plan_head)(fl_head_call *call, fl_team_limits limits);
    fl_job head; /* of an fl_head_call */
    void (*plan_crf)(fl_crf_call *call, fl_team_limits limits);
    fl_job crf, crf_decode; /* of an fl_crf_call */
    void (*plan_ctc)(fl_ctc_call *call, fl_team_limits limits);
    fl_job ctc; /* of an fl_ctc_call */
    /* sigmoid (which = 0), tanh, exp, log or log sigmoid (4) of n elements, by the kernels' own
     * functions. */
    void (*activate)(const void *kernels, int which, const void *x, void *out, ptrdiff_t n);
} fl_driver;

extern const fl_driver fl_driver_f32, fl_driver_f64;

#endif
