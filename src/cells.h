#ifndef FL_CELLS_H
#define FL_CELLS_H

/* What a layer is made of, and its gates in the order of the rows of W and U. */
typedef enum {
    FL_LSTM,     /* i, f, g, o */
    FL_GRU,      /* r, z, n; r multiplies what U_n makes of h, as in torch */
    FL_RNN_TANH, /* one */
    FL_RNN_RELU,
    FL_LSTM_OPTIONS, /* i, f, g, o, or i, g, o if coupled: any of fl_options */
    FL_GRU_BEFORE,   /* r, z, n; r multiplies h before U_n */
    FL_CELLS
} fl_cell;

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
