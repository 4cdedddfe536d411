# Prefix beam search: which sequence of symbols is the most probable one, summed over its paths.
#
# Probabilities of prefixes are kept relative to the best of a step, so they need no logarithms.  A
# prefix that is 1e-308 of it and less is lost, though a model may forbid all the others later.

from cpython.exc cimport PyErr_CheckSignals

import numpy as np

cdef enum:
    ROOT = 0  # the node of the empty prefix
    NONE = -1


cdef struct Candidate:
    double p
    Py_ssize_t entry, symbol  # the entry that it comes from, and what follows; NONE: nothing does


cdef class _Beam:
    """The entries of a step, and the tree of all prefixes that have been one."""

    cdef Py_ssize_t symbols, blank, width
    cdef Py_ssize_t n, nodes  # entries; nodes of the tree
    # Of the nodes: the prefix without its last symbol, that symbol, the tree, and the entry or NONE.
    cdef Py_ssize_t[::1] parent, symbol, child, sibling, entry
    # Of the entries: the node, p(paths that end in a blank, in a symbol), and these after the step.
    cdef Py_ssize_t[::1] node, new_node
    cdef double[::1] of_blank, of_symbol, new_blank, new_symbol
    cdef double[:, ::1] factors  # of what the model says, by entry and symbol
    cdef double[:, ::1] longer  # p of the entry and one symbol more; NONE: another entry has it
    cdef Candidate[::1] best

    def __cinit__(self, Py_ssize_t steps, Py_ssize_t symbols, Py_ssize_t blank, Py_ssize_t width):
        cdef Py_ssize_t most = steps * width + 1
        self.symbols, self.blank, self.width = symbols, blank, width
        self.parent, self.symbol, self.child, self.sibling, self.entry = np.full((5, most), NONE)
        self.node, self.new_node = np.zeros((2, width), np.intp)
        self.of_blank, self.of_symbol, self.new_blank, self.new_symbol = np.zeros((4, width))
        self.factors, self.longer = np.ones((2, width, symbols))
        self.best = np.zeros(width, [("p", "f8"), ("entry", np.intp), ("symbol", np.intp)])
        self.n = self.nodes = 1
        self.of_blank[0] = 1
        self.entry[ROOT] = 0

    cdef void follow(self, const double[::1] y) noexcept nogil:
        """p of the entries as they are after a step, and of each with one symbol more."""
        cdef Py_ssize_t i, c, before
        cdef double p
        for i in range(self.n):
            p = self.of_blank[i] + self.of_symbol[i]
            self.new_blank[i] = p * y[self.blank]
            for c in range(self.symbols):
                self.longer[i, c] = p * y[c] * self.factors[i, c]
            self.longer[i, self.blank] = NONE
            self.new_symbol[i] = 0
            if self.node[i] != ROOT:
                c = self.symbol[self.node[i]]
                self.new_symbol[i] = self.of_symbol[i] * y[c]
                self.longer[i, c] = self.of_blank[i] * y[c] * self.factors[i, c]  # or it is a repeat
        for i in range(self.n):
            before = NONE if self.node[i] == ROOT else self.entry[self.parent[self.node[i]]]
            if before != NONE:
                c = self.symbol[self.node[i]]
                self.new_symbol[i] += self.longer[before, c]
                self.longer[before, c] = NONE

    cdef Py_ssize_t choose(self) noexcept nogil:
        """The best candidates, the first of equal ones before the others; returns how many."""
        cdef Py_ssize_t i, c, count = 0
        for i in range(self.n):
            count = self.put(count, self.new_blank[i] + self.new_symbol[i], i, NONE)
        for i in range(self.n):
            for c in range(self.symbols):
                count = self.put(count, self.longer[i, c], i, c)
        return count

    cdef Py_ssize_t put(self, Py_ssize_t count, double p, Py_ssize_t entry,
                        Py_ssize_t symbol) noexcept nogil:
        cdef Py_ssize_t at = count
        if not p > 0 or (count == self.width and not p > self.best[count - 1].p):
            return count
        if count == self.width:
            at -= 1
        while at > 0 and p > self.best[at - 1].p:
            self.best[at] = self.best[at - 1]
            at -= 1
        self.best[at].p, self.best[at].entry, self.best[at].symbol = p, entry, symbol
        return min(count + 1, self.width)

    cdef void take(self, Py_ssize_t count) noexcept nogil:
        """The candidates become the entries, relative to the best of them."""
        cdef Py_ssize_t i, node
        cdef double best = self.best[0].p  # its inverse may be too large for a double
        for i in range(self.n):
            self.entry[self.node[i]] = NONE
        for i in range(count):
            node = self.node[self.best[i].entry]
            if self.best[i].symbol == NONE:
                self.of_blank[i] = self.new_blank[self.best[i].entry] / best
                self.of_symbol[i] = self.new_symbol[self.best[i].entry] / best
            else:
                node = self.longer_node(node, self.best[i].symbol)
                self.of_blank[i], self.of_symbol[i] = 0, self.best[i].p / best
            self.new_node[i] = node
        for i in range(count):
            self.node[i] = self.new_node[i]
            self.entry[self.node[i]] = i
        self.n = count

    cdef Py_ssize_t longer_node(self, Py_ssize_t node, Py_ssize_t symbol) noexcept nogil:
        """The node of a prefix and one symbol more, which has one node however often it comes."""
        cdef Py_ssize_t other = self.child[node]
        while other != NONE:
            if self.symbol[other] == symbol:
                return other
            other = self.sibling[other]
        other = self.nodes
        self.nodes += 1
        self.parent[other], self.symbol[other] = node, symbol
        self.sibling[other] = self.child[node]
        self.child[node] = other
        return other

    cdef object prefix(self, Py_ssize_t node):
        symbols = []
        while node != ROOT:
            symbols.append(self.symbol[node])
            node = self.parent[node]
        return tuple(symbols[::-1])


def search(const double[:, ::1] y not None, Py_ssize_t blank, Py_ssize_t width, double bonus,
           factors=None):
    """The most probable sequence of symbols, as a tuple.

    Parameters
    ----------
    y : (T, K) array
        Probabilities of the symbols at each step.
    blank : int
    width : int
        How many prefixes are kept after each step.
    bonus : float
        Each symbol of a prefix multiplies its probability by that.
    factors : callable, optional
        Takes a prefix, a tuple of symbols; returns (K,) array: what each symbol multiplies its
        probability by if it is the next one, in place of `bonus`.  Asked when a prefix enters the beam.
    """
    cdef _Beam beam = _Beam(y.shape[0], y.shape[1], blank, width)
    cdef Py_ssize_t t, i, count
    cdef double[::1] given
    if not 0 <= blank < y.shape[1] or width < 1:
        raise ValueError("blank, width: out of range")
    known = {}
    beam.factors[:, :] = bonus
    for t in range(y.shape[0]):
        PyErr_CheckSignals()
        if factors is not None:
            before, known = known, {}  # of the entries of this step
            for i in range(beam.n):
                node = beam.node[i]
                found = before.get(node)
                given = known[node] = factors(beam.prefix(node)) if found is None else found
                beam.factors[i, :] = given
        with nogil:
            beam.follow(y[t])
            count = beam.choose()
            if count > 0:  # or no symbol is possible here: the step is passed over
                beam.take(count)
    best = max(range(beam.n), key=lambda i: beam.of_blank[i] + beam.of_symbol[i])
    return beam.prefix(beam.node[best])
