/* The kernels, a template (see base/real.h).  A wrapper, isa/<isa>_<type>.c, includes simd/<isa>.h
 * before this file and is compiled for that instruction set; contracts are in table.h.
 *
 * The numerics contract: an output element is a sum of chains of fused multiply-adds (product.h)
 * whose order depends on nothing but the sizes of the layer.  So no kernel may split a sum in any
 * other way, and lanes never mix (except
 * in softmax: see FL_SUM_LANES). */
#include "kernels/bytes.h"
#include "kernels/cells/gru.h"
#include "kernels/cells/lstm.h"
#include "kernels/cells/lstm_options.h"
#include "kernels/cells/rnn.h"
#include "kernels/cells/slstm.h"
#include "kernels/elementwise.h"
#include "kernels/paths.h"
#include "kernels/probe.h"
#include "kernels/softmax.h"

/* The wrapper names the table: FL_TABLE is fl_kernels_<isa>_<type>. */
const fl_kernels FL_TABLE = {
    .lanes = VL,
    .rows = ROWS,
    .groups = GROUPS,
#if FL_DOUBLE
    .product = {product},
#else
    .product = {product, product_bfloat16, product_float16, product_int8},
    .quantize = quantize,
    .unit_of_bytes = unit_of_bytes,
    .byte_offset = FL_BYTE_OFFSET,
    .int8_rate = FL_BYTE_OFFSET ? 2 : 1,
#endif
#define FL_TILE(number, name, ...) [number] = name##_tile,
    .tile = {FL_FOR_EACH_CELL(FL_TILE)},
#define FL_GRADIENT(number, name, ...) [number] = name##_gradient,
    .gradient = {FL_FOR_EACH_CELL(FL_GRADIENT)},
    .next = {[FL_GRU_BEFORE] = gru_next},
    .reset_gradient = {[FL_GRU_BEFORE] = gru_reset_gradient},
    .softmax = softmax,
    .exponentials = exponentials,
    .max_plus = max_plus,
    .ctc_forward = ctc_forward,
    .ctc_backward = ctc_backward,
    .load = load,
    .store = store,
    .add = add,
    .multiply = multiply,
    .mix = mix,
    .draw = draw,
    .add_columns = add_columns,
    .transpose = transpose,
    .activate = activate,
    .probe_fma = probe_fma,
    .probe_read = probe_read,
};
