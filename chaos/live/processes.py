"""One real `envd`: started, stopped, killed, paused, wiped, put back to an earlier copy.

Its log is a file that grows over all its starts. It never outlives the run: the system kills it
when the process that started it ends, however that ends (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final

from chaos.live import disks
from chaos.live.disks import Disk
from chaos.live.places import Place

READY_S: Final = 60.0
STOP_S: Final = 60.0
_LOOK_S: Final = 0.02
TOKEN: Final = "live-chaos-" + "0" * 32
_SETTINGS: Final = """\
[storage]
segment_bytes = 16777216
keep_segments = 1
history_commits = 100000
"""


class DidNotStart(Exception):
    """A node did not become ready; the text has the end of its log."""


class LiveNode:
    """One node at a place. `home` gets its data, settings and log; `secret` is the cluster's.

    `zone` is where it says that it runs, and `copies` how many of each partition there are to be,
    0 for what it takes by itself.
    """

    def __init__(
        self,
        place: Place,
        home: Path,
        log: Path,
        secret: Path,
        *,
        zone: str = "",
        copies: int = 0,
    ) -> None:
        self.place = place
        self.data = home / place.name
        self.log = log
        self.is_up = False
        self.starts = 0
        self._secret = secret
        self._copy = home / f"{place.name}.copy"
        self._settings = home / f"{place.name}.toml"
        self.zone = zone
        spread = f"[distributed]\nreplication_factor = {copies}\n" if copies else ""
        self._settings.write_text(f'{_SETTINGS}{spread}[security]\nadmin_token = "{TOKEN}"\n')
        self._settings.chmod(0o600)
        self._process: subprocess.Popen[bytes] | None = None
        self._from = 0

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def token(self) -> str:
        """What clients need here."""
        return "" if self.place.insecure else TOKEN

    # -- starts and ends -----------------------------------------------------------------------

    def begin(self, seeds: Sequence[str]) -> None:
        """Start it; an empty node founds a cluster where there are no seeds."""
        place = self.place
        self._from = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = _start([*place.enter, *self._command(seeds)], log)
        self.starts += 1

    def _command(self, seeds: Sequence[str]) -> list[str]:
        place = self.place
        flags = {
            "--config": self._settings,
            "--data-dir": self.data,
            "--node-name": place.name,
            "--listen": f"{place.host}:{place.grpc_port}",
            "--gossip": f"{place.host}:{place.gossip_port}",
            "--http": f"{place.host}:{place.http_port}",
            "--socket": self.data.parent / f"{place.name}.sock",
            "--advertise": place.advertise,
            "--cluster-name": "chaos",
            "--zone": self.zone,
            "--join": ",".join(seeds),
            "--cluster-secret-file": "" if place.insecure else self._secret,
        }
        command = [sys.executable, "-m", "envd.daemon"]
        for flag, value in flags.items():
            if str(value):
                command += [flag, str(value)]
        return [*command, *(["--insecure"] if place.insecure else [])]

    async def ready(self, within_s: float = READY_S) -> dict[str, Any]:
        """Wait until it serves; return what it says then."""
        deadline_s = asyncio.get_running_loop().time() + within_s
        while asyncio.get_running_loop().time() < deadline_s:
            if told := self.events("node.ready"):
                self.is_up = True
                return told[-1]
            assert self._process is not None
            if self._process.poll() is not None:
                break
            await asyncio.sleep(_LOOK_S)
        raise DidNotStart(f"{self.place.name} is not ready: {self.last_lines()}")

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """What it logged since its last start."""
        found: list[dict[str, Any]] = []
        if not self.log.exists():
            return found
        with self.log.open("rb") as log:
            log.seek(self._from)
            for line in log:
                if line.startswith(b"{") and line.endswith(b"\n"):
                    event: dict[str, Any] = json.loads(line)
                    if name in ("", event["event"]):
                        found.append(event)
        return found

    def last_lines(self, count: int = 5) -> str:
        """The end of its log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return " | ".join(line[:300] for line in lines[-count:])

    async def terminate(self) -> int:
        """SIGTERM, and wait for the end; return the exit code."""
        return await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """SIGKILL."""
        await self._end(signal.SIGKILL)

    async def ends(self, within_s: float = STOP_S) -> int:
        """Wait until it ends by itself; return the exit code. Raises TimeoutExpired."""
        assert self._process is not None
        code = await asyncio.to_thread(self._process.wait, within_s)
        self.is_up = False
        return code

    async def _end(self, number: int) -> int:
        process = self._process
        assert process is not None
        self.is_up = False
        process.send_signal(number)
        try:
            return await asyncio.to_thread(process.wait, STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)
            raise

    def put_down(self) -> None:
        """Kill it now, if it runs; for the end of the run."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self.is_up = False

    def pause(self) -> None:
        """SIGSTOP: it stands still and keeps its connections."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def bound_files(self, size_bytes: int | None) -> None:
        """No file of it may grow beyond this from now on (RLIMIT_FSIZE); None for no bound."""
        bound = resource.RLIM_INFINITY if size_bytes is None else size_bytes
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (bound, resource.RLIM_INFINITY))

    # -- its data ------------------------------------------------------------------------------

    async def wipe(self) -> None:
        """Remove its data; it must not run."""
        await asyncio.to_thread(shutil.rmtree, self.data)

    async def at_rest(self) -> Disk:
        """What is on its disk; it must not run."""
        secret = None if self.place.insecure else self._secret
        return await disks.read(self.data, secret=secret, insecure=self.place.insecure)

    async def checkpoint(self) -> None:
        """Copy its data; it must not run."""
        await asyncio.to_thread(shutil.copytree, self.data, self._copy, symlinks=True)

    async def restore(self) -> None:
        """Put the copy in the place of its data; it must not run."""
        await self.wipe()
        await asyncio.to_thread(shutil.copytree, self._copy, self.data, symlinks=True)


def _start(command: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """In a session of its own, so that Ctrl-C reaches the run alone, and dead with this process."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ENVD_", "XDG_"))}
    dies = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    return subprocess.Popen(
        [*dies, *command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**kept, "NO_COLOR": "1"},
        start_new_session=True,
    )
