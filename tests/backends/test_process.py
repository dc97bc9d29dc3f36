"""The process backend passes the suite; its jobs outlive the hub, and nothing outlives its job."""

from __future__ import annotations

import os
import signal
import sys
import tarfile
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from runnerhub import ConfigurationError, ContainerStartError, Resources, UnavailableError, ValidationError
from runnerhub.backends._process.box import marked
from runnerhub.backends.process import ProcessContainers
from runnerhub.model.config import BackendOptions
from runnerhub.model.container import Container, ContainerSpec
from runnerhub.testing import ContainerSuite

pytestmark = pytest.mark.anyio
LABELS = {"runnerhub.hub": "test"}


@pytest.fixture
def options(tmp_path: Path) -> BackendOptions:
    return BackendOptions(data_dir=tmp_path)


@pytest.fixture
async def containers(options: BackendOptions) -> AsyncIterator[ProcessContainers]:
    async with ProcessContainers(options) as containers:
        yield containers
        with anyio.CancelScope(shield=True):
            for container in await containers.find({}):
                await containers.remove(container.id)


class TestProcessContainers(ContainerSuite):
    """The shipped suite."""


class TestWithoutSandbox(ContainerSuite):
    """The shipped suite, where bubblewrap may be installed."""

    @pytest.fixture
    def options(self, tmp_path: Path) -> BackendOptions:
        return BackendOptions(data_dir=tmp_path, settings={"sandbox": "none"})


def shell(script: str, name: str = "rh-1", **more: object) -> ContainerSpec:
    return ContainerSpec(name=name, command=("/bin/sh", "-c", script), labels=LABELS, **more)  # type: ignore[arg-type]


async def output(containers: ProcessContainers, container: Container) -> bytes:
    return b"".join([piece async for piece in containers.logs(container.id)])


async def said(containers: ProcessContainers, container: Container, word: bytes) -> None:
    with anyio.fail_after(30):
        async with aclosing(containers.logs_after(container.id, "")) as frames:
            async for frame in frames:
                if word in frame.data:
                    return


TREE = """
trap '' TERM
(trap '' TERM; sleep 611) &
setsid sh -c "trap '' TERM; sleep 612" &
(setsid sh -c "setsid sleep 613 & sleep 0.01") &
sh -c 'sleep 614 & disown 2>/dev/null; exit 0' &
echo ready
%s
"""


async def test_a_tree_of_five_is_gone_after_a_cancel(containers: ProcessContainers) -> None:
    container = await containers.start(shell(TREE % "sleep 615; sleep 616"))
    await said(containers, container, b"ready")
    with anyio.fail_after(30):
        while len(marked("rh-1")) < 5:
            await anyio.sleep(0.02)
        await containers.stop(container.id, timedelta(seconds=0.3))
    assert marked("rh-1") == []
    assert (await containers.wait(container.id)).code == 128 + signal.SIGKILL


async def test_what_a_job_leaves_behind_ends_with_it(containers: ProcessContainers) -> None:
    container = await containers.start(shell(TREE % "sleep 0.3; exit 7"))
    with anyio.fail_after(30):
        assert (await containers.wait(container.id)).code == 7
    assert marked("rh-1") == []


