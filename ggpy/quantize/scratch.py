"""Arrays that wait on the disk, in a file without a name that vanishes with the process."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ggpy.errors import GGPyError, printable


@dataclass(frozen=True)
class Place:
    """Where an array of bytes lies: uint8 (rows, row_bytes)."""

    offset: int
    rows: int
    row_bytes: int


class Scratch:
    """A temporary file in `folder`. A context manager; leaving it gives the room back. Raises GGPyError where there is none."""

    def __init__(self, folder: Path):
        self._folder, self._size, self._lock = folder, 0, threading.Lock()
        try:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        except OSError as error:
            raise self._full(error) from None

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def reserve(self, rows: int, row_bytes: int) -> Place:
        """Room for that many rows."""
        place = Place(self._size, rows, row_bytes)
        self._size += rows * row_bytes
        return place

    def write(self, place: Place, first: int, data: np.ndarray) -> None:
        """Rows from `first` on: uint8 (n, row_bytes)."""
        try:
            with self._lock:
                self._file.seek(place.offset + first * place.row_bytes)
                self._file.write(np.ascontiguousarray(data).data)
        except OSError as error:
            raise self._full(error) from None

    def read(self, place: Place, start: int, stop: int) -> np.ndarray:
        """Rows `start` to before `stop`, uint8 (n, row_bytes)."""
        with self._lock:
            self._file.seek(place.offset + start * place.row_bytes)
            data = self._file.read((stop - start) * place.row_bytes)
        return np.frombuffer(data, np.uint8).reshape(stop - start, place.row_bytes)

    def keep(self, values: np.ndarray) -> Place:
        """A place with those numbers, as one row."""
        place = self.reserve(1, values.nbytes)
        self.write(place, 0, np.ascontiguousarray(values).reshape(1, -1).view(np.uint8))
        return place

    def reader(self, place: Place) -> Callable[[int, int], np.ndarray]:
        """`read` of that place."""
        return partial(self.read, place)

    def _full(self, error: OSError) -> GGPyError:
        return GGPyError(f"{printable(self._folder)}: no room for a temporary file: {os.strerror(error.errno or 0)}")
