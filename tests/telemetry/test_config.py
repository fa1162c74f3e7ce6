"""config/observability: what is shipped works with what a daemon really exposes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.node import Node
from tests.telemetry.reading import names_of
from tests.telemetry.test_daemon import OPENMETRICS, scrape
from tests.telemetry.test_daemon_cluster import join, told, until

SHIPPED = Path(__file__).parents[2] / "config" / "observability"
PROMTOOL = shutil.which("promtool") or ""
needs_promtool = pytest.mark.skipif(
    not PROMTOOL, reason="promtool is not installed (Debian: prometheus)"
)
_METRIC = re.compile(r"\b(?:envd|process|python)_[a-z0-9_]+\b(?!:)")
_RECORDED = re.compile(r"\benvd:[a-z0-9_:]+\b")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((SHIPPED / "envd.rules.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((SHIPPED / "envd.dashboard.json").read_text())
    return document


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    """Every expression of the rules and the dashboard."""
    asked = [rule["expr"] for rule in rules()]
    asked += [target["expr"] for panel in panels() for target in panel["targets"]]
    asked += [one["expr"] for one in dashboard()["annotations"]["list"]]
    return [*asked, *(one["definition"] for one in dashboard()["templating"]["list"][1:])]


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """The shipped files beside a token, as they would be installed."""
    directory = tmp_path / "prometheus"
    shutil.copytree(SHIPPED, directory)
    (directory / "envd.token").write_text("a-token")
    return directory


@needs_promtool
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "envd.rules.yml"),
        ("test", "rules", "envd.rules.test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_accepts_what_is_shipped(beside: Path, arguments: tuple[str, ...]) -> None:
    done = subprocess.run([PROMTOOL, *arguments], cwd=beside, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_reads_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    filled = [
        target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
        for panel in panels()
        for target in panel["targets"]
    ]
    named = [{"record": f"panel:{n}", "expr": one} for n, one in enumerate(filled)]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": named}]}))

    done = subprocess.run([PROMTOOL, "check", "rules", str(file)], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_every_metric_that_is_asked_for_is_one_that_a_daemon_has(
    stopped: Node, joiner: Node
) -> None:
    ready = stopped.start()
    join(joiner, stopped, ready)
    stopped.envctl("set", "web/prod", "A=1", "B=2")
    stopped.envctl("get", "web/prod")
    until(lambda: ("envd_peer_clock_offset_seconds", "b") in told(stopped, ready))
    exposed = names_of(scrape(ready["http"], stopped, OPENMETRICS))
    stopped.stop()

    asked = {
        name
        for expression in expressions()
        for name in _METRIC.findall(_STRING.sub('""', expression))
    }

    assert len(asked) > 20
    assert asked - exposed == set()


def test_every_recorded_series_that_is_asked_for_is_recorded() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}

    asked = {name for expression in expressions() for name in _RECORDED.findall(expression)}

    assert asked <= recorded


def test_every_alert_says_what_to_do_and_has_a_test_in_which_it_fires() -> None:
    tests = (SHIPPED / "envd.rules.test.yml").read_text()
    alerts = [rule for rule in rules() if "alert" in rule]

    assert len(alerts) > 10
    for alert in alerts:
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}
        assert {"summary", "runbook"} <= alert["annotations"].keys()
        assert f'{{alertname="{alert["alert"]}"}}' in tests


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    document = dashboard()

    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= document.keys()
    assert document["id"] is None
    ids = [panel["id"] for panel in document["panels"]]
    assert len(ids) == len(set(ids))
    for panel in panels():
        assert panel["type"] in {"stat", "timeseries"}
        assert panel["title"]
        assert panel["targets"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        references = [target["refId"] for target in panel["targets"]]
        assert len(references) == len(set(references))
        assert all("$instance" in target["expr"] for target in panel["targets"])


def test_no_panel_of_the_dashboard_covers_another() -> None:
    taken: dict[tuple[int, int], int] = {}
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["id"]) == panel["id"]
