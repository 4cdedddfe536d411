/* Threads of the system. */
#ifndef FL_BASE_THREADS_H
#define FL_BASE_THREADS_H

/* How many threads the calling one can have a team of, itself among them: `wanted`, or what the
 * system granted when so many were first asked for. */
int fl_threads_for(int wanted);

/* The calling thread's team ends; it would go on spinning for milliseconds.  The next team costs
 * about 60 us more. */
void fl_dismiss_threads(void);

#endif
