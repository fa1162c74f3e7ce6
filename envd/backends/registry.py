"""Which kinds of stores there are, and how one is opened: `NAME:PLACE`.

Those of this distribution are in BUILT_IN, so they are found without any metadata. Others come from
the entry points of the group `envd.backends`, and add to them: a plugin can't take a name over, and
of two plugins that want one name neither has it. Nothing is imported before it is asked for, and
what can't be imported is told of in `views` and hides nobody else.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from envd.backends.contract import (
    API_VERSION,
    Backend,
    Capability,
    Options,
    Registration,
    plain_fingerprint,
)
from envd.backends.errors import BackendError, MissingLibrary, StoreUnsupported
from envd.core.errors import InvalidRequest
from envd.core.syncing import BackendView

GROUP: Final = "envd.backends"
BUILT_IN: Final[Mapping[str, str]] = MappingProxyType(
    {
        "aws-lambda": "envd.backends.aws_lambda:registration",
        "aws-secrets-manager": "envd.backends.aws_secrets_manager:registration",
        "aws-ssm": "envd.backends.aws_ssm:registration",
        "azure-app-configuration": "envd.backends.azure_app_configuration:registration",
        "azure-functions": "envd.backends.azure_functions:registration",
        "azure-key-vault": "envd.backends.azure_key_vault:registration",
        "consul": "envd.backends.consul:registration",
        "digitalocean-app": "envd.backends.digitalocean_app:registration",
        "etcd": "envd.backends.etcd:registration",
        "file": "envd.backends.file:registration",
        "gcp-cloud-run": "envd.backends.gcp_cloud_run:registration",
        "gcp-parameter-manager": "envd.backends.gcp_parameter_manager:registration",
        "gcp-secret-manager": "envd.backends.gcp_secret_manager:registration",
        "kubernetes": "envd.backends.kubernetes:registration",
        "memory": "envd.backends.memory:registration",
        "vault": "envd.backends.vault:registration",
    }
)
"""Where the registration of each backend of this distribution is."""

_DISTRIBUTION = "envd-cluster"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_MAX_PLACE_CHARACTERS = 4096


class Target(NamedTuple):
    """A place in a store, written `aws-ssm:/payments/prod`."""

    backend: str
    place: str

    def __str__(self) -> str:
        return f"{self.backend}:{self.place}"


def parse_target(text: str) -> Target:
    """Read `NAME:PLACE`; InvalidRequest for anything else. The place may hold colons."""
    name, colon, place = text.partition(":")
    if not colon or not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{text[:64]!a} is no target",
            hint="write BACKEND:PLACE, such as file:/srv/web/.env; "
            "`envctl backend list` shows the backends",
            reason="INVALID_TARGET",
        )
    if not place or len(place) > _MAX_PLACE_CHARACTERS or not place.isprintable():
        raise InvalidRequest(
            f"the target {name}: names no place that could be",
            hint="write what the store calls it after the colon",
            reason="INVALID_TARGET",
        )
    return Target(name, place)


class Plugin(NamedTuple):
    """An entry point: `value` is `module:attribute`, `distribution` who brings it."""

    name: str
    value: str
    distribution: str


def installed_plugins() -> list[Plugin]:
    """The entry points of all installed distributions."""
    return [
        Plugin(each.name, each.value, each.dist.name if each.dist is not None else "")
        for each in importlib.metadata.entry_points(group=GROUP)
    ]


def own_distribution() -> str:
    """The name under which envd is installed: of the distribution that brings its daemon."""
    for each in importlib.metadata.entry_points(group="console_scripts", name="envd"):
        if each.dist is not None and each.value.startswith("envd."):
            return each.dist.name
    return _DISTRIBUTION


@dataclass(frozen=True, slots=True)
class Known:
    """A backend by its name: its registration, or why there is none."""

    name: str
    distribution: str
    registration: Registration | None = None
    problem: str = ""
    hint: str = ""


class Registry:
    """The backends of a process. Each registry loads its own, and shares nothing with others."""

    def __init__(
        self,
        plugins: Callable[[], Iterable[Plugin]] = installed_plugins,
        *,
        built_in: Mapping[str, str] = BUILT_IN,
        distribution: Callable[[], str] = own_distribution,
    ) -> None:
        self._find_plugins = plugins
        self._built_in = built_in
        self._find_distribution = distribution
        self._loaded: dict[str, Known] = {}
        self._plugins: tuple[Plugin, ...] | None = None

    def names(self) -> list[str]:
        """The names of all backends, in order, those that can't be used too."""
        return sorted({*self._built_in, *(each.name for each in self._added())})

    def registration(self, name: str) -> Registration:
        """The registration of this name.

        Raises StoreUnsupported where there is none that could be used, and MissingLibrary, with
        the command that brings it, where its SDK is not installed.
        """
        known = self._known(name)
        if known.registration is None:
            raise StoreUnsupported(known.problem, hint=known.hint)
        if not _is_installed(known.registration.library):
            raise MissingLibrary(
                f"{name} needs the library {known.registration.library}, which is not installed",
                hint=_install_command(known.registration, known.distribution),
            )
        return known.registration

    def make(self, target: Target, options: Options) -> Backend:
        """A backend of this place, not opened yet; raises as `registration` and its `make` do."""
        registration = self.registration(target.backend)
        try:
            return registration.make(options)
        except BackendError:
            raise
        except Exception as error:
            raise StoreUnsupported(
                f"the backend {target.backend} failed with {type(error).__name__}; "
                "this is a mistake in it"
            ) from error

    def views(self) -> tuple[BackendView, ...]:
        """All backends, in order of name, with what keeps each from being used."""
        views = [self._view(self._known(name)) for name in self.names()]
        views += [
            BackendView(
                each.name,
                "",
                "",
                problem=f"{each.name} is envd's own; that of {_of(each.distribution)} is not used",
                hint=f"remove {_of(each.distribution)}, or have it choose another name",
                distribution=each.distribution,
            )
            for each in self._all_plugins()
            if self._built_in.get(each.name, each.value) != each.value
        ]
        return tuple(sorted(views, key=lambda view: (view.name, view.problem != "")))

    def _view(self, known: Known) -> BackendView:
        registration = known.registration
        if registration is None:
            return BackendView(
                known.name,
                "",
                "",
                problem=known.problem,
                hint=known.hint,
                distribution=known.distribution,
            )
        is_installed = _is_installed(registration.library)
        return BackendView(
            known.name,
            registration.summary,
            registration.place_hint,
            capabilities=told(registration.capabilities),
            problem="" if is_installed else f"{registration.library} is not installed",
            hint="" if is_installed else _install_command(registration, known.distribution),
            distribution=known.distribution,
        )

    def _all_plugins(self) -> tuple[Plugin, ...]:
        if self._plugins is None:
            self._plugins = tuple(self._find_plugins())
        return self._plugins

    def _added(self) -> list[Plugin]:
        return [each for each in self._all_plugins() if each.name not in self._built_in]

    def _known(self, name: str) -> Known:
        known = self._loaded.get(name)
        if known is None:
            known = self._load(name)
            if known.registration is not None:
                self._loaded[name] = known
        return known

    def _load(self, name: str) -> Known:
        """What there is of this name; what failed is tried again, for a package may have come."""
        if name in self._built_in:
            return _load(Plugin(name, self._built_in[name], self._find_distribution()))
        found = [each for each in self._added() if each.name == name]
        if len(found) == 1:
            return _load(found[0])
        if not found:
            usable = ", ".join(self.names())
            return Known(
                name, "", problem=f"there is no backend {name[:64]!a}", hint=f"use {usable}"
            )
        owners = " and ".join(sorted(_of(each.distribution) for each in found))
        return Known(
            name,
            "",
            problem=f"{name} is in more than one package: {owners}",
            hint="remove all but one",
        )


