# What the other modules of the binding use of this one.

from fastlstm._core.c_api cimport fl_driver, fl_dropout, fl_shards, fl_stack
from fastlstm._core.library cimport Buffer


cdef fl_dropout dropout_of(object dropout) except *
cdef fl_shards shards_of(object shards) except *


cdef class StackConfig:
    cdef fl_stack stack


cdef class PackedWeights:
    cdef fl_stack stack
    cdef int state_count
    cdef const fl_driver *driver
    cdef const void *kernels
    cdef readonly bint is_double
    cdef readonly Py_ssize_t itemsize
    cdef readonly long version
    cdef Buffer weights, for_backward

    cdef Py_ssize_t state_size(self, int state) noexcept
    cdef Buffer _pack(self, array, scales, bint backward, int threads)
