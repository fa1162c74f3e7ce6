"""docs/operations.md as somebody follows it: machines with real daemons, and what is typed there.

A line `n2$ COMMAND` of the page is typed on that machine, `$ COMMAND` beside them. What stands
below must be printed, but for uids, revisions, epochs and counts of starts. A command that only
looks is repeated until it is, as the page says.

The machines 10.0.0.N are addresses of loopback that no other test has, so that all ports are those
of the page; a machine's `/var/lib/envd`, `/etc/envd`, `/root` and `/mnt` are directories of its
own. systemd and chrony are played: `systemctl` starts and ends the process, a clock is off by what
stands in a file.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.node import PATIENCE_S, Node

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "operations.md"
ZONES = "abcab"
SMALL_DISK_MB = 160
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SETTINGS = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TYPED = re.compile(r"^(n\d)?\$ (.+)$")
_LOOKS = re.compile(
    r"cluster (status|members|topology)| (list|get|doctor|conflicts)\b|^diff |--dry-run"
)
_VARIES = (
    (re.compile(r"\b[0-9a-f]{8,16}\b"), "#"),
    (re.compile(r"epoch \d+"), "epoch #"),
    (re.compile(r"\b(alive|down|left|suspect) \d+$"), r"\1 #"),
    (re.compile(r"\d+ commits, [\d.]+ KiB"), "# commits"),
    (re.compile(r"the clock of n\d is \d+ ms (ahead of|behind)"), "a clock is # ms from"),
)
_WRONG_CLOCK = """
import os, runpy, sys, time
real, file = time.time_ns, os.open(sys.argv.pop(1), os.O_RDONLY)
time.time_ns = lambda: real() + int(os.pread(file, 20, 0)) * 10**9
runpy.run_module("envd.daemon", run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True)
class Typed:
    """A command, where it is typed ("" for anywhere), and the lines that it must print."""

    machine: str
    command: str
    printed: tuple[str, ...]


def procedures() -> dict[str, list[list[Typed]]]:
    """The blocks of commands below each heading of the page."""
    _, *parts = _HEADING.split(PAGE.read_text())
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    blocks = {
        title: [_lines(each) for each in _CONSOLE.findall(text)] for title, text in found.items()
    }
    return {title: each for title, each in blocks.items() if each}


def _lines(block: str) -> list[Typed]:
    typed: list[Typed] = []
    for line in block.splitlines():
        if command := _TYPED.match(line):
            typed.append(Typed(command[1] or "", command[2], ()))
        else:
            last = typed.pop()
            typed.append(Typed(last.machine, last.command, (*last.printed, line)))
    return typed