def open_options(
    registration: Registration,
    target: Target,
    *,
    layout: str = "per-variable",
    below: bool = False,
    name_template: str = "",
    credentials: str = "",
    providers: Mapping[str, Mapping[str, object]] = MappingProxyType({}),
    wall_ms: Callable[[], int],
    fingerprint: Callable[[str], str] = plain_fingerprint,
) -> Options:
    """What the backend of a target is made of.

    `providers` has the settings of each provider by the name of its section; `endpoint` is one of
    them. Raises InvalidRequest where the layout is none.
    """
    settings = dict(providers.get(registration.settings_section or registration.name, {}))
    endpoint = settings.pop("endpoint", "")
    if not isinstance(endpoint, str):
        raise InvalidRequest(f"the endpoint of {registration.name} is no text")
    return Options(
        target.place,
        layout=_layout(layout),
        below=below,
        name_template=name_template,
        credentials=credentials,
        settings=settings,
        endpoint=endpoint,
        wall_ms=wall_ms,
        fingerprint=fingerprint,
    )


def told(capabilities: Capability) -> tuple[str, ...]:
    """Capabilities as people read them. Example: ("cas", "stamp-atomic")."""
    return tuple((each.name or "").lower().replace("_", "-") for each in capabilities)


def _layout(text: str) -> Literal["per-variable", "document"]:
    match text:
        case "per-variable" | "document":
            return text
        case _:
            raise InvalidRequest(f"{text[:64]!a} is no layout", hint="use per-variable or document")


def _load(plugin: Plugin) -> Known:
    """Import a registration; whatever a plugin raises is its problem alone."""
    problem = ""
    try:
        found: object = pkgutil.resolve_name(plugin.value)
        if not isinstance(found, Registration) and callable(found):
            found = found()
    except ImportError as error:
        problem = f"{plugin.name} can't be imported: {error}"
    except Exception as error:  # noqa: BLE001 (what others wrote may raise anything)
        problem = f"{plugin.name} failed with {type(error).__name__} when it was imported"
    if not problem:
        problem = _unfit(found, plugin.name)
    if problem:
        hint = f"see to {_of(plugin.distribution)}, or remove it"
        return Known(plugin.name, plugin.distribution, problem=problem, hint=hint)
    assert isinstance(found, Registration)
    return Known(plugin.name, plugin.distribution, found)


def _unfit(found: object, name: str) -> str:
    """Why what an entry point leads to can't be used, "" where it can."""
    if not isinstance(found, Registration):
        return f"{name} leads to something that is no Registration"
    if found.api_version != API_VERSION:
        return (
            f"{name} was written for version {found.api_version} of the contract of backends; "
            f"this envd has version {API_VERSION}"
        )
    if found.name != name:
        return f"{name} calls itself {found.name[:64]!a}"
    return ""


def _is_installed(library: str) -> bool:
    """Whether a module is there; only the packages above it are imported for that."""
    try:
        return not library or importlib.util.find_spec(library) is not None
    except (ImportError, ValueError):
        return False


def _install_command(registration: Registration, distribution: str) -> str:
    if registration.extra and distribution:
        return f"pip install '{distribution}[{registration.extra}]'"
    return f"pip install {registration.library}"


def _of(distribution: str) -> str:
    return distribution or "its package"
