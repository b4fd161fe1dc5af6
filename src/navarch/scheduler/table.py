"""`NodeTable`: what plugins see of the nodes. All arrays of one table have the same length, one element per node.

A table shows all nodes, or only those rows that changed since a cache was filled; a plugin cannot tell and need not.
Arrays are read-only by convention: they may be the storage itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from navarch.api.meta import Obj
from navarch.scheduler.columns import BoolArray, IntArray, NodeColumns, Taint
from navarch.scheduler.counters import PodCounters
from navarch.scheduler.environment import Environment
from navarch.scheduler.podinfo import PodInfo

Rows = slice | IntArray


class NodeTable:
    """A selection of rows of the columns."""

    __slots__ = ("_length", "columns", "counters", "environment", "feasible", "rows")

    def __init__(
        self, columns: NodeColumns, counters: PodCounters, environment: Environment, rows: Rows | None = None
    ) -> None:
        self.columns = columns
        self.counters = counters
        self.environment = environment
        if rows is None:
            rows = slice(0, columns.size)
        self.rows: Rows = rows
        self._length: int = rows.stop - rows.start if isinstance(rows, slice) else len(rows)
        self.feasible: BoolArray | None = None
        """While scoring: the nodes that passed all filters."""

    def __len__(self) -> int:
        return self._length

    @property
    def alone(self) -> int:
        """The number of the only row, or -1 where there are others or none. Placing a pod changes one row; what plugins
        ask of that alone costs a tenth in plain numbers of what it does in arrays of one."""
        return self.rows.start if self._length == 1 and isinstance(self.rows, slice) else -1

    def select(self, rows: Rows) -> NodeTable:
        """The table of some rows, numbered as in the storage; a slice has a start and a stop."""
        return NodeTable(self.columns, self.counters, self.environment, rows)

    def all(self) -> NodeTable:
        """The table of all rows."""
        return NodeTable(self.columns, self.counters, self.environment)

    # What there is to read.

    def allocatable(self, resource: str) -> IntArray:
        index = self.columns.resources.ids.get(resource)
        if index is None:
            return np.zeros(self._length, np.int64)
        return self.columns.allocatable[index][self.rows]

    def requested(self, resource: str) -> IntArray:
        """The sum over the pods on each node; `pods` is their number."""
        index = self.columns.resources.ids.get(resource)
        if index is None:
            return np.zeros(self._length, np.int64)
        return self.columns.requested[index][self.rows]

    @property
    def nonzero_milli_cpu(self) -> IntArray:
        return self.columns.nonzero_milli_cpu[self.rows]

    @property
    def nonzero_memory(self) -> IntArray:
        return self.columns.nonzero_memory[self.rows]

    @property
    def unschedulable(self) -> BoolArray:
        return self.columns.unschedulable[self.rows]

    @property
    def taint_sets(self) -> list[tuple[Taint, ...]]:
        return self.columns.taint_sets.values

    @property
    def taint_set(self) -> IntArray:
        """For each node the index of its taints in `taint_sets`."""
        return self.columns.taint_set[self.rows]

    @property
    def feature_sets(self) -> list[frozenset[str]]:
        return self.columns.feature_sets.values

    @property
    def feature_set(self) -> IntArray:
        """For each node the index of what it declares in `feature_sets`."""
        return self.columns.feature_set[self.rows]

    def label(self, key: str) -> IntArray:
        """Codes of the label's values, -1 where it is missing; equal codes are equal values."""
        return self.columns.label(key).codes[self.rows]

    def label_values(self, key: str) -> list[str]:
        """What the codes of `label` stand for."""
        return self.columns.label(key).interned.values

    def label_ids(self, key: str) -> Mapping[str, int]:
        return self.columns.label(key).interned.ids

    @property
    def numbers(self) -> IntArray:
        """Each node's row number in the storage."""
        return np.arange(self.columns.size)[self.rows]

    def position(self, name: str) -> int:
        """Where the node of that name is in this table; -1 if it is not."""
        row = self.columns.rows.get(name)
        if row is None:
            return -1
        if isinstance(self.rows, slice):
            return row - self.rows.start if self.rows.start <= row < self.rows.stop else -1
        found = np.flatnonzero(self.rows == row)
        return int(found[0]) if len(found) else -1

    def node(self, position: int) -> Obj:
        """The Node object at a position; empty for a node that is gone."""
        return self.columns.nodes[self._row(position)] or {}

    def name(self, position: int) -> str:
        return self.columns.names[self._row(position)]

    def pods(self, position: int) -> Mapping[str, PodInfo]:
        """The pods on the node at a position, by uid."""
        return self.columns.pods[self._row(position)]

    def _row(self, position: int) -> int:
        return self.rows.start + position if isinstance(self.rows, slice) else int(self.rows[position])
