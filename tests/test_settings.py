"""Settings: four sources in order, errors that say where and what, secrets never shown."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.core.errors import SettingsError
from envd.settings import (
    FLAGS,
    Address,
    Duration,
    Machine,
    Settings,
    add_flags,
    config_file,
    load,
)

USER = Machine(host_name=lambda: "host-1", is_root=lambda: False)
ROOT = Machine(host_name=lambda: "host-1", is_root=lambda: True)
HOME = {"HOME": "/home/ada"}
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a settings file and returns its path."""

    def written(text: str) -> Path:
        file = tmp_path / "envd.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return written


def settings(
    flags: Mapping[str, str | bool | int | None] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Settings:
    return load(flags or {}, HOME | dict(environ or {}), file, machine=USER)


def refusal(file: Path) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        settings(file=file)
    return caught.value


# Sources and their order.


def test_without_anything_a_node_runs_on_loopback_with_its_data_in_the_users_state() -> None:
    found = settings()

    assert found.node.data_dir == Path("/home/ada/.local/state/envd")
    assert found.node.socket == Path("/home/ada/.local/state/envd/envd.sock")
    assert found.security.key_file == Path("/home/ada/.local/state/envd/local.key")
    assert found.cluster.secret_file == Path("/home/ada/.local/state/envd/cluster.secret")
    assert found.node.name == "host-1"
    assert found.node.advertise == "127.0.0.1"
    assert str(found.node.listen) == "127.0.0.1:7420"
    assert str(found.cluster.gossip) == "127.0.0.1:7421"
    assert str(found.node.http) == "127.0.0.1:7422"
    assert found.origins == {}
    assert found.ineffective() == []


@pytest.mark.parametrize(
    ("environ", "machine", "expected"),
    [
        ({"HOME": "/h", "XDG_STATE_HOME": "/s"}, USER, "/s/envd"),
        ({"HOME": "/h", "XDG_STATE_HOME": "relative"}, USER, "/h/.local/state/envd"),
        ({"HOME": "/h", "XDG_STATE_HOME": ""}, USER, "/h/.local/state/envd"),
        ({"HOME": "/root", "XDG_STATE_HOME": "/s"}, ROOT, "/var/lib/envd"),
        ({}, ROOT, "/var/lib/envd"),
        ({"ENVD_DATA_DIR": "/mine"}, USER, "/mine"),
    ],
)
def test_the_data_directory_follows_the_xdg_rules_and_root_has_its_own(
    environ: dict[str, str], machine: Machine, expected: str
) -> None:
    found = load({}, environ, None, machine=machine)

    assert found.node.data_dir == Path(expected)


def test_a_user_without_a_home_is_told_to_name_a_data_directory() -> None:
    with pytest.raises(SettingsError, match="no data directory") as caught:
        load({}, {}, None, machine=USER)

    assert "--data-dir" in caught.value.hint


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(write: Write) -> None:
    file = write('[node]\nname = "file"\nzone = "file"\nregion = "file"\n')
    environ = {"ENVD_NODE_NAME": "variable", "ENVD_ZONE": "variable"}

    found = settings({"node_name": "flag", "zone": None}, environ, file)

    assert (found.node.name, found.node.zone, found.node.region) == ("flag", "variable", "file")
    assert found.origins == {
        "node.name": "--node-name",
        "node.zone": "ENVD_ZONE",
        "node.region": str(file),
    }


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_every_flag_and_its_variable_set_the_same_key(flag: argparse.Namespace) -> None:
    values = {
        "listen": "127.0.0.1:1", "http": "[::1]:2", "gossip": "127.0.0.1:3", "role": "agent",
        "join": "a.example:1, b.example:2", "bootstrap_expect": "3", "insecure": "true",
    }  # fmt: skip
    text = values.get(flag.destination, "other")

    by_flag = settings({flag.destination: text})
    by_variable = settings(environ={flag.variable: text})

    assert by_flag.differences(by_variable) == []
    assert flag.key in by_flag.differences(settings())
    assert (by_flag.origins, by_variable.origins) == (
        {flag.key: flag.name},
        {flag.key: flag.variable},
    )


def test_what_belongs_to_no_setting_is_passed_over() -> None:
    environ = {"ENVD_TOKEN": "x", "ENVD_ADDR": "nonsense", "ENVD_LISTEN": "", "ENVD_NAME": "?"}

    found = settings({"config": "elsewhere.toml", "command": "check"}, environ)

    assert found == settings()


@pytest.mark.parametrize(("text", "expected"), [("1", True), ("Yes", True), ("off", False)])
def test_a_variable_spells_a_boolean_in_the_usual_ways(text: str, expected: bool) -> None:
    found = settings(environ={"ENVD_INSECURE": text})

    assert found.security.insecure is expected


def test_settings_can_not_be_changed() -> None:
    found = settings()

    with pytest.raises(AttributeError):
        found.node.name = "other"  # type: ignore[misc]


def test_the_differences_of_two_settings_are_the_keys_that_a_reload_changed(write: Write) -> None:
    file = write('[observability]\nlog_level = "debug"\n[regions.eu]\nzones = ["a"]\n')

    changed = settings().differences(settings(file=file))

    assert changed == ["observability.log_level", "regions.eu"]


# Flags on the command line.


def test_the_parser_has_exactly_the_flags_of_the_contract() -> None:
    parser = argparse.ArgumentParser("envd")

    add_flags(parser)

    names = {name for action in parser._actions for name in action.option_strings}
    assert names == {
        "-h", "--help", "--version", "--config", "--data-dir", "--node-name", "--cluster-name",
        "--cluster-secret-file", "--listen", "--gossip", "--http", "--socket", "--advertise",
        "--join", "--bootstrap-expect", "--region", "--zone", "--role", "--insecure",
    }  # fmt: skip


def test_the_help_of_each_flag_names_its_variable_and_default() -> None:
    parser = argparse.ArgumentParser("envd")
    add_flags(parser)

    text = " ".join(parser.format_help().split())

    for flag in FLAGS:
        assert f"[{flag.variable}; default: " in text
    assert "[ENVD_LISTEN; default: 127.0.0.1:7420]" in text
    assert "[ENVD_JOIN; default: none]" in text
    assert "[ENVD_ROLE; default: storage]" in text
    assert "[ENVD_CONFIG; default: none]" in text


def test_parsed_flags_go_straight_into_load() -> None:
    parser = argparse.ArgumentParser("envd")
    add_flags(parser)
    flags = vars(parser.parse_args(["--listen", "0.0.0.0:0", "--insecure", "--config", "a.toml"]))

    found = settings(flags)

    assert found.node.listen == Address("0.0.0.0", 0)
    assert set(found.origins) == {"node.listen", "security.insecure"}
    assert config_file(flags, {"ENVD_CONFIG": "b.toml"}) == Path("a.toml")


def test_the_file_is_named_by_the_variable_where_no_flag_does() -> None:
    assert config_file({"config": None}, {"ENVD_CONFIG": "b.toml"}) == Path("b.toml")
    assert config_file({}, {"ENVD_CONFIG": ""}) is None


# Errors.


@pytest.mark.parametrize(
    ("text", "line", "unknown", "nearest"),
    [
        ('[node]\nlisen = "x"', 2, "node.lisen", "node.listen"),
        ('\nlisten = "x"', 2, "listen", "node.listen"),
        ("[nodes]\na = 1", 1, "nodes", "node"),
        ('[cluster]\nregion = "x"', 2, "cluster.region", "node.region"),
        ("[regions.eu]\nzone = []", 2, "regions.eu.zone", "regions.eu.zones"),
        ("[[bindings]]\nnam = 'a'", 2, "bindings[0].nam", "bindings[0].name"),
        ("[[binding]]\nname = 'a'", 1, "binding", "bindings"),
        ("[cloud.providers.asw]\na = 1", 1, "cloud.providers.asw", "cloud.providers.aws"),
        ("[cloud.provider.aws]\nregion = 'a'", 1, "cloud.provider", "cloud.providers"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(
    write: Write, text: str, line: int, unknown: str, nearest: str
) -> None:
    file = write(text)

    error = refusal(file)

    assert error.message == f"{file}:{line}: unknown key `{unknown}`; did you mean `{nearest}`?"


def test_a_key_that_is_like_no_other_still_gets_the_nearest_one(write: Write) -> None:
    error = refusal(write("qqq = 1"))

    assert re.search(r":1: unknown key `qqq`; the nearest key is `[a-z._]+`$", error.message)


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("[node]\n\nlisten = 7420", 3, "`node.listen` must be an address like"),
        ("[node]\nlisten = 7420", 2, ", not a number"),
        ('[node]\nlisten = "127.0.0.1"', 2, "the port is missing"),
        ("[storage]\nsegment_bytes = 1", 2, "a whole number from 16777216 to 1073741824"),
        ('[storage]\nhistory_days = "90"', 2, "not a string"),
        ("[storage]\nhistory_days = true", 2, "not a boolean"),
        ("[storage]\nhistory_days = 9.5", 2, "not a number with a fraction"),
        ("[storage]\nmap_size_bytes = 67108865", 2, "a multiple of 4096"),
        ("[security]\ninsecure = 1", 2, "must be true or false, not a number"),
        ('[observability]\nlog_level = "loud"', 2, 'must be one of "debug", "info", "warning"'),
        ("[observability]\ntrace_sample_ratio = 2", 2, "must be a number from 0.0 to 1.0"),
        ("[observability]\ntrace_sample_ratio = nan", 2, "must be a number from 0.0 to 1.0"),
        ('[observability]\ntrace_sample_ratio = "1"', 2, "from 0.0 to 1.0, not a string"),
        ("[observability]\ntrace_sample_ratio = true", 2, "from 0.0 to 1.0, not a boolean"),
        ('[distributed]\ngossip_interval = "1.5s"', 2, "ms, s, m, h, d"),
        ('[distributed]\ngossip_interval = "11s"', 2, "from 50ms to 10s"),
        ('[cluster]\njoin = "a:1"', 2, "`cluster.join` must be a list"),
        ("[[bindings]]\nname = 'a'\ntargets = []", 3, "must be a list of 1 to 8 items"),
        ("[[bindings]]\nname = 'a'", 1, "`bindings[0].targets` is missing"),
        ("[regions.EU]\nzones = []", 1, "the name in `regions.EU` must be"),
        ("node = 1", 1, "`node` must be a table, not a number"),
        ("bindings = 1", 1, "`bindings` must be an array of tables"),
        ('[node]\nname = "a\\nb"', 2, "`node.name` must be a name"),
        ('[node]\ndata_dir = "/a\\nb"', 2, "`node.data_dir` must not hold control characters"),
        ('[node]\ndata_dir = "~ada/x"', 2, "write the path out"),
        ('[node]\ndata_dir = ""', 2, "it is empty"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_refused_with_place_and_expectation(
    write: Write, text: str, line: int, expected: str
) -> None:
    file = write(text)

    error = refusal(file)

    assert error.message.startswith(f"{file}:{line}: ")
    assert expected in error.message


def test_a_variable_and_a_flag_that_do_not_fit_are_named() -> None:
    with pytest.raises(SettingsError, match=r"^ENVD_HTTP: `node\.http` must be an address"):
        settings(environ={"ENVD_HTTP": "nowhere"})
    with pytest.raises(SettingsError, match=r"^--bootstrap-expect: .* a whole number from 1"):
        settings({"bootstrap_expect": "many"})
    with pytest.raises(SettingsError, match=r"^ENVD_INSECURE: .* must be true or false$"):
        settings(environ={"ENVD_INSECURE": "perhaps"})


@pytest.mark.parametrize(
    "line",
    [
        'security.admin_token = "hunter2"',
        "security.admin_token = ['hunter2']",
        'cloud.providers.aws.secret_access_key_env = "hunter2"',
        'observability.tracing_endpoint = "http://user:hunter2@traces.example"',
        'observability.metrics_endpoint = "http://user:hunter2@metrics.example"',
        'node.listen = "hunter2"',
        'node.role = "hunter2"',
        'bindings = [{name = "a", targets = ["file:a"], environment = "Hunter2"}]',
    ],
)
def test_an_error_never_shows_the_value(write: Write, line: str) -> None:
    error = refusal(write(line))

    assert "hunter2" not in f"{error.message} {error.hint}".lower()


def test_printed_settings_do_not_show_the_token(write: Write) -> None:
    token = "hunter2" * 5

    found = settings(file=write(f'[security]\nadmin_token = "{token}"\n'))

    assert found.security.admin_token == token
    assert token not in f"{found!r} {found} {found.security}"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"[node]\nname = \n", ":2: no valid TOML"),
        (b'[node]\nname = "a"\nname = "b"\n', ":3: no valid TOML"),
        (b"[node", ": no valid TOML"),
        (b'[node]\nname = "\xff"\n', ":2: is not valid UTF-8"),
        (b"a = " + b"[" * 50_000, ": a number is too long or the nesting too deep"),
        (b"a = " + b"9" * 5_000, ": a number is too long or the nesting too deep"),
        (b"#" * (1 << 20) + b"\n", ": is larger than 1048576 bytes"),
    ],
)
def test_a_file_that_is_no_toml_is_refused_with_its_line(
    tmp_path: Path, data: bytes, expected: str
) -> None:
    file = tmp_path / "envd.toml"
    file.write_bytes(data)

    error = refusal(file)

    assert error.message.startswith(f"{file}{expected}")


def test_a_file_that_can_not_be_read_is_told_apart(tmp_path: Path) -> None:
    absent, looped = tmp_path / "absent.toml", tmp_path / "loop"
    looped.symlink_to(looped)

    assert refusal(absent).message == f"{absent}: there is no such file"
    assert refusal(tmp_path).message == f"{tmp_path}: this is a directory, not a TOML file"
    assert refusal(looped).message.startswith(f"{looped}: can't be read: ")


def test_a_host_name_that_is_no_node_name_asks_for_one() -> None:
    machine = Machine(host_name=lambda: "what a host!", is_root=lambda: False)

    with pytest.raises(SettingsError, match="host name") as caught:
        load({}, HOME, None, machine=machine)

    assert "--node-name" in caught.value.hint
    assert load({"node_name": "a"}, HOME, None, machine=machine).node.name == "a"


# Rules between settings.


@pytest.mark.parametrize("flag", ["listen", "http", "gossip"])
@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "node.example.com:1"])
def test_an_address_that_others_can_reach_needs_insecure(flag: str, address: str) -> None:
    with pytest.raises(SettingsError, match=f"^--{flag}: .* from other machines") as caught:
        settings({flag: address})

    assert "--insecure" in caught.value.hint
    assert "tls_ keys" in caught.value.hint
    assert settings({flag: address, "insecure": True}).security.insecure


