"""What runs a layer: its parameters, their packed form, and the memory that calls use again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastlstm import _validation
from fastlstm._core import library, packed_weights, sequence
from fastlstm._core.threads import chosen_isa, get_num_threads
from fastlstm._layers.config import CELLS, Config
from fastlstm._layers.forget_bias import ForgetBias
from fastlstm._layers.plan_text import plan_text
from fastlstm._layers.states import states_of
from fastlstm._parameters import Parameters


class Executor(Config):
    """A configured layer with its parameters, ready to be run."""

    parameters: Parameters
    """Named arrays.  Of weights in fewer bits they are read-only `StoredWeights`."""

    def _initialize(self, generator: np.random.Generator, forget: ForgetBias | None) -> None:
        """Draw the initial parameters."""
        shapes = self._parameter_shapes()
        self.parameters = Parameters(shapes, self.dtype)
        bound = self.hidden_size**-0.5
        self.parameters.flat = generator.uniform(-bound, bound, self.parameters.flat.size)
        for name in shapes:
            if name.startswith("weight_ln"):
                self.parameters[name] = np.ones(shapes[name])
            if forget is not None and name.startswith("bias_ih"):
                self._open(name, forget, generator)

    def _open(self, name: str, forget: ForgetBias, generator: np.random.Generator) -> None:
        """Set the biases of the gates that keep the state, of one layer and direction."""
        sums = forget.draw(self.hidden_size, generator)
        for other in (name, name.replace("ih", "hh")):
            biases = self.parameters[other].reshape(self._gates, -1).copy()
            for gate, sign in self._keeping_gates(forget.is_drawn).items():
                biases[gate] = sign * sums if other == name else 0
            self.parameters[other] = biases.ravel()

    def _prepare(self) -> None:
        """Set up what is no part of the layer's value: it is neither pickled nor copied."""
        self.isa = chosen_isa()
        self._num_threads: Callable[[], int] = get_num_threads  # a bridge may have its own
        self._packed: packed_weights.PackedWeights | None = None
        self._states = states_of(
            CELLS[self._cell].states, self._output_size, self.hidden_size, self.dtype
        )
        self._scratch = library.BufferCache()

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("isa", "_num_threads", "_packed", "_states", "_scratch")
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "parameters" and name in self.__dict__:
            self._exchange_parameters(value)
        else:
            super().__setattr__(name, value)

    def _exchange_parameters(self, parameters: Parameters) -> None:
        before = self.parameters
        if self._weights_dtype:
            raise ValueError(
                f"parameters: those of {self._weights_dtype} cannot be exchanged; "
                "quantize another layer"
            )
        if not isinstance(parameters, Parameters):
            raise TypeError(f"parameters: expected Parameters, got {type(parameters).__name__}")
        if (parameters._shapes, parameters.flat.dtype) != (before._shapes, before.flat.dtype):
            raise ValueError(f"parameters: expected {before!r}, got {parameters!r}")
        super().__setattr__("parameters", parameters)
        parameters.renew()  # versions only ever grow for those who compare them
        before.renew()  # streams and pools watch these, and then look for others

    def _packed_weights(self, *, backward: bool = False) -> packed_weights.PackedWeights:
        """The parameters as they are now, in the kernels' layout: for forward, or both ways.

        A call keeps the object it got, so a change of the parameters by another thread cannot
        disturb it.
        """
        packed, parameters = self._packed, self.parameters
        if packed is None or not packed.is_of(parameters.version, backward):
            threads = self._num_threads()
            with parameters.lock:
                packed, version = self._packed, parameters.version
                if packed is None or not packed.is_of(version, False):
                    config = self._core_config()
                    flat, scales = parameters.for_packing()
                    packed = packed_weights.PackedWeights(
                        self.isa, config, flat, version, threads, scales
                    )
                if backward:
                    packed.add_backward(self.parameters.flat, threads)
                self._packed = packed
        return packed

    def _dropout_rates(self) -> tuple[float, float] | None:
        """The rates between layers and of recurrent dropout; None: nothing is drawn at random."""
        rate = self.dropout if self.num_layers > 1 else 0.0
        options = self._core_options()
        if rate or self.recurrent_dropout or (options and any(options.zoneout)):
            return rate, self.recurrent_dropout
        return None

    def plan(self, T: int, B: int, *, training: bool = False) -> str:
        """Say how a call would be shared among threads and cut along time; nothing is computed.

        Parameters
        ----------
        T, B : int
            Steps and rows of the input, all of one length.
        training : bool, default False
            The plan of `forward` and `backward` instead of that of calling the layer.

        Returns
        -------
        str
            Lines to print.  It is the plan of a call at this moment: the number of threads may
            change, `set_num_threads`, and the machine's caches count, `show_config`.

        Raises
        ------
        TypeError, ValueError
            If `T` or `B` is not an integer, or below 0, or such a call would not fit in memory.

        Examples
        --------
        >>> import fastlstm
        >>> print(fastlstm.LSTM(64, 128).plan(100, 32))  # doctest: +ELLIPSIS
        LSTM(64, 128) ... T = 100, B = 32
        forward
          threads     ...
          time        100 steps
          input       ...
        """
        if training:
            self._check_trainable("plan")
        T = _validation.integer(T, "T", 0)
        B = _validation.integer(B, "B", 0)
        _validation.check_size(T * B * self._directions * self._output_size, self.dtype, "T, B")
        title = f"{self!r} with {self.isa}, T = {T}, B = {B}{', training' if training else ''}"
        if T == 0 or B == 0:
            return f"{title}\nnothing to compute"
        rates = self._dropout_rates() if training else None
        plans = sequence.plan(
            self.isa,
            self._core_config(),
            self.dtype == np.float64,
            T,
            B,
            (0, *rates, 0, 0) if rates else None,
            bool(training),
            self._num_threads(),
        )
        texts = [plan_text(plan, library.planned_caches()) for plan in plans]
        return "\n".join([title, *texts])
