# What the other modules of the binding use of this one.

from fastlstm._core.c_api cimport fl_interrupt, fl_stack


cdef class Interrupt:
    cdef fl_interrupt call
    cdef double looked
    cdef object error  # what a signal handler raised

    cdef void begin(self) noexcept
    cdef bint look(self) noexcept
    cdef int end(self) except -1


cdef Interrupt interrupt_for(double multiply_adds, Interrupt kept=*)
cdef Interrupt interrupt_of(const fl_stack *s, Py_ssize_t steps, Py_ssize_t batch,
                            Interrupt kept=*)