def test_tls_keys_do_not_open_an_address_while_nothing_serves_tls(write: Write) -> None:
    file = write('[security]\ntls_cert_file = "/a"\ntls_key_file = "/b"\n')

    with pytest.raises(SettingsError, match="no TLS yet"):
        settings({"listen": "0.0.0.0:7420"}, file=file)


def test_a_socket_path_may_have_107_bytes_and_no_more() -> None:
    fitting = "/" + "é" * 53

    assert str(settings({"socket": fitting}).node.socket) == fitting
    with pytest.raises(SettingsError, match="108 bytes") as caught:
        settings({"socket": fitting + "x"})
    assert "--socket" in caught.value.hint


def test_the_default_socket_in_a_deep_data_directory_is_refused_as_well() -> None:
    with pytest.raises(SettingsError, match=r"`node\.socket` is a path of \d+ bytes"):
        settings({"data_dir": "/deep" * 30})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[node]\nhttp = "127.0.0.1:7420"', "`node.http`: gRPC and HTTP can't share one address"),
        ("[observability]\nmetrics_port = 7420", "is the port of gRPC or HTTP"),
        ("[observability]\nmetrics_port = 7422", "is the port of gRPC or HTTP"),
        ('[cluster]\njoin = ["a:0"]', "`cluster.join` has a port 0"),
        ('[regions.eu]\ngateways = ["a:0"]', "`regions.eu.gateways` has a port 0"),
        ('[security]\ntls_cert_file = "a"', "`security.tls_key_file` is not"),
        ("[autoscaling]\nmin_nodes = 10", "is larger than `autoscaling.max_nodes`"),
        ("[[bindings]]\nname = 'a'\ntargets = ['file:a']", "either `environment` or `prefix`"),
        (
            "[[bindings]]\nname='a'\nprefix=''\ntargets=['f:a']\n" * 2,
            "two bindings are named `a`",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    write: Write, text: str, expected: str
) -> None:
    file = write(text)

    error = refusal(file)

    assert error.message.startswith(f"{file}: ")
    assert expected in error.message


