"""An example of a backend for envd: variables in a table of a SQLite database.

envctl sync bind web/prod sqlite:/srv/web/variables.db
"""

from envd.backends.contract import Registration

from .backend import CAPABILITIES, SqliteBackend

REGISTRATION = Registration(
    "sqlite",
    "variables in a table of a SQLite database",
    SqliteBackend,
    "/PATH/TO/FILE.db",
    library="sqlite3",
    capabilities=CAPABILITIES,
)
