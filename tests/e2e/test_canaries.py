"""Secret values are looked for after a whole run, everywhere but where they belong.

They are set, edited in stores, refused, overwritten, in conflict, in history and backups; the
daemon logs all it can, is traced and killed, and envctl shows all that it shows without --reveal.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("moto")
pytest.importorskip("hvac")
pytest.importorskip("azure.keyvault.secrets")
pytest.importorskip("google.cloud.secretmanager")

from tests.e2e import rerouted, stores
from tests.e2e.node import PATIENCE_S, until
from tests.e2e.stores import Store
from tests.e2e.test_five_stores import Rerouted, all_in_step
from tests.telemetry.collector import Collector, collecting

CANARIES = {
    "API_TOKEN": "canary-set-here-81b1",
    "DB_PASSWORD": "canary-edited-in-vault-5c07",
    "SIGNING_SECRET": "canary-edited-in-aws-3fa9",
    "REFUSED_SECRET": "canary-refused {{ssm:canary-inner-77d2}}",
    "LARGE_SECRET": "canary-large-09ee" * 300,
    "TORN_PASSWORD": "canary-of-a-conflict-2b6d",
}
NEEDLE = "canary"
BACKUP_PASSPHRASE = "the passphrase of a test"
SHOWN = (
    "list",
    "get web/prod",
    "get web/prod -o json",
    "history web/prod",
    "history web/prod API_TOKEN -o json",
    "conflicts web/prod",
    "conflicts web/prod -o json",
    "diff web/prod@~1 web/prod",
    "find TOKEN",
    "sync plan -o json",
    "sync status",
    "sync status -o json",
    "sync cost -o json",
    "sync list -o json",
    "backend list",
    "backend check test-ssm:/web/prod test-vault:/web/prod",
    "import other/place --from test-vault:/web/prod --dry-run",
    "import web/prod --from test-key-vault:acme-prod/web/prod --dry-run -o json",
    "doctor",
    "export web/prod --format terraform-ssm",
)
"""What people see without --reveal."""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Rerouted]:
    made = Rerouted(tmp_path / "node")
    made.more = {"PYTHONPATH": rerouted.installed(tmp_path / "plugin")}
    yield made
    if made.process is not None:
        made.kill()


class Run:
    """One run, and everything that came out of it."""

    def __init__(self, node: Rerouted, bound: list[Store], collector: Collector) -> None:
        self.node = node
        self.bound = {each.name: each for each in bound}
        self.collector = collector
        self.outputs: list[str] = []
        self.http = ""
        node.more |= stores.environ_of(bound)
        node.directory.mkdir()
        self._file = node.directory / "envd.toml"
        self._file.write_text(
            "[cloud]\nenabled = true\n"
            f'[observability]\nlog_level = "debug"\ntracing_endpoint = "{collector.url}"\n'
        )

    def start(self) -> None:
        self.http = str(self.node.start("--config", str(self._file))["http"])

    def stop(self, *, kill: bool = False) -> None:
        events = self.node.events
        if kill:
            self.node.kill()
        else:
            self.node.stop()
        self.outputs += map(str, events)

    def envctl(self, *words: str, stdin: str | None = None, code: int | None = 0) -> str:
        done = self.node.envctl(*words, stdin=stdin, ENVD_BACKUP_PASSPHRASE=BACKUP_PASSPHRASE)
        assert code is None or done.code == code, f"{words}: {done.err}"
        self.outputs += [done.out, done.err]
        return done.out

    def metrics(self) -> None:
        token = (self.node.data / "admin.token").read_text().strip()
        asked = urllib.request.Request(f"http://{self.http}/metrics")
        asked.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
            self.outputs.append(answer.read().decode())

    def has(self, name: str) -> bool:
        """Whether a canary is here; to ask for a value is no leak."""
        return self.node.envctl("get", "web/prod", name).out == CANARIES[name]


def live(run: Run, tmp_path: Path) -> None:
    """All that may happen to a secret."""
    run.start()
    for name, store in run.bound.items():
        bind = ("sync", "bind", name, "--env", "web/prod", "--to", store.target)
        run.envctl(*bind, "--direction", "both", "--interval", "5", "--conflicts", "manual")
    run.envctl("set", "web/prod", "API_TOKEN", "--secret", stdin=CANARIES["API_TOKEN"])
    run.envctl("set", "web/prod", "TORN_PASSWORD", "--secret", stdin="canary-first")
    until(lambda: all_in_step(run.node), "all in step")

    run.bound["vault"].edit("DB_PASSWORD", CANARIES["DB_PASSWORD"])
    run.bound["ssm"].edit("SIGNING_SECRET", CANARIES["SIGNING_SECRET"])
    for name in ("DB_PASSWORD", "SIGNING_SECRET"):
        until(partial(run.has, name), name)
    run.stop(kill=True)

    run.bound["vault"].edit("TORN_PASSWORD", "canary-of-the-store-4410")
    run.start()
    run.envctl("set", "web/prod", "TORN_PASSWORD", "--secret", stdin=CANARIES["TORN_PASSWORD"])
    for name in ("REFUSED_SECRET", "LARGE_SECRET"):
        run.envctl("set", "web/prod", name, "--secret", stdin=CANARIES[name])
    until(lambda: "TORN_PASSWORD" in run.envctl("conflicts", "web/prod"), "a conflict")
    until(lambda: "REFUSED_SECRET" in run.envctl("sync", "plan", "ssm"), "refused")
    backup = str(tmp_path / "node" / "envd.backup")
    run.envctl("backup", "create", "--file", backup)
    for line in SHOWN:
        run.envctl(*line.split(), code=None)
    run.metrics()
    run.stop()


def test_no_secret_is_found_after_a_whole_run_but_where_it_belongs(
    node: Rerouted, tmp_path: Path
) -> None:
    with stores.five() as five, collecting() as collector:
        run = Run(node, [each for each in five if each.keeps_secrets], collector)
        live(run, tmp_path)
        held = {value for store in run.bound.values() for value in store.values().values()}

    told = [each for each in run.outputs if NEEDLE in each]
    files = [
        str(path.relative_to(node.directory))
        for path in node.directory.rglob("*")
        if path.is_file() and NEEDLE.encode() in path.read_bytes()
    ]
    assert {CANARIES["API_TOKEN"], CANARIES["DB_PASSWORD"], CANARIES["SIGNING_SECRET"]} <= held
    assert told == []
    assert files == []
    assert collector.bodies
    assert not [body for body in collector.bodies if NEEDLE.encode() in body]
    assert "sync.leading" in "".join(run.outputs)
