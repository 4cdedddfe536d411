"""Drop-in ``torch.nn`` modules that compute with fastlstm: on the CPU, with autograd.

`LSTM`, `GRU`, `RNN`, `LSTMCell`, `GRUCell` and `RNNCell` are subclasses of torch's modules of that
name: the constructor, the parameters, ``state_dict`` and what they return are torch's; only the
work is done here.  `replace` turns the recurrent modules of a model into these, and `restore` turns
them back.  Needs torch.

Inputs, outputs and gradients share their memory with NumPy arrays: they are not copied.  Before
each call the parameters are compared with those of the last call, bit for bit, so that any edit of
them counts, whoever made it.  A gradient belongs to the parameters of its forward call, even if an
optimizer has changed them since.

A call uses at most `fastlstm.get_num_threads` threads, and at most ``torch.get_num_threads()``.
Outputs are computed for float32 and float64 on the CPU, without autocast.  Gradients may be
batched, ``torch.autograd.grad(..., is_grads_batched=True)``; they are computed one after the other.
A module cannot be differentiated twice, nor by the transforms of ``torch.func``.

``torch.compile``, ``torch.export`` and ``torch.jit.trace`` (within ``torch.no_grad()``) record a
module as one operation of fastlstm; what they make needs `fastlstm.torch` to run.
``torch.jit.script`` cannot read a module, and says so.
"""

from __future__ import annotations

try:
    import torch as _torch
except ImportError as error:
    message = "fastlstm.torch needs torch: pip install 'fastlstm[torch]'"
    raise ImportError(message) from error

from fastlstm.torch._bridge import HOME as _HOME
from fastlstm.torch._cells import GRUCell, LSTMCell, RNNCell
from fastlstm.torch._modules import GRU, LSTM, RNN
from fastlstm.torch._replace import replace, restore

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell", "replace", "restore"]

for _module in (GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell):
    _module.__module__ = _HOME  # where pickles look for them

del _module, _torch
