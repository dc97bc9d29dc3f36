"""A container backend in an evening: children of the hub in sessions of their own, their output in files."""

import os, subprocess, anyio
from runnerhub import ContainerStartError, NotFoundError, hookimpl
from runnerhub.model.container import Container, ContainerState, ExitStatus

class Plain(dict):
    def __init__(self, options): self.root = options.data_dir
    def __missing__(self, name): raise NotFoundError("container", name)
    async def __aenter__(self): return self
    async def __aexit__(self, *error): [await self.remove(name) for name in list(self)]
    async def start(self, spec):
        try:
            with (self.root / spec.name).open("ab") as out:
                env = {"PATH": os.defpath, **spec.env}
                if spec.name not in self:
                    self[spec.name] = subprocess.Popen(spec.command, stdout=out, stderr=out, env=env, start_new_session=True)
        except OSError as error: raise ContainerStartError(f"{spec.command[0]}: {error.strerror}", retryable=False) from error
        self[spec.name].labels = spec.labels
        return self.tell(spec.name)
    async def logs(self, name):
        with (self.root / name).open("rb") as output:
            while self[name].poll() is None:
                if data := output.read(): yield data
                await anyio.sleep(0.01)
            yield output.read()
    async def wait(self, name):
        while self[name].poll() is None: await anyio.sleep(0.01)
        return self.tell(name).exit
    async def stop(self, name, grace):
        for number, seconds in ((15, grace and grace.total_seconds()), (9, 60)) if name in self else ():
            if self[name].poll() is None:
                with anyio.move_on_after(seconds): os.killpg(self[name].pid, number) or await self.wait(name)
    async def remove(self, name): await self.stop(name, 0); self.pop(name, None)
    async def find(self, labels): return [self.tell(name) for name in self if labels.items() <= self[name].labels.items()]
    def tell(self, name):
        if (code := self[name].poll()) is None: return Container(id=name, name=name, labels=self[name].labels)
        status = ExitStatus(code=code if code >= 0 else 128 - code)
        return Container(id=name, name=name, labels=self[name].labels, state=ContainerState.EXITED, exit=status)

@hookimpl
def runnerhub_container_backends(): return {"plain": Plain}
