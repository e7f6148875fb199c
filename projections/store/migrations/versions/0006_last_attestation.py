"""Add the result of the last integrity check."""

import sqlalchemy as sa
from alembic import op

from projections.store.column_types import text

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "last_attestation",
        sa.Column("finished_at", text(27), primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("events", sa.BigInteger, nullable=False),
        sa.Column("entries", sa.BigInteger, nullable=False),
        sa.Column("keys", sa.BigInteger, nullable=False),
        sa.Column("checkpoints", sa.BigInteger, nullable=False),
        sa.Column("findings", sa.BigInteger, nullable=False),
        sa.Column("listed", sa.LargeBinary, nullable=False),
    )
