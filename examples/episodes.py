"""A recurrent policy for a memory task, trained on a batch of endless episodes with `reset`.

    python examples/episodes.py

A corridor: the first observation of an episode shows a sign, left or right; then some steps without
any; at the junction, which is shown, the agent has to turn to where the sign pointed.  A reward is
+1 or -1.  Thirty-two corridors run side by side, episodes begin at different times, and `reset`
tells the layer where: its state is empty there, and no gradient passes into the episode before.
Training is REINFORCE with the reward as it is; the policy is an LSTM whose first two hidden units
are the logits of left and right.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import fastlstm

STEPS, ROWS, LONGEST, HIDDEN = 60, 32, 12, 24
LEFT, RIGHT, NOTHING, JUNCTION = range(4)  # what can be observed


def corridors(rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Observations and resets (T, B), and where to turn, 0 or 1, at junctions: else -1."""
    observations = np.full((STEPS, ROWS), NOTHING)
    resets, turns = np.zeros((STEPS, ROWS), bool), np.full((STEPS, ROWS), -1)
    for row in range(ROWS):
        start = 0
        while start < STEPS:
            length, side = int(rng.integers(3, LONGEST + 1)), int(rng.integers(2))
            observations[start, row] = (LEFT, RIGHT)[side]
            resets[start, row] = True
            if start + length <= STEPS:
                observations[start + length - 1, row] = JUNCTION
                turns[start + length - 1, row] = side
            start += length
    return observations, resets, turns


def improve(policy: Any, optimizer: Any, rng: np.random.Generator) -> float:
    """Act in a batch of corridors, learn from the rewards, and return their mean."""
    observations, resets, turns = corridors(rng)
    y, _, tape = policy.forward(observations, embedding="one-hot", reset=resets)
    right = 1 / (1 + np.exp(4 * (y[..., 0] - y[..., 1])))  # probability of turning right
    actions = rng.random(right.shape) < right
    at_junction = turns >= 0
    rewards = np.where(actions == (turns == 1), 1.0, -1.0) * at_junction
    slope = rewards * (actions - right) * 4 / at_junction.sum()  # d (reward log p) / d logit
    dy = np.zeros_like(y)
    dy[..., 0], dy[..., 1] = slope, -slope  # the loss is the negative
    _, _, grads = policy.backward(tape, dy)
    fastlstm.optim.clip_grad_norm(grads, 1.0)
    optimizer.step(grads)
    return float(rewards.sum() / at_junction.sum())


def main() -> None:
    """Train and print the mean reward now and then."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=600)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    policy = fastlstm.LSTM(4, HIDDEN, seed=0)
    optimizer = fastlstm.optim.Adam(policy.parameters, lr=5e-3)
    rewards: list[float] = []
    for update in range(1, args.updates + 1):
        rewards.append(improve(policy, optimizer, rng))
        if update % max(args.updates // 10, 1) == 0:
            recent = np.mean(rewards[-max(args.updates // 10, 1) :])
            print(f"after {update:4} updates: mean reward {recent:+.2f}", flush=True)


if __name__ == "__main__":
    main()
