"""How the tests speak to a backend."""

from __future__ import annotations

from collections.abc import Sequence

from envd.backends.contract import Backend, Item, Key, Op, Outcome, Page, Scope, Verb

EVERYTHING = Scope(below=True)


def key(variable: str, environment: str = "") -> Key:
    return Key(environment, variable)


def put(
    variable: str,
    value: str,
    *,
    expect: str = "",
    environment: str = "",
    stamp: str = "",
    any_owner: bool = False,
) -> Op:
    return Op(
        Verb.PUT,
        Key(environment, variable),
        expect,
        value,
        stamp=stamp,
        any_owner=any_owner,
    )


def delete(variable: str, *, expect: str, environment: str = "", any_owner: bool = False) -> Op:
    return Op(Verb.DELETE, Key(environment, variable), expect, any_owner=any_owner)


async def pages(backend: Backend, scope: Scope = EVERYTHING, cursor: str = "") -> list[Page]:
    return [page async for page in backend.scan(scope, cursor)]


async def items(backend: Backend, scope: Scope = EVERYTHING) -> dict[Key, Item]:
    found = await pages(backend, scope)
    assert [page.complete for page in found] == [False] * (len(found) - 1) + [True]
    return {item.key: item for page in found for item in page.items}


async def values(backend: Backend, scope: Scope = EVERYTHING) -> dict[Key, str | None]:
    return {each.key: each.value for each in (await items(backend, scope)).values()}


async def do(backend: Backend, *ops: Op, attempt: str = "attempt") -> list[Outcome]:
    return await backend.apply(ops, idempotency=attempt)


async def one(backend: Backend, op: Op, attempt: str = "attempt") -> Outcome:
    return (await do(backend, op, attempt=attempt))[0]


def results(outcomes: Sequence[Outcome]) -> list[str]:
    return [each.result.value for each in outcomes]
