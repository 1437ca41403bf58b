"""What a task found: accuracies with their errors, and what was answered wrongly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ggpy.evaluate.statistics import Interval

_Z = 1.959963984540054  # 95 % of a normal distribution


@dataclass(frozen=True)
class Share:
    """So many of so many. error: standard error; interval: 95 %, by Wilson's score (1927), which holds for few examples, too."""

    value: float
    error: float
    interval: Interval

    @classmethod
    def of(cls, hits: int, n: int) -> Share:
        """hits of n, n at least 1."""
        p, z = hits / n, _Z
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return cls(p, math.sqrt(p * (1 - p) / n), (max(0.0, middle - half), min(1.0, middle + half)))


@dataclass(frozen=True)
class Outcome:
    """One example, by its line in the file. said: what the model chose or said; expected: what is right, of several answers the first.

    is_right_normalised: whether choosing by likelihood per character is right; None where nothing was to choose.
    """

    line: int
    is_right: bool
    is_right_normalised: bool | None
    said: str
    expected: str


@dataclass(frozen=True)
class LabelReport:
    """Of a classification's label: how many examples have it, how many were given it, and the two shares of right ones among them."""

    label: str
    examples: int
    given: int
    recall: float
    precision: float

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


@dataclass(frozen=True)
class TaskReport:
    """What `run_task` found. accuracy: share of examples answered rightly; normalised: choosing by likelihood per character of a choice.

    known_examples: how many an earlier run had answered. labels, macro_f1: of a classification. outcomes: by example.
    """

    model: str
    task: str
    kind: str
    examples: int
    accuracy: Share
    normalised: Share | None
    labels: tuple[LabelReport, ...]
    macro_f1: float | None
    known_examples: int
    seconds: float
    outcomes: tuple[Outcome, ...]


def label_reports(labels: Sequence[str], outcomes: Sequence[Outcome]) -> tuple[LabelReport, ...]:
    """Figures of each label, from what was said and expected."""
    reports = []
    for label in labels:
        have = sum(outcome.expected == label for outcome in outcomes)
        given = sum(outcome.said == label for outcome in outcomes)
        right = sum(outcome.said == outcome.expected == label for outcome in outcomes)
        reports.append(LabelReport(label, have, given, right / have if have else 0.0, right / given if given else 0.0))
    return tuple(reports)
