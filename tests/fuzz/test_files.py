"""Files of variables and of settings: damaged, deep, long and self-referring ones.

They are read in a process of a bounded size, so that one which would need more fails here.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.core.errors import InvalidRequest, SettingsError
from envd.formats.read import Dialect, InputFormat, parse
from envd.settings import Machine, load, render_effective
from tests.fuzz.mutations import near
from tests.fuzz.victim import fuzzing

ROOT = Path(__file__).parent.parent.parent
SHIPPED = (ROOT / "config" / "envd.toml").read_bytes()
USER = Machine(host_name=lambda: "host-1", is_root=lambda: False)
MOST_BYTES = 1 << 30
PATIENCE_S = 120

RIGHT: dict[InputFormat, list[bytes]] = {
    "dotenv": [
        b'# a\nexport A=1\nB=\'two\nlines\'\nC="x\\n$\\"" # c\n D = ${A} \nE=`b`\nF\n',
        b'\xef\xbb\xbfA=1\r\nB=\r\rC="\xc3\xa9"\n',
    ],
    "json": [
        b'{"A": "1", "B": "\\u00e9\\ud83d\\ude00"}',
        b'{"environment": "a", "variables": {"A": {"value": "1", "secret": true}}}',
    ],
    "yaml": [
        b"A: one\nB: 'two'\nC: |\n  three\n  lines\nD: \"\\x41\\u00e9\"\n? E\n: five\n",
        b"---\n{A: x, 'B': >-\n  y}\n...\n",
        b"%YAML 1.1\n---\nA: &a x\nB: *a\n",
    ],
}
READERS: list[tuple[InputFormat, Dialect]] = [
    ("dotenv", "python"),
    ("dotenv", "node"),
    ("json", "python"),
    ("yaml", "python"),
]


@pytest.mark.parametrize(("format_", "dialect"), READERS)
def test_a_damaged_file_is_read_or_refused(format_: InputFormat, dialect: Dialect) -> None:
    @fuzzing(everyday=150)
    @given(raw=near(RIGHT[format_]))
    def check(raw: bytes) -> None:
        try:
            found = parse(raw, format=format_, dialect=dialect, source="any")
        except InvalidRequest:
            return
        assert len({each.name for each in found}) == len(found)

    check()


# -- settings --------------------------------------------------------------------------

KEYS = [
    *("node", "cluster", "storage", "security", "distributed", "regions", "cloud", "bindings"),
    *("autoscaling", "observability", "limits", "name", "data_dir", "listen", "providers", "aws"),
    *("gossip_interval", "replication_factor", "log_level", "environment", "metrics_port", "zz"),
]
SCALARS = st.sampled_from(
    [
        *("1", "-1", "0", "true", "1.5", "inf", "nan", '""', '"a"', "'127.0.0.1:0'", "[]", "{}"),
        *("1979-05-27", "9" * 400, '"' + "x" * 3000 + '"', "[[1]]", '["a", 1]', "{a = 1}"),
        *('"10s"', '"99999999999999999999d"', '"\\u0000"', "0x7fffffffffffffff", "1e400"),
    ]
)
KEY = st.lists(st.sampled_from(KEYS), min_size=1, max_size=4).map(".".join)
LINES = (
    KEY.map("[{}]".format)
    | KEY.map("[[{}]]".format)
    | st.tuples(KEY, SCALARS).map(" = ".join)
    | st.text(max_size=10)
)
documents = st.lists(LINES, max_size=8).map(
    lambda lines: "\n".join(lines).encode("utf-8", "replace")
)


def test_a_damaged_settings_file_is_read_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "envd.toml"

    @fuzzing(everyday=250)
    @given(
        raw=documents | near([SHIPPED, SHIPPED.replace(b"\n# ", b"\n"), b'[node]\nname = "a"\n'])
    )
    def check(raw: bytes) -> None:
        file.write_bytes(raw)
        try:
            settings = load({}, {"HOME": str(tmp_path)}, file, machine=USER)
        except SettingsError:
            return
        assert render_effective(settings)

    check()


# -- what would need too much ------------------------------------------------------------

LONG = 200_000
YAML_BOMB = b"a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (at, at, b", ".join([b"*a%d" % (at - 1)] * 9)) for at in range(1, 12)
)
MERGE_BOMB = b"a0: &a0 {k0: x}\n" + b"".join(
    b"a%d: &a%d {<<: [%s], k%d: x}\n" % (at, at, b", ".join([b"*a%d" % (at - 1)] * 9), at)
    for at in range(1, 12)
)
HUGE: dict[str, tuple[str, bytes]] = {
    "yaml-aliases": ("yaml", YAML_BOMB),
    "yaml-merges": ("yaml", MERGE_BOMB),
    "yaml-itself": ("yaml", b"A: &a [*a]\n"),
    "yaml-deep-flow": ("yaml", b"A: " + b"[" * LONG),
    "yaml-deep-blocks": ("yaml", b"- " * LONG),
    "yaml-deep-keys": ("yaml", b"? " * LONG),
    "yaml-documents": ("yaml", b"--- x\n" * LONG),
    "yaml-anchors": ("yaml", b"".join(b"A%d: &a%d x\n" % (at, at) for at in range(20_000))),
    "yaml-number": ("yaml", b"A: " + b"9" * 1_000_000),
    "yaml-sexagesimal": ("yaml", b"A: " + b"1:" * 100_000 + b"1"),
    "yaml-tag": ("yaml", b"A: !!python/object/apply:os.system ['true']\n"),
    "json-deep": ("json", b'{"A":' * LONG),
    "json-wide": ("json", b'{"A":[' + b"1," * 2_000_000 + b"1]}"),
    "json-number": ("json", b'{"A": ' + b"9" * 1_000_000 + b"}"),
    "json-exponent": ("json", b'{"A": 1e999999999}'),
    "json-key": ("json", b'{"' + b"A" * 4_000_000 + b'": "x"}'),
    "dotenv-quotes": ("dotenv", b"A='" + b"\\'" * LONG),
    "dotenv-lines": ("dotenv", b"A=1\n" * LONG),
    "dotenv-names": ("dotenv", b"".join(b"A%d=\n" % at for at in range(LONG))),
    "dotenv-line": ("dotenv", b"A=" + b"x" * 8_000_000),
    "toml-deep-array": ("toml", b"a = " + b"[" * LONG),
    "toml-deep-table": ("toml", b"a = " + b"{b = " * LONG),
    "toml-deep-key": ("toml", b"a." * LONG + b"a = 1"),
    "toml-tables": ("toml", b"".join(b"[regions.r%d]\n" % at for at in range(50_000))),
    "toml-bindings": ("toml", b"[[bindings]]\n" * 70_000),
    "toml-number": ("toml", b"a = " + b"9" * 900_000),
    "toml-large": ("toml", b"#" * (64 << 20)),
}
SCRIPT = """
import resource, sys
from pathlib import Path
from envd.core.errors import EnvdError
from envd.formats.read import parse
from envd.settings import load

format, place, most = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_AS, (most, most))
try:
    if format == "toml":
        load({}, {"HOME": "/"}, place)
    else:
        for dialect in ("python", "node"):
            parse(place.read_bytes(), format=format, dialect=dialect, source="any")
    print("read")
except EnvdError as error:
    assert len(error.message) < 1000
    print("refused")
"""


@pytest.mark.parametrize("name", HUGE)
def test_what_would_need_too_much_is_read_or_refused_soon(name: str, tmp_path: Path) -> None:
    format_, content = HUGE[name]
    place = tmp_path / "file"
    place.write_bytes(content)

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, format_, str(place), str(MOST_BYTES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )

    assert done.stdout.strip() in {"read", "refused"}, done.stderr[-500:]
