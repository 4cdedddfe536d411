# What the other modules of the binding stand on: instruction sets, cells, limits of teams, buffers.
# The C core is linked into this module; the others call it through the drivers that it hands out.

cimport cython
from cython.parallel cimport parallel, threadid
from libc.stdint cimport uintptr_t
from libc.string cimport memset

from fastlstm._core.c_api cimport *
from fastlstm._core.memory cimport allocate, read_setting, release

from collections import namedtuple

from fastlstm._core import caches, processors


cdef dict _found_isas():
    cdef int i = 0
    found = {}
    while fl_isa_at(i) != NULL:
        found[fl_isa_at(i).name.decode()] = <uintptr_t>fl_isa_at(i)
        i += 1
    return found


cdef dict _isas = _found_isas()  # asking the CPU takes 10 us each time in a virtual machine


def isas():
    """Names of the instruction sets this CPU can run, best first."""
    return list(_isas)


Cell = namedtuple("Cell", "name gates states has_options biases")


def cells():
    """The rows of src/cells.h, in the order of the numbers of cells.

    Returns
    -------
    list of Cell
        name : str; gates : str, a letter for each, in the order of rows of the weights;
        states : str, a letter for each that the driver keeps, one that comes again for a copy;
        has_options : bool, whether `Options` apply; biases : int, 2 for b_ih and b_hh, 1 for b_ih.
    """
    return [Cell(fl_cells[i].name.decode(), fl_cells[i].gates.decode(),
                 fl_cells[i].states.decode(), bool(fl_cells[i].has_options), fl_cells[i].biases)
            for i in range(FL_CELLS)]


# More workers than that never meet after each step.
PROCESSORS = min(processors.CORES, processors.QUOTA)


cdef fl_team_limits team_limits(int threads, bint live=False) except *:
    """The limits of the next call of this thread."""
    cdef int processors = PROCESSORS
    if _wrong_caches is not None:
        raise ValueError(_wrong_caches)
    return fl_team_limits(threads, processors, fl_team_most(), live, &_c_caches)


cdef fl_caches _c_caches  # that plans are made for
cdef tuple _cache_variables = ()  # that have set sizes
cdef str _wrong_caches = None  # what is wrong with the variables that set them


cdef object _from_c(const fl_caches *c, tuple variables=()):
    return caches.Caches(c.l1d, c.l2, c.l3, c.l2_sharers, c.l3_sharers, variables)


def machine_caches():
    """The `Caches` of this machine."""
    return _from_c(fl_machine_caches())


def linux_caches(str folder):
    """The `Caches` that a folder like /sys/devices/system/cpu/cpu0/cache describes, or None."""
    cdef fl_caches found
    return _from_c(&found) if fl_linux_caches(folder.encode(), &found) else None


def set_caches(sizes):
    """Plan for other `Caches` from now on: for tests, while no other thread computes."""
    global _cache_variables
    _c_caches.l1d, _c_caches.l2, _c_caches.l3 = sizes.l1d, sizes.l2, sizes.l3
    _c_caches.l2_sharers, _c_caches.l3_sharers = sizes.l2_sharers, sizes.l3_sharers
    _c_caches.l3_rate = fl_machine_caches().l3_rate
    _cache_variables = sizes.variables


def planned_caches():
    """The `Caches` that plans are made for: the machine's, or what the environment sets."""
    if _wrong_caches is not None:
        raise ValueError(_wrong_caches)
    return _from_c(&_c_caches, _cache_variables)


# The environment is read while no other thread can plan a call; a mistake in it is raised where the
# caches are needed, because a program that cannot be imported cannot say what is wrong.
try:
    set_caches(caches.with_environment(machine_caches()))
except ValueError as error:
    _wrong_caches = str(error)


cdef int threads_for(int wanted) noexcept nogil:
    """How many threads a team that starts at once can have."""
    return fl_ask_for_threads(min(wanted, fl_team_most()))


