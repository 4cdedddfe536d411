#ifndef FL_CELLS_H
#define FL_CELLS_H

/* What a layer is made of, and its gates in the order of the rows of W and U. */
typedef enum {
    FL_LSTM,     /* i, f, g, o */
    FL_GRU,      /* r, z, n */
    FL_RNN_TANH, /* one */
    FL_RNN_RELU,
    FL_CELLS
} fl_cell;

#endif
