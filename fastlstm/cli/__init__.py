"""The command line."""

from fastlstm.cli._parser import main

__all__ = ["main"]
