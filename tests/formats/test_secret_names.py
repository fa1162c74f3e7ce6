"""Which variables are taken for credentials."""

from __future__ import annotations

from pathlib import Path

import pytest

from envd.core.errors import InvalidRequest
from envd.formats.read import Assignment, parse
from envd.formats.secrets import looks_secret, select_secret

FIXTURES = Path(__file__).parents[1] / "data" / "dotenv"

SECRET_NAMES = """
    PASSWORD DB_PASSWORD PGPASSWORD MYSQL_PWD DB_PASS SMTP_PASSWD SSH_PASSPHRASE dbPassword
    ADMIN_PASSWORD_HASH POSTGRES_PASSWORD_2 DB_PASSWORD_OLD E2E_USER_PASSWORD
    SECRET SECRET_KEY SECRET_KEY_BASE CLIENT_SECRET CLIENTSECRET NEXTAUTH_SECRET COOKIE_SECRET
    JWT_SECRET_PROD STRIPE_WEBHOOK_SECRET DJANGO_SECRET_KEY webhook.secret
    TOKEN GITHUB_TOKEN TOKEN_GITHUB NPM_AUTH_TOKEN NGROK_AUTHTOKEN CSRF_TOKEN api-token
    ACCESS_TOKENS
    API_KEY APIKEY OPENAI_API_KEY API_KEY_STRIPE API_KEYS apiKey STRIPE_KEY SENDGRID_KEY APP_KEY
    PRIVATE_KEY DKIM_PRIVATE_KEY ACCESS_KEY AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY S3_ACCESS_KEY_ID
    ENCRYPTION_KEY ENCRYPTION_SECONDARY_KEY SIGNING_KEY LICENSE_KEY MASTER_KEY RAILS_MASTER_KEY
    AZURE_STORAGE_ACCOUNT_KEY COSMOS_PRIMARY_KEY JWT_SIGNING_KEY_BASE64 SSH_KEY
    CREDENTIALS LDAP_BIND_CREDENTIALS GOOGLE_APPLICATION_CREDENTIALS GCP_CREDENTIALS_CONTENTS
    SALT PASSWORD_SALT PEPPER SENTRY_DSN REDIS_AUTH _auth WIFI_PSK ERLANG_COOKIE BASIC_AUTH
""".split()  # noqa: SIM905 (a list of names is read more easily as text)

PLAIN_NAMES = """
    PORT HOST DEBUG PATH PWD OLDPWD HOME USERNAME DATABASE_URL REDIS_URL APP_NAME NODE_ENV
    TOKEN_TTL TOKEN_EXPIRY_SECONDS ACCESS_TOKEN_LIFETIME MAX_TOKENS OPENAI_MAX_TOKENS TOKENIZER_PATH
    TOKENIZERS_PARALLELISM OIDC_TOKEN_URL PASSWORD_MIN_LENGTH MINIMAL_PASSWORD_STRENGTH
    PASSWORD_RESET_TIMEOUT PASSWORD_FILE POSTGRES_PASSWORD_FILE PASSWORD_SALT_ROUNDS
    PASSWORD_HASH_ALGORITHM SECRET_NAME SECRET_ARN SECRETS_MANAGER_PREFIX SECRET_MANAGER
    KEYBOARD KEYBOARD_LAYOUT KEYCLOAK_URL MONKEY KEYSTORE_PATH KEY_ID CLIENT_ID APP_ID
    API_KEY_HEADER
    PUBLIC_KEY VAPID_PUBLIC_KEY SSH_PUBLIC_KEY RECAPTCHA_SITE_KEY CACHE_KEY PARTITION_KEY SORT_KEY
    NEXT_PUBLIC_POSTHOG_KEY NEXT_PUBLIC_SECRET VITE_API_KEY REACT_APP_API_KEY EXPO_PUBLIC_TOKEN
    AUTH_URL AUTH_ENABLED AUTHOR AUTHORITY SSH_AUTH_SOCK SESSION_COOKIE COOKIE_DOMAIN BYPASS_HOSTS
    COMPASS PASSPORT_URL SIGNING_TRANSPORT BCRYPT_ROUNDS CREDENTIALS_PROVIDER COMPOSE_PROFILES
""".split()  # noqa: SIM905 (a list of names is read more easily as text)


@pytest.mark.parametrize("name", SECRET_NAMES)
@pytest.mark.parametrize("value", ["", "x7Kq"])
def test_a_name_of_a_credential_is_secret_even_without_a_value(name: str, value: str) -> None:
    assert looks_secret(name, value)


@pytest.mark.parametrize("name", PLAIN_NAMES)
def test_a_name_about_other_things_is_plain(name: str) -> None:
    assert not looks_secret(name, "x7Kq")


