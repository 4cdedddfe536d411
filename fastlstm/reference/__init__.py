"""The definition of what fastlstm computes: the textbook's cells in NumPy and float64.

One time step, with the gates i, f, g, o stacked in this order in the rows of W_ih, W_hh and b::

    z = W_ih x_t + W_hh h_(t-1) + b        i, f, o = sigmoid(z_i), sigmoid(z_f), sigmoid(z_o)
    c_t = f c_(t-1) + i g                  g = tanh(z_g)
    h_t = o tanh(c_t)

for an LSTM; for a GRU, with the gates r, z, n, and for a plain RNN, with f = tanh or max(0, .)::

    n = tanh(W_n x_t + b_in + r (U_n h_(t-1) + b_hn))      h_t = f(W x_t + U h_(t-1) + b)
    h_t = (1 - z) n + z h_(t-1)

or, with ``reset_after=False``, n = tanh(W_n x_t + b_in + U_n (r h_(t-1)) + b_hn).
xLSTM's scalar cell, with its own four states, is in ``slstm``.

``cells`` has these as functions of one layer in one direction, forward and backward; ``options``
has the LSTM with peepholes, projection and the other options, and ``activations`` their functions.
The classes `LSTM`, `GRU`, `RNN` and `SLSTM` stack them behind the calls of `fastlstm`; ``heads``,
``crf`` and ``ctc`` have what may follow.  Nothing here is fast: the kernels are tested against it.
"""

from fastlstm.reference.activations import ACTIVATIONS, Activation, activation
from fastlstm.reference.cells import (
    Array,
    GRUSaved,
    RNNSaved,
    Saved,
    State,
    gru_backward,
    gru_before_backward,
    gru_before_forward,
    gru_forward,
    lstm_backward,
    lstm_forward,
    lstm_step,
    rnn_backward,
    rnn_forward,
    sigmoid,
)
from fastlstm.reference.heads import cross_entropy, linear, linear_backward, mse
from fastlstm.reference.layers import GRU, LSTM, RNN, SLSTM
from fastlstm.reference.options import (
    Masks,
    Options,
    OptionsSaved,
    options_backward,
    options_forward,
)
from fastlstm.reference.slstm import SLSTMSaved, slstm_backward, slstm_forward, slstm_step
from fastlstm.reference.stack import StateLike, Tape

__all__ = [
    "ACTIVATIONS",
    "GRU",
    "LSTM",
    "RNN",
    "SLSTM",
    "Activation",
    "Array",
    "GRUSaved",
    "Masks",
    "Options",
    "OptionsSaved",
    "RNNSaved",
    "SLSTMSaved",
    "Saved",
    "State",
    "StateLike",
    "Tape",
    "activation",
    "cross_entropy",
    "gru_backward",
    "gru_before_backward",
    "gru_before_forward",
    "gru_forward",
    "linear",
    "linear_backward",
    "lstm_backward",
    "lstm_forward",
    "lstm_step",
    "mse",
    "options_backward",
    "options_forward",
    "rnn_backward",
    "rnn_forward",
    "sigmoid",
    "slstm_backward",
    "slstm_forward",
    "slstm_step",
]
