"""The digest table: secrets recognised before, under the pepper of the time."""

from collections.abc import Iterable

from sqlalchemy import Connection, text

from domain.credential import Digest
from projections.schema import key_digests

_KEEP = text(
    f"INSERT INTO {key_digests.name} (lookup_id, pepper_id, digest)"  # noqa: S608
    " VALUES (:lookup_id, :pepper_id, :digest) ON CONFLICT (lookup_id)"
    " DO UPDATE SET pepper_id = excluded.pepper_id, digest = excluded.digest"
)


def keep_digests(connection: Connection, digests: Iterable[Digest]) -> None:
    """Write digests in place of those that their keys had, under whatever pepper."""
    for digest in digests:
        connection.execute(
            _KEEP,
            {
                "lookup_id": digest.lookup_id,
                "pepper_id": digest.pepper_id,
                "digest": digest.digest,
            },
        )
