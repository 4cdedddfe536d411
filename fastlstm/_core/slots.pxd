# Slots of a pool: which are open, and their states.  C only, so that none of it can call back into
# the pool; the pool's lock is held.

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from fastlstm._core.c_api cimport FL_MAX_STATES


cdef enum:
    CLOSED = -1  # the mark of a slot that is not open

cdef enum outcome:
    DONE, NO_SLOT, NOT_OPEN, TWICE, NO_MEMORY

cdef struct Slots:
    Py_ssize_t capacity, layers
    int state_count
    char *states[FL_MAX_STATES]  # each (layers, capacity, size)
    Py_ssize_t row[FL_MAX_STATES]  # bytes of their sizes
    long long *marks  # (capacity,): the number of the last step that named the slot, or CLOSED
    long long steps
    long long *openings  # (capacity,): how often the slot was opened
    Py_ssize_t *chosen  # (capacity,): the slots of a step
    Py_ssize_t count, lowest  # how many are open; none below `lowest` is free

cdef struct Moment:  # k streams as they were, to put them back
    void *states[FL_MAX_STATES]  # each (layers, k, size)
    long long *openings  # (k,)
    bint is_kept


cdef inline bint allocate(Slots *s) noexcept nogil:
    s.marks = <long long *>malloc(s.capacity * sizeof(long long))
    s.openings = <long long *>calloc(s.capacity, sizeof(long long))
    s.chosen = <Py_ssize_t *>malloc(s.capacity * sizeof(Py_ssize_t))
    if s.marks == NULL or s.openings == NULL or s.chosen == NULL:
        return False
    memset(s.marks, 0xff, s.capacity * sizeof(long long))  # CLOSED
    return True


cdef inline void release(Slots *s) noexcept nogil:
    free(s.marks)
    free(s.openings)
    free(s.chosen)


cdef inline void move_state(Slots *s, Py_ssize_t slot, char **states, bint into) noexcept nogil:
    """Copy the states of a stream, each (layers, size), into a slot or out of it."""
    cdef char *kept
    cdef Py_ssize_t layer, size
    cdef int i
    for i in range(s.state_count):
        size = s.row[i]
        for layer in range(s.layers):
            kept = s.states[i] + (layer * s.capacity + slot) * size
            if into:
                memcpy(kept, states[i] + layer * size, size)
            else:
                memcpy(states[i] + layer * size, kept, size)


cdef inline Py_ssize_t open_lowest(Slots *s) noexcept nogil:
    """The number of a slot that was free, or the capacity; its state is zero."""
    while s.lowest < s.capacity and s.marks[s.lowest] != CLOSED:
        s.lowest += 1
    if s.lowest < s.capacity:
        s.marks[s.lowest] = 0
        s.openings[s.lowest] += 1
        s.count += 1
    return s.lowest


cdef inline void close_slot(Slots *s, Py_ssize_t slot) noexcept nogil:
    """Free a slot, and leave nothing in it."""
    cdef Py_ssize_t layer
    cdef int i
    for i in range(s.state_count):
        for layer in range(s.layers):
            memset(s.states[i] + (layer * s.capacity + slot) * s.row[i], 0, s.row[i])
    s.marks[slot] = CLOSED
    s.count -= 1
    s.lowest = min(s.lowest, slot)


cdef inline outcome choose(Slots *s, const Py_ssize_t *slots, Py_ssize_t k,
                           Py_ssize_t *last) noexcept nogil:
    """Take over the slots of a step, if they are open and none is there twice."""
    cdef Py_ssize_t i, slot
    s.steps += 1
    for i in range(k):
        slot = last[0] = slots[i]
        if not 0 <= slot < s.capacity:
            return NO_SLOT
        if s.marks[slot] == CLOSED:
            return NOT_OPEN
        if s.marks[slot] == s.steps:
            return TWICE  # true of one of more than `capacity` slots at the latest
        s.marks[slot] = s.steps
        s.chosen[i] = slot
    return DONE


cdef inline void copy_chosen(const Slots *s, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t k,
                             void **states, bint gather) noexcept nogil:
    """Copy states of some of the k chosen slots to rows of (layers, k, size) each, or back."""
    cdef char *row
    cdef char *kept
    cdef Py_ssize_t layer, j, size
    cdef int i
    for i in range(s.state_count):
        size = s.row[i]
        for layer in range(s.layers):
            for j in range(begin, end):
                row = <char *>states[i] + (layer * k + j) * size
                kept = s.states[i] + (layer * s.capacity + s.chosen[j]) * size
                if gather:
                    memcpy(row, kept, size)
                else:
                    memcpy(kept, row, size)


cdef inline void keep(const Slots *s, Py_ssize_t k, Moment *moment) noexcept nogil:
    """Keep the k chosen streams as they are now."""
    cdef Py_ssize_t j
    copy_chosen(s, 0, k, k, moment.states, True)
    for j in range(k):
        moment.openings[j] = s.openings[s.chosen[j]]
    moment.is_kept = True


cdef inline outcome are_those(const Slots *s, Py_ssize_t k, const Moment *moment,
                              Py_ssize_t *last) noexcept nogil:
    """Whether the chosen streams are those that were kept, not others in their slots."""
    cdef Py_ssize_t j
    for j in range(k):
        last[0] = s.chosen[j]
        if s.openings[last[0]] != moment.openings[j]:
            return NOT_OPEN
    return DONE


cdef inline void put_back(Slots *s, const Py_ssize_t *slots, Py_ssize_t k,
                          Moment *moment) noexcept nogil:
    """Make the streams what they were, but for those that have been closed since."""
    cdef Py_ssize_t j
    for j in range(k):
        if s.marks[slots[j]] != CLOSED and s.openings[slots[j]] == moment.openings[j]:
            s.chosen[j] = slots[j]
            copy_chosen(s, j, j + 1, k, moment.states, False)