async def test_the_job_sees_nothing_of_the_hub(containers: ProcessContainers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_SECRET", "s3cret")
    monkeypatch.setenv("PYTHONPATH", "/hub")
    script = "env; pwd; ls -A; ls /proc/self/fd | wc -l; umask; command -v python; echo $HOME; echo $TMPDIR"
    text = (await output(containers, await containers.start(shell(script, env={"MINE": "yes"})))).decode()
    assert "HUB_SECRET" not in text
    assert "PYTHONPATH" not in text
    assert "MINE=yes" in text
    lines = text.splitlines()
    assert lines[-1].endswith("/rh-1/tmp")
    assert lines[-2].endswith("/rh-1/home")
    assert Path(lines[-3]).parent == Path(sys.executable).parent
    assert lines[-4] == "0022"
    assert int(lines[-5]) == 4  # stdin, stdout, stderr, and the listing's own
    assert lines[-6].endswith("/rh-1/work")


async def test_a_second_life_adopts_what_the_first_started(options: BackendOptions, tmp_path: Path) -> None:
    async with ProcessContainers(options) as first:
        container = await first.start(shell("echo one; while [ ! -e go ]; do sleep 0.02; done; echo two; exit 5"))
        await said(first, container, b"one")
    async with ProcessContainers(options) as second:
        (found,) = await second.find(LABELS)
        assert found == await second.start(shell("echo never"))
        frames = second.logs_after(found.id, "4")
        (tmp_path / "process" / "rh-1" / "work" / "go").touch()
        with anyio.fail_after(30):
            assert b"".join([frame.data async for frame in frames]) == b"two\n"
            assert (await second.wait(found.id)).code == 5
        await second.remove(found.id)
        assert await second.find({}) == []


async def test_the_launcher_may_die(containers: ProcessContainers) -> None:
    runs = await containers.start(shell("echo ready; sleep 600", "rh-1"))
    await said(containers, runs, b"ready")
    process = containers._launcher._process
    assert process is not None
    process.kill()
    process.wait()
    assert await output(containers, await containers.start(shell("echo again", "rh-2"))) == b"again\n"
    assert len(marked("rh-1")) >= 1


async def test_a_supervisor_that_is_killed_is_told_apart_and_leaves_nothing(
    containers: ProcessContainers, tmp_path: Path
) -> None:
    container = await containers.start(shell("echo ready; sleep 600 & sleep 601"))
    await said(containers, container, b"ready")
    os.kill(int((tmp_path / "process" / "rh-1" / "start").read_bytes()), signal.SIGKILL)
    with anyio.fail_after(30):
        status = await containers.wait(container.id)
    assert status.code is None
    assert "supervisor" in status.lost
    assert marked("rh-1") == []
    assert await output(containers, container) == b"ready\n"


async def test_two_instances_start_a_name_once(options: BackendOptions) -> None:
    async with ProcessContainers(options) as one, ProcessContainers(options) as two:
        async with anyio.create_task_group() as tasks:
            for backend in (one, two) * 4:
                tasks.start_soon(backend.start, shell("echo once >> ../count; sleep 0.2"))
        assert (await two.wait("rh-1")).code == 0
        assert (one._root / "rh-1" / "count").read_text() == "once\n"
        await one.remove("rh-1")


async def test_a_workspace_is_unpacked(containers: ProcessContainers, tmp_path: Path) -> None:
    (tmp_path / "hello.sh").write_text("echo from the workspace\n")
    with tarfile.open(tmp_path / "w.tar", "w") as archive:
        archive.add(tmp_path / "hello.sh", "bin/hello.sh")
    container = await containers.start(shell("sh bin/hello.sh", workspace=tmp_path / "w.tar"))
    assert await output(containers, container) == b"from the workspace\n"


async def test_a_hostile_workspace_stays_inside(containers: ProcessContainers, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        member = tarfile.TarInfo("../../escaped")
        archive.addfile(member)
    with pytest.raises(ContainerStartError, match=r"evil\.tar.* cannot be unpacked") as caught:
        await containers.start(shell("true", workspace=tmp_path / "evil.tar"))
    assert not caught.value.retryable
    assert not list(tmp_path.rglob("escaped"))
    with pytest.raises(ContainerStartError, match="cannot be unpacked"):
        await containers.start(shell("true", workspace=tmp_path / "none.tar"))
    assert await containers.find({}) == []
    assert list((tmp_path / "process").iterdir()) == []


async def test_memory_is_limited(containers: ProcessContainers) -> None:
    script = f"ulimit -v; exec {sys.executable} -c 'x = bytearray(10**9)'"
    container = await containers.start(shell(script, resources=Resources(memory_mb=256, cpus=0.5, pids=100)))
    text = await output(containers, container)
    assert text.startswith(b"262144\n")
    assert b"MemoryError" in text
    assert (await containers.wait(container.id)).code == 1


async def test_a_job_without_a_last_line_feed_and_with_any_bytes(containers: ProcessContainers) -> None:
    container = await containers.start(shell(r"printf 'a\377\000b'"))
    assert await output(containers, container) == b"a\xff\x00b"


async def test_many_at_once(containers: ProcessContainers) -> None:
    codes: dict[int, int | None] = {}

    async def one(number: int) -> None:
        container = await containers.start(shell(f"exit {number}", f"rh-{number}"))
        codes[number] = (await containers.wait(container.id)).code
        await containers.remove(container.id)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(one, number)
    assert codes == {number: number for number in range(50)}
    assert await containers.find({}) == []


async def test_what_it_uses_is_told(containers: ProcessContainers) -> None:
    container = await containers.start(shell("echo ready; while :; do :; done"))
    await said(containers, container, b"ready")
    with anyio.fail_after(30):
        while (usage := await containers.usage(container.id)) is None or not usage.cpu_seconds:
            await anyio.sleep(0.02)
    assert usage.memory_bytes
    assert usage.memory_bytes > 100_000
    await containers.remove(container.id)
    assert await containers.usage(container.id) is None


async def test_a_start_that_is_cancelled_is_found_or_never_was(containers: ProcessContainers) -> None:
    for number in range(10):
        with anyio.move_on_after(number / 1000):
            await containers.start(shell("sleep 600", f"rh-{number}"))
    with anyio.fail_after(30):
        while True:
            found = {container.name for container in await containers.find({})}
            if all(f"rh-{number}" in found or not marked(f"rh-{number}") for number in range(10)):
                break
            await anyio.sleep(0.02)


async def test_read_only_directories_are_removed(containers: ProcessContainers) -> None:
    container = await containers.start(shell("mkdir -p a/b; touch a/b/c; chmod 500 a/b a"))
    await containers.wait(container.id)
    await containers.remove(container.id)
    assert await containers.find({}) == []


async def test_images_and_bad_names_are_refused(containers: ProcessContainers) -> None:
    with pytest.raises(ContainerStartError, match="no images"):
        await containers.start(shell("true", image="alpine"))
    for name in ("../x", "", ".", "a/b", "x" * 300):
        with pytest.raises(ValidationError, match="name"):
            await containers.start(shell("true", name))


async def test_bad_settings_and_directories_are_named(tmp_path: Path) -> None:
    for settings, told in (({"sandbox": "jail"}, "auto, bwrap, none"), ({"sandbix": "none"}, "sandbox")):
        with pytest.raises(ConfigurationError, match=told):
            ProcessContainers(BackendOptions(data_dir=tmp_path, settings=settings))
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match=r"data_dir .* writable directory"):
        async with ProcessContainers(BackendOptions(data_dir=tmp_path / "file")):
            pass


async def test_bubblewrap_is_insisted_on_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="apt install bubblewrap"):
        async with ProcessContainers(BackendOptions(data_dir=tmp_path, settings={"sandbox": "bwrap"})):
            pass
    async with ProcessContainers(BackendOptions(data_dir=tmp_path, settings={"sandbox": "auto"})) as containers:
        assert containers._wrap == []
