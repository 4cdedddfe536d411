"""Layers of the reference with random weights, and calls of them."""

from __future__ import annotations

from typing import Any

from numpy.random import Generator

from support.compare import Arrays

T, B, I, H = 4, 3, 2, 5  # all different, so that a mix-up shows


def random_layer(kind: Any, rng: Generator, **options: Any) -> Any:
    """With weights that reach the bounds of the clips, some of them."""
    layer = kind(I, H, **options)
    for value in layer.parameters.values():
        value[:] = rng.standard_normal(value.shape) * 0.8
    return layer


def random_call(rng: Generator, layer: Any) -> Arrays:
    """x, h_0, c_0 and the gradients of the three outputs: all random, all different."""
    D, P = len(layer.suffixes), layer.output_size
    LD = D * layer.num_layers
    shapes = {"x": (T, B, I), "dy": (T, B, D * P), "h_0": (LD, B, P), "dh_n": (LD, B, P)}
    shapes |= {"c_0": (LD, B, H), "dc_n": (LD, B, H)}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def results(layer: Any, v: Arrays, **masks: Any) -> Arrays:
    """Everything that forward and backward return."""
    y, (h_n, c_n), tape = layer.forward(v["x"], (v["h_0"], v["c_0"]), **masks)
    dx, (dh_0, dc_0), grads = layer.backward(tape, v["dy"], (v["dh_n"], v["dc_n"]))
    named = {"y": y, "h_n": h_n, "c_n": c_n, "dx": dx, "dh_0": dh_0, "dc_0": dc_0}
    return named | {f"d {name}": grad for name, grad in grads.items()}
