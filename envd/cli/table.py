"""Which commands there are: the one table that dispatch, help and completion are made from.

Nothing is imported here. A command is named by its module in `envd.cli.commands` and is the
attribute `COMMAND` of it, or its name in upper case where a module holds several.
"""

from __future__ import annotations

GROUPS = (
    (
        "Variables",
        (
            ("get", "reading:GET", "show an environment, or one real value"),
            ("set", "setting:SET", "set variables in one atomic commit"),
            ("unset", "unsetting:UNSET", "remove variables"),
            ("edit", "editing:EDIT", "change an environment in your editor"),
            ("find", "finding:FIND", "which environments have a variable, or a value"),
            ("run", "running:RUN", "run a program with the variables"),
            ("import", "importing:IMPORT", "bring in a .env, JSON or YAML file"),
            ("export", "exporting:EXPORT", "write the variables out as a file"),
        ),
    ),
    (
        "Environments",
        (
            ("list", "listing:LIST", "list the environments"),
            ("tree", "finding:TREE", "the environments as a tree"),
            ("create", "lifecycle:CREATE", "create an empty environment"),
            ("delete", "lifecycle:DELETE", "delete an environment; its history stays"),
            ("undelete", "lifecycle:UNDELETE", "bring a deleted environment back"),
            ("rename", "renaming:RENAME", "give an environment another name"),
            ("copy", "copying:COPY", "bring variables from one environment to another"),
            ("settings", "metadata:SETTINGS", "show or change description, owner, labels, ..."),
            ("plan", "planning:PLAN", "what the files of a directory would change"),
            ("apply", "applying:APPLY", "bring environments to what the files say"),
        ),
    ),
    (
        "History",
        (
            ("watch", "watching:WATCH", "see changes as they happen"),
            ("diff", "diffing:DIFF", "compare environments, revisions and files"),
            ("history", "past:HISTORY", "who changed what, and when"),
            ("rollback", "past:ROLLBACK", "go back to an earlier revision"),
            ("conflicts", "conflicts:CONFLICTS", "writes that lost to others unseen"),
            ("resolve", "conflicts:RESOLVE", "settle a conflict"),
        ),
    ),
    (
        "Where and who",
        (
            ("use", "choosing:USE", "choose the environment for this directory"),
            ("context", "choosing:CONTEXT", "show or switch between named nodes"),
            ("login", "identity:LOGIN", "store a token, once it has proved good"),
            ("whoami", "identity:WHOAMI", "who the node takes you for"),
            ("cluster", "cluster:CLUSTER", "who belongs to the cluster, and how it does"),
        ),
    ),
    (
        "Stores",
        (
            ("sync", "sync:SYNC", "keep environments in step with stores elsewhere"),
            ("backend", "backend:BACKEND", "which kinds of stores there are, and do they answer"),
        ),
    ),
    (
        "Tools",
        (
            ("dev", "dev:DEV", "try envd on this machine, with a tour"),
            ("doctor", "doctor:DOCTOR", "check the node and this machine"),
            ("backup", "backup:BACKUP", "make, list, verify and restore backups"),
            ("scan", "scanning:SCAN", "look for secret values in files and in git's history"),
            ("bench", "benching:BENCH", "how fast this node is, in short"),
            ("completion", "completion:COMPLETION", "print a completion script for your shell"),
        ),
    ),
)

COMMANDS = {name: place for _, commands in GROUPS for name, place, _ in commands}
SUMMARIES = {name: summary for _, commands in GROUPS for name, _, summary in commands}