def test_both_listeners_may_take_any_free_port() -> None:
    found = settings({"listen": "127.0.0.1:0", "http": "127.0.0.1:0"})

    assert found.node.listen.port == found.node.http.port == 0


# Addresses and durations.


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:7420", "127.0.0.1", 7420, True),
        ("127.9.9.9:0", "127.9.9.9", 0, True),
        ("[::1]:7420", "::1", 7420, True),
        ("localhost:65535", "localhost", 65535, True),
        ("web.localhost:1", "web.localhost", 1, True),
        ("localhost.example.com:1", "localhost.example.com", 1, False),
        ("0.0.0.0:1", "0.0.0.0", 1, False),
        ("[fe80::1%eth0]:1", "fe80::1%eth0", 1, False),
        ("node_1.example.com.:1", "node_1.example.com.", 1, False),
    ],
)
def test_an_address_is_read_and_written_the_same(
    text: str, host: str, port: int, loopback: bool
) -> None:
    address = Address.parse(text)

    assert (address.host, address.port) == (host, port)
    assert address.is_loopback is loopback
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    ["", ":7420", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:٣",
     "::1:7420", "[::1]", "[::1]7420", "[localhost]:1", "127.0.0.256:1", "127.1:1", "a b:1",
     "-a:1", "a..b:1", "http://a:1", "[127.0.0.1]:1", "a" * 64 + ":1"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Address.parse(text)


@pytest.mark.parametrize(
    ("text", "ms"),
    [("0ms", 0), ("200ms", 200), ("1s", 1_000), ("5m", 300_000), ("7d", 604_800_000)],
)
def test_a_duration_is_a_number_with_its_unit(text: str, ms: int) -> None:
    assert Duration.parse(text).ms == ms


@pytest.mark.parametrize("text", ["", "1", "s", "1.5s", "-1s", "1 s", "1S", "1m30s", "1s\n", "٣s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="whole number"):
        Duration.parse(text)


@given(st.integers(min_value=0, max_value=10**9))
def test_a_duration_is_read_back_as_it_was_written(ms: int) -> None:
    assert Duration.parse(str(Duration(ms))).ms == ms
