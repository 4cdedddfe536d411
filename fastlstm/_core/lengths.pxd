# How many of a row count: what the heads of rows of steps check before they reach the core.


cdef inline int check_lengths(const Py_ssize_t[::1] lengths, str name, Py_ssize_t most,
                              Py_ssize_t batch) except -1:
    cdef Py_ssize_t b
    if lengths.shape[0] != batch:
        raise ValueError(f"{name}: expected {batch} of them")
    for b in range(batch):
        if not 0 <= lengths[b] <= most:
            raise ValueError(f"{name}: expected integers from 0 to {most}, got {lengths[b]}")
    return 0
