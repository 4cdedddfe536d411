/* What the kernels of a cell with options need of its layer. */
#ifndef FL_DRIVER_CELL_OPTIONS_H
#define FL_DRIVER_CELL_OPTIONS_H

#include "fastlstm.h"
#include "kernels/table.h"
#include "layout/stack.h"

/* One value of options, in the element type. */
static inline fl_unary unary_of(const fl_function *f)
{
    return (fl_unary){f->kind, (real)f->alpha, (real)f->beta};
}

/* vectors: those of the packed cell. */
static inline fl_cell_options cell_options_of(const fl_stack *s, ptrdiff_t d, const real *peephole,
                                              const real *gain, const real *shift)
{
    const fl_function *f = s->options.functions[d];
    return (fl_cell_options){
        .coupled = s->options.coupled,
        .preact_clip = (real)s->options.preact_clip,
        .cell_clip = (real)s->options.cell_clip,
        .norm_eps = (real)s->options.layer_norm_eps,
        .of_gates = unary_of(&f[0]),
        .of_candidate = unary_of(&f[1]),
        .of_cell = unary_of(&f[2]),
        .peephole = has_peephole(s) ? peephole : NULL,
        .gain = has_norm(s) ? gain : NULL,
        .shift = has_norm(s) ? shift : NULL,
        .hidden = s->hidden,
    };
}

#endif