@pytest.mark.parametrize(
    "value",
    [
        "postgres://user:pass@db/app",
        "postgres://user:p%40ss@db:5432/app?x=1",
        "postgres://user:pa/s#s?@db/app",
        "redis://:pass@cache:6379/0",
        "mongodb+srv://u:p@a,b/db",
        'fallback="amqp://guest:guest@mq"',
        "http://a,https://u:p@proxy",
        "jdbc:postgresql://db/app?user=u&password=p",
        "Server=db;User Id=sa;Password=p",
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=x==",
        "-----BEGIN PRIVATE KEY-----\nMIIB",
        "-----BEGIN RSA PRIVATE KEY-----\\nMIIB",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----",
        "ghp_" + "a1B2" * 9,
        "Authorization: Bearer ghs_" + "a1B2" * 9,
        "github_pat_11ABC",
        "glpat-abcdefgh1234",
        "sk_live_abc",
        "rk_test_abc",
        "whsec_abc",
        "xoxb-123-456",
        "AKIA" + "IOSFODNN7EXAMPLE",
        "AIza" + "x" * 35,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
        "SG.abcdefghij.klmnop",
        "hvs.CAESIabcdefgh",
        "https://hooks.slack.com/services/T0/B0/x",
    ],
)
def test_a_value_that_is_a_credential_is_secret_under_any_name(value: str) -> None:
    assert looks_secret("PLAIN", value)
    assert looks_secret("NEXT_PUBLIC_X", value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "http://localhost:8080/path?mail=a@b.c",
        "http://localhost:8080/@x",
        "http://[::1]:8080/@x",
        "https://user@host/x:y@z",
        "https://user:@host",
        "postgres://user:${DB_PASSWORD}@db/app",
        "postgres://user:$DB_PASSWORD@db/app",
        "mailto:a@b.c",
        "a:b@c",
        "-----BEGIN PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----",
        "pk_live_abc",
        "risk_live_abc",
        "eyJ0aGVtZSI6ImRhcmsifQ",
        "ghp_short",
        "Server=db;Password=;User=x",
    ],
)
def test_a_value_that_only_resembles_a_credential_is_plain(value: str) -> None:
    assert not looks_secret("PLAIN", value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PASSWORD_AUTH", "true"),
        ("USE_SECRETS", "False"),
        ("SMTP_AUTH", "on"),
        ("TLS_KEY", "/etc/tls/server.pem"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/var/run/sa.json"),
    ],
)
def test_a_switch_or_a_path_is_plain_under_a_name_of_a_credential(name: str, value: str) -> None:
    assert not looks_secret(name, value)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("laravel", "APP_KEY REDIS_PASSWORD MAIL_PASSWORD AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY"),
        ("sentry-self-hosted", "LAUNCHPAD_RPC_SHARED_SECRET"),
        (
            "hedgedoc",
            "HD_AUTH_SESSION_SECRET HD_AUTH_LDAP_MYLDAP_BIND_CREDENTIALS "
            "HD_AUTH_OIDC_MYOIDC_CLIENT_SECRET",
        ),
    ],
)
def test_in_a_real_file_the_credentials_and_nothing_else_are_secret(
    file: str, expected: str
) -> None:
    assignments = parse((FIXTURES / f"{file}.env").read_bytes(), format="dotenv", source=file)

    chosen = select_secret(assignments, secret_globs=[], plain_globs=[])

    assert [each.name for each in chosen if each.secret] == expected.split()


def test_globs_beat_the_file_and_the_file_beats_the_guess() -> None:
    assignments = [
        Assignment("A_TOKEN", "x", 1),
        Assignment("B_TOKEN", "x", 2),
        Assignment("C_TOKEN", "x", 3, secret=False),
        Assignment("D", "x", 4, secret=True),
        Assignment("E", "x", 5),
        Assignment("F", "x", 6, secret=True),
        Assignment("a_token_ttl", "x", 7),
    ]

    chosen = select_secret(assignments, secret_globs=["E*"], plain_globs=["B_*", "F"])

    assert [each.secret for each in chosen] == [True, False, False, True, True, False, False]
    assert [each.name for each in chosen] == [each.name for each in assignments]


def test_a_name_matched_by_globs_of_both_kinds_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"^A is matched by both --secret and --plain$"):
        select_secret([Assignment("A", "x", 1)], secret_globs=["A"], plain_globs=["*"])


def test_a_long_value_without_any_credential_is_plain() -> None:
    for piece in ("eyJ", "://", "a://b:", "password", "-----BEGIN ", "SG.", "/a.b", "gh"):
        assert not looks_secret("PLAIN", piece * 10_000)
