"""The time as Redshift's system tables show it."""

from datetime import UTC, datetime


def now() -> datetime:
    """Return the time in UTC, without zone."""
    return datetime.now(UTC).replace(tzinfo=None)
