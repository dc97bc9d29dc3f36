"""The planner: how many jobs go where, and why one waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from runnerhub.engine.planner import STRATEGIES, Offer, Situation, explain, least_loaded, pack, plan, spread, warm
from runnerhub.model import lifecycle
from runnerhub.model.config import Placement
from runnerhub.model.container import ExitStatus
from runnerhub.model.job import Job, JobRequest, Reason
from runnerhub.model.labels import fits
from runnerhub.model.status import Mode, SchedulerState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LABELS = st.frozensets(st.sampled_from(["linux", "x64", "gpu", "arm64", "big"]), max_size=3)
OFFERS = st.lists(
    st.builds(
        Offer,
        name=st.uuids().map(str),
        labels=LABELS,
        busy=st.integers(0, 4),
        most=st.integers(1, 5),
        backing_off=st.booleans(),
        online=st.booleans(),
    ),
    max_size=5,
)


def offer(name: str, labels: str, busy: int = 0, most: int = 4, **more: object) -> Offer:
    return Offer(name=name, labels=frozenset(labels.split()), busy=busy, most=most, **more)  # type: ignore[arg-type]


@given(st.dictionaries(LABELS, st.integers(1, 9), max_size=5), OFFERS, st.integers(0, 20), st.sampled_from(list(Placement)))
def test_a_plan_keeps_every_limit_and_leaves_nothing_that_could_start(
    demand: dict[frozenset[str], int], offers: list[Offer], room: int, placement: Placement
) -> None:
    starts = plan(demand, offers, room, STRATEGIES[placement])
    free = {one.name: one.free for one in offers}
    taken = {start.offer.name: start.count for start in starts}
    assert len(taken) == len(starts)
    assert sum(taken.values()) <= room
    assert all(0 < count <= free[name] for name, count in taken.items())
    if sum(taken.values()) < room:
        left = [one for one in offers if free[one.name] > taken.get(one.name, 0)]
        for labels, waiting in demand.items():
            fitting = [one for one in left if fits(labels, one.labels)]
            if fitting:
                reached = sum(taken.get(one.name, 0) for one in offers if fits(labels, one.labels))
                assert reached >= waiting


def test_a_place_with_rare_labels_stays_free_for_those_who_need_it() -> None:
    demand = {frozenset({"linux"}): 4, frozenset({"linux", "gpu"}): 2}
    starts = plan(demand, [offer("gpu", "linux gpu"), offer("plain", "linux")], 100)
    assert {start.offer.name: start.count for start in starts} == {"gpu": 2, "plain": 4}


def test_strategies_choose_among_equals() -> None:
    offers = [offer("a", "linux", busy=1, most=9), offer("b", "linux", busy=3, most=30), offer("c", "linux", busy=2, most=3)]
    none = frozenset[str]()
    assert (pack(none, offers).name, spread(none, offers).name, least_loaded(none, offers).name) == ("b", "a", "b")
    one = {frozenset({"linux"}): 1}
    assert plan(one, offers, 1, spread)[0].offer.name == "a"
    assert plan(one, offers, 1, lambda _, among: among[-1])[0].offer.name == "c"


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_warm_runners_are_levelled_within_the_maximum(min_idle: int, idle: int, occupied: int, most: int) -> None:
    after = idle + warm(min_idle=min_idle, idle=idle, occupied=occupied, most=most)
    assert after == max(0, min(min_idle, most - occupied))


# ---------------------------------------------------------------------------------------------------- explain


def waiting(labels: tuple[str, ...] = ("linux",), delay: timedelta = timedelta(0)) -> Job:
    request = JobRequest(repository="octo/app", job_name="build", labels=labels, delay=delay)
    return lifecycle.create(request, job_id="job_1", delegation_id="del_1", now=NOW)[0]


RUNNING = SchedulerState()
PAUSED = SchedulerState(mode=Mode.PAUSED, by="ann", at=NOW, why="upgrade")
FREE = Situation(state=RUNNING, offers=[offer("plain", "linux")])

WHY = {
    "ready": (waiting(), FREE, Reason.READY, "plain"),
    "delayed": (waiting(delay=timedelta(hours=1)), FREE, Reason.DELAYED, None),
    "no hub": (waiting(), evolve(FREE, live=False), Reason.NO_HUB, None),
    "paused": (waiting(), evolve(FREE, state=PAUSED), Reason.PAUSED, None),
    "draining": (waiting(), evolve(FREE, state=evolve(PAUSED, mode=Mode.DRAINING)), Reason.DRAINING, None),
    "queue paused": (waiting(), evolve(FREE, paused_queues={"normal-priority": PAUSED}), Reason.PAUSED, None),
    "other queue paused": (waiting(), evolve(FREE, paused_queues={"low-priority": PAUSED}), Reason.READY, "plain"),
    "nothing there": (waiting(), evolve(FREE, offers=[]), Reason.NO_MATCHING_POOL, None),
    "lacks a label": (waiting(("linux", "GPU")), FREE, Reason.NO_MATCHING_POOL, "plain"),
    "wrong repository": (
        waiting(),
        evolve(FREE, offers=[offer("theirs", "linux", only=frozenset({"other/*"}))]),
        Reason.NO_MATCHING_POOL,
        "theirs",
    ),
    "offline": (waiting(), evolve(FREE, offers=[offer("r", "linux", online=False, pool=False)]), Reason.NO_ONLINE_RUNNER, "r"),
    "global quota": (waiting(), evolve(FREE, room=0), Reason.GLOBAL_QUOTA, "plain"),
    "repository quota": (
        waiting(),
        evolve(FREE, full_repositories=frozenset({"octo/app"})),
        Reason.REPOSITORY_QUOTA,
        "plain",
    ),
    "full": (waiting(), evolve(FREE, offers=[offer("plain", "linux", busy=4)]), Reason.POOL_FULL, "plain"),
    "backing off": (
        waiting(),
        evolve(FREE, offers=[offer("plain", "linux", backing_off=True)]),
        Reason.POOL_BACKING_OFF,
        "plain",
    ),
    "one of two is free": (
        waiting(),
        evolve(FREE, offers=[offer("full", "linux", busy=4), offer("free", "linux big")]),
        Reason.READY,
        "free",
    ),
}


@pytest.mark.parametrize("case", WHY)
def test_why_a_job_waits(case: str) -> None:
    job, situation, reason, pool = WHY[case]
    told = explain(job, situation, NOW)
    assert (told.reason, told.closest_pool) == (reason, pool)
    assert told.message


def test_the_closest_pool_is_the_one_that_lacks_least() -> None:
    offers = [offer("a", "linux"), offer("b", "linux gpu"), offer("c", "windows")]
    told = explain(waiting(("linux", "gpu", "big")), Situation(state=RUNNING, offers=offers), NOW)
    assert (told.closest_pool, told.missing_labels) == ("b", ("big",))
    assert "big" in told.message


def test_who_paused_and_why_is_told() -> None:
    told = explain(waiting(), evolve(FREE, state=PAUSED), NOW)
    assert "ann" in told.message
    assert "upgrade" in told.message
    assert told.since == NOW


def test_what_runs_or_has_ended_is_explained_too() -> None:
    job = waiting()
    assigned = lifecycle.advance(job, lifecycle.Assigned(1, "runner_1", "plain-1", "container_1", "plain"), NOW)
    assert assigned
    assert explain(assigned[0], FREE, NOW).reason is Reason.STARTING
    started = lifecycle.advance(assigned[0], lifecycle.Started(1), NOW)
    assert started
    assert explain(started[0], FREE, NOW).reason is Reason.RUNNING
    ended = lifecycle.advance(started[0], lifecycle.Ended(1, ExitStatus(code=3)), NOW)
    assert ended
    told = explain(ended[0], FREE, NOW)
    assert (told.reason, told.message) == (Reason.EXITED, "exit code 3")
