"""Create the durable tables: events, digests, and projection states."""

import sqlalchemy as sa
from alembic import op

from projections.store.column_types import aggregate_id, big_integer, text

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables of an empty database."""
    op.create_table(
        "events",
        sa.Column("id", big_integer, primary_key=True, autoincrement=True),
        sa.Column("originator_id", aggregate_id, nullable=False),
        sa.Column("originator_version", big_integer, nullable=False),
        sa.Column("topic", text(), nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
    )
    op.create_index(
        "events_aggregate_idx", "events", ["originator_id", "originator_version"], unique=True
    )
    op.create_table(
        "key_digests",
        sa.Column("lookup_id", text(16), primary_key=True),
        sa.Column("pepper_id", text(16), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
    )
    op.create_table(
        "projection_states",
        sa.Column("table_name", text(63), primary_key=True),
        sa.Column("view_version", sa.Integer, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("position", big_integer, nullable=False),
        sa.Column("completed_at", text(27), nullable=True),
    )
