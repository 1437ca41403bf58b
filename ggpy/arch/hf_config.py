"""A checkpoint's config.json, read with types: every value is checked, every error names the file, the key and what would be right."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ggpy.errors import CheckpointError, printable

REQUIRED: Any = object()
"""Default of a key that must be there."""


class HFConfig(Mapping[str, Any]):
    """The key-value pairs of one JSON object. A JSON null counts as absent, as the checkpoints that write it mean it.

    `where` names the object in error texts: a file, or a file and the key of a section in it. It remembers which keys were asked for.
    """

    def __init__(self, values: Mapping[str, Any], where: str):
        self._values = {key: value for key, value in values.items() if value is not None}
        self.where = where
        self._asked: set[str] = set()
        self._sections: dict[str, HFConfig] = {}

    def __getitem__(self, key: str) -> Any:
        self._asked.add(key)
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def refuse(self, key: str, expected: str) -> CheckpointError:
        """The error for `key`: its value is not what was `expected`."""
        value = self._values.get(key)
        found = "is missing" if value is None else f"is {printable(repr(value), 80)}"
        return CheckpointError(f"{self.where}: {printable(key)} {found}, expected {expected}")

    def integer(self, key: str, default: Any = REQUIRED, *, minimum: int = 1, maximum: int = 2**31 - 1) -> int:
        """The whole number at `key`, between `minimum` and `maximum`; raises CheckpointError otherwise."""
        value = self.get(key, default)
        if value is not default and (type(value) is not int or not minimum <= value <= maximum):
            raise self.refuse(key, f"a whole number from {minimum} to {maximum}")
        return self._present(key, value, "a whole number")

    def number(self, key: str, default: Any = REQUIRED, *, above: float = -math.inf) -> float:
        """The finite number at `key`, greater than `above`; raises CheckpointError otherwise."""
        value = self.get(key, default)
        expected = "a finite number" + ("" if above == -math.inf else f" above {above:g}")
        if value is not default:
            if type(value) not in (int, float):
                raise self.refuse(key, expected)
            try:
                value = float(value)
            except OverflowError:
                raise self.refuse(key, expected) from None
            if not math.isfinite(value) or value <= above:
                raise self.refuse(key, expected)
        return self._present(key, value, expected)

    def boolean(self, key: str, default: Any = REQUIRED) -> bool:
        """The truth value at `key`; raises CheckpointError when it is anything else than true or false."""
        value = self.get(key, default)
        if value is not default and type(value) is not bool:
            raise self.refuse(key, "true or false")
        return self._present(key, value, "true or false")

    def string(self, key: str, default: Any = REQUIRED) -> str:
        """The string at `key`; raises CheckpointError when it is anything else."""
        value = self.get(key, default)
        if value is not default and type(value) is not str:
            raise self.refuse(key, "a string")
        return self._present(key, value, "a string")

    def strings(self, key: str, default: Any = REQUIRED) -> list[str]:
        """The list of strings at `key`; raises CheckpointError when it is anything else."""
        value = self.get(key, default)
        if value is not default and not (type(value) is list and all(type(item) is str for item in value)):
            raise self.refuse(key, "a list of strings")
        return self._present(key, value, "a list of strings")

    def numbers(self, key: str, count: int, *, above: float = -math.inf) -> list[float]:
        """The list of `count` finite numbers at `key`, each greater than `above`; raises CheckpointError when it is anything else."""
        values = self.get(key)
        expected = f"a list of {count} finite numbers" + ("" if above == -math.inf else f" above {above:g}")
        if type(values) is not list or len(values) != count or not all(type(v) in (int, float) for v in values):
            raise self.refuse(key, expected)
        if not all(abs(v) < 1e300 and v > above for v in values):
            raise self.refuse(key, expected)
        return [float(v) for v in values]

    def section(self, key: str) -> HFConfig:
        """The object at `key`, empty when absent; raises CheckpointError when it is not an object."""
        value = self.get(key, {})
        if type(value) is not dict:
            raise self.refuse(key, "an object")
        return self._sections.setdefault(key, HFConfig(value, f"{self.where}: {printable(key)}"))

    def unasked(self) -> dict[str, Any]:
        """The values of keys that nobody has asked for, those in a section that somebody has asked for as `section.key`."""
        found = {key: value for key, value in self._values.items() if key not in self._asked}
        for name, section in self._sections.items():
            found |= {f"{name}.{key}": value for key, value in section.unasked().items()}
        return found

    def _present(self, key: str, value: Any, expected: str) -> Any:
        if value is REQUIRED:
            raise self.refuse(key, expected)
        return value
