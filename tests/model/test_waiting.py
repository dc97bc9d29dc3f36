"""The index of waiting jobs against a model that sorts everything."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from runnerhub.model import waiting
from runnerhub.model.job import Priority
from runnerhub.model.queue import QueueEntry, Wanted
from runnerhub.model.waiting import Waiting, WaitingIndex

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AGEING = 10.0
LABELS = ("linux", "gpu", "big", "unique")
REPOSITORIES = ("octo/a", "octo/b", "other/c")
label_sets = st.frozensets(st.sampled_from(LABELS), max_size=3)
wanteds = st.builds(
    Wanted,
    labels=label_sets,
    exclude=st.frozensets(st.sampled_from(REPOSITORIES), max_size=2),
    only=st.sampled_from([frozenset(), frozenset({"octo/*"}), frozenset({"octo/a", "other/c"})]),
)


class Index(RuleBasedStateMachine):
    """The model: the same keys in a plain dictionary, sorted whenever somebody asks."""

    def __init__(self) -> None:
        super().__init__()
        self.index = WaitingIndex(AGEING)
        self.waiting: dict[str, Waiting] = {}
        self.taken: list[Waiting] = []
        self.paused: set[Priority] = set()
        self.now, self.count = 0.0, 0

    def fits(self, waiting: Waiting, wanted: Wanted) -> bool:
        entry = waiting.entry
        return entry.labels <= wanted.labels and wanted.takes(entry.repository) and entry.priority not in self.paused

    @rule(
        labels=label_sets,
        repository=st.sampled_from(REPOSITORIES),
        priority=st.sampled_from(list(Priority)),
        weight=st.sampled_from([0.5, 1.0, 3.0]),
    )
    def add(self, labels: frozenset[str], repository: str, priority: Priority, weight: float) -> None:
        self.count += 1
        name = f"job_{self.count}"
        entry = QueueEntry(job_id=name, repository=repository, labels=labels, priority=priority, enqueued_at=NOW, weight=weight)
        self.index.add(entry, self.now)
        self.waiting[name] = self.index._jobs[name]

    @rule(wanted=wanteds, most=st.integers(1, 4))
    def take(self, wanted: Wanted, most: int) -> None:
        expected = sorted(one.key for one in self.waiting.values() if self.fits(one, wanted))[:most]
        found = self.index.take(wanted, most)
        assert [one.key for one in found] == expected
        for one in found:
            del self.waiting[one.entry.job_id]
            self.taken.append(one)

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        waiting = self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1)))
        self.index.put_back(waiting)
        self.waiting[waiting.entry.job_id] = waiting

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.waiting)))
        assert self.index.remove(name)
        assert not self.index.remove(name)
        del self.waiting[name]

    @rule(seconds=st.floats(0, 25))
    def age(self, seconds: float) -> None:
        self.now += seconds
        before = {name: one.level for name, one in self.waiting.items()}
        while self.index.promote(self.now, 2):
            pass
        for name, old in self.waiting.items():
            new = self.index._jobs[name]
            risen = min(before[name], int((self.now - old.since) // AGEING)) if before[name] else 0
            assert new.level == before[name] - risen
            self.waiting[name] = new

    @rule(priority=st.sampled_from(list(Priority)))
    def pause_or_resume(self, priority: Priority) -> None:
        if priority in self.paused:
            self.paused.discard(priority)
            self.index.resume(priority)
        else:
            self.paused.add(priority)
            self.index.pause(priority)

    @invariant()
    def counts(self) -> None:
        assert set(self.index) == set(self.waiting)
        assert len(self.index) == len(self.waiting)
        demand: dict[frozenset[str], int] = {}
        by_priority = dict.fromkeys(Priority, 0)
        for one in self.waiting.values():
            by_priority[one.entry.priority] += 1
            if one.entry.priority not in self.paused:
                demand[one.entry.labels] = demand.get(one.entry.labels, 0) + 1
        assert self.index.demand() == demand
        assert self.index.by_priority() == by_priority


TestIndex = Index.TestCase
TestIndex.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def entry(name: str, labels: str = "", repository: str = "octo/a", priority: Priority = Priority.NORMAL) -> QueueEntry:
    return QueueEntry(job_id=name, repository=repository, labels=frozenset(labels.split()), priority=priority, enqueued_at=NOW)


def test_a_flood_costs_the_others_one_job_each() -> None:
    index = WaitingIndex(AGEING)
    for number in range(10_000):
        index.add(entry(f"flood-{number}", repository="octo/flood"), 0)
    for number in range(20):
        for repository in range(10):
            index.add(entry(f"small-{repository}-{number}", repository=f"octo/small-{repository}"), 0)
    order = [one.entry.job_id for one in index.take(Wanted(labels=frozenset()), 10_200)]
    assert len({*order}) == 10_200
    assert max(place for place, name in enumerate(order) if name.startswith("small")) <= 0.022 * len(order)


def test_a_label_of_its_own_for_every_job_and_every_runner() -> None:
    index = WaitingIndex(AGEING)
    for number in range(6000):
        index.add(entry(f"job-{number}", f"linux unique-{number}"), 0)
    for number in range(6000):
        (found,) = index.take(Wanted(labels=frozenset({"linux", "x64", f"unique-{number}"})), 5)
        assert found.entry.job_id == f"job-{number}"
    assert len(index) == 0
    assert len(index._classes) <= 200
    assert not index._shares


def test_kinds_of_runners_cost_nothing_when_they_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_MOST_KINDS", 10)
    index = WaitingIndex(AGEING)
    for number in range(100):
        index.add(entry(f"job-{number}", "linux"), 0)
        (found,) = index.take(Wanted(labels=frozenset({"linux", f"kind-{number}"})), 1)
        assert found.entry.job_id == f"job-{number}"
    assert len(index._kinds) == 10
    assert sum(len(group.kinds) for group in index._classes.values()) <= 10


def test_a_repository_at_its_quota_is_parked_once() -> None:
    index = WaitingIndex(AGEING)
    for number in range(3000):
        index.add(entry(f"full-{number}", repository="octo/full"), 0)
    index.add(entry("other", repository="octo/other"), 0)
    without = Wanted(labels=frozenset(), exclude=frozenset({"octo/full"}))
    assert [one.entry.job_id for one in index.take(without, 2)] == ["other"]
    assert index.take(without, 2) == []
    assert [one.entry.job_id for one in index.take(Wanted(labels=frozenset()), 1)] == ["full-0"]


@pytest.mark.parametrize("priority", list(Priority))
def test_an_unknown_job_is_not_removed(priority: Priority) -> None:
    index = WaitingIndex(AGEING)
    index.add(entry("a", priority=priority), 0)
    assert not index.remove("b")
    assert "a" in index
    assert "b" not in index
