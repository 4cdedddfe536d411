# Slots of a pool: which are open, and their states.  C only, so that none of it can call back into
# the pool; the pool's lock is held.

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset


cdef enum:
    CLOSED = -1  # the mark of a slot that is not open

cdef enum outcome:
    DONE, NO_SLOT, NOT_OPEN, TWICE, NO_MEMORY

cdef struct Slots:
    Py_ssize_t capacity, layers
    char *states[2]  # h and c, each (layers, capacity, width)
    Py_ssize_t row[2]  # bytes of their widths
    long long *marks  # (capacity,): the number of the last step that named the slot, or CLOSED
    long long steps
    Py_ssize_t *chosen  # (capacity,): the slots of a step
    Py_ssize_t count, lowest  # how many are open; none below `lowest` is free


cdef inline bint allocate(Slots *s) noexcept nogil:
    s.marks = <long long *>malloc(s.capacity * sizeof(long long))
    s.chosen = <Py_ssize_t *>malloc(s.capacity * sizeof(Py_ssize_t))
    if s.marks == NULL or s.chosen == NULL:
        return False
    memset(s.marks, 0xff, s.capacity * sizeof(long long))  # CLOSED
    return True


cdef inline void release(Slots *s) noexcept nogil:
    free(s.marks)
    free(s.chosen)


cdef inline void move_state(Slots *s, Py_ssize_t slot, char *h, char *c, bint into) noexcept nogil:
    """Copy h and c, (layers, width), into a slot or out of it."""
    cdef char **rows = [h, c]
    cdef char *state
    cdef Py_ssize_t side, layer, size
    for side in range(2):
        size = s.row[side]
        for layer in range(s.layers):
            state = s.states[side] + (layer * s.capacity + slot) * size
            if into:
                memcpy(state, rows[side] + layer * size, size)
            else:
                memcpy(rows[side] + layer * size, state, size)


cdef inline Py_ssize_t open_lowest(Slots *s) noexcept nogil:
    """The number of a slot that was free, or the capacity; its state is zero."""
    while s.lowest < s.capacity and s.marks[s.lowest] != CLOSED:
        s.lowest += 1
    if s.lowest < s.capacity:
        s.marks[s.lowest] = 0
        s.count += 1
    return s.lowest


cdef inline void close_slot(Slots *s, Py_ssize_t slot) noexcept nogil:
    """Free a slot, and leave nothing in it."""
    cdef Py_ssize_t side, layer
    for side in range(2):
        for layer in range(s.layers):
            memset(s.states[side] + (layer * s.capacity + slot) * s.row[side], 0, s.row[side])
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


cdef inline void copy_chosen(Slots *s, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t k, void *h,
                             void *c, bint gather) noexcept nogil:
    """Copy states of some of the k chosen slots to rows of h and c, (layers, k, width), or back."""
    cdef char **rows = [<char *>h, <char *>c]
    cdef char *row
    cdef char *state
    cdef Py_ssize_t side, layer, i, size
    for side in range(2):
        size = s.row[side]
        for layer in range(s.layers):
            for i in range(begin, end):
                row = rows[side] + (layer * k + i) * size
                state = s.states[side] + (layer * s.capacity + s.chosen[i]) * size
                if gather:
                    memcpy(row, state, size)
                else:
                    memcpy(state, row, size)
