"""Store last uses by the position of a key's first event; record how far a new table is filled."""

from uuid import UUID

import sqlalchemy as sa
from alembic import op

from projections.store.column_types import big_integer, text

revision = "0003"
down_revision = "0002"

_FIRST_EVENT = sa.text(
    "SELECT id FROM events WHERE originator_id = :key AND originator_version = 1"
)


def upgrade() -> None:
    op.add_column("projection_states", sa.Column("filled_to", big_integer, nullable=True))
    connection = op.get_bind()
    uses = connection.execute(sa.text("SELECT key_id, used_at FROM last_uses")).all()
    op.drop_table("last_uses")
    last_uses = op.create_table(
        "last_uses",
        sa.Column("position", big_integer, primary_key=True, autoincrement=False),
        sa.Column("used_at", text(27), nullable=False),
    )
    for key_id, used_at in uses:
        key = UUID(key_id.removeprefix("apikey_")).bytes
        position = connection.scalar(_FIRST_EVENT, {"key": key})
        if position is not None:
            connection.execute(sa.insert(last_uses).values(position=position, used_at=used_at))
