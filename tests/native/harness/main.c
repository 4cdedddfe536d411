/* Runs the driver and the kernels without Python, on heap buffers of exactly the promised size, so
 * that a sanitizer sees every access beyond them; prints a hash of every result, so that two
 * instruction sets can be compared.
 *
 *     harness ISA        (as in FASTLSTM_ISA)
 */
#include "harness.h"

#include <stdio.h>
#include <string.h>

/* Sizes around the edges of tiles, vectors and groups. */
static const layer_case layer_cases[] = {
    {1, 1, 1, 1, 1, 1, 0, 0, 0, FL_LSTM, 0, 0, 0},
    {1, 1, 3, 5, 2, 4, 0, 0, 0, FL_LSTM, 0, 0, 0},
    {1, 1, 16, 16, 6, 3, 0, 0, 0, FL_LSTM, 0, 0, 0},
    {1, 1, 17, 15, 7, 5, 0, 0, 0, FL_LSTM, 0, 0, 0},
    {2, 2, 9, 33, 5, 7, 0, 0, 0, FL_LSTM, 0, 0, 0},
    {3, 1, 20, 64, 1, 40, 0, 0, 0, FL_LSTM, 0, 0, 0},
    {2, 1, 8, 65, 13, 9, 0.3, 0, 0, FL_LSTM, 0, 0, 0},
    {2, 2, 31, 24, 3, 100, 0.5, 0, 0, FL_LSTM, 0, 0, 0},
    {1, 1, 5, 100, 300, 2, 0, 0, 0, FL_LSTM, 0, 0, 0},
    {1, 2, 70, 130, 4, 6, 0, 0, 0, FL_LSTM, 0, 0, 0},
    {1, 1, 2, 260, 2, 9, 0, 0, 0, FL_LSTM, 0, 0, 0},
    {1, 1, 9, 33, 4, 20, 0, 11, 0, FL_LSTM, 0, 0, 0},
    {2, 2, 9, 17, 3, 100, 0.3, 7, 0, FL_LSTM, 0, 0, 0},
    {1, 1, 9, 33, 2, 4, 0, 300, 0, FL_LSTM, 0, 0, 0},
    {1, 2, 11, 40, 5, 70, 0, -1, 0, FL_LSTM, 0, 0, 0},
    {1, 1, 9, 33, 6, 20, 0, 0, 1, FL_LSTM, 0, 0, 0},
    {2, 2, 9, 17, 13, 60, 0.3, 0, 1, FL_LSTM, 0, 0, 0},
    {1, 1, 4, 40, 300, 3, 0, 7, 1, FL_LSTM, 0, 0, 0},
    {2, 1, 5, 70, 2, 300, 0, -1, 1, FL_LSTM, 0, 0, 0},
    {2, 2, 9, 33, 5, 7, 0, 0, 0, FL_GRU, 0, 0, 0},
    {2, 1, 8, 65, 13, 9, 0.3, 0, 1, FL_GRU, 0, 0, 0},
    {1, 1, 5, 100, 300, 2, 0, 7, 0, FL_GRU, 0, 0, 0},
    {1, 1, 3, 5, 1, 40, 0, -1, 0, FL_GRU, 0, 0, 0},
    {2, 2, 9, 33, 5, 7, 0, 0, 0, FL_RNN_TANH, 0, 0, 0},
    {2, 1, 8, 65, 13, 9, 0.3, 0, 1, FL_RNN_RELU, 0, 0, 0},
    {1, 1, 5, 100, 1, 60, 0, 7, 0, FL_RNN_TANH, 0, 0, 0},
    {2, 2, 9, 33, 5, 7, 0, 0, 0, FL_GRU_BEFORE, 0, 0, 0},
    {2, 1, 8, 65, 13, 9, 0.3, 0, 1, FL_GRU_BEFORE, 0, 0, 0},
    {1, 1, 5, 100, 300, 2, 0, 7, 0, FL_GRU_BEFORE, 0, 0, 0},
    {2, 2, 9, 33, 5, 7, 0.2, 0, 0, FL_LSTM, 17, 0, 0},
    {2, 1, 8, 65, 13, 60, 0.3, 0, 1, FL_LSTM, 64, 0, 0},
    {1, 1, 5, 100, 300, 2, 0, 7, 0, FL_LSTM, 1, 0, 0},
    {2, 2, 9, 33, 5, 7, 0.2, 0, 0, FL_LSTM_OPTIONS, 17, 1, 0},
    {1, 1, 5, 5, 13, 60, 0.3, 0, 1, FL_LSTM_OPTIONS, 0, 1, 0},
    {1, 2, 5, 70, 1, 40, 0.3, -1, 1, FL_LSTM_OPTIONS, 3, 1, 0},
    {2, 2, 9, 33, 5, 7, 0.2, 0, 0, FL_LSTM_OPTIONS, 0, 2, 0},
    {2, 1, 8, 65, 13, 60, 0.3, 0, 1, FL_LSTM_OPTIONS, 40, 2, 0},
    {1, 1, 5, 100, 300, 2, 0, 7, 0, FL_LSTM_OPTIONS, 0, 2, 0},
    {1, 1, 5, 145, 7, 40, 0.3, 0, 1, FL_LSTM, 70, 0, 0},
    {1, 1, 5, 145, 7, 40, 0, 0, 0, FL_GRU_BEFORE, 0, 0, 0},
    {1, 1, 5, 145, 7, 40, 0.3, 7, 1, FL_LSTM_OPTIONS, 33, 1, 0},
    {1, 1, 3, 6, 1, 9, 0, 0, 0, FL_SLSTM, 0, 0, 6},
    {2, 2, 9, 33, 5, 7, 0.2, 0, 0, FL_SLSTM, 0, 0, 3},
    {2, 1, 8, 66, 13, 40, 0.3, 0, 1, FL_SLSTM, 0, 0, 2},
    {1, 1, 5, 128, 1, 20, 0, 7, 0, FL_SLSTM, 0, 0, 4},
    {1, 1, 5, 65, 30, 20, 0, -1, 1, FL_SLSTM, 0, 0, 1},
    {1, 1, 70, 260, 7, 9, 0, 0, 0, FL_SLSTM, 0, 0, 4},
};
static const head_case head_cases[] = {
    {1, 1, 1}, {7, 3, 1}, {6, 64, 64}, {13, 65, 17}, {300, 31, 100}, {515, 7, 130},
};

