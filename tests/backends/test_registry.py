"""Backends are found by name; a broken one hides no other, and none takes a name over."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NoReturn

import pytest

from envd.backends.contract import Backend, Capability, Options, Registration
from envd.backends.errors import InvalidName, MissingLibrary, StoreUnsupported
from envd.backends.memory import MemoryBackend
from envd.backends.registry import (
    BUILT_IN,
    GROUP,
    Plugin,
    Registry,
    Target,
    open_options,
    own_distribution,
    parse_target,
    told,
)
from envd.core.errors import InvalidRequest
from envd.core.syncing import BackendView

ROOT = Path(__file__).parent.parent.parent
HERE = "tests.backends.test_registry"


def broken(_: Options) -> NoReturn:
    raise ZeroDivisionError


def refusing(_: Options) -> NoReturn:
    raise InvalidName("no such place")


GOOD = Registration("good", "a plugin", MemoryBackend, "NAME", capabilities=Capability.CAS)
OLD = Registration("old", "a plugin", MemoryBackend, "NAME", api_version=0)
OTHER = Registration("other-name", "a plugin", MemoryBackend, "NAME")
BROKEN = Registration("broken", "a plugin", broken, "NAME")
REFUSING = Registration("refusing", "a plugin", refusing, "NAME")
MISSING = Registration(
    "missing", "a plugin", MemoryBackend, "NAME", extra="aws", library="no_such_library.part"
)
BARE = Registration("bare", "a plugin", MemoryBackend, "NAME", library="no_such_library")
NOTHING = object()


def made() -> Registration:
    return Registration("made", "a plugin", MemoryBackend, "NAME")


def raising() -> NoReturn:
    raise RuntimeError("HIDDEN")


def plugin(name: str, value: str = "", distribution: str = "their-package") -> Plugin:
    return Plugin(name, value or f"{HERE}:{name.upper()}", distribution)


def registry(*plugins: Plugin) -> Registry:
    return Registry(lambda: plugins, distribution=lambda: "envd-cluster")


def view(of: Registry, name: str) -> BackendView:
    return next(each for each in of.views() if each.name == name)


def test_all_built_in_backends_can_be_used() -> None:
    views = registry().views()

    assert [each.name for each in views] == sorted(BUILT_IN)
    assert {each.problem for each in views} == {""}
    assert {each.distribution for each in views} == {"envd-cluster"}
    assert all(each.summary and each.place_hint and each.capabilities for each in views)


def test_the_entry_points_are_those_that_are_built_in() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["entry-points"][GROUP] == dict(BUILT_IN)
    assert own_distribution() == project["name"]


def test_a_plugin_is_found_beside_them() -> None:
    found = registry(plugin("good"), plugin("made", f"{HERE}:made"))

    assert found.names() == sorted([*BUILT_IN, "good", "made"])
    assert found.registration("good") is GOOD
    assert view(found, "good").capabilities == ("cas",)
    assert view(found, "made").distribution == "their-package"


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("gone", "no.such.module:it", "gone can't be imported: No module named 'no'"),
        ("gone", f"{HERE}:it", "gone failed with AttributeError when it was imported"),
        ("raising", f"{HERE}:raising", "raising failed with RuntimeError when it was imported"),
        ("nothing", f"{HERE}:NOTHING", "nothing leads to something that is no Registration"),
        ("old", f"{HERE}:OLD", "old was written for version 0 of the contract"),
        ("mine", f"{HERE}:OTHER", "mine calls itself 'other-name'"),
    ],
)
def test_a_broken_plugin_is_told_of_and_hides_no_other(name: str, value: str, problem: str) -> None:
    found = registry(plugin(name, value), plugin("good"))

    assert problem in view(found, name).problem
    assert "their-package" in view(found, name).hint
    assert view(found, "good").problem == ""
    assert found.registration("memory").name == "memory"
    with pytest.raises(StoreUnsupported, match=name):
        found.registration(name)


def test_a_plugin_can_not_take_over_a_name() -> None:
    found = registry(plugin("memory", f"{HERE}:GOOD"))

    mine, theirs = (each for each in found.views() if each.name == "memory")

    assert found.registration("memory").summary != GOOD.summary
    assert mine.problem == ""
    assert "their-package is not used" in theirs.problem


def test_of_two_plugins_of_one_name_none_is_used() -> None:
    found = registry(plugin("good"), plugin("good", distribution="other-package"))

    assert view(found, "good").problem == (
        "good is in more than one package: other-package and their-package"
    )


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    found = registry(plugin("raising", f"{HERE}:raising"))

    assert found.registration("memory").name == "memory"
    assert "raising" in found.names()


def test_a_missing_library_is_told_with_the_command_that_brings_it() -> None:
    found = registry(plugin("missing", distribution="envd-cluster"), plugin("bare"))

    with pytest.raises(MissingLibrary) as caught:
        found.registration("missing")

    assert caught.value.hint == "pip install 'envd-cluster[aws]'"
    assert view(found, "missing").hint == "pip install 'envd-cluster[aws]'"
    assert view(found, "missing").problem == "no_such_library.part is not installed"
    assert view(found, "bare").hint == "pip install no_such_library"


def test_an_unknown_backend_is_told_with_those_that_are_known() -> None:
    with pytest.raises(StoreUnsupported, match="there is no backend 'aws'") as caught:
        registry().registration("aws")

    assert "memory" in caught.value.hint


def test_a_target_is_opened() -> None:
    found = registry()
    target = parse_target("memory:here")

    options = open_options(
        found.registration(target.backend),
        target,
        below=True,
        providers={"memory": {"endpoint": "http://127.0.0.1:1", "other": 1}},
        wall_ms=lambda: 5,
    )
    backend = found.make(target, options)

    assert isinstance(backend, Backend)
    assert (options.place, options.below, options.endpoint) == ("here", True, "http://127.0.0.1:1")
    assert dict(options.settings) == {"other": 1}
    assert options.wall_ms() == 5


@pytest.mark.parametrize(
    ("name", "kind"), [("broken", StoreUnsupported), ("refusing", InvalidName)]
)
def test_what_fails_as_it_is_made_is_an_error_of_its_own(name: str, kind: type[Exception]) -> None:
    found = registry(plugin(name))

    with pytest.raises(kind):
        found.make(Target(name, "x"), Options("x"))


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("aws-ssm:/payments/prod", Target("aws-ssm", "/payments/prod")),
        ("file:/srv/a:b/.env", Target("file", "/srv/a:b/.env")),
        ("memory: x", Target("memory", " x")),
    ],
)
def test_a_target_is_read_and_written_alike(text: str, target: Target) -> None:
    assert parse_target(text) == target
    assert str(target) == text


@pytest.mark.parametrize(
    "text", ["", "file", "file:", ":x", "File:/x", "1:x", "a b:x", "a:\0", "a:\n"]
)
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_target(text)

    assert caught.value.reason == "INVALID_TARGET"


def test_what_is_no_layout_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="is no layout"):
        open_options(GOOD, Target("good", "x"), layout="flat", wall_ms=lambda: 0)


def test_capabilities_are_told_in_words() -> None:
    words = told(Capability.STAMP_ATOMIC | Capability.CAS)

    assert set(words) == {"cas", "stamp-atomic"}


def test_finding_backends_imports_no_library_of_a_cloud() -> None:
    program = (
        "import sys; from envd.backends.registry import Registry; Registry().views();"
        "print(sorted({'boto3', 'botocore', 'azure.core', 'hvac', 'yaml'} & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"


def test_only_backends_import_the_libraries_of_google() -> None:
    elsewhere = [
        path
        for path in (ROOT / "envd").rglob("*.py")
        if "backends" not in path.parts and "google.cloud" in path.read_text()
    ]

    assert elsewhere == []
