"""The digest table: secrets recognised before, under the pepper of the time."""

from collections.abc import Iterable

from sqlalchemy import Connection, delete, insert

from domain.credential import Digest
from projections.schema import key_digests


def keep_digests(connection: Connection, digests: Iterable[Digest]) -> None:
    """Write digests in place of those that their keys had, under whatever pepper."""
    for digest in digests:
        connection.execute(delete(key_digests).where(key_digests.c.lookup_id == digest.lookup_id))
        connection.execute(
            insert(key_digests).values(
                lookup_id=digest.lookup_id,
                pepper_id=digest.pepper_id,
                digest=digest.digest,
            )
        )