static const rows_case rows_cases[] = {
    {1, 1, 2, 1, 1},   {5, 3, 3, 2, 1},    {9, 13, 16, 7, 1},
    {40, 7, 17, 8, 5}, {7, 20, 65, 3, 50}, {30, 2, 130, 40, 1},
};

/* Conditional random fields, or CTC. */
static int check_rows(const backend *b, const char *name,
                      uint64_t (*run)(const backend *, const rows_case *, int))
{
    int failures = 0;
    for (size_t i = 0; i < sizeof rows_cases / sizeof *rows_cases; i++) {
        const rows_case *t = &rows_cases[i];
        const uint64_t one = run(b, t, 1);
        printf("%s %s T%td B%td K%td %016llx\n", b->type, name, t->steps, t->batch, t->classes,
               (unsigned long long)one);
        for (int workers = 2; workers <= 3; workers++) {
            if (run(b, t, workers) != one) {
                printf("  differs with %d workers\n", workers);
                failures++;
            }
        }
    }
    return failures;
}

static int check_heads(const backend *b)
{
    int failures = 0;
    for (size_t i = 0; i < sizeof head_cases / sizeof *head_cases; i++) {
        const head_case *t = &head_cases[i];
        const uint64_t one = run_head(b, t, 1);
        printf("%s head N%td H%td V%td %016llx\n", b->type, t->n, t->hidden, t->classes,
               (unsigned long long)one);
        for (int workers = 2; workers <= 3 && workers <= t->n; workers++) {
            if (run_head(b, t, workers) != one) {
                printf("  differs with %d workers\n", workers);
                failures++;
            }
        }
    }
    return failures;
}

/* How often the result is another one with more workers. */
static int check_layer(const backend *b, const layer_case *t, int weights)
{
    static const char *const types[] = {"", " bfloat16", " float16", " int8"};
    const uint64_t one = run_layer(b, t, weights, 1, 0);
    int failures = 0;
    printf("%s%s cell %d heads %td options %d P%td L%td D%td I%td H%td B%td T%td V%td%s %016llx\n",
           b->type, types[weights], t->cell, t->heads, t->options, t->projection, t->layers,
           t->directions, t->input, t->hidden, t->batch, t->steps, t->tokens,
           t->ragged ? " ragged" : "", (unsigned long long)one);
    for (int workers = 2; workers <= 3; workers++) {
        const int most = t->options == 2 ? 1 : 2; /* a layer norm needs whole rows */
        for (int split_units = 0; split_units < most; split_units++) {
            if (run_layer(b, t, weights, workers, split_units) != one) {
                printf("  differs with %d workers sharing %s\n", workers,
                       split_units ? "units" : "rows");
                failures++;
            }
        }
    }
    return failures;
}

/* All but products of bytes; each case with one of the two types of 16 bits, in turn. */
static int check_floats(const backend *f32, const backend *f64)
{
    int failures = check_heads(f32) + check_heads(f64);
    failures += check_rows(f32, "crf", run_crf) + check_rows(f64, "crf", run_crf);
    failures += check_rows(f32, "ctc", run_ctc) + check_rows(f64, "ctc", run_ctc);
    for (size_t i = 0; i < sizeof layer_cases / sizeof *layer_cases; i++) {
        failures += check_layer(f32, &layer_cases[i], FL_SAME);
        failures += check_layer(f64, &layer_cases[i], FL_SAME);
        failures += check_layer(f32, &layer_cases[i], i % 2 ? FL_FLOAT16 : FL_BFLOAT16);
    }
    return failures;
}

/* Whether products of bytes are all it has of its own, so that the rest is another one's run. */
static int only_of_bytes(const fl_isa *isa)
{
    static const struct {
        const char *name, *of_double;
    } rows[] = {
#define FL_ISA(name, platform, needs, bytes, flags, flags_msvc, of_double) {#name, #of_double},
#include "cpu/isas.def"
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strcmp(rows[i].name, isa->name) == 0) {
            return strcmp(rows[i].name, rows[i].of_double) != 0;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    const fl_isa *isa = NULL;
    for (int i = 0; argc == 2 && fl_isa_at(i); i++) {
        if (strcmp(fl_isa_at(i)->name, argv[1]) == 0) {
            isa = fl_isa_at(i);
        }
    }
    if (!isa) {
        fprintf(stderr, "usage: harness ISA, where this CPU can run:");
        for (int i = 0; fl_isa_at(i); i++) {
            fprintf(stderr, " %s", fl_isa_at(i)->name);
        }
        fprintf(stderr, "\n");
        return 2;
    }
    const backend f32 = {&fl_driver_f32, "float32", isa->f32, 4};
    const backend f64 = {&fl_driver_f64, "float64", isa->f64, 8};
    int failures = only_of_bytes(isa) ? 0 : check_floats(&f32, &f64);
    for (size_t i = 0; i < sizeof layer_cases / sizeof *layer_cases; i++) {
        failures += check_layer(&f32, &layer_cases[i], FL_INT8);
    }
    return failures ? 1 : 0;
}
