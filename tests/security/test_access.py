from __future__ import annotations

import os
from pathlib import Path

import pytest

from envd.core.errors import Unauthenticated
from envd.security.access import (
    LocalAccess,
    new_admin_token,
    read_admin_token,
    write_admin_token,
)
from envd.system import SystemRng


def test_the_admin_token_is_let_in_and_no_other() -> None:
    token = new_admin_token(SystemRng())
    access = LocalAccess(token, 1000, insecure=False)

    assert access.by_token(token).name == "admin"
    for wrong in ("", token[:-1], token + "x", token.upper(), "\udcff"):
        with pytest.raises(Unauthenticated) as caught:
            access.by_token(wrong)
        assert wrong == "" or wrong not in caught.value.message


def test_a_node_without_a_token_lets_no_token_in() -> None:
    access = LocalAccess("", 1000, insecure=False)

    with pytest.raises(Unauthenticated):
        access.by_token("")


def test_the_socket_knows_the_daemons_user_and_root() -> None:
    access = LocalAccess("", 1000, insecure=False)

    assert access.by_peer(1000).name == "uid:1000"
    assert access.by_peer(0).name == "uid:0"
    with pytest.raises(Unauthenticated):
        access.by_peer(1001)


def test_insecure_lets_everybody_in_and_says_so() -> None:
    access = LocalAccess("", os.geteuid(), insecure=True)

    assert access.by_token("").via == "insecure"
    assert access.by_peer(4711).via == "insecure"


def test_tokens_are_random_and_the_file_is_private(tmp_path: Path) -> None:
    token = new_admin_token(SystemRng())

    write_admin_token(tmp_path / "admin.token", token)

    assert token != new_admin_token(SystemRng())
    assert read_admin_token(tmp_path / "admin.token") == token
    assert (tmp_path / "admin.token").stat().st_mode & 0o777 == 0o600
    assert read_admin_token(tmp_path / "absent") == ""