cdef void run_team(fl_job job, void *call, const fl_team_plan *plan) noexcept nogil:
    """Run a job in a team: the parallel region of layers and heads."""
    cdef fl_worker alone = fl_alone()
    cdef fl_team_space space
    cdef fl_team *team = NULL
    cdef int workers
    cdef fl_team_call record
    if plan.wanted == 1:
        job(call, &alone)
        return
    record = begin_call(plan, <uintptr_t>job)
    if plan.workers > 1:
        team = fl_team_open(plan.workers, &space)
    if team == NULL:
        job(call, &alone)
    else:
        # Plans are kept, and teams made smaller since: the system may refuse the threads now.
        workers = fl_ask_for_threads(plan.workers)
        with parallel(num_threads=workers):
            fl_work_in(team, job, call, threadid(), fl_team_size())
        record.slept = team.slept
        fl_team_close(team)
    end_call(&record)


cdef fl_team_call begin_call(const fl_team_plan *plan, uintptr_t kind) noexcept nogil:
    """Before a call that is worth a team; calls of one kind have the same number."""
    return fl_team_call(plan, kind, fl_now(), 0, 0)


cdef void end_call(fl_team_call *call) noexcept nogil:
    """After it: its threads go if they would only spin, and the sizes of the next teams follow."""
    if call.plan.workers > 1 and fl_pause_is_likely(call.began):
        fl_dismiss_threads()
    call.ended = fl_now()
    fl_team_remember(call)


cdef void meet(fl_worker *me) noexcept nogil:
    """Wait for all workers of a team."""
    fl_meet(me)


def adapt_teams(bint on):
    """Whether teams that lose time become smaller; tests turn it off."""
    fl_team_adapts(on)


def has_openmp():
    """Whether this build can use more than one thread."""
    return bool(fl_has_openmp())


def most_threads():
    """How many threads OpenMP gives a team of the calling thread by itself."""
    return fl_most_threads()


USUAL_THREADS = fl_usual_threads()  # the same where nobody has set a limit


cdef const fl_isa *find_isa(str name) except NULL:
    found = _isas.get(name)
    if found is None:
        raise ValueError(f"isa: expected one of {', '.join(_isas)}, got {name!r}")
    return <const fl_isa *><uintptr_t>found


cdef const fl_driver *driver_of(bint is_double) noexcept:
    return &fl_driver_f64 if is_double else &fl_driver_f32


cdef class Buffer:
    """Aligned memory, given back with the object."""

    def __cinit__(self, Py_ssize_t nbytes):
        if nbytes < 0:
            raise MemoryError("this call needs more memory than can be addressed")
        read_setting()
        self.data = allocate(nbytes)
        if self.data == NULL:
            raise MemoryError(f"this call needs {nbytes} bytes of work space")
        self.nbytes = nbytes

    def clear(self, Py_ssize_t nbytes):
        """Set so many of its bytes to zero."""
        memset(self.data, 0, min(max(nbytes, 0), self.nbytes))

    def __dealloc__(self):
        release(self.data)


cdef class BufferCache:
    """Keeps the largest two of the buffers that are returned, so that memory stays flat over calls.

    Each call takes a buffer of its own: one layer may be used by many threads at a time.
    """

    def take(self, Py_ssize_t nbytes):
        """A kept buffer that is large enough, the smaller if both are, or a new one."""
        cdef Buffer buffer
        with cython.critical_section(self):
            if self._smaller is not None and self._smaller.nbytes >= nbytes:
                buffer, self._smaller = self._smaller, None
            elif self._larger is not None and self._larger.nbytes >= nbytes:
                buffer, self._larger, self._smaller = self._larger, self._smaller, None
            else:
                buffer = None
        return Buffer(nbytes) if buffer is None else buffer

    def give(self, Buffer buffer not None):
        """Keep it, or the two larger ones."""
        with cython.critical_section(self):
            if self._larger is None or self._larger.nbytes < buffer.nbytes:
                self._larger, buffer = buffer, self._larger
            if buffer is not None and (
                    self._smaller is None or self._smaller.nbytes < buffer.nbytes):
                self._smaller = buffer
