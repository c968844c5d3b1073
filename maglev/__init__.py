"""Maglev consistent hashing (Eisenbud et al., NSDI 2016): which slot of a table is whose.

Pure: the same backends, size and seed give the same table on every node of a cluster. Not for
choosing which backends may serve, nor for writing tables into the kernel.
"""

from maglev.table import Backend, Prepared, build, fill, prepare, table_size

__all__ = ["Backend", "Prepared", "build", "fill", "prepare", "table_size"]
