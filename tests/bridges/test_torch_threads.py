"""The modules of fastlstm.torch use no more threads than torch does."""

from __future__ import annotations

import pytest
from support.processes import needs_linux, needs_openmp, python

pytest.importorskip("torch")

pytestmark = [needs_openmp, pytest.mark.peer]

# What is counted are threads that are there after a call: those of a team remain.
START = """
import os
from threading import Thread
import torch
import fastlstm.torch
fastlstm.set_num_threads(3)
fastlstm._core.library.PROCESSORS = 3
fastlstm._core.library.adapt_teams(False)
fastlstm._core.library.most_threads = lambda: 4  # as where torch has an OpenMP of its own
module = fastlstm.torch.replace(torch.nn.LSTM(64, 100))
x = torch.ones(4, 16, 64)
dy = torch.ones(4, 16, 100)
torch.ones(1, requires_grad=True).sum().backward()  # autograd's own threads

def count():
    return len(os.listdir("/proc/self/task"))

def forward():
    return module(x)[0]

def infer():
    with torch.inference_mode():
        forward()

def started(call, threads):
    torch.set_num_threads(threads)
    before = count()
    result = call()
    return count() - before, result
"""


def shown(code: str) -> list[str]:
    return python(START + code).split()


@needs_linux
def test_inference() -> None:
    code = "print(*(started(infer, threads)[0] for threads in (1, 2, 8)))"
    assert shown(code) == ["0", "1", "1"]


@needs_linux
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_backward(threads: int) -> None:
    """It asks torch again, in the thread that computes."""
    code = f"""
y = started(forward, 1)[1]
print(started(lambda: y.backward(dy), {threads})[0])
"""
    assert shown(code) == [str(threads - 1)]


@needs_linux
@pytest.mark.parametrize("threads", [1, 2])
def test_other_threads(threads: int) -> None:
    """torch's number is for those that come after; a loader of data has 1 in its workers."""
    code = f"""
torch.set_num_threads({threads})
found = []
def work():
    before = count()
    forward().backward(dy)
    found.append(count() - before)
thread = Thread(target=work)
thread.start()
thread.join()
print(*found)
"""
    assert shown(code) == [str(threads - 1)]


@needs_linux
def test_a_compiled_module() -> None:
    """A graph has no number of threads in it."""
    code = """
torch.set_num_threads(1)
with torch.no_grad():
    module = torch.jit.trace(module, x)
print(started(infer, 1)[0], started(infer, 2)[0])
"""
    assert shown(code) == ["0", "1"]
