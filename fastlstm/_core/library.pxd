# What the other modules of the binding use of this one.

from libc.stdint cimport uintptr_t

from fastlstm._core.c_api cimport (
    fl_driver, fl_isa, fl_job, fl_team_call, fl_team_limits, fl_team_plan, fl_worker,
)


cdef fl_team_limits team_limits(int threads, bint live=*) except *
cdef void run_team(fl_job job, void *call, const fl_team_plan *plan) noexcept nogil
cdef fl_team_call begin_call(const fl_team_plan *plan, uintptr_t kind) noexcept nogil
cdef void end_call(fl_team_call *call) noexcept nogil
cdef void meet(fl_worker *me) noexcept nogil
cdef int threads_for(int wanted) noexcept nogil
cdef const fl_isa *find_isa(str name) except NULL
cdef const fl_driver *driver_of(bint is_double) noexcept


cdef class Buffer:
    cdef void *data
    cdef readonly Py_ssize_t nbytes


cdef class BufferCache:
    cdef Buffer _larger, _smaller
