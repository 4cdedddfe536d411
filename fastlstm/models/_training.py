"""Training of a language model: its gradients, and the arguments of a run."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import Any, Literal

import numpy as np

from fastlstm import _validation
from fastlstm._core import memory
from fastlstm._core.threads import arithmetic
from fastlstm._io.atomic import StrPath
from fastlstm._layers.base import Layer
from fastlstm._parameters import Gradients, Parameters
from fastlstm._shards import ShardGradients, Shards
from fastlstm._validation import bound, non_negative
from fastlstm.distributed import Group, alone
from fastlstm.heads._softmax import Array, Indices, softmax_loss_backward, sums_of_shards
from fastlstm.models._evaluation import mean_bits
from fastlstm.models._history import History
from fastlstm.models._progress import ProgressDisplay
from fastlstm.models._task import Reading, TextTask
from fastlstm.models._text import Alphabet, split
from fastlstm.optim import Adam
from fastlstm.training._batches import Codes
from fastlstm.training._checkpoint import Checkpoints, fingerprint
from fastlstm.training._history import Progress
from fastlstm.training._loop import train
from fastlstm.training._plan import Plan, length_of_run
from fastlstm.training._together import agree

State = tuple[Array, ...]  # of cells with one state, a tuple of one


class Training:
    """What trains a language model."""

    lstm: Layer[Any, Any, Any]
    parameters: Parameters
    _alphabet: Alphabet
    _config: dict[str, Any]
    _shapes: dict[str, tuple[int, ...]]

    @property
    def trainable(self) -> list[Parameters]:
        """What an optimizer updates: of the recurrent layer, of embedding and linear layer."""
        return [self.lstm.parameters, self.parameters]

    def fit(
        self,
        text: str,
        *,
        held_out: float | str = 0.1,
        steps: int | None = None,
        seconds: float | None = None,
        epochs: float | None = None,
        batch_size: int = 32,
        chunk: int = 64,
        lr: float = 3e-3,
        clip_norm: float = 1.0,
        evaluations: int = 10,
        reset_every: int | None = None,
        progress: Progress | bool | None = None,
        checkpoint: StrPath | None = None,
        checkpoint_every: int | None = None,
        resume: bool | Literal["auto"] = False,
        shards: int | None = None,
        group: Group | None = None,
    ) -> History:
        """Train by truncated BPTT with Adam, the learning rate falling linearly to 0.

        Each row of the batch reads its own part of the text, chunk after chunk, with the
        state carried on between chunks.  Ctrl-C ends the run after the current step and keeps
        what was learned (in the main thread, where Python's own handler is in place).

        Parameters
        ----------
        text : str
            What to train on.
        held_out : float or str
            A text that is only measured, or the part at the end of `text` to hold out as one:
            0.1 is the last tenth, 0 nothing.
        steps, seconds, epochs
            The length of the run: exactly one of them is given.  An epoch reads as many
            characters as there are.
        batch_size, chunk : int
            Rows, and characters per row and step.
        lr : float
            Learning rate at the start.
        clip_norm : float
            Largest norm of the gradients of a step.
        evaluations : int
            How often, evenly spaced and at the end, the held-out text is measured.
        reset_every : int, optional
            Set the state of each row to zero once in so many steps, one row after another, so that
            the model knows how to begin: a prompt begins with that state.  Default: never, a row
            always goes on with the state of the text before.
        progress : callable or bool, optional
            True shows a bar on a terminal and in a notebook, and a few lines anywhere else.  A
            callable is called with a `Record` after every step; if it has a method ``resumed``,
            that is called with the number of steps when a run goes on.
        checkpoint : path-like, optional
            Save the run in this file, from which it goes on with the same bits as if it had never
            stopped: now and then, at the end, when Ctrl-C ends it, and before the process ends
            when it gets SIGTERM or SIGUSR1.  The file is replaced only when a new one is complete.
        checkpoint_every : int, optional
            Steps from one checkpoint to the next, 1000 by default: so a run of the usual size that
            is killed loses less than a minute, and spends next to no time on writing.
        resume : bool or "auto"
            Go on from the checkpoint, which has to be of a run with the same arguments; "auto": if
            the file is there.  A run that had come to its end returns at once.
        shards : int, optional
            Cut the batch into so many parts, a power of two, and add their gradients in a fixed
            order: then the bits of the result do not depend on the number of processes.
        group : Group, optional
            Train in all processes of a group of `fastlstm.distributed`, which call this with the
            same arguments; it needs `shards`.  They begin with the weights of process 0, which
            alone measures, calls `progress` and has the checkpoint; a signal to one stops all,
            and any number of them can go on.

        Returns
        -------
        History

        Raises
        ------
        FloatingPointError
            The loss is not finite any more.
        OSError
            The checkpoint cannot be written or read.
        RuntimeError
            Another process had an error, or has not the same weights any more.
        SystemExit
            SIGTERM or SIGUSR1 came, and the checkpoint is complete: 128 and the number of the
            signal.
        ValueError
            An argument cannot be meant; or the checkpoint is damaged, or of another run, or
            processes are to make different ones: then the message names what differs.

        Examples
        --------
        A run that Ctrl-C or a signal stops goes on when the same lines run again:

        >>> import os, tempfile
        >>> from fastlstm.models import LanguageModel
        >>> path = os.path.join(tempfile.mkdtemp(), "run.ckpt")
        >>> text = "the cat sat on the mat. " * 200
        >>> model = LanguageModel(text, hidden_size=32, seed=1)
        >>> history = model.fit(text, steps=60, checkpoint=path, resume="auto")
        >>> again = LanguageModel(text, hidden_size=32)
        >>> again.fit(text, steps=60, checkpoint=path, resume="auto") == history
        True
        """
        if group is not None and not isinstance(group, Group):
            raise TypeError(f"group: expected a fastlstm.distributed.Group, got {group!r}")
        processes = group or alone()

        def prepare() -> tuple[Any, ...]:
            self.lstm._check_trainable("fit", "model")
            if group is not None and shards is None:
                raise ValueError("shards: expected a power of two with a group, got None")
            codes, rest = split(self._alphabet, text, held_out)
            reading = Reading.of(batch_size, chunk, reset_every)
            plan = Plan(
                *length_of_run(steps, seconds, epochs, len(codes) / reading.characters),
                lr=non_negative("lr", lr),
                schedule="linear",
                clip_norm=bound("clip_norm", clip_norm),
                evaluations=_validation.integer(evaluations, "evaluations", 1),
            )
            own = None if shards is None else processes.shards(reading.batch_size, shards)
            settings = {
                **self._config,
                "dropout": self.lstm.dropout,
                "instruction set": arithmetic(),
                "alphabet": fingerprint(self._alphabet.points),
                "text": fingerprint(codes),
                "held_out": fingerprint(rest),
                **asdict(reading),
                **asdict(plan),
                "shards": own and own.count,
            }
            checkpoints = Checkpoints.of(checkpoint, checkpoint_every, resume, settings)
            task = TextTask(self, codes, reading, own)
            return task, rest, plan, settings, checkpoints

        task, rest, plan, settings, checkpoints = agree(processes, prepare)[0]
        every = checkpoints and checkpoints.every
        processes.check({**settings, "checkpoint_every": every})
        evaluate = (lambda: self._mean_bits(rest, batch_size)) if len(rest) else None
        show = None if isinstance(progress, bool) else progress
        with contextlib.ExitStack() as stack:
            if progress is True:
                show = stack.enter_context(ProgressDisplay())
            optimizer = Adam(self.trainable, plan.lr)
            history = train(task, optimizer, plan, processes, evaluate, show, checkpoints)
            assert isinstance(history, History)
            return history

    def gradients(
        self, inputs: Indices, targets: Indices, state: State | None
    ) -> tuple[float, list[Gradients], State]:
        """Return the loss of a chunk, its gradients in the order of `trainable`, and the state.

        Parameters
        ----------
        inputs, targets : [T, B] arrays
            Codes of characters (their places in `alphabet`), and of those that follow.
        state : tuple of the states of the cell, (h, c) or (h,) or (h, c, n, m), optional
            The state before the chunk, [L, B, H] each; default zeros.
        """
        self.lstm._check_trainable("gradients", "model")
        embedding = self.parameters["embedding.weight"]
        y, state, tape = self._forward(inputs, state, embedding=embedding)
        heads = Gradients(self._shapes, memory.empty((self.parameters.size,), np.dtype("f4")))
        nll, dy = softmax_loss_backward(self.lstm, self.parameters, y, targets, heads)
        heads["embedding.weight"][...], _, lstm = self.lstm.backward(tape, dy)
        return float(nll.mean(dtype=np.float64)), [lstm, heads], state

    def shard_gradients(
        self, inputs: Indices, targets: Indices, state: State | None, shards: Shards
    ) -> tuple[Array, list[ShardGradients], State]:
        """Return the same of each shard, for the rows of one process.

        The sums of all shards, losses divided by T times the rows of the whole batch, are those of
        `gradients`.

        Parameters
        ----------
        inputs, targets, state
            As for `gradients`, of the rows of these shards.
        shards : Shards

        Returns
        -------
        (shards,) array of float64
            Sums of losses.
        list of ShardGradients
        (h, c)
        """
        self.lstm._check_trainable("shard_gradients", "model")
        embedding = self.parameters["embedding.weight"]
        y, state, tape = self._forward(inputs, state, embedding=embedding, shards=shards)
        flats = memory.empty((len(shards.starts) - 1, self.parameters.size), np.dtype("f4"))
        heads = ShardGradients(self._shapes, flats, shards)
        nll, dy = softmax_loss_backward(self.lstm, self.parameters, y, targets, heads)
        heads.of("embedding.weight")[...], _, lstm = self.lstm.backward(tape, dy)
        return sums_of_shards(nll, shards), [lstm, heads], state

    def _forward(self, inputs: Indices, state: State | None, **options: Any) -> tuple[Any, ...]:
        """`forward` of the layer, where a state is a tuple with any cell."""
        if self._state_count > 1:
            return self.lstm.forward(inputs, state, **options)
        y, h, tape = self.lstm.forward(inputs, None if state is None else state[0], **options)
        return y, (h,), tape

    @property
    def _state_count(self) -> int:
        return len(self.lstm._states.firsts)

    @property
    def _generators(self) -> list[np.random.Generator]:
        """What draws random choices in `gradients`."""
        return [self.lstm._dropout_keys]

    def _zero_state(self, rows: int) -> State:
        """The state before a text."""
        shape = (self.lstm.num_layers, rows, self.lstm.hidden_size)
        return tuple(np.zeros(shape, np.float32) for _ in range(self._state_count))

    def _mean_bits(self, codes: Codes, rows: int) -> float:
        return mean_bits(self.lstm, self.parameters, codes, rows)
