"""A storage's URL: parsed, checked, and as it may be shown.

A driver takes a password in more places than one, so every part is known or refused, and no refusal repeats the URL.
"""

from __future__ import annotations

import sqlalchemy as sa

from search.errors import UserError

HOW_TO_WRITE = "write sqlite:///FILE.db or postgresql://HOST/DATABASE"
_SQLITE_DRIVERS = ("sqlite", "sqlite+pysqlite")
# Parameters of a PostgreSQL URL that are secrets, and the others that there are:
# https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS (2026-11-29), without `dbname`, which
# may be a second URL.
SECRET_PARAMETERS = frozenset(
    ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")
)  # fmt: skip
_PARAMETERS = SECRET_PARAMETERS | frozenset((
    "host", "hostaddr", "port", "user", "passfile", "require_auth", "channel_binding", "connect_timeout",
    "client_encoding", "options", "application_name", "fallback_application_name", "keepalives", "keepalives_idle",
    "keepalives_interval", "keepalives_count", "tcp_user_timeout", "gssencmode", "sslmode", "sslnegotiation",
    "sslcompression", "sslcert", "sslkey", "sslcertmode", "sslrootcert", "sslcrl", "sslcrldir", "sslsni",
    "requirepeer", "ssl_min_protocol_version", "ssl_max_protocol_version", "krbsrvname", "gsslib", "gssdelegation",
    "service", "target_session_attrs", "load_balance_hosts", "min_protocol_version", "max_protocol_version",
    "oauth_issuer", "oauth_client_id", "oauth_scope",
))  # fmt: skip


def parse(url: str) -> sa.URL:
    """The URL of a SQLite file or a PostgreSQL server.

    Raises:
        UserError: It is no such URL, or a part of it is unknown.
    """
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise UserError(f"--storage: no database URL; {HOW_TO_WRITE}{_hint_at_encoding(url)}") from None
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return _checked_file(parsed)
    if backend != "postgresql":
        raise UserError(f"--storage: {backend} is not supported; use sqlite:///FILE.db or postgresql://HOST/DATABASE")
    if url.count("@") > 1:
        raise UserError(f"--storage: more than one @{_hint_at_encoding(url)}")
    return _checked_server(parsed).set(drivername="postgresql+psycopg")


def shown(url: sa.URL) -> str:
    """The URL as a person writes it, with *** in place of its secrets."""
    hidden = {name: "***" for name in url.query if name in SECRET_PARAMETERS}
    plain = url.set(drivername=url.get_backend_name()).update_query_dict(hidden)
    return plain.render_as_string(hide_password=True).replace("%2A%2A%2A", "***")


def without_secrets(url: sa.URL) -> str:
    """The URL for a command line: its secrets left out, as the environment or a file of the driver's has them."""
    plain = url.set(drivername=url.get_backend_name())._replace(password=None)
    return plain.difference_update_query(SECRET_PARAMETERS).render_as_string(hide_password=False)


def _hint_at_encoding(url: str) -> str:
    return "; in a user's name or password write @ as %40, : as %3A and / as %2F" if "@" in url else ""


def _checked_file(url: sa.URL) -> sa.URL:
    if url.drivername not in _SQLITE_DRIVERS:
        raise UserError(f"--storage: {url.drivername} is not supported; use sqlite:///FILE.db")
    if url.host or url.username or url.password or url.port:
        raise UserError(
            "--storage: a SQLite file has no host or user; write three slashes before it: sqlite:///FILE.db"
        )
    if url.query:
        raise UserError("--storage: a SQLite file takes no parameters; leave out what follows the ?")
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise UserError("--storage: a study outlives its process; name a file: sqlite:///FILE.db")
    return url


def _checked_server(url: sa.URL) -> sa.URL:
    """The URL with its password where SQLAlchemy hides it."""
    for name in url.query:
        if name not in _PARAMETERS:
            known = f" {name}" if name.isidentifier() and len(name) < 32 else ""
            raise UserError(
                f"--storage: PostgreSQL has no parameter{known}; leave it out, or see "
                "https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS"
            )
        if not isinstance(url.query[name], str) and name not in ("host", "port"):
            raise UserError(f"--storage: {name} is given twice; leave one out")
    database = url.database or ""
    if "=" in database or "@" in database or "://" in database:
        raise UserError("--storage: the database's name holds =, @ or ://; write postgresql://HOST/DATABASE")
    for host in (url.host or "", *_texts(url.query.get("host"))):
        if "@" in host[1:]:  # a first @ is a socket in Linux's abstract namespace
            raise UserError(f"--storage: a host's name holds an @{_hint_at_encoding('@')}")
    password = url.query.get("password")
    if password is None:
        return url
    if url.password:
        raise UserError("--storage: the password is given twice; leave one out")
    return url.difference_update_query(["password"]).set(password=str(password))


def _texts(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)
