"""The jobs that wait, in order: priority level, fair shares within it, first in first out within a share.

Whatever the number of jobs and repositories, adding one costs O(log n), and taking one O(log n) and a look at the first job
of each label set that fits:

- jobs of one label set form a *class*; a class keeps one *lane* per level, band and repository, and a heap of lane heads;
- a *kind* of runner knows the classes that it takes, found through their rarest label, and chooses the smallest head;
- what may not start now (a repository at its quota, a paused queue) is parked lane by lane when it surfaces.

The order within a level is start-time fair queueing (Goyal, Vin, Cheng 1996): a job's tag is
`max(virtual time, last tag of its repository) + 1 / weight`, and the virtual time is the tag last taken.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from heapq import heappop, heappush, heapreplace
from operator import attrgetter
from typing import TypeAlias

from runnerhub.model.job import Priority
from runnerhub.model.labels import LabelSet
from runnerhub.model.queue import QueueEntry, Wanted

Key: TypeAlias = tuple[int, float, int, str]
"""Level, tag, sequence, job id: smaller goes first. Flat, so that the collector of garbage need not look at it."""


_NOTHING: Key = (9, 0.0, 0, "")
_FIRST = attrgetter("first")


class Waiting:
    """A job in the index. `since` is when it began to wait at its level, in seconds of the caller's clock."""

    __slots__ = ("entry", "group", "key", "since")

    def __init__(self, entry: QueueEntry, key: Key, since: float) -> None:
        self.entry, self.key, self.since = entry, key, since
        self.group: _Class | None = None

    @property
    def level(self) -> int:
        """0 is served first."""
        return self.key[0]


class _Lane:
    """Jobs of one class, level, band and repository. A parked lane shows no head in its class."""

    __slots__ = ("items", "parked", "priority", "repository")

    def __init__(self, repository: str, priority: Priority) -> None:
        self.repository, self.priority = repository, priority
        self.items: list[Key] = []
        self.parked = False


_ClassKey: TypeAlias = tuple[LabelSet, frozenset[frozenset[str]]]


class _Class:
    """Jobs with one label set, of repositories that the same kinds of runners take."""

    __slots__ = ("first", "heads", "key", "kinds", "labels", "lanes", "number", "post", "sample", "size")

    def __init__(self, number: int, key: _ClassKey, sample: str, post: str) -> None:
        self.number, self.key, self.labels, self.sample, self.post = number, key, key[0], sample, post
        self.lanes: dict[tuple[int, Priority, str], _Lane] = {}
        self.heads: list[tuple[Key, _Lane]] = []
        self.first = _NOTHING
        self.kinds: list[_Kind] = []
        self.size = 0


class _Kind:
    """Runners with one set of labels and one set of allowed repositories."""

    __slots__ = ("groups", "wanted")

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.groups: dict[int, _Class] = {}

    def takes(self, group: _Class) -> bool:
        """Whether such a runner takes jobs of the class."""
        return group.labels <= self.wanted.labels and _allows(self.wanted.only, group.sample)


_NO_LABEL = ""
_MOST_EMPTY = 64
_ANYWHERE: frozenset[frozenset[str]] = frozenset()
_MOST_KINDS = 4096


