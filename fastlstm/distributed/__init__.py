"""More than one process: scoring on any executor, training on MPI or torch.distributed.

Training gives the same bits for any number of processes: a batch is cut into shards, however many
processes there are, and the engine moves bytes while all additions are made here.
"""

from fastlstm._shards import ShardGradients, Shards
from fastlstm.distributed._alone import alone
from fastlstm.distributed._group import Group
from fastlstm.distributed._mpi import mpi
from fastlstm.distributed._predict import predict
from fastlstm.distributed._torch import torch

__all__ = ["Group", "ShardGradients", "Shards", "alone", "mpi", "predict", "torch"]
