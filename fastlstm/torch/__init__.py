"""Drop-in ``torch.nn`` modules that compute with fastlstm: on the CPU, with autograd.

`LSTM`, `GRU` and `RNN` are subclasses of torch's modules of that name: the constructor, the
parameters, ``state_dict`` and what they return are torch's; only the work is done here.  `replace`
turns the recurrent modules of a model into these.  Needs torch.

Inputs, outputs and gradients share their memory with NumPy arrays: they are not copied.  Before
each call the parameters are compared with those of the last call, bit for bit, so that any edit of
them counts, whoever made it.  A gradient belongs to the parameters of its forward call, even if an
optimizer has changed them since.

The number of threads is that of `fastlstm.set_num_threads`, not that of ``torch.set_num_threads``.
Outputs are computed for float32 and float64 on the CPU, without autocast.  Gradients may be
batched, ``torch.autograd.grad(..., is_grads_batched=True)``; they are computed one after the other.
A module cannot be differentiated twice, nor by the transforms of ``torch.func``.
"""

from __future__ import annotations

try:
    import torch as _torch
except ImportError as error:
    message = "fastlstm.torch needs torch: pip install 'fastlstm[torch]'"
    raise ImportError(message) from error

from fastlstm.torch._modules import GRU, LSTM, RNN
from fastlstm.torch._replace import replace

__all__ = ["GRU", "LSTM", "RNN", "replace"]

for _module in (GRU, LSTM, RNN):
    _module.__module__ = __name__  # where pickles look for them

del _module, _torch
