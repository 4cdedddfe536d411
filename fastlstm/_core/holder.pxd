# Who holds a stream: a process, or nobody, 0.

cdef extern from *:
    """
    /* Under the GIL no thread can come between. */
    #ifdef Py_GIL_DISABLED
    #include <stdatomic.h>
    typedef atomic_int fl_holder;
    static int fl_take(fl_holder *holder, int free, int process)
    {
        return atomic_compare_exchange_strong(holder, &free, process);
    }
    #else
    typedef int fl_holder;
    static int fl_take(fl_holder *holder, int free, int process)
    {
        return *holder == free ? (*holder = process, 1) : 0;
    }
    #endif
    """
    ctypedef int fl_holder
    bint fl_take(fl_holder *holder, int free, int process) noexcept nogil
