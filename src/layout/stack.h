/* Sizes of a stack of layers: inputs, outputs, gates, gate slots. */
#ifndef FL_LAYOUT_STACK_H
#define FL_LAYOUT_STACK_H

#include "base/real.h"
#include "fastlstm.h"

/* Units of a hidden state, and of an output. */
static inline ptrdiff_t output_size(const fl_stack *s)
{
    return s->projection ? s->projection : s->hidden;
}

/* Units of h that U leads to a unit from: those of its head. */
static inline ptrdiff_t head_size(const fl_stack *s) { return output_size(s) / s->heads; }

static inline int state_count(const fl_stack *s) { return fl_cells[s->cell].state_count; }

/* Whether there is no state beyond c, and U leads from all units to all. */
static inline int is_common(const fl_stack *s) { return state_count(s) == 2 && s->heads == 1; }

static inline int has_b_hh(const fl_stack *s) { return s->bias && fl_cells[s->cell].biases == 2; }

/* Units of a row of one state. */
static inline ptrdiff_t state_size(const fl_stack *s, int state)
{
    return fl_cells[s->cell].states[state] == 'h' ? output_size(s) : s->hidden;
}

/* One state of a layer and direction, [B][state_size], in the arrays of a call. */
static inline real *state_at(const fl_stack *s, void *const *states, int state, ptrdiff_t batch,
                             ptrdiff_t l, ptrdiff_t d)
{
    return (real *)states[state] + (l * s->directions + d) * batch * state_size(s, state);
}

static inline ptrdiff_t input_size(const fl_stack *s, ptrdiff_t layer)
{
    return layer == 0 ? s->input : s->directions * output_size(s);
}

/* Pre-activations lie in gate slots: an LSTM has one for each gate, and coupled none for W and U of
 * f.  A GRU has r, z, and two for n, because r multiplies the part of it that comes from h: W leads
 * to slots 0, 1, 2 and U to 0, 1, 3.  If r multiplies h before, U_n is not of the same product:
 * slots are r, z, n. */
enum { FL_GATE_SLOTS = 4 };

static inline int has_options(const fl_stack *s) { return fl_cells[s->cell].has_options; }

static inline int is_coupled(const fl_stack *s) { return has_options(s) && s->options.coupled; }

static inline int has_peephole(const fl_stack *s) { return has_options(s) && s->options.peephole; }

static inline int has_norm(const fl_stack *s) { return has_options(s) && s->options.layer_norm; }

static inline int has_zoneout(const fl_stack *s)
{
    return has_options(s) && (s->options.zoneout_h > 0 || s->options.zoneout_c > 0);
}

static inline ptrdiff_t gate_count(const fl_stack *s)
{
    return fl_cells[s->cell].gate_count - (is_coupled(s) ? 1 : 0);
}

static inline ptrdiff_t gate_slot_count(const fl_stack *s) { return fl_cells[s->cell].slots; }

/* Whether the slots are not simply the gates. */
static inline int gate_slots_differ(const fl_stack *s)
{
    return gate_slot_count(s) > gate_count(s);
}

/* The gate of W (or U) whose pre-activations a slot has; -1: none. */
static inline ptrdiff_t gate_of_slot(const fl_stack *s, int of_u, ptrdiff_t slot)
{
    if (is_coupled(s)) {
        return slot == 0 ? 0 : slot - 1 > 0 ? slot - 1 : -1;
    }
    const ptrdiff_t last = gate_count(s) - 1;
    if (gate_slots_differ(s)) { /* the last gate has a slot for W and one for U */
        return slot < last ? slot : slot == last + of_u ? last : -1;
    }
    return slot <= last ? slot : -1;
}

/* The part of the peephole weights that a slot has; -1: none. */
static inline ptrdiff_t peephole_of_slot(const fl_stack *s, ptrdiff_t slot)
{
    if (is_coupled(s)) {
        return slot == 0 ? 0 : slot == 3 ? 1 : -1;
    }
    return slot < 2 ? slot : slot == 3 ? 2 : -1;
}

/* Slots that U leads to in the first product. */
static inline ptrdiff_t recurrent_gate_slots(const fl_stack *s)
{
    return fl_cells[s->cell].slots_by_u;
}

/* A step may end with a second product, of H inputs: that of the last slot, the candidate of a
 * GRU that resets before it, or the projection. */
static inline int second_is_candidate(const fl_stack *s)
{
    return recurrent_gate_slots(s) < gate_slot_count(s);
}

/* Rows of the matrix of the second product; 0: there is none. */
static inline ptrdiff_t second_product_size(const fl_stack *s)
{
    return second_is_candidate(s) ? s->hidden : s->projection;
}

#endif
