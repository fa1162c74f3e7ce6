"""What the comparison says of its samples: medians, ratios, aims, and who was the limit."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest

from bench.figures import Aim, Row, Sample, document, number, plot, rows, table


def sample(
    peer: str,
    value: float,
    *,
    generator_cpu_s: float = 0.1,
    others_cpu_s: float = 0.0,
    unit: str = "sets/s",
) -> Sample:
    return Sample(
        case="set-64",
        peer=peer,
        variant="put" if peer != "envd" else "Write",
        value=value,
        unit=unit,
        wall_s=1.0,
        server_cpu_s=0.5,
        generator_cpu_s=generator_cpu_s,
        others_cpu_s=others_cpu_s,
        rss_mb=80,
        disk_mb=32,
    )


def made(*samples: Sample, aims: tuple[Aim, ...] = ()) -> dict[str, Row]:
    return {row.peer: row for row in rows(samples, {"set-64": aims})}


def test_a_row_has_the_median_the_range_and_the_ratio_to_envd() -> None:
    ours = [sample("envd", value) for value in (30, 10, 20)]
    theirs = [sample("etcd", value) for value in (50, 40, 90)]

    found = made(*ours, *theirs)

    assert (found["etcd"].median, found["etcd"].least, found["etcd"].most) == (50, 40, 90)
    assert found["etcd"].ratio == 0.4
    assert found["envd"].ratio is None


def test_without_envd_there_is_no_ratio() -> None:
    found = made(sample("etcd", 10))

    assert found["etcd"].ratio is None


def test_a_case_keeps_its_peers_together_whatever_the_order_of_the_samples() -> None:
    other = Sample("get-1", "envd", "Get", 1, "gets/s", 1, 0, 0, 0, 0, 0)

    found = rows([sample("envd", 1), other, sample("etcd", 2)], {})

    assert [(row.case, row.peer) for row in found] == [
        ("set-64", "envd"),
        ("set-64", "etcd"),
        ("get-1", "envd"),
    ]


@pytest.mark.parametrize(
    ("wall_s", "server_cpu_s", "generator_cpu_s", "limited"),
    [
        (1.0, 0.5, 0.95, True),
        (2.0, 0.5, 0.95, False),  # less than half of a core
        (1.0, 1.2, 0.95, False),  # the server took more
        (0.0, 0.5, 0.0, False),  # no rate at all
    ],
)
def test_the_generator_is_the_limit_where_it_took_a_core_and_the_server_less(
    wall_s: float, server_cpu_s: float, generator_cpu_s: float, limited: bool
) -> None:
    one = Sample(
        "get-1", "etcd", "range", 1, "gets/s", wall_s, server_cpu_s, generator_cpu_s, 0, 0, 0
    )

    assert one.generator_limited is limited


def test_one_repetition_of_three_does_not_make_the_generator_the_limit() -> None:
    samples = [sample("etcd", 1, generator_cpu_s=cpu) for cpu in (0.95, 0.1, 0.1)]

    assert made(*samples)["etcd"].generator_limited is False


@pytest.mark.parametrize(
    ("aim", "value", "unit", "verdict"),
    [
        (Aim(100), 120, "sets/s", "aim >= 100 sets/s: met"),
        (Aim(100), 80, "sets/s", "aim >= 100 sets/s: MISSED"),
        (Aim(3), 2, "ms", "aim <= 3 ms: met"),
        (Aim(3), 4, "ms", "aim <= 3 ms: MISSED"),
    ],
)
def test_a_rate_should_reach_its_aim_and_a_time_stay_below_it(
    aim: Aim, value: float, unit: str, verdict: str
) -> None:
    assert made(sample("envd", value, unit=unit), aims=(aim,))["envd"].verdict == verdict


def test_an_aim_beside_a_peer_is_judged_in_the_row_of_that_variant_alone() -> None:
    aims = (Aim(2, "etcd", "put"), Aim(5, "etcd", "txn"))

    found = made(sample("envd", 30), sample("etcd", 10), aims=aims)

    assert found["etcd"].verdict == "aim >= 2 x: met"
    assert found["envd"].verdict == ""


@pytest.mark.parametrize(
    ("figure", "text"),
    [(0, "0"), (0.1234, "0.123"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12,346")],
)
def test_a_number_has_the_digits_that_count(figure: float, text: str) -> None:
    assert number(figure) == text


def test_the_table_says_who_was_the_limit_and_aligns_its_columns() -> None:
    samples = [sample("envd", 30), sample("etcd", 10, generator_cpu_s=0.95)]

    lines = table(rows(samples, {})).splitlines()

    assert lines[2].endswith("the load generator was the limit")
    assert lines[0].index("peer") == lines[1].index("envd") == lines[2].index("etcd")


def test_the_table_says_how_busy_other_processes_were_where_they_were() -> None:
    samples = [sample("envd", 30, others_cpu_s=0.1), sample("etcd", 10, others_cpu_s=0.8)]

    lines = table(rows(samples, {})).splitlines()

    assert "other processes" not in lines[1]
    assert lines[2].endswith("other processes took 0.8 cores")


def test_the_json_holds_rows_samples_and_what_was_not_run() -> None:
    samples = [sample("envd", 30)]

    found = json.loads(document(rows(samples, {}), {"not_run": {"redis": "none"}}, samples))

    assert found["about"]["not_run"] == {"redis": "none"}
    assert found["rows"][0]["median"] == found["samples"][0]["value"] == 30


def test_the_plot_is_an_image_with_a_bar_for_each_row() -> None:
    samples = [sample("envd", 30), sample("etcd", 10), sample("a<b", 0)]

    root = ET.fromstring(plot(rows(samples, {})))

    bars = [one for one in root.iter("{http://www.w3.org/2000/svg}rect") if one.get("fill")]
    assert len(bars) == 1 + len(samples)  # and the background


def by(generator: str, peer: str, value: float, variant: str = "put") -> Sample:
    return Sample("set-64", peer, variant, value, "sets/s", 1, 0, 0, 0, 80, 32, 20, generator)


def test_a_ratio_is_of_two_compiled_generators_or_of_two_in_python() -> None:
    found = made(
        by("h2load, one key", "envd", 30),
        by("h2load, one key", "etcd", 10),
        by("redis-benchmark, one key", "redis-always", 20),
    )

    assert (found["etcd"].ratio, found["redis-always"].ratio) == (3.0, 1.5)


def test_a_compiled_generator_is_not_compared_with_one_in_python() -> None:
    aim = Aim(2, "etcd", "put")

    found = made(by("h2load, one key", "envd", 30), by("python", "etcd", 10), aims=(aim,))

    assert found["etcd"].ratio is None
    assert found["etcd"].verdict == ""


def test_an_aim_can_name_which_of_our_variants_should_reach_it() -> None:
    ours = [by("python", "envd", 30, "stream"), by("python", "envd", 10, "client")]
    aims = (Aim(2, "etcd", "put", "stream"), Aim(2, "etcd", "put", "client"))

    found = rows([*ours, by("python", "etcd", 10)], {"set-64": aims})

    assert found[2].ratio == 3.0  # that of our first variant
    assert found[2].verdict == ("stream 3.00 x, aim >= 2 x: met; client 1.00 x, aim >= 2 x: MISSED")


def test_a_variant_of_the_same_name_is_what_a_row_is_compared_with() -> None:
    ours = [by("", "envd", 40, "before"), by("", "envd", 20, "after")]

    found = rows([*ours, by("", "etcd", 10, "before"), by("", "etcd", 10, "after")], {})

    assert [row.ratio for row in found] == [None, None, 4.0, 2.0]


def test_a_large_bound_is_written_out() -> None:
    assert Aim(1_000_000).verdict(2e6, "reads/s") == "aim >= 1,000,000 reads/s: met"


def test_the_table_names_the_generator_and_the_anonymous_memory() -> None:
    head, line = table(rows([by("h2load, one key", "envd", 30)], {})).splitlines()

    assert line[head.index("load by") :].startswith("h2load, one key")
    assert line[head.index("anon MB") :].startswith("20 ")


def test_the_json_has_the_anonymous_memory_and_the_generator_of_each_row() -> None:
    samples = [by("python", "envd", 30)]

    (row,) = json.loads(document(rows(samples, {}), {}, samples))["rows"]

    assert (row["anon_mb"], row["generator"]) == (20, "python")


def test_the_plot_says_each_case_once_and_where_an_aim_was_missed() -> None:
    samples = [by("h2load, one key", "envd", 30), by("h2load, one key", "etcd", 90)]

    picture = plot(rows(samples, {"set-64": (Aim(100),)}))

    assert picture.count(">set-64<") == 1
    assert ">envd, put, h2load<" in picture
    assert picture.count("envd&#x27;s aim missed") == 1


def test_what_was_seen_over_time_is_in_the_json_alone_where_there_is_any() -> None:
    seen = [{"at_s": 5.0, "done": 100}]

    assert json.loads(document([], {}, [], seen))["series"] == seen
    assert "series" not in json.loads(document([], {}, []))
