/* What a layer can be made of: cells, and the functions of their gates. */
#ifndef FL_CELLS_H
#define FL_CELLS_H

/* The cells, one a row; variants of a cell begin with its name, the plain one first.  Another cell
 * is a row here, its kernels <name>_tile and <name>_gradient in
 * kernels/cells/, and a class in Python, which sees these rows as library.cells().
 *
 *   gates     a letter each, in the order of the rows of W and U; coupled, an LSTM has no f
 *   states    what the driver carries from step to step, a letter each: h of the size of an output,
 *             others of H units.  A letter that comes again is a copy: kernels have it in place of
 *             c, and its gradient is a part of that of the state
 *   slots     for pre-activations of gates: see layout/stack.h
 *   by U      slots that U leads to in the first product of a step; the rest await a second one
 *   options   1: any of fl_options
 *   biases    vectors of biases: b_ih and b_hh, or b_ih alone */
/* clang-format off */
#define FL_FOR_EACH_CELL(CELL)                                                            \
    /*   number           name          gates   states  slots by U options biases */      \
    CELL(FL_LSTM,         lstm,         "ifgo", "hc",   4,    4,   0,      2)             \
    CELL(FL_GRU,          gru,          "rzn",  "hh",   4,    4,   0,      2) /* r * (U_n h) */ \
    CELL(FL_RNN_TANH,     rnn_tanh,     "h",    "hh",   1,    1,   0,      2)             \
    CELL(FL_RNN_RELU,     rnn_relu,     "h",    "hh",   1,    1,   0,      2)             \
    CELL(FL_LSTM_OPTIONS, lstm_options, "ifgo", "hc",   4,    4,   1,      2)             \
    CELL(FL_GRU_BEFORE,   gru_before,   "rzn",  "hh",   3,    2,   0,      2) /* U_n (r * h) */ \
    CELL(FL_SLSTM,        slstm,        "ifzo", "hcnm", 4,    4,   0,      1)
/* clang-format on */

/* States in the order of their letters; c is also the copy of h.  Those after c: the normalizer and
 * the stabilizer of an sLSTM. */
enum { FL_STATE_H, FL_STATE_C, FL_STATE_N, FL_STATE_M, FL_MAX_STATES };

typedef enum {
#define FL_NUMBER(number, ...) number,
    FL_FOR_EACH_CELL(FL_NUMBER) FL_CELLS
} fl_cell;

typedef struct {
    const char *name, *gates, *states;
    int gate_count, state_count, slots, slots_by_u, has_options, biases;
} fl_cell_properties;

static const fl_cell_properties fl_cells[FL_CELLS] = {
#define FL_PROPERTIES(number, name, gates, states, ...) \
    {#name, gates, states, sizeof(gates) - 1, sizeof(states) - 1, __VA_ARGS__},
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
