"""The digest table: secrets that were verified before, under the pepper of that time."""

from collections.abc import Iterable

from sqlalchemy import Connection, text

from domain.credential import Digest
from projections.store.schema import key_digests
from projections.store.seals import Seals

_STORE = text(
    f"INSERT INTO {key_digests.name} (lookup_id, pepper_id, digest, seal)"  # noqa: S608
    " VALUES (:lookup_id, :pepper_id, :digest, :seal) ON CONFLICT (lookup_id)"
    " DO UPDATE SET pepper_id = excluded.pepper_id, digest = excluded.digest, seal = excluded.seal"
)


def store_digests(connection: Connection, digests: Iterable[Digest], seals: Seals) -> None:
    """Store digests, and replace the keys' earlier digests under any pepper."""
    for digest in digests:
        connection.execute(
            _STORE,
            {
                "lookup_id": digest.lookup_id,
                "pepper_id": digest.pepper_id,
                "digest": digest.digest,
                "seal": seals.digest((digest.lookup_id, digest.pepper_id, digest.digest)),
            },
        )
