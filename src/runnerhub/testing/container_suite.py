"""What every container backend must do: start once, tell all output and the exit, stop the whole tree, be found again."""

from __future__ import annotations

from contextlib import aclosing
from datetime import timedelta

import anyio
import pytest

from runnerhub.model.container import Container, ContainerSpec, ContainerState, ExitStatus
from runnerhub.model.errors import ContainerStartError, NotFoundError
from runnerhub.protocols import ContainerBackend, ResumableLogs

LONGEST = 60
LABELS = {"runnerhub.hub": "suite", "runnerhub.job": "job_1"}


class ContainerSuite:
    """Subclass it with a fixture `containers` that gives an opened backend. Set `image` where containers need one."""

    pytestmark = pytest.mark.anyio
    image: str | None = None

    def spec(self, script: str, name: str = "rh-suite-1", labels: dict[str, str] | None = None, **env: str) -> ContainerSpec:
        """A container that runs a shell script."""
        return ContainerSpec(name=name, command=("/bin/sh", "-c", script), image=self.image, env=env, labels=labels or LABELS)

    async def _run(self, containers: ContainerBackend, spec: ContainerSpec) -> tuple[bytes, ExitStatus]:
        with anyio.fail_after(LONGEST):
            container = await containers.start(spec)
            output = b"".join([piece async for piece in containers.logs(container.id)])
            status = await containers.wait(container.id)
            await containers.remove(container.id)
        return output, status

    async def test_output_and_exit_code_are_told(self, containers: ContainerBackend) -> None:
        output, status = await self._run(containers, self.spec("echo hello; echo oops >&2; exit 3"))
        assert output == b"hello\noops\n"
        assert (status.code, status.signal, status.lost) == (3, None, "")

    async def test_success_is_zero(self, containers: ContainerBackend) -> None:
        output, status = await self._run(containers, self.spec("true"))
        assert (output, status.code) == (b"", 0)

    async def test_a_death_by_signal_is_128_and_more(self, containers: ContainerBackend) -> None:
        _, status = await self._run(containers, self.spec("kill -KILL $$"))
        assert status.code == 137

    async def test_the_environment_is_what_was_given(self, containers: ContainerBackend) -> None:
        output, _ = await self._run(containers, self.spec('printf %s "$GREETING"', GREETING="hello  $world\n'☃"))
        assert output.decode() == "hello  $world\n'☃"

    async def test_all_of_much_output_comes(self, containers: ContainerBackend) -> None:
        output, _ = await self._run(containers, self.spec("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"))
        assert output == b"".join(b"line %d\n" % number for number in range(20000))

    async def test_output_comes_while_it_runs(self, containers: ContainerBackend) -> None:
        with anyio.fail_after(LONGEST):
            container = await containers.start(self.spec("echo first; sleep 600"))
            async with aclosing(containers.logs(container.id)) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    assert piece == b"first\n"
                    break
            await containers.remove(container.id)

    async def test_logs_go_on_behind_a_cursor(self, containers: ContainerBackend) -> None:
        if not isinstance(containers, ResumableLogs):
            return  # the hub reads from the beginning
        with anyio.fail_after(LONGEST):
            container = await containers.start(self.spec("for i in 1 2 3 4 5; do echo $i; sleep 0.02; done"))
            frames = [frame async for frame in containers.logs_after(container.id, "")]
            whole = b"".join(frame.data for frame in frames)
            assert whole == b"1\n2\n3\n4\n5\n"
            seen = b""
            for frame in frames:
                seen += frame.data
                rest = b"".join([one.data async for one in containers.logs_after(container.id, frame.cursor)])
                assert seen + rest == whole
            await containers.remove(container.id)

    async def test_one_name_is_started_once(self, containers: ContainerBackend) -> None:
        with anyio.fail_after(LONGEST):
            found: list[Container] = []

            async def start() -> None:
                found.append(await containers.start(self.spec("echo once; sleep 0.1")))

            async with anyio.create_task_group() as tasks:
                for _ in range(4):
                    tasks.start_soon(start)
            again = await containers.start(self.spec("echo twice"))
            assert {container.id for container in found} == {again.id}
            assert b"".join([piece async for piece in containers.logs(again.id)]) == b"once\n"
            await containers.remove(again.id)

    async def test_containers_are_found_by_their_labels(self, containers: ContainerBackend) -> None:
        with anyio.fail_after(LONGEST):
            runs = await containers.start(self.spec("sleep 600"))
            other = await containers.start(self.spec("exit 5", "rh-suite-2", {**LABELS, "runnerhub.job": "job_2"}))
            await containers.wait(other.id)
            both = await containers.find({"runnerhub.hub": "suite"})
            assert {container.id for container in both} == {runs.id, other.id}
            (exited,) = await containers.find({"runnerhub.hub": "suite", "runnerhub.job": "job_2"})
            assert exited.state is ContainerState.EXITED
            assert exited.exit is not None
            assert exited.exit.code == 5
            assert await containers.find({"runnerhub.hub": "nobody"}) == []
            for container in both:
                await containers.remove(container.id)
            assert await containers.find({}) == []

    async def test_stop_ends_the_whole_tree(self, containers: ContainerBackend) -> None:
        script = "trap '' TERM; (sleep 600 & sleep 600) & echo ready; while true; do sleep 0.1; done"
        with anyio.fail_after(LONGEST):
            container = await containers.start(self.spec(script))
            async with aclosing(containers.logs(container.id)) as pieces:  # type: ignore[type-var]
                async for _ in pieces:
                    break
            await containers.stop(container.id, timedelta(seconds=0.2))
            status = await containers.wait(container.id)
            assert status.code != 0
            await containers.stop(container.id, timedelta(0))
            await containers.remove(container.id)

    async def test_a_job_may_end_itself_within_its_grace(self, containers: ContainerBackend) -> None:
        with anyio.fail_after(LONGEST):
            script = "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
            container = await containers.start(self.spec(script))
            async with aclosing(containers.logs(container.id)) as pieces:  # type: ignore[type-var]
                async for _ in pieces:
                    break
            await containers.stop(container.id, timedelta(seconds=30))
            assert (await containers.wait(container.id)).code == 9
            await containers.remove(container.id)

    async def test_what_is_not_there_is_said_so(self, containers: ContainerBackend) -> None:
        with pytest.raises(NotFoundError):
            await containers.wait("rh-none")
        await containers.stop("rh-none", timedelta(0))
        await containers.remove("rh-none")

    async def test_a_program_that_is_missing_is_no_fault_of_ours(self, containers: ContainerBackend) -> None:
        spec = ContainerSpec(name="rh-suite-3", command=("/nonesuch/program",), image=self.image, labels=LABELS)
        with pytest.raises(ContainerStartError, match="nonesuch") as caught:
            await containers.start(spec)
        assert not caught.value.retryable
        assert await containers.find(LABELS) == []
