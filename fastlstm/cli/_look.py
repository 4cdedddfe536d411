"""The command look: a page that shows what a model does with a text, or a layer with a series."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastlstm
from fastlstm._io.atomic import check_replaceable
from fastlstm.cli._commands import load
from fastlstm.cli._files import check_not_read, read_text
from fastlstm.models import LanguageModel


def look(args: Namespace) -> None:
    """Make the page and say where it is."""
    if args.text is None and args.file is None:
        raise ValueError("TEXT: expected a text, or --file F; got neither")
    if args.text is not None and args.file is not None:
        raise ValueError("TEXT: expected a text or --file F, got both")
    check_replaceable(args.output)
    check_not_read(args.output, args.model, "the model")
    if args.file is not None:
        check_not_read(args.output, args.file, "the text")
    model = load(args.model)
    if isinstance(model, LanguageModel):
        text: Any = args.text if args.file is None else read_text(args.file)
    elif args.file in (None, "-"):
        raise ValueError(
            f"{args.model}: expected a language model, to read a text, got a layer; "
            "it reads numbers: --file F, a .npy or a .csv"
        )
    else:
        text = _series(args.file, model.dtype)
    page = fastlstm.look(model, text, args.why or (), unit=args.unit)
    page.save(args.output)
    print(
        f"{page.description}\nsaved as {args.output}; open it in a browser: {_address(args.output)}"
    )


def _series(path: str, dtype: Any) -> NDArray[Any]:
    """(T, I) from a file of NumPy, or of numbers between commas, a line for each step."""
    try:
        if path.endswith(".npy"):
            array: NDArray[Any] = np.load(path, allow_pickle=False)
        else:
            array = np.loadtxt(path, delimiter=",", ndmin=2, dtype=dtype)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return (array[:, None] if array.ndim == 1 else array).astype(dtype, copy=False)


def _address(path: str) -> str:
    return Path(path).resolve().as_uri()
