/* Threads of the system. */
#ifndef FL_BASE_THREADS_H
#define FL_BASE_THREADS_H

/* How many threads a team of the calling one can have, itself among them: `wanted`, or what the
 * system granted when it last refused some. */
int fl_threads_for(int wanted);

/* The same for a team that starts at once: where OpenMP would need new threads, the system is asked
 * for them first. */
int fl_ask_for_threads(int wanted);

/* The calling thread's team ends; it would go on spinning for milliseconds.  The next team costs
 * about 60 us more, and 4 to 11 ms where the system puts new threads on the processor of the one
 * that made them, as it does in some virtual machines: the two spin there in turns. */
void fl_dismiss_threads(void);

#endif
