"""JAX: one compiled function; the input is projected for all steps, then ``lax.scan``."""

from __future__ import annotations

import importlib
import os
from functools import partial
from typing import Any

import numpy as np

from fastlstm.bench.cases import Case
from fastlstm.bench.peers import Work


class Jax:
    """Threads: as many as the processors this process may run on, the only way JAX has.

    So an instance limits the whole process to the last processors, away from the first one, which
    serves most interrupts.  It must be the first in its process to use JAX.
    """

    def __init__(self, threads: int) -> None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
        if threads == 1:
            one = "--xla_cpu_multi_thread_eigen=false"
            os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {one}".strip()
        os.environ["JAX_PLATFORMS"] = "cpu"
        self._jax: Any = importlib.import_module("jax")

    def prepare(self, case: Case) -> Work:
        """Set a case up."""
        jax, jnp = self._jax, self._jax.numpy
        # Matrices as (in, out), as JAX's libraries have them.
        weights = {name: jnp.array(value.T) for name, value in case.weights().items()}
        x, zeros = jnp.array(case.x()), jnp.zeros((case.layers, case.batch, case.hidden))
        state = (zeros, zeros)
        if case.work == "train":
            return self._training(case, weights, x, jnp.array(case.dy()), state)
        # Weights as constants of the compiled function: up to three times faster for a step.
        run = jax.jit(partial(self._forward, weights))
        carries_state = case.carries_state

        def infer() -> Any:
            nonlocal state
            y, after = run(x, state)
            if carries_state:
                state = after
            return y.block_until_ready()

        return Work(infer, lambda y: [np.asarray(y)])

    def _training(self, case: Case, weights: Any, x: Any, dy: Any, state: Any) -> Work:
        jax, jnp = self._jax, self._jax.numpy

        def loss(weights: Any, x: Any, dy: Any) -> Any:
            y, _ = self._forward(weights, x, state)
            return jnp.vdot(y, dy), y

        step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))

        def train() -> Any:
            return jax.block_until_ready(step(weights, x, dy))

        def arrays(result: Any) -> list[Any]:
            (_, y), (grads, dx) = result
            return [np.asarray(a) for a in (y, dx, *(grads[name].T for name in case.weights()))]

        return Work(train, arrays)

    def _forward(self, weights: Any, x: Any, state: Any) -> Any:
        jax, jnp = self._jax, self._jax.numpy
        finals = []
        for layer, before in enumerate(zip(*state, strict=True)):
            w, u, b, b_hh = (
                weights[f"{name}_l{layer}"]
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )

            def step(before: Any, z: Any, u: Any = u) -> Any:
                h, c = before
                i, f, g, o = jnp.split(z + h @ u, 4, axis=1)
                c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
                h = jax.nn.sigmoid(o) * jnp.tanh(c)
                return (h, c), h

            final, x = jax.lax.scan(step, before, x @ w + (b + b_hh))
            finals.append(final)
        h, c = (jnp.stack(parts) for parts in zip(*finals, strict=True))
        return x, (h, c)
