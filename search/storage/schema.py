"""The ledger's tables, and the version that they are in."""

from __future__ import annotations

import uuid

import sqlalchemy as sa

from search.errors import UserError
from search.storage.database import Storage

SCHEMA_VERSION = 3
IDENTITY = "identity"  # key of the database's UUID, see ownership.py

metadata = sa.MetaData()

meta = sa.Table(
    "tmsearch_meta",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
studies = sa.Table(
    "tmsearch_study",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(128), nullable=False, unique=True),
    sa.Column("space", sa.JSON, nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("seed", sa.Integer, nullable=False),
    sa.Column("trials", sa.Integer, nullable=False),
    sa.Column("stopping", sa.Boolean, nullable=False, default=False),
    sa.Column("version", sa.String(64), nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    # The worker that publishes to Optuna now: Optuna has no "create unless it exists", so only one at a time does it.
    sa.Column("publisher", sa.String(255)),
    sa.Column("publisher_until", sa.Float),
    # Why workers are asked to stop, if no person asked for it: a bug, data that cannot be used.
    sa.Column("stop_reason", sa.Text),
)
facts = sa.Table(
    "tmsearch_fact",
    metadata,
    sa.Column("study_id", sa.ForeignKey("tmsearch_study.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("value", sa.JSON, nullable=False),
)
configurations = sa.Table(
    "tmsearch_configuration",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study_id", sa.ForeignKey("tmsearch_study.id", ondelete="CASCADE"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("origin", sa.String(16), nullable=False),
    sa.Column("drawn", sa.JSON(none_as_null=True)),
    sa.Column("params", sa.JSON(none_as_null=True)),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("failure", sa.String(16)),
    sa.Column("steps", sa.Integer, nullable=False, default=0),
    sa.Column("crashes", sa.Integer, nullable=False, default=0),
    sa.Column("worker", sa.String(255)),
    sa.Column("token", sa.Integer, nullable=False, default=0),
    sa.Column("lease_until", sa.Float),
    sa.Column("progress", sa.JSON(none_as_null=True)),
    sa.Column("revision", sa.Integer, nullable=False, default=1),
    sa.Column("published", sa.Integer, nullable=False, default=0),
    # The last step of the segment that was started last; if past `steps`, the segment is to be finished first.
    sa.Column("target", sa.Integer, nullable=False, default=0, server_default="0"),
    sa.UniqueConstraint("study_id", "number"),
)
segments = sa.Table(
    "tmsearch_segment",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("configuration_id", sa.ForeignKey("tmsearch_configuration.id", ondelete="CASCADE"), nullable=False),
    sa.Column("first_step", sa.Integer, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("value", sa.Float, nullable=False),
    sa.Column("metrics", sa.JSON, nullable=False),
    sa.Column("worker", sa.String(255), nullable=False),
    sa.Column("token", sa.Integer, nullable=False),
    sa.Column("committed", sa.Float, nullable=False),
    sa.Column("version", sa.String(64)),  # of the code that trained it
    # A result is recorded once, whatever happens.
    sa.UniqueConstraint("configuration_id", "step"),
)

workers = sa.Table(
    "tmsearch_worker",
    metadata,
    sa.Column("study_id", sa.ForeignKey("tmsearch_study.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("worker", sa.String(255), primary_key=True),  # a ProcessId
    sa.Column("place", sa.String(255), nullable=False),  # where it runs, in words: a GPU, a Slurm job, a node of Ray
    sa.Column("version", sa.String(64), nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("seen", sa.Float, nullable=False),
)


def create(storage: Storage) -> None:
    """Make the tables that are missing, Optuna's too; two processes may do it at once."""
    with storage.making_tables():
        with storage.write() as connection:
            _lock_tables(connection)
            metadata.create_all(connection)
            if connection.execute(sa.select(meta.c.value).where(meta.c.key == "schema")).scalar() is None:
                connection.execute(sa.insert(meta).values(key="schema", value=str(SCHEMA_VERSION)))
            set_identity(connection)
        storage.optuna  # noqa: B018  # its constructor makes them
    check(storage)


def set_identity(connection: sa.Connection) -> None:
    """Give the database its UUID unless it has one."""
    _lock_tables(connection)
    if connection.execute(sa.select(meta.c.value).where(meta.c.key == IDENTITY)).scalar() is None:
        connection.execute(sa.insert(meta).values(key=IDENTITY, value=uuid.uuid4().hex))


def check(storage: Storage) -> bool:
    """Whether there is a ledger, upgraded if it is older; raises UserError if this program cannot read its version."""
    if not storage.exists():
        return False
    with storage.read() as connection:
        if not sa.inspect(connection).has_table(meta.name):
            return False
        version = connection.execute(sa.select(meta.c.value).where(meta.c.key == "schema")).scalar()
    if version is not None and version.isdigit() and 0 < int(version) < SCHEMA_VERSION:
        _upgrade(storage)
    elif version != str(SCHEMA_VERSION):
        raise UserError(
            f"{storage.display_name}: its ledger has schema version {version}, this program reads {SCHEMA_VERSION}; "
            "use the tmsearch that wrote it, or another --storage"
        )
    return True


# The columns that each version added: table, name, and declaration as both databases read it.
_ADDED = {
    2: ((configurations, "target", "INTEGER NOT NULL DEFAULT 0"),),
    3: ((studies, "stop_reason", "TEXT"), (segments, "version", "VARCHAR(64)")),
}


def _upgrade(storage: Storage) -> None:
    """Bring an older ledger to SCHEMA_VERSION in one transaction; several programs may do so at once."""
    if storage.is_read_only:
        raise UserError(
            f"{storage.display_name}: was written by an older tmsearch and is read-only; make it writable to have it "
            "upgraded, or use a copy"
        )
    with storage.write() as connection:
        _lock_tables(connection)
        metadata.create_all(connection)  # tables that are new
        for added_columns in _ADDED.values():
            for table, name, declaration in added_columns:
                existing = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
                if name not in existing:
                    connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {name} {declaration}")
        connection.execute(sa.update(meta).where(meta.c.key == "schema").values(value=str(SCHEMA_VERSION)))


def _lock_tables(connection: sa.Connection) -> None:
    """Keep other processes from making the same tables until the transaction ends; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(0x746D7365)))  # any constant
