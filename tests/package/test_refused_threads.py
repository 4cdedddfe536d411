"""Threads that the system refuses: OpenMP would end the process, calls go on with those they have.

The stack of a thread takes 1 GiB here, and after `no_more` there is memory for none.
"""

from __future__ import annotations

import pytest
from support.processes import needs_linux, needs_openmp, python

pytestmark = [needs_linux, needs_openmp]

START = "import os, resource, sys; gib = 1 << 30; "
START += "resource.setrlimit(resource.RLIMIT_STACK, (gib, gib)); "
START += "os.execv(sys.executable, [sys.executable, '-c', {code!r}])"

CODE = """
import resource, threading, time
import numpy as np
import fastlstm
from fastlstm._core import library

def no_more(room=1 << 29):
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + room
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

library.PROCESSORS = 4
lstm, x = fastlstm.LSTM(64, 256, 2, seed=0), np.ones((64, 32, 64), "f4")
fastlstm.set_num_threads(1)
expected = lstm(x)[0]
fastlstm.set_num_threads(4)
{act}
print("done")
"""

FIRST = """
no_more(3 << 29)  # one, but not three
assert (lstm(x)[0] == expected).all()
assert (lstm(x)[0] == expected).all()  # with two, as far as that goes
lstm = fastlstm.LSTM(256, 256)  # weights for more than one thread
grads = lstm.backward(lstm.forward(np.zeros((1, 1, 256), "f4"))[2], np.zeros((1, 1, 256), "f4"))[2]
fastlstm.optim.SGD(lstm.parameters, 0.1).step(grads)
"""

AFTER_A_SMALLER_TEAM = """
library.adapt_teams(False)
for n in (4, 2):  # and OpenMP ends two threads
    fastlstm.set_num_threads(n)
    lstm(x)
no_more()
fastlstm.set_num_threads(4)
assert (lstm(x)[0] == expected).all()
assert (lstm(x)[0] == expected).all()
"""

OF_A_STREAM = """
stream = lstm.stream(32)
for x_t in x[:2]:  # single calls: the team of the second is dismissed
    time.sleep(0.02)
    stream.step(x_t)
no_more()
for x_t in x[2:]:
    y_t = stream.step(x_t)
assert (y_t == expected[-1]).all()
"""

OF_A_POOL = """
pool = fastlstm.StreamPool(lstm, 32)
slots = [pool.open() for _ in range(32)]
for x_t in x[:2]:
    time.sleep(0.02)
    pool.step(x_t, slots)
no_more()
for x_t in x[2:]:
    y_t = pool.step(x_t, slots)
assert (y_t == expected[-1]).all()
"""

OF_ANOTHER_THREAD = """
stream = lstm.stream(32)
stream.step(x[0])
threading.stack_size(1 << 20)
no_more()
def go_on():
    global y_t
    for x_t in x[1:]:
        y_t = stream.step(x_t)
thread = threading.Thread(target=go_on)
thread.start()
thread.join()
assert (y_t == expected[-1]).all()
"""

OF_BYTES = """
lstm = lstm.quantize("int8")
fastlstm.set_num_threads(1)
expected = lstm(x)[0]
fastlstm.set_num_threads(4)
"""

ACTS = {
    "the first team": FIRST,
    "after a smaller team": AFTER_A_SMALLER_TEAM,
    "of a stream": OF_A_STREAM,
    "of a pool": OF_A_POOL,
    "of another thread": OF_ANOTHER_THREAD,
    "of a stream of bytes": OF_BYTES + OF_A_STREAM,
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_a_system_that_refuses_threads(act: str) -> None:
    """Plans are kept and threads are not: each team that needs new ones asks for them."""
    assert python(START.format(code=CODE.format(act=act))) == "done"
