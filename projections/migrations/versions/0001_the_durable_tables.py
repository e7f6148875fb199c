"""The durable tables: events, digests, and how far each projection has come."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_big_integer = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables of an empty database."""
    op.create_table(
        "events",
        sa.Column("id", _big_integer, primary_key=True, autoincrement=True),
        sa.Column("originator_id", sa.BINARY(16), nullable=False),
        sa.Column("originator_version", _big_integer, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
    )
    op.create_index(
        "events_aggregate_idx", "events", ["originator_id", "originator_version"], unique=True
    )
    op.create_table(
        "key_digests",
        sa.Column("lookup_id", sa.String(16), primary_key=True),
        sa.Column("pepper_id", sa.String(16), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
    )
    op.create_table(
        "projection_states",
        sa.Column("table_name", sa.String(63), primary_key=True),
        sa.Column("view_version", sa.Integer, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("position", _big_integer, nullable=False),
        sa.Column("completed_at", sa.String(27), nullable=True),
    )
