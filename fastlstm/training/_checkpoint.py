"""The checkpoint of a training run: all that decides how it goes on, in one file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm import _validation
from fastlstm._io import tensor_file
from fastlstm._io.atomic import StrPath, check_replaceable, remove_leftovers
from fastlstm._validation import non_negative

Array = NDArray[Any]
Settings = Mapping[str, Any]

_KIND = "checkpoint"
# A step of the default model takes some hundredths of a second: it loses less than a minute when it
# is killed, and spends much less than a hundredth of its time on writing.
STEPS_BETWEEN = 1000
_FIELDS = 6  # of a record
_FIGURES = ("step", "read", "seconds", "done")  # of a moment


class Moment(NamedTuple):
    """Where a run stands between two steps."""

    step: int
    """Updates of the weights so far."""
    read: int
    """Where in the data it stands: characters that each row has read, or batches."""
    seconds: float
    """Time spent."""
    done: float
    """Part of the run, 0 to 1."""
    weights: list[Array]
    """The flat vectors of the parameters."""
    best: list[Array]
    """Those of the best record, if that is looked for."""
    optimizer: dict[str, Any]
    """Its `state_dict`."""
    generators: list[Mapping[str, Any]]
    """States of the bit generators."""
    state: tuple[Array, ...]
    """What it has to know of the data: states of all rows, [L, B, H] each, or an order."""
    records: list[Any]
    """Those of the history."""
    losses: list[tuple[float, int]]
    """Of the steps since the last record, and of how many examples each is the mean."""


@dataclass(frozen=True)
class Checkpoints:
    """The file that a run is saved in, and when.

    Parameters
    ----------
    path : path-like
    every : int
        Steps between two checkpoints.
    resume : bool or "auto"
        Whether to go on from the file; "auto": if there is one.
    settings : mapping
        What the run depends on, by the names of arguments; numbers and strings.
    """

    path: StrPath
    every: int
    resume: bool | Literal["auto"]
    settings: Settings

    @classmethod
    def of(
        cls, path: StrPath | None, every: int | None, resume: Any, settings: Settings
    ) -> Checkpoints | None:
        """What the arguments of `fit` ask for; None without a path.

        Raises
        ------
        TypeError, ValueError
            An argument cannot be meant.
        """
        if not (isinstance(resume, bool) or resume == "auto"):
            raise ValueError(f"resume: expected True, False or 'auto', got {resume!r}")
        if every is not None:
            every = _validation.integer(every, "checkpoint_every", 1)
        if path is None:
            for name, value in {"checkpoint_every": every, "resume": resume or None}.items():
                if value is not None:
                    raise ValueError(f"checkpoint: expected a path with {name}, got None")
            return None
        return cls(path, every or STEPS_BETWEEN, resume, settings)

    def due(self, step: int) -> bool:
        """Whether a run is to be saved after this step, even if it goes on.

        After the first one, too: the file is that of this run then, and no other one's.
        """
        return step == 1 or step % self.every == 0

    def write(self, moment: Moment) -> None:
        """Save a run.

        Raises
        ------
        OSError
            The file cannot be written; it is what it was.
        """
        tensors = _tensors(moment)
        config = {**_config(moment), "settings": dict(self.settings)}
        tensor_file.write(self.path, _KIND, tensors, {**config, "digest": _digest(tensors, config)})

    def begin(self, like: Moment, record: Any) -> Moment | None:
        """The moment that was saved last, or None if the run is to begin.

        Nothing else writes the file from now on.

        Parameters
        ----------
        like : Moment
            One of this run: what is read has its shapes.
        record : type
            Of the records of the history: two integers, and four numbers.

        Raises
        ------
        OSError
            The file cannot be read or written.
        ValueError
            It is damaged, or of something else, or of a run with other settings.
        """
        check_replaceable(self.path)
        remove_leftovers(self.path)
        if not self.resume:
            return None
        try:
            tensors, config = tensor_file.read(self.path, _KIND)
        except FileNotFoundError:
            if self.resume == "auto":
                return None
            raise
        if config.pop("digest", None) != _digest(tensors, config):
            raise ValueError(f"{self.path}: the checkpoint is damaged")
        self._compare(config.get("settings"))
        try:
            return _moment(tensors, config, like, record)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            # What nobody damaged was written by another version.
            raise ValueError(
                f"{self.path}: not a checkpoint as this version of fastlstm writes it ({error})"
            ) from None

    def _compare(self, saved: Any) -> None:
        if not isinstance(saved, dict) or set(saved) != set(self.settings):
            expected = ", ".join(self.settings)
            raise ValueError(f"{self.path}: expected a checkpoint with the settings {expected}")
        for name, value in self.settings.items():
            if saved[name] != value:
                raise ValueError(
                    f"{name}: expected {saved[name]} as in the checkpoint {self.path}, got {value}"
                )


def fingerprint(codes: Array) -> str:
    """What tells a text from others, in an error too."""
    digest = hashlib.blake2b(np.ascontiguousarray(codes).tobytes(), digest_size=6)
    return f"{len(codes):,} characters with hash {digest.hexdigest()}"


def _tensors(moment: Moment) -> dict[str, Array]:
    """All arrays of a moment, by the names they have in the file."""
    tensors = {f"weights.{i}": flat for i, flat in enumerate(moment.weights)}
    for i, vectors in enumerate(moment.optimizer["vectors"]):
        tensors |= {f"optimizer.{i}.{name}": vector for name, vector in vectors.items()}
    tensors |= {f"state.{i}": array for i, array in enumerate(moment.state)}
    tensors |= {f"best.{i}": flat for i, flat in enumerate(moment.best)}
    tensors["records"] = np.array(moment.records, np.float64).reshape(-1, _FIELDS)
    tensors["losses"] = np.array(moment.losses, np.float64).reshape(-1, 2)
    return tensors


def _config(moment: Moment) -> dict[str, Any]:
    """All else of a moment, as JSON gives it back."""
    config = {name: getattr(moment, name) for name in (*_FIGURES, "optimizer", "generators")}
    config["optimizer"] = {k: v for k, v in moment.optimizer.items() if k != "vectors"}
    return dict(json.loads(json.dumps(config)))


def _moment(tensors: dict[str, Array], config: dict[str, Any], like: Moment, record: Any) -> Moment:
    """The moment of a file; an error says where it is not as `like`."""
    if any(name.startswith("best.") for name in tensors):
        like = like._replace(best=like.weights)
    arrays, others = _tensors(like), _config(like)
    for name in {**arrays, **tensors}:
        ours, found = (_layout(name, of.get(name)) for of in (arrays, tensors))
        if ours != found:
            raise ValueError(f"{name}: expected {ours}, got {found}")
    optimizer, ours = config["optimizer"], others["optimizer"]
    if {**ours, "steps": 0, "lr": 0} != {**optimizer, "steps": 0, "lr": 0}:
        raise ValueError(f"optimizer: expected {ours}, got {optimizer}")
    if len(config["generators"]) != len(like.generators):
        raise ValueError(
            f"generators: expected {len(like.generators)}, got {len(config['generators'])}"
        )
    for generator in config["generators"]:
        np.random.PCG64().state = generator
    vectors = [
        {name: tensors[f"optimizer.{i}.{name}"] for name in of}
        for i, of in enumerate(like.optimizer["vectors"])
    ]
    return Moment(
        step=_validation.integer(config["step"], "step", 1),
        read=_validation.integer(config["read"], "read", 1),
        seconds=non_negative("seconds", config["seconds"]),
        done=_validation.probability(config["done"], "done"),
        weights=[tensors[f"weights.{i}"] for i in range(len(like.weights))],
        best=[tensors[f"best.{i}"] for i in range(len(like.best))],
        optimizer={**optimizer, "vectors": vectors},
        generators=config["generators"],
        state=tuple(tensors[f"state.{i}"] for i in range(len(like.state))),
        records=[record(int(row[0]), int(row[1]), *row[2:]) for row in tensors["records"].tolist()],
        losses=[(loss, int(size)) for loss, size in tensors["losses"].tolist()],
    )


def _layout(name: str, array: Array | None) -> str:
    """Type and shape of an array; of those that grow with a run, but for their length."""
    if array is None:
        return "none"
    growing = name in ("records", "losses") and array.ndim
    shape = ["any", *array.shape[1:]] if growing else array.shape
    return f"{array.dtype} ({', '.join(map(str, shape))})"


def _digest(tensors: Mapping[str, Array], config: Mapping[str, Any]) -> str:
    """What changes with any bit of a checkpoint."""
    digest = hashlib.blake2b(json.dumps(config, sort_keys=True).encode(), digest_size=16)
    for name, array in sorted(tensors.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
