"""What heads with parameters have in common: state dictionaries and files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

from fastlstm._io import tensor_file
from fastlstm._parameters import Array, Parameters


class Head:
    """Base of `Linear` and `CRF`."""

    _parameters: Parameters

    @property
    def parameters(self) -> Parameters:
        return self._parameters

    def _configuration(self) -> dict[str, Any]:
        """The constructor's arguments, without the seed."""
        raise NotImplementedError

    @classmethod
    def _check_file(cls, tensors: Mapping[str, Array], options: dict[str, Any]) -> None:
        """Refuse a file whose tensors are not those of a head with these options.

        Before it is made: a small file may claim one that is larger than the memory.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, Array]:
        """Return copies of the parameters under their names.

        Examples
        --------
        >>> import fastlstm
        >>> list(fastlstm.heads.Linear(3, 2).state_dict())
        ['weight', 'bias']
        """
        return dict(self.parameters.snapshot())

    def load_state_dict(self, mapping: Mapping[str, Any], strict: bool = True) -> None:
        """Replace the parameters by the arrays or torch tensors of a mapping.

        Values of another floating-point type are converted.

        Parameters
        ----------
        mapping : mapping of str to array
        strict : bool, default True
            If false, names may be missing, and names that are no parameters are ignored.

        Raises
        ------
        TypeError, ValueError
            If a name is missing or unknown, or an array has the wrong shape or no real numbers.
            Then nothing is changed.
        """
        self.parameters.assign(self.parameters.matching(mapping, strict))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a .safetensors file, its configuration in the metadata.

        Parameters
        ----------
        path : path-like
            A file that exists is replaced when the new one is complete.

        Raises
        ------
        OSError
            If the file cannot be written.

        Examples
        --------
        >>> import os, tempfile
        >>> import fastlstm
        >>> path = os.path.join(tempfile.mkdtemp(), "crf.safetensors")
        >>> fastlstm.heads.CRF(3).save(path)
        >>> fastlstm.heads.CRF.load(path)
        CRF(3)
        """
        kind, tensors = type(self).__name__, self.parameters.snapshot()
        tensor_file.write(path, kind, tensors, self._configuration())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is another kind of file, incomplete or damaged.
        """
        tensors, options = tensor_file.read(path, cls.__name__)
        try:
            cls._check_file(tensors, options)
            head = cls(**options)
            head.load_state_dict(tensors)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: weights and configuration do not agree ({error})") from None
        return head
