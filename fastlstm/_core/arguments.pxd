# Arrays as streams take them, and results as they make them.  A module that includes this calls
# import_array().

cimport numpy as cnp

from fastlstm._core.memory cimport new_array


cdef inline bint is_plain(object a, int type) noexcept:
    """Whether it is a C-contiguous array of the type."""
    return (cnp.PyArray_Check(a) and cnp.PyArray_TYPE(<cnp.ndarray>a) == type
            and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>a))


cdef inline char *data_of(object array) noexcept:
    return <char *>cnp.PyArray_DATA(<cnp.ndarray>array)


cdef inline Py_ssize_t stride_of(cnp.ndarray a, int axis) noexcept:
    """In elements."""
    cdef Py_ssize_t nbytes = a.strides[axis]
    return nbytes // 8 if cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT64 else nbytes // 4


cdef inline object new_output(cnp.ndarray x, Py_ssize_t width):
    """An array like `x`, but of so many features."""
    cdef cnp.npy_intp shape[3]
    cdef int i
    for i in range(x.ndim):
        shape[i] = x.shape[i]
    shape[x.ndim - 1] = width
    return new_array(x.ndim, shape, cnp.PyArray_TYPE(x), False)


cdef inline bint is_output(cnp.ndarray a, cnp.ndarray x, Py_ssize_t width) noexcept:
    """Whether it has the shape of `x`, but for so many features."""
    cdef int i
    if a.ndim != x.ndim or a.shape[a.ndim - 1] != width:
        return False
    for i in range(a.ndim - 1):
        if a.shape[i] != x.shape[i]:
            return False
    return True


cdef struct Extent:
    const char *begin
    const char *end


cdef inline Extent extent_of(cnp.ndarray a) noexcept:
    """The memory from the first to the last of its elements."""
    cdef Extent extent
    cdef Py_ssize_t way
    cdef int i
    extent.begin = data_of(a)
    extent.end = extent.begin + cnp.PyArray_ITEMSIZE(a)
    for i in range(a.ndim):
        way = (a.shape[i] - 1) * a.strides[i]
        if way < 0:
            extent.begin += way
        else:
            extent.end += way
    return extent


cdef inline bint overlap(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether their extents have memory in common; neither is empty."""
    cdef Extent first = extent_of(a), second = extent_of(b)
    return first.begin < second.end and second.begin < first.end
