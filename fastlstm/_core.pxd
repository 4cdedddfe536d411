# What the other modules of the binding use of this one.

from fastlstm._c_api cimport fl_driver, fl_isa, fl_stack, fl_team_limits


cdef fl_team_limits team_limits(int threads) except *
cdef int threads_for(int wanted) noexcept nogil
cdef const fl_isa *find_isa(str name) except NULL
cdef const fl_driver *engine_of(bint is_double) noexcept


cdef class Buffer:
    cdef void *_start
    cdef void *data
    cdef readonly Py_ssize_t nbytes


cdef class Pool:
    cdef Buffer _larger, _smaller


cdef Py_ssize_t out_of(const fl_stack *s) noexcept


cdef class Shape:
    cdef fl_stack shape


cdef class Packed:
    cdef fl_stack shape
    cdef const fl_driver *engine
    cdef const void *kernels
    cdef readonly bint is_double
    cdef readonly Py_ssize_t itemsize
    cdef readonly long version
    cdef Buffer weights, for_backward

    cdef Buffer _pack(self, array, bint backward, int threads)