@dataclass
class Machine(Node):
    """`address` is what its 10.0.0.N stands for; `inside` a process whose disk is the machine's."""

    name: str = ""
    address: str = ""
    wrong_clock: bool = False
    inside: subprocess.Popen[bytes] | None = None

    @property
    def clock(self) -> Path:
        """The file that says how many seconds the clock is ahead."""
        return self.directory / "clock"

    def environ(self, **more: str) -> dict[str, str]:
        """Commands that enter a disk are no more in this directory, so it is named."""
        return super().environ(PYTHONPATH=str(ROOT), **more)

    def command(self, *flags: str) -> list[str]:
        envd = ["-m", "envd.daemon"]
        if self.wrong_clock:
            envd = ["-c", _WRONG_CLOCK, str(self.clock)]
        settings = str(self.directory / "etc" / "envd.toml")
        return [*self.enter(), sys.executable, *envd, "--config", settings, *flags]

    def enter(self) -> list[str]:
        """What a command begins with that runs on it."""
        if self.inside is None:
            return []
        return ["nsenter", "-t", str(self.inside.pid), "-U", "-m", "--preserve-credentials"]

    def has_small_disk(self) -> bool:
        """Give it a disk of its own for its data; tells whether this machine lets us."""
        self.data.mkdir()
        with (self.directory / "etc" / "envd.toml").open("a") as settings:
            settings.write(f"\n[storage]\nsegment_bytes = {16 << 20}\n")
        mount = f'mount -t tmpfs -o size={SMALL_DISK_MB}m,mode=700 none "$0" && echo && exec cat'
        try:
            inside = subprocess.Popen(
                ["unshare", "-Urm", "sh", "-c", mount, str(self.data)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except FileNotFoundError:
            return False
        assert inside.stdout is not None
        self.inside = inside
        return bool(inside.stdout.readline())

    def fill(self) -> None:
        """Leave no room on its disk."""
        filler = f"cat /dev/zero >{self.data}/filler"
        subprocess.run([*self.enter(), "sh", "-c", filler], stderr=subprocess.DEVNULL, check=False)

    def close(self) -> None:
        if self.process is not None:
            self.kill()
        if self.inside is not None:
            self.inside.kill()
            self.inside.communicate()

    def systemctl(self, verb: str) -> None:
        """What systemd does."""
        if verb in ("stop", "restart"):
            assert self.stop() == 0
        if verb in ("start", "restart"):
            self.start()
        if verb == "disable" and self.process is not None:
            assert self.process.wait(PATIENCE_S) == 0
            self.stop()


@dataclass
class Operator:
    """Whoever follows the page, with the machines there are."""

    home: Path
    network: str = ""
    machines: dict[str, Machine] = field(default_factory=dict)
    said: str = ""

    def __post_init__(self) -> None:
        self.network = f"127.{64 + secrets.randbelow(180)}.{secrets.randbelow(256)}."

    def machine(self, name: str, *, zone: str = "") -> Machine:
        """Set a machine up as the page says; it is not started."""
        number = int(name[1:])
        directory = self.home / name
        for each in ("etc", "root", "mnt/backups"):
            (directory / each).mkdir(parents=True)
        made = Machine(directory, name=name, address=f"{self.network}{number}")
        (settings,) = _SETTINGS.findall(PAGE.read_text())
        settings = settings.replace('"n4"', f'"{name}"').replace("10.0.0.4", f"10.0.0.{number}")
        settings = settings.replace('zone = "a"', f'zone = "{zone or ZONES[number - 1]}"')
        if number <= 3:
            settings = settings.replace("[cluster]\n", "[cluster]\nbootstrap_expect = 3\n")
        file = directory / "etc" / "envd.toml"
        file.write_text(self._here(settings, made))
        file.chmod(0o600)
        self.machines[name] = made
        return made

    def start(
        self, count: int, *, machines: Sequence[Machine] = (), at_once: bool = False
    ) -> Sequence[Machine]:
        """Start so many machines; return when all that should vote do.

        The first one founds the cluster; `at_once`, three of them do.
        """
        made = machines or [self.machine(f"n{number}") for number in range(1, count + 1)]
        if not at_once:
            self._found(made[0])
        with ThreadPoolExecutor(count) as pool:
            waiting = [pool.submit(each.start) for each in made if each.process is None]
            for started in waiting:
                started.result()
        voters = count - 1 + count % 2
        self.type(
            Typed(
                "",
                "envctl --server 10.0.0.1:7420 cluster topology",
                (
                    f"epoch 1: {voters} of {voters} voters can be reached; "
                    "serial environments take writes",
                ),
            )
        )
        return made

    def _found(self, machine: Machine) -> None:
        file = machine.directory / "etc" / "envd.toml"
        settings = file.read_text()
        alone = [each for each in settings.splitlines() if not each.startswith(("join", "boot"))]
        file.write_text("\n".join(alone))
        machine.start()
        file.write_text(settings)

    def close(self) -> None:
        for machine in self.machines.values():
            machine.close()

    @contextmanager
    def follows(self, title: str) -> Iterator[Iterator[None]]:
        """Follow a procedure: each `next` types one more block, and all of them must be typed."""
        blocks = self._blocks(procedures()[title])
        yield blocks
        assert next(blocks, "the end") == "the end", f"not all of {title} was typed"

    def _blocks(self, blocks: Sequence[Sequence[Typed]]) -> Iterator[None]:
        for block in blocks:
            for typed in block:
                self.type(typed)
            yield

    def type(self, typed: Typed) -> None:
        """Type a command; raises AssertionError where it does not print what it should."""
        machine = self.machines.get(typed.machine)
        if machine is not None and typed.command.startswith("systemctl "):
            machine.systemctl(typed.command.split()[1])
            return
        if machine is not None and typed.command == "chronyc makestep":
            machine.clock.write_text("0")
            return
        deadline = time.monotonic() + PATIENCE_S
        while why := self._differs(typed, machine):
            assert _LOOKS.search(typed.command), why
            assert time.monotonic() < deadline, why

    def _differs(self, typed: Typed, machine: Machine | None) -> str:
        """Run a command; tell what it did not print, "" where all is as the page says."""
        done = subprocess.run(
            [
                *(machine.enter() if machine else ()),
                "bash",
                "-c",
                self._here(typed.command, machine),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environ(machine),
            timeout=5 * PATIENCE_S,
            check=False,
        )
        self.said = done.stdout.replace(self.network, "10.0.0.")
        for each in self.machines.values():
            self.said = self.said.replace(str(each.data), "/var/lib/envd")
        seen = {_comparable(line) for line in self.said.splitlines()}
        missing = [line for line in typed.printed if _comparable(line) not in seen]
        fails = " doctor" in typed.command or any(
            line.startswith("error:") for line in typed.printed
        )
        if not missing and (fails or done.returncode == 0):
            return ""
        return f"{typed.command}\nended with {done.returncode}, lacks {missing}:\n{self.said}"

    def _here(self, text: str, machine: Machine | None) -> str:
        """What the page says, as it is called here."""
        text = text.replace("10.0.0.", self.network)
        if machine is not None:
            own = str(machine.directory)
            text = text.replace("/var/lib/envd", str(machine.data)).replace(
                "/etc/envd/", f"{own}/etc/"
            )
            text = text.replace("/root/", f"{own}/root/").replace("/mnt/", f"{own}/mnt/")
        return text

    def _environ(self, machine: Machine | None) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        home = Node(self.home).environ(PATH=path, PYTHONPATH=str(ROOT))
        if machine is None:
            return home
        return {**home, "ENVD_DATA_DIR": str(machine.data)}


def _comparable(line: str) -> str:
    line = " ".join(line.split())
    for pattern, instead in _VARIES:
        line = pattern.sub(instead, line)
    return line
