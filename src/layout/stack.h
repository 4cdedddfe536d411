/* Sizes of a stack of layers: inputs, outputs, gates, slots. */
#ifndef FL_LAYOUT_STACK_H
#define FL_LAYOUT_STACK_H

#include "fastlstm.h"

/* Units of a hidden state, and of an output. */
static inline ptrdiff_t out_of(const fl_shape *s)
{
    return s->projection ? s->projection : s->hidden;
}

static inline ptrdiff_t input_of(const fl_shape *s, ptrdiff_t layer)
{
    return layer == 0 ? s->input : s->directions * out_of(s);
}

/* Pre-activations have slots: an LSTM has one for each gate, and coupled none for W and U of f.  A
 * GRU has r, z, and two for n, because r multiplies the part of it that comes from h: W leads to
 * slots 0, 1, 2 and U to 0, 1, 3.  If r multiplies h before, U_n is not of the same product: slots
 * are r, z, n. */
enum { FL_SLOTS = 4 };

static inline int is_coupled(const fl_shape *s)
{
    return s->cell == FL_LSTM_OPTIONS && s->options.coupled;
}

static inline int has_peephole(const fl_shape *s)
{
    return s->cell == FL_LSTM_OPTIONS && s->options.peephole;
}

static inline int has_norm(const fl_shape *s)
{
    return s->cell == FL_LSTM_OPTIONS && s->options.layer_norm;
}

static inline int has_zoneout(const fl_shape *s)
{
    return s->cell == FL_LSTM_OPTIONS && (s->options.zoneout_h > 0 || s->options.zoneout_c > 0);
}

static inline ptrdiff_t gates_of(const fl_shape *s)
{
    switch (s->cell) {
    case FL_LSTM: return 4;
    case FL_LSTM_OPTIONS: return s->options.coupled ? 3 : 4;
    case FL_GRU:
    case FL_GRU_BEFORE: return 3;
    default: return 1;
    }
}

static inline ptrdiff_t slots_of(const fl_shape *s)
{
    const int plain = s->cell == FL_RNN_TANH || s->cell == FL_RNN_RELU;
    return plain ? 1 : s->cell == FL_GRU_BEFORE ? 3 : FL_SLOTS;
}

/* The gate of W (or U) whose pre-activations a slot has; -1: none. */
static inline ptrdiff_t gate_of_slot(const fl_shape *s, int of_u, ptrdiff_t slot)
{
    if (s->cell == FL_GRU) {
        return slot < 2 ? slot : slot == 2 + of_u ? 2 : -1;
    }
    if (is_coupled(s)) {
        return slot == 0 ? 0 : slot - 1 > 0 ? slot - 1 : -1;
    }
    return slot < gates_of(s) ? slot : -1;
}

/* Whether the slots are not simply the gates. */
static inline int slots_differ(const fl_shape *s) { return s->cell == FL_GRU || is_coupled(s); }

/* The part of the peephole weights that a slot has; -1: none. */
static inline ptrdiff_t peephole_of_slot(const fl_shape *s, ptrdiff_t slot)
{
    if (is_coupled(s)) {
        return slot == 0 ? 0 : slot == 3 ? 1 : -1;
    }
    return slot < 2 ? slot : slot == 3 ? 2 : -1;
}

/* A step may end with a second product, of H inner units with so many rows: the projection, or U_n
 * of a GRU that resets before it.  0: none. */
static inline ptrdiff_t second_of(const fl_shape *s)
{
    return s->cell == FL_GRU_BEFORE ? s->hidden : s->projection;
}

/* Slots that U leads to in the first product. */
static inline ptrdiff_t recurrent_slots_of(const fl_shape *s)
{
    return s->cell == FL_GRU_BEFORE ? 2 : slots_of(s);
}

#endif
