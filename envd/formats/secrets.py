"""Which variables look like credentials.

A guess for imports: what is taken for a secret is masked in output and may be shown only with
the right to reveal. The two mistakes differ in weight: a masked port is a nuisance that
`--plain` mends, a shown password is a leak. So where in doubt the guess is yes, and the
exceptions are those that are plainly about a credential without being one: TOKEN_TTL,
PASSWORD_MIN_LENGTH, SECRET_NAME, PASSWORD_FILE.

The rules, in order:

1. A value that is a credential whatever its name: a PEM private key, a URL or connection string
   with a password, a token with a well-known prefix, a JSON web token.
2. A value that can't be one: a boolean word; a path of a file for a *_KEY or CREDENTIALS.
3. A name that is public by definition: NEXT_PUBLIC_, VITE_ and other prefixes whose
   variables are compiled into pages that everybody can read; PUBLIC_KEY, SITE_KEY.
4. The words of the name, split at `_`, `-`, `.` and camelCase. ACCESS_KEY_ID counts as secret
   although AWS does not call it one: it is half of a pair, leak scanners report it, and
   GitHub's own AWS action masks it.

An empty value is judged by its name: it is a place for a secret to come.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import pairwise

from envd.core.errors import InvalidRequest
from envd.formats.source import Assignment


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY")
_TOKEN = re.compile(
    r"""(?<![A-Za-z0-9_-])(?:
        gh[pousr]_[A-Za-z0-9]{16} | github_pat_[A-Za-z0-9] | glpat-[A-Za-z0-9_-]{8}   # forges
      | xox[abeoprs]-[A-Za-z0-9] | xapp-[0-9]                                        # Slack
      | [sr]k_(?:live|test)_[A-Za-z0-9] | whsec_[A-Za-z0-9]                          # Stripe
      | (?:AKIA|ASIA)[A-Z0-9]{12}                                                    # AWS
      | AIza[A-Za-z0-9_-]{30} | ya29\.[A-Za-z0-9_-]                                  # Google
      | sk-(?:ant|proj|lf|or)-[A-Za-z0-9] | sk-[A-Za-z0-9]{20}                       # models
      | hf_[A-Za-z]{20} | npm_[A-Za-z0-9]{20} | pypi-Ag[A-Za-z0-9_-]{8}
      | SG\.[A-Za-z0-9_-]{10,64}\. | shpat_[a-f0-9] | dop_v1_[a-f0-9]
      | hv[sbr]\.[A-Za-z0-9_-]{8} | AGE-SECRET-KEY-1
      | eyJ[A-Za-z0-9_-]{4,}\.eyJ[A-Za-z0-9_-]                                       # JWT
    )""",
    re.VERBOSE,
)
_WEBHOOK = re.compile(
    r"https://(?:hooks\.slack\.com/services|discord(?:app)?\.com/api/webhooks)/[A-Za-z0-9]"
)
_IN_CONNECTION_STRING = re.compile(
    r"(?:^|[;?&\s])(?:password|pwd|accountkey|sharedaccesskey)=[^\s;&$]", re.IGNORECASE
)
_URL_END = re.compile(r"[\s\"'<>`]")
_PORT = re.compile(r"\d+[/?#]")
_REFERENCE = re.compile(r"\$\{[^{}]*\}|\$\w+|\{\{[^{}]*\}\}")
_BOOLEANS = frozenset({"true", "false", "yes", "no", "on", "off", "enabled", "disabled"})
_FILE_PATH = re.compile(r"(?:~|\.{1,2})?(?:/[\w.@-]+)+\.[A-Za-z0-9]{2,6}")

_PUBLIC_PREFIXES = (
    "NEXT_PUBLIC_",
    "NUXT_PUBLIC_",
    "EXPO_PUBLIC_",
    "REACT_APP_",
    "VUE_APP_",
    "GATSBY_",
    "VITE_",
    "PUBLIC_",
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_WORKING_DIRECTORIES = frozenset({"PWD", "OLDPWD"})

# Last words that say what a name is about: a property of the credential, a place to find it.
_ABOUT = _words(
    """
    ALGO ALGORITHM ALLOWED ARN ATTEMPTS AUDIENCE BACKEND BUCKET BYTES CLASS COUNT DAYS DIR
    DIRECTORY DOMAIN DRIVER DURATION EMAIL ENABLE ENABLED ENCODING ENDPOINT EXPIRATION EXPIRE
    EXPIRES EXPIRY FIELD FILE FILENAME FORMAT HEADER HINT HOST HOURS HTTPONLY ID INTERVAL ISSUER
    LABEL LEN LENGTH LEVEL LIFETIME LIMIT LOCATION LOGIN MANAGER MAX METHOD MIN MINUTES MODE MS
    NAME NAMESPACE PARALLELISM PARAM PATH POLICY PORT PREFIX PROVIDER REFRESH REGEX REGION
    REQUIRED RESET ROTATION ROUNDS SAMESITE SCOPE SCOPES SECONDS SECURE SERVER SERVICE SIGNIN
    SIGNUP SIZE STORE STRENGTH SUFFIX TIMEOUT TTL TYPE URI URL USER USERNAME VERSION WINDOW
    """
)
# Words that say which of several; what stands before them decides.
_WHICH = _words(
    """
    ADMIN B BACKUP BASE CI CONTENT CONTENTS CURRENT DEFAULT DEV DEVELOPMENT HASH HEX
    JSON LIVE LOCAL MAIN NEW NEXT OLD PRE PREVIOUS PRIMARY PROD PRODUCTION RO RW SECONDARY STAGE
    STAGING STRING TEST TMP VALUE
    """
)
# Secret wherever they stand, and as parts of longer words: PGPASSWORD, CLIENTSECRET.
_SECRET_PARTS = ("PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "CREDENTIAL", "APIKEY", "AUTHTOKEN")
_SECRET_WORDS = frozenset({"TOKEN", "CREDS", "PRIVATEKEY", "ACCESSKEY", "ACCESSTOKEN"})
_SECRET_PAIRS = frozenset(
    {(first, "KEY") for first in ("API", "ACCESS", "PRIVATE", "ENCRYPTION", "SIGNING", "MASTER")}
)
# Secret as the last word only: AUTH and SALT have other uses in front of others.
_SECRET_ENDS = _words(
    """
    AUTH BEARER DSN HTPASSWD KEYS PASS PASSPHRASES PEPPER PSK PWD SALT TOKENS
    ENCRYPTIONKEY LICENSEKEY MASTERKEY SIGNINGKEY
    """
)
_COUNTS = frozenset({"MAX", "MIN", "NUM", "TOTAL", "LIMIT", "PROMPT", "OUTPUT", "INPUT", "CONTEXT"})
# What a *_KEY opens nothing: names of fields and rows, and keys that are given to browsers.
_HARMLESS_KEYS = _words(
    """
    CACHE COLUMN DEDUP FEATURE FOREIGN GROUP HOT IDEMPOTENCY INDEX LABEL LOOKUP MAP
    MESSAGE OBJECT PARTITION PUB PUBLIC PUBLISHABLE RANGE ROUTING ROW SHARD SITE
    SORT UNIQUE
    """
)


def looks_secret(name: str, value: str) -> bool:
    """Tell whether a variable looks like a credential, by its value, then by its name."""
    if _is_credential(value):
        return True
    if value.strip().lower() in _BOOLEANS or name.upper() in _WORKING_DIRECTORIES:
        return False
    if name.upper().startswith(_PUBLIC_PREFIXES):
        return False
    words = _WORD.findall(name)
    return _names_a_credential([word.upper() for word in words], value)


def select_secret(
    assignments: Iterable[Assignment],
    *,
    secret_globs: Sequence[str],
    plain_globs: Sequence[str],
) -> list[Assignment]:
    """Return the assignments with `secret` decided for each.

    A glob beats what the file says, and what the file says beats the guess. Globs match whole
    names, case matters. Raises InvalidRequest if a name is matched by globs of both kinds.
    """
    return [replace(each, secret=_decide(each, secret_globs, plain_globs)) for each in assignments]


def _decide(each: Assignment, secret_globs: Sequence[str], plain_globs: Sequence[str]) -> bool:
    secret = any(fnmatchcase(each.name, glob) for glob in secret_globs)
    plain = any(fnmatchcase(each.name, glob) for glob in plain_globs)
    if secret and plain:
        raise InvalidRequest(
            f"{each.name} is matched by both --secret and --plain",
            hint="make one of the patterns narrower",
        )
    if secret or plain:
        return secret
    return looks_secret(each.name, each.value) if each.secret is None else each.secret


def _is_credential(value: str) -> bool:
    return (
        _PRIVATE_KEY.search(value) is not None
        or _TOKEN.search(value) is not None
        or _WEBHOOK.search(value) is not None
        or _IN_CONNECTION_STRING.search(value) is not None
        or _has_url_with_password(value)
    )


def _has_url_with_password(value: str) -> bool:
    """Find `scheme://user:password@host`; a reference such as `${PASSWORD}` is no password.

    Passwords with raw `/`, `?` or `#` count, too, although a URL should have them encoded.
    """
    for rest in value.split("://")[1:]:
        url = _URL_END.split(rest, maxsplit=1)[0]
        user, colon, tail = url.partition(":")
        password, at, _host = tail.rpartition("@")
        if not (colon and at and password) or any(each in "/?#@[" for each in user):
            continue
        if not _PORT.match(password) and not _REFERENCE.fullmatch(password):
            return True
    return False


def _names_a_credential(words: Sequence[str], value: str) -> bool:
    pairs = set(pairwise(words))
    if words[-3:] == ["ACCESS", "KEY", "ID"]:
        return True
    if not words or words[-1] in _ABOUT:
        return False
    while len(words) > 1 and (words[-1] in _WHICH or words[-1].isdigit()):
        words = words[:-1]
    if _has_secret_word(words) or not pairs.isdisjoint(_SECRET_PAIRS):
        return not _FILE_PATH.fullmatch(value)
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if last == "KEY":
        harmless = not before or before in _HARMLESS_KEYS or _FILE_PATH.fullmatch(value)
        return not harmless
    if last in {"TOKENS", "KEYS"}:
        return _COUNTS.isdisjoint(words) and before not in _HARMLESS_KEYS and before != ""
    return last in _SECRET_ENDS or (last == "COOKIE" and before in {"AUTH", "ERLANG"})


def _has_secret_word(words: Sequence[str]) -> bool:
    return any(word in _SECRET_WORDS or any(p in word for p in _SECRET_PARTS) for word in words)
