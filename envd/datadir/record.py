"""`node.json`: who the node is. Fields are only ever added."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from envd.core.errors import Corrupt, StorageError
from envd.files import write_private
from envd.ports import Rng

FORMAT = 1
_UID_BYTES = 8


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What `node.json` holds; `generation` is that of the running start.

    `former_uids` are the uids that the node had to give up, the oldest first. `relog_from` is
    the lsn after which its own commits are to be logged again under the present uid, None where
    none are. `cluster_secret` tells that the secret was made or given: it is not made again.
    `empties` tells that the store is to be emptied before anything of it is opened.
    """

    node_uid: int
    cluster_id: str
    generation: int
    secured: bool
    cluster_secret: bool = False
    former_uids: tuple[int, ...] = ()
    relog_from: int | None = None
    empties: bool = False

    def under_new_uid(self, rng: Rng, relog_from: int) -> NodeRecord:
        """The record of a node whose uid turned out to be somebody else's too.

        Where commits still wait to be logged again from before, none of those is left out.
        """
        if self.relog_from is not None:
            relog_from = min(relog_from, self.relog_from)
        return replace(
            self,
            node_uid=new_uid(rng),
            generation=self.generation + 1,
            former_uids=(*self.former_uids, self.node_uid),
            relog_from=relog_from,
        )

    def emptied(self, rng: Rng) -> NodeRecord:
        """The record of a node that is to begin with an empty store, under another uid.

        Nothing waits to be logged again: there will be nothing.
        """
        return replace(self.under_new_uid(rng, 0), relog_from=None, empties=True)

    def to_document(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "format": FORMAT,
            "node_uid": f"{self.node_uid:016x}",
            "cluster_id": self.cluster_id,
            "generation": self.generation,
            "secured": self.secured,
            "cluster_secret": self.cluster_secret,
        }
        if self.former_uids:
            document["former_uids"] = [f"{uid:016x}" for uid in self.former_uids]
        if self.relog_from is not None:
            document["relog_from"] = self.relog_from
        if self.empties:
            document["empties"] = True
        return document


def new_uid(rng: Rng) -> int:
    """A uid for a node, never 0."""
    return int.from_bytes(rng.token_bytes(_UID_BYTES)) or 1


def read_record(path: Path) -> NodeRecord:
    """The record of the last start; raises Corrupt, StorageError for a newer format."""
    try:
        document = json.loads((path / "node.json").read_bytes())
        if document["format"] != FORMAT:
            raise StorageError(
                f"{path} has format {document['format']}; this version reads format {FORMAT}",
                hint="a newer envd wrote it: run that version or a later one",
                reason="NEWER_FORMAT",
            )
        relog_from = document.get("relog_from")
        return NodeRecord(
            int(document["node_uid"], 16),
            str(document["cluster_id"]),
            int(document["generation"]),
            document["secured"] is True,
            document.get("cluster_secret") is True,
            tuple(int(uid, 16) for uid in document.get("former_uids", ())),
            None if relog_from is None else int(relog_from),
            document.get("empties") is True,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corrupt(
            f"{path / 'node.json'} is damaged",
            hint="put it back from a backup; the data itself is untouched",
        ) from error


def write_record(path: Path, record: NodeRecord) -> None:
    """Write it, atomically and durably."""
    text = json.dumps(record.to_document(), indent=1) + "\n"
    write_private(path / "node.json", text.encode())
