"""The messages of `envd.v1.BackupService` <-> the core's requests and answers."""

from __future__ import annotations

from envd.core.backups import BackupFacts, BackupListing, BackupRequest, PassphraseLock
from envd.wire._pb import backup_pb2 as pb


def create_message(request: BackupRequest) -> pb.CreateBackupRequest:
    """The inverse of `create_from`; raises ValueError for bytes that are not hexadecimal."""
    message = pb.CreateBackupRequest(recovery_keys=request.recovery_keys)
    lock = request.passphrase
    if lock is not None:
        message.passphrase.CopyFrom(
            pb.PassphraseLock(
                salt=bytes.fromhex(lock.salt),
                log_n=lock.log_n,
                r=lock.r,
                p=lock.p,
                wrapped=bytes.fromhex(lock.wrapped),
                file_key=bytes.fromhex(lock.file_key),
            )
        )
    return message


def create_from(message: pb.CreateBackupRequest) -> BackupRequest:
    """What is asked for; whether it can be is the node's to check."""
    lock = None
    if message.HasField("passphrase"):
        sent = message.passphrase
        lock = PassphraseLock(
            sent.salt.hex(), sent.log_n, sent.r, sent.p, sent.wrapped.hex(), sent.file_key.hex()
        )
    return BackupRequest(tuple(message.recovery_keys), lock)


def listing_message(listing: BackupListing) -> pb.ListBackupsResponse:
    """The inverse of `listing_from`."""
    return pb.ListBackupsResponse(
        backups=[_backup_message(each) for each in listing.backups],
        directory=listing.directory,
        every=listing.every,
        next=listing.next,
        failure=listing.failure,
    )


def listing_from(message: pb.ListBackupsResponse) -> BackupListing:
    """The answer to List."""
    return BackupListing(
        tuple(_facts_from(each) for each in message.backups),
        message.directory,
        message.every,
        message.next,
        message.failure,
    )


def _backup_message(facts: BackupFacts) -> pb.Backup:
    return pb.Backup(
        file=facts.file,
        size_bytes=facts.size_bytes,
        state=facts.state,
        detail=facts.detail,
        created=facts.created,
        node=facts.node,
        node_uid=facts.node_uid,
        cluster=facts.cluster,
        cluster_id=facts.cluster_id,
        version=facts.version,
        environments=facts.environments,
        variables=facts.variables,
        commits=facts.commits,
        scheduled=facts.scheduled,
        locks=facts.locks,
    )


def _facts_from(message: pb.Backup) -> BackupFacts:
    return BackupFacts(
        file=message.file,
        size_bytes=message.size_bytes,
        state=message.state,
        detail=message.detail,
        created=message.created,
        node=message.node,
        node_uid=message.node_uid,
        cluster=message.cluster,
        cluster_id=message.cluster_id,
        version=message.version,
        environments=message.environments,
        variables=message.variables,
        commits=message.commits,
        scheduled=message.scheduled,
        locks=tuple(message.locks),
    )