class WaitingIndex:
    """All waiting jobs of one queue. Pure: the caller passes the time, and `promote`s what has aged."""

    def __init__(self, ageing: float) -> None:
        self._ageing = ageing
        self._jobs: dict[str, Waiting] = {}
        self._due: list[tuple[float, Key]] = []
        self._shares: dict[tuple[int, str], list[float]] = {}
        self._virtual = [0.0, 0.0, 0.0]
        self._counts: dict[tuple[LabelSet, Priority], int] = {}
        self._by_priority = dict.fromkeys(Priority, 0)
        self._classes: dict[_ClassKey, _Class] = {}
        self._classes_by_label: dict[str, dict[int, _Class]] = {}
        self._kinds: dict[tuple[LabelSet, frozenset[str]], _Kind] = {}
        self._kinds_by_label: dict[str, list[_Kind]] = {}
        self._scopes: set[frozenset[str]] = set()
        self._parked: dict[str | Priority, list[tuple[_Class, _Lane]]] = {}
        self._paused: set[Priority] = set()
        self._empty = 0
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._jobs

    def __iter__(self) -> Iterator[str]:
        return iter(self._jobs)

    # ------------------------------------------------------------------------------------------------ changes

    def add(self, entry: QueueEntry, since: float) -> None:
        """Put a job at the end of its repository's share."""
        self._sequence += 1
        level = entry.priority.level
        waiting = Waiting(entry, (level, self._tag(level, entry), self._sequence, entry.job_id), since)
        self._count(entry, 1)
        self._place(waiting)

    def put_back(self, waiting: Waiting) -> None:
        """Put a job that was taken back where it stood: in front of its repository's share."""
        entry, (level, tag, *_) = waiting.entry, waiting.key
        self._shares.setdefault((level, entry.repository), [tag, 0])[1] += 1
        self._count(entry, 1)
        self._place(waiting)

    def remove(self, job_id: str) -> bool:
        """Take a job out; `False` when it does not wait."""
        waiting = self._jobs.get(job_id)
        if waiting is None:
            return False
        self._displace(waiting)
        self._count(waiting.entry, -1)
        return True

    def take(self, wanted: Wanted, most: int) -> list[Waiting]:
        """Take up to `most` jobs that fit, first ones first."""
        for blocked in [one for one in self._parked if not isinstance(one, Priority) and one not in wanted.exclude]:
            self._unpark(blocked)
        kind = self._kinds.get((wanted.labels, wanted.only)) or self._learn(wanted)
        taken: list[Waiting] = []
        while len(taken) < most:
            group = min(kind.groups.values(), key=_FIRST, default=None)
            if group is None or group.first is _NOTHING:
                break
            waiting = self._settle(group, wanted.exclude)
            if waiting is None:
                continue
            self._virtual[waiting.level] = max(self._virtual[waiting.level], waiting.key[1])
            self.remove(waiting.entry.job_id)
            self._settle(group, wanted.exclude)
            taken.append(waiting)
        return taken

    def promote(self, now: float, most: int = 1000) -> int:
        """Move up to `most` jobs up a level that have waited long enough at theirs. Returns how many moved."""
        moved = 0
        while moved < most and self._due and self._due[0][0] <= now:
            due, key = heappop(self._due)
            waiting = self._jobs.get(key[3])
            if waiting is None or waiting.key is not key:
                continue
            self._displace(waiting)
            level, entry = waiting.level - 1, waiting.entry
            self._place(Waiting(entry, (level, self._tag(level, entry), key[2], key[3]), due))
            moved += 1
        return moved

    def pause(self, priority: Priority) -> None:
        """Give out nothing of a queue."""
        self._paused.add(priority)

    def resume(self, priority: Priority) -> None:
        """Give out jobs of a queue again."""
        self._paused.discard(priority)
        self._unpark(priority)

    def demand(self) -> Mapping[LabelSet, int]:
        """How many jobs wait by label set, paused queues left out."""
        demand: dict[LabelSet, int] = {}
        for (labels, priority), number in self._counts.items():
            if priority not in self._paused:
                demand[labels] = demand.get(labels, 0) + number
        return demand

    def by_priority(self) -> Mapping[Priority, int]:
        """How many jobs wait by priority."""
        return self._by_priority

    # ------------------------------------------------------------------------------------------------- shares

    def _tag(self, level: int, entry: QueueEntry) -> float:
        share = self._shares.setdefault((level, entry.repository), [0.0, 0])
        share[0] = max(self._virtual[level], share[0]) + 1 / entry.weight
        share[1] += 1
        return share[0]

    def _count(self, entry: QueueEntry, step: int) -> None:
        self._by_priority[entry.priority] += step
        at = (entry.labels, entry.priority)
        number = self._counts.get(at, 0) + step
        if number:
            self._counts[at] = number
        else:
            del self._counts[at]

    # ------------------------------------------------------------------------------------------------- places

    def _place(self, waiting: Waiting) -> None:
        entry, key = waiting.entry, waiting.key
        self._jobs[entry.job_id] = waiting
        if key[0]:
            heappush(self._due, (waiting.since + self._ageing, key))
        group = waiting.group = self._class(entry)
        group.size += 1
        at = (key[0], entry.priority, entry.repository)
        lane = group.lanes.get(at)
        if lane is None:
            lane = group.lanes[at] = _Lane(entry.repository, entry.priority)
        heappush(lane.items, key)
        if lane.items[0] is key and not lane.parked:
            self._show(group, lane)

    def _displace(self, waiting: Waiting) -> None:
        del self._jobs[waiting.entry.job_id]
        # A share that nobody waits in is forgotten, so that what was cancelled holds nobody back.
        at = (waiting.level, waiting.entry.repository)
        share = self._shares[at]
        share[1] -= 1
        if not share[1]:
            del self._shares[at]
        group, waiting.group = waiting.group, None
        if group is not None:
            group.size -= 1
            if not group.size:
                self._empty += 1
                self._tidy()

    def _show(self, group: _Class, lane: _Lane) -> None:
        """Show a lane's head in its class."""
        heappush(group.heads, (lane.items[0], lane))
        group.first = group.heads[0][0]

    def _settle(self, group: _Class, exclude: Collection[str]) -> Waiting | None:
        """The first job of a class; what is gone or may not start is dropped or parked on the way.

        `None` when there is none, or when it is another one than the class had shown: then the caller chooses again.
        """
        before, heads = group.first, group.heads
        while heads:
            key, lane = heads[0]
            items = lane.items
            waiting = None
            while items and ((waiting := self._jobs.get(items[0][3])) is None or waiting.key is not items[0]):
                heappop(items)
            blocked: str | Priority | None = None
            if items and items[0] is key and not lane.parked:
                if lane.priority in self._paused:
                    blocked = lane.priority
                elif lane.repository in exclude:
                    blocked = lane.repository
                else:
                    group.first = key
                    return waiting if before is key else None
            if blocked is not None:
                lane.parked = True
                self._parked.setdefault(blocked, []).append((group, lane))
            elif not items:
                group.lanes.pop((key[0], lane.priority, lane.repository), None)
            elif not lane.parked and items[0] > key:
                heapreplace(heads, (items[0], lane))
                continue
            heappop(heads)
        group.first = _NOTHING
        return None

    # ------------------------------------------------------------------------------------------------ parking

    def _unpark(self, blocked: str | Priority) -> None:
        for group, lane in self._parked.pop(blocked, ()):
            lane.parked = False
            if lane.items and group.size:
                self._show(group, lane)

    # -------------------------------------------------------------------------------------- classes and kinds

    def _class(self, entry: QueueEntry) -> _Class:
        scope = _ANYWHERE
        if self._scopes:
            scope = frozenset(only for only in self._scopes if _allows(only, entry.repository))
        at = (entry.labels, scope)
        group = self._classes.get(at)
        if group is None:
            self._sequence += 1
            # Found again through the label that the fewest classes have, so that a unique label stays cheap.
            post = min(entry.labels, key=lambda label: len(self._classes_by_label.get(label, ())), default=_NO_LABEL)
            group = self._classes[at] = _Class(self._sequence, at, entry.repository, post)
            self._classes_by_label.setdefault(post, {})[group.number] = group
            rarest = min((self._kinds_by_label.get(label, []) for label in entry.labels), key=len, default=None)
            for kind in self._kinds.values() if rarest is None else rarest:
                if kind.takes(group):
                    group.kinds.append(kind)
                    kind.groups[group.number] = group
        elif not group.size:
            self._empty -= 1
        return group

    def _tidy(self) -> None:
        """Forget the classes that nobody waits in, once there are many: most of them fill again soon."""
        if self._empty <= _MOST_EMPTY + len(self._classes) // 2:
            return
        self._empty = 0
        for group in [group for group in self._classes.values() if not group.size]:
            del self._classes[group.key]
            posted = self._classes_by_label[group.post]
            del posted[group.number]
            if not posted:
                del self._classes_by_label[group.post]
            for kind in group.kinds:
                kind.groups.pop(group.number, None)

    def _learn(self, wanted: Wanted) -> _Kind:
        """A kind of runner that was not seen before, or not for long."""
        if len(self._kinds) >= _MOST_KINDS:
            oldest = self._kinds.pop(next(iter(self._kinds)))
            for label in oldest.wanted.labels:
                self._kinds_by_label[label].remove(oldest)
            for group in oldest.groups.values():
                group.kinds.remove(oldest)
        kind = self._kinds[wanted.labels, wanted.only] = _Kind(wanted)
        for label in wanted.labels:
            self._kinds_by_label.setdefault(label, []).append(kind)
        if wanted.only and wanted.only not in self._scopes:
            self._scopes.add(wanted.only)
            self._rebuild()
        else:
            for group in self._groups(kind):
                group.kinds.append(kind)
                kind.groups[group.number] = group
        return kind

    def _groups(self, kind: _Kind) -> Iterable[_Class]:
        for label in (*kind.wanted.labels, _NO_LABEL):
            for group in self._classes_by_label.get(label, {}).values():
                if kind.takes(group):
                    yield group

    def _rebuild(self) -> None:
        """Sort all jobs into classes anew: the repositories that runners allow have changed."""
        for index in (self._classes, self._classes_by_label, self._parked, self._due):
            index.clear()
        self._empty = 0
        for kind in self._kinds.values():
            kind.groups.clear()
        for waiting in list(self._jobs.values()):
            self._place(waiting)


def _allows(only: frozenset[str], repository: str) -> bool:
    return not only or repository in only or f"{repository.partition('/')[0]}/*" in only
