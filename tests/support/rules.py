"""Which fault a proxy in the way applies to what passes: the newest rule that matches and is not used up."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

Passing = TypeVar("Passing")
Fault = TypeVar("Fault")


class Rule(Generic[Passing, Fault]):
    """A fault in force; `hits` counts what it met."""

    def __init__(self, matches: Callable[[Passing], bool], fault: Fault, times: int | None) -> None:
        self.matches, self.fault, self.times = matches, fault, times
        self.hits = 0


class Rules(Generic[Passing, Fault]):
    """All rules of one proxy. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._rules: list[Rule[Passing, Fault]] = []

    def add(self, matches: Callable[[Passing], bool], fault: Fault, times: int | None) -> Rule[Passing, Fault]:
        """Apply `fault` to what matches, `times` or (None) always."""
        rule = Rule(matches, fault, times)
        with self._lock:
            self._rules.insert(0, rule)
        return rule

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()

    def meet(self, passing: Passing) -> Rule[Passing, Fault] | None:
        """The rule that decides about `passing`, counted as met; None where it passes untouched."""
        with self._lock:
            for rule in self._rules:
                if (rule.times is None or rule.hits < rule.times) and rule.matches(passing):
                    rule.hits += 1
                    return rule
        return None
