/* What the files of the harness have in common; main.c says what it does. */
#ifndef FL_TESTS_HARNESS_H
#define FL_TESTS_HARNESS_H

#include "fastlstm.h"

typedef struct {
    const fl_driver *driver;
    const char *type;
    const void *kernels;
    ptrdiff_t size; /* of an element */
} backend;

typedef struct {
    ptrdiff_t layers, directions, input, hidden, batch, steps;
    double dropout;
    ptrdiff_t tokens; /* rows of the table they are from; -1: of the unit matrix; 0: none */
    int ragged;       /* rows of different lengths, states that are reset */
    int cell;         /* fl_cell */
    ptrdiff_t projection;
    int options;     /* 1: of FL_LSTM_OPTIONS all but the layer norm; 2: that too */
    ptrdiff_t heads; /* 0: one */
} layer_case;

typedef struct {
    ptrdiff_t n, hidden, classes;
} head_case;

/* Rows of tags or symbols; the first of them has all steps. */
typedef struct {
    ptrdiff_t steps, batch, classes;
    ptrdiff_t targets; /* of CTC, at most */
    double scale;      /* of what they score */
} rows_case;

/* Runs a case and returns a hash of its results; with weights of fewer bits (fl_weight_type), which
 * only float has, it is inference alone. */
uint64_t run_layer(const backend *b, const layer_case *t, int weights, int workers,
                   int split_units);
uint64_t run_head(const backend *b, const head_case *t, int workers);
uint64_t run_crf(const backend *b, const rows_case *t, int workers);
uint64_t run_ctc(const backend *b, const rows_case *t, int workers);

void run_team(fl_job run, void *call, int workers);

/* What a call is planned for before more workers share it. */
fl_team_limits one_thread(void);

/* Buffers of n elements: exact at their end; aligned at their start, too, and of not-a-numbers;
 * with numbers from -scale to scale. */
void *exact(ptrdiff_t n, ptrdiff_t size);
void *exact_aligned(ptrdiff_t n, ptrdiff_t size);
void *filled(const backend *b, ptrdiff_t n, unsigned seed, double scale);

/* Frees buffers, or what is NULL. */
#define FREE_ALL(...) \
    free_all((const void *[]){__VA_ARGS__}, sizeof((const void *[]){__VA_ARGS__}) / sizeof(void *))
void free_all(const void *const *buffers, size_t count);

uint64_t hash(const backend *b, const void *data, ptrdiff_t n, uint64_t h);

#endif
