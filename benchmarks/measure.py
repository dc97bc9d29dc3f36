"""How things are measured here: interleaved rounds, medians, processor time of this process and its children."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping

from attrs import frozen


@frozen
class Figure:
    """One line of the report. `target` is a sentence; `met` is `None` where there is nothing to meet."""

    what: str
    value: str
    target: str = ""
    met: bool | None = None


@frozen
class Cost:
    """What something took, in seconds."""

    wall: float
    cpu: float


def cpu_seconds() -> float:
    """Processor time of this process, its threads and the children that it has waited for."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def cost(call: Callable[[], object]) -> Cost:
    """What one call takes."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    call()
    return Cost(time.perf_counter() - wall, cpu_seconds() - cpu)


def interleaved(rounds: int, calls: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """The median figure of each, taken in turn, so that a noisy minute is everybody's."""
    seen: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seen[name].append(call())
    return {name: statistics.median(values) for name, values in seen.items()}
