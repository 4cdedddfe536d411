"""Children that are forked while another thread of the parent holds something."""

from __future__ import annotations

import os

import pytest
from support.processes import python

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")

# A child that waits for ever is ended by the alarm.
FORK = """
import os, signal, threading, time
import numpy as np
import fastlstm

lstm = fastlstm.LSTM(3, 5, 2, seed=0)
x = np.ones((4, 1, 3), np.float32)
held, release = threading.Event(), threading.Event()

{hold}

thread = threading.Thread(target=hold)
thread.start()
held.wait()
{until}
child = os.fork()
if child == 0:
    signal.alarm(20)
    {act}
    os._exit(0)
release.set()
thread.join()
print(os.waitpid(child, 0)[1])
"""


def fork(hold: str, act: str, until: str = "") -> None:
    assert python(FORK.format(hold=hold, act=act, until=until)) == "0"


def test_in_the_middle_of_an_update() -> None:
    """The fork waits for it: the child has all of it, and no lock is held there."""
    hold = """
def hold():
    with lstm.parameters.update() as flat:
        flat[:10] = 7
        held.set()
        time.sleep(0.2)
        flat[10:] = 7
"""
    fork(hold, "lstm(x); assert (lstm.parameters.flat == 7).all()")


def test_while_a_tape_is_in_use() -> None:
    hold = """
y, _, tape = lstm.forward(x)
def hold():
    with tape._turn():
        held.set()
        release.wait()
"""
    fork(hold, "lstm.backward(tape, y)")


@pytest.mark.parametrize("act", ["step(x[0])", "run(x)", "state", "copy().step(x[0])"])
def test_while_a_stream_is_in_use(act: str) -> None:
    hold = """
stream = lstm.stream()
class Pausing:
    def __array__(self, *args, **options):
        held.set()
        release.wait()
        return x[0]
def hold():
    stream.step(Pausing())
"""
    fork(hold, f"stream.{act}")


def test_the_parent_goes_on() -> None:
    code = """
import os
import numpy as np
import fastlstm
lstm = fastlstm.LSTM(3, 5)
for _ in range(3):
    if os.fork() == 0:
        os._exit(0)
    os.wait()
    lstm.parameters.flat = lstm.parameters.flat * 2
lstm.parameters.lock.release()
"""
    with pytest.raises(AssertionError, match="release"):  # it was free, as it should be
        python(code)
