# Looking for signals during a long call, as Python does it between two lines.

from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport PyThread_get_thread_ident
from libc.string cimport memset

from fastlstm._core.c_api cimport *

from threading import main_thread

cdef extern from "<time.h>" nogil:
    enum:
        TIME_UTC
    cdef struct timespec:
        long long tv_sec
        long tv_nsec
    int timespec_get(timespec *, int)


# A call of so many multiply-adds, or a hundredth of a second, is worth looking for signals in.
cdef enum:
    LONG_CALL = 100_000_000


cdef double SECONDS_TO_LOOK = 0.1


cdef double _now() noexcept nogil:
    cdef timespec time
    timespec_get(&time, TIME_UTC)  # C11: Windows has it too
    return time.tv_sec + 1e-9 * time.tv_nsec


cdef class Interrupt:
    """Looks for signals during a long call, in the thread that made it.

    Between two looks the GIL is not taken: another thread may keep it for 5 ms.
    """

    def __cinit__(self):
        self.begin()

    cdef void begin(self) noexcept:
        """Before the call."""
        memset(&self.call, 0, sizeof(self.call))
        self.call.ask, self.call.context = _ask, <void *>self
        self.looked = _now()

    cdef bint look(self) noexcept:
        try:
            PyErr_CheckSignals()
        except BaseException as error:
            self.error = error
        self.looked = _now()
        return self.error is not None

    cdef int end(self) except -1:
        """After the call: raise what a handler raised."""
        error, self.error = self.error, None
        if error is not None:
            raise error
        return 0


cdef int _ask(void *context) noexcept nogil:
    if 0 <= _now() - (<Interrupt>context).looked < SECONDS_TO_LOOK:
        return 0
    with gil:
        return (<Interrupt>context).look()


cdef Interrupt interrupt_of(const fl_stack *s, Py_ssize_t steps, Py_ssize_t batch,
                            Interrupt kept=None):
    """For a long call of the thread that handles signals, `kept` or a new one; None for others."""
    cdef double weights = <double>s.hidden * (s.input + s.hidden) * s.layers
    return interrupt_for(4 * weights * s.directions * steps * batch, kept)


cdef Interrupt interrupt_for(double multiply_adds, Interrupt kept=None):
    """Likewise, for so much work."""
    if multiply_adds < LONG_CALL:
        return None
    if <unsigned long>PyThread_get_thread_ident() != <unsigned long>main_thread().ident:
        return None
    if kept is None:
        return Interrupt()
    kept.begin()
    return kept
