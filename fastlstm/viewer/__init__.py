"""A trained layer in the browser: one page, one file, no network.  `fastlstm.look` makes it."""

from fastlstm.viewer._look import Look
from fastlstm.viewer._look import look as look

__all__ = ["Look"]
