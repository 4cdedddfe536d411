/* How large the next team of a thread may be: smaller where teams before it lost time.
 *
 * Beside other busy processes a worker can be put aside for milliseconds while the others wait.  A
 * team that keeps losing time in this way is compared with one of half the size, and the faster of
 * the two goes on; after a rest, which grows, the larger one is tried again.  Each thread keeps its
 * own account.  Nothing of this changes a result. */
#ifndef FL_BASE_TEAM_SIZE_H
#define FL_BASE_TEAM_SIZE_H

#include <stdint.h>

/* Workers of the next call, at most. */
int fl_team_most(void);

/* The team of a call. */
typedef struct {
    int wanted;  /* workers that its work is worth */
    int workers; /* workers that it has, because of fl_team_most */
    double work; /* in multiply-adds, about */
} fl_team_plan;

/* A call that is worth a team, done. */
typedef struct {
    const fl_team_plan *plan;
    uintptr_t job;               /* calls of one kind have the same */
    int64_t began, ended, slept; /* ns; of all workers, while they waited for others */
} fl_team_call;

void fl_team_remember(const fl_team_call *call);

/* After each call of a team: whether the next one is likely to come so late that no worker should
 * wait for it awake.  So it is where the calls before the last pause were as many as since then: a
 * service gets requests, and each makes some calls. */
int fl_pause_is_likely(int64_t began);

/* Off: teams are as large as their work is worth and stay awake, as tests want them. */
void fl_team_adapts(int on);

#endif
