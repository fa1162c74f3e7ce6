"""The data directory of a node: one process at a time, its identity, its keys.

    lock            held with flock by the running node; holds its process id
    node.json       format, node uid, cluster id, generation (grows at each start), secured
    local.key       the key-encryption key, unless `security.key_file` names another place
    keyring         storage key and digest key, wrapped
    admin.token     the token that the start that created the cluster made
    cluster.secret  what the nodes of the cluster share, made at the cluster's creation, unless
                    `cluster.secret_file` names another place
    members.json    the other members, as this node last knew them
    journal/ state/ the data
    registers/      what it promised as an acceptor

`node.json` is written last when a node is created or admitted to a cluster: what was cut off is
simply done again. Nothing that exists is ever replaced by something new: what is missing or
wrong is an error that says what to do. Only a node that was given up, and gave the others what they
lack, has its journal, state and registers emptied, at the start after that was noted.

A restore builds a node in `restore.partial` and moves it into place, `node.json` last. While
that directory is there no daemon starts, and the next restore begins anew.
"""

from envd.datadir.members import read_members, write_members
from envd.datadir.opening import (
    DataDirectory,
    EmptyDirectory,
    open_data_directory,
    prepare_data_directory,
)
from envd.datadir.record import NodeRecord
from envd.datadir.restored import check_empty, create_restored

__all__ = [
    "DataDirectory",
    "EmptyDirectory",
    "NodeRecord",
    "check_empty",
    "create_restored",
    "open_data_directory",
    "prepare_data_directory",
    "read_members",
    "write_members",
]
