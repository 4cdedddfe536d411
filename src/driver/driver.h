/* The driver, a template for driver_f32.c and driver_f64.c (see base/real.h). */
#include "driver/backward/backward.h"
#include "driver/forward/forward.h"
#include "driver/heads/crf.h"
#include "driver/heads/crf_decode.h"
#include "driver/heads/ctc.h"
#include "driver/heads/linear.h"
#include "driver/read_tape.h"
#include "layout/pack.h"

static void activate(const void *kernels, int which, const void *x, void *out, ptrdiff_t n)
{
    const fl_fpu saved = fl_fpu_enter();
    ((const fl_kernels *)kernels)->activate(which, x, out, n);
    fl_fpu_leave(saved);
}

const fl_driver FL_NAME(fl_driver) = {
    .parameters_size = parameters_size,
    .scales_size = scales_size,
    .state_size = state_size,
    .forward_size = forward_size,
    .backward_size = backward_size,
    .pack_forward = pack_forward,
    .pack_backward = pack_backward,
    .tape_size = tape_size,
    .sums_size = sums_size,
    .segment = segment_of,
    .plan_forward = plan_forward,
    .plan_backward = plan_backward,
    .tile_size = tile_size,
    .forward = forward,
    .backward = backward,
    .read_tape = read_tape,
    .plan_head = plan_head,
    .head = head,
    .plan_crf = plan_crf,
    .crf = crf,
    .crf_decode = crf_decode,
    .plan_ctc = plan_ctc,
    .ctc = ctc,
    .activate = activate,
};
