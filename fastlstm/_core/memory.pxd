# What the other modules of the binding use of this one.

cimport numpy as cnp


cdef int read_setting() except -1
cdef void *allocate(size_t nbytes) noexcept nogil
cdef void release(void *data) noexcept nogil
cdef object new_array(int ndim, const cnp.npy_intp *shape, int type, bint zeros)
