/* What a layer can be made of: cells, and the functions of their gates. */
#ifndef FL_CELLS_H
#define FL_CELLS_H

/* The cells, one a row.  Another cell is a row here, its kernels <name>_tile and <name>_gradient in
 * kernels/cells/, and a class in Python, which sees these rows as _core.cells().
 *
 *   gates     a letter each, in the order of the rows of W and U; coupled, an LSTM has no f
 *   slots     for pre-activations of gates: see layout/stack.h
 *   by U      slots that U leads to in the first product of a step; the rest await a second one
 *   states    2: h and c; 1: h alone
 *   options   1: any of fl_options */
/* clang-format off */
#define FL_FOR_EACH_CELL(CELL)                                                            \
    /*   number           name          gates   slots by U states options */              \
    CELL(FL_LSTM,         lstm,         "ifgo", 4,    4,   2,     0)                      \
    CELL(FL_GRU,          gru,          "rzn",  4,    4,   1,     0) /* r * (U_n h) */    \
    CELL(FL_RNN_TANH,     rnn_tanh,     "h",    1,    1,   1,     0)                      \
    CELL(FL_RNN_RELU,     rnn_relu,     "h",    1,    1,   1,     0)                      \
    CELL(FL_LSTM_OPTIONS, lstm_options, "ifgo", 4,    4,   2,     1)                      \
    CELL(FL_GRU_BEFORE,   gru_before,   "rzn",  3,    2,   1,     0) /* U_n (r * h) */
/* clang-format on */

typedef enum {
#define FL_NUMBER(number, ...) number,
    FL_FOR_EACH_CELL(FL_NUMBER) FL_CELLS
} fl_cell;

typedef struct {
    const char *name, *gates;
    int gate_count, slots, slots_by_u, states, has_options;
} fl_cell_properties;

static const fl_cell_properties fl_cells[FL_CELLS] = {
#define FL_PROPERTIES(number, name, gates, ...) {#name, gates, sizeof(gates) - 1, __VA_ARGS__},
    FL_FOR_EACH_CELL(FL_PROPERTIES)};

/* Functions that gates and states can go through: ONNX's eleven, with their alpha and beta. */
typedef enum {
    FL_SIGMOID,
    FL_TANH,
    FL_RELU,
    FL_AFFINE,           /* alpha x + beta */
    FL_LEAKY_RELU,       /* x, or alpha x below 0 */
    FL_THRESHOLDED_RELU, /* x above alpha, else 0 */
    FL_SCALED_TANH,      /* alpha tanh(beta x) */
    FL_HARD_SIGMOID,     /* alpha x + beta, within 0 and 1 */
    FL_ELU,              /* x, or alpha (e^x - 1) below 0 */
    FL_SOFTSIGN,         /* x / (1 + |x|) */
    FL_SOFTPLUS          /* log(1 + e^x) */
} fl_function_kind;

#endif
