"""Replacing a table's rows by those of a SELECT, key by key."""

from collections.abc import Sequence
from dataclasses import dataclass

from sparkify.ranges import Index, Ranges, ranges_of_times
from sparkify.sql import Transaction, identifier


@dataclass(frozen=True)
class Replaced:
    """
    What a load did to its table.

    :param inserted: rows whose key was not there
    :param updated: rows that replaced one of another content
    :param unchanged: rows that were there already
    :param within: a condition that holds for every row of the batch and for their older versions
    :param indexed: a condition that holds for every row of the batch, and for its rows in the index
    """

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    within: str = "1 = 0"
    indexed: str = "1 = 0"


def replace_changed_rows(
    table: str, key: Sequence[str], sql: str, within: str | None = None, index: Index | None = None
) -> Transaction[Replaced]:
    """
    Make a table agree with a SELECT, for every key that the SELECT yields.

    Rows that are there already as they should be are not touched, so repeating a load writes nothing. Older
    versions of the batch's rows stay in the temporary table ``<table>_old``, for the rest of the transaction.

    DELETE and INSERT, since Redshift's TRUNCATE commits
    (https://docs.aws.amazon.com/redshift/latest/dg/r_TRUNCATE.html); in this order, since two transactions
    that insert may share a lock that neither can then have alone
    (https://docs.aws.amazon.com/redshift/latest/dg/c_write_readwrite.html).

    :param table: the table to change
    :param key: the columns that identify a row
    :param sql: a SELECT of the final rows, with the table's columns in the table's order
    :param within: for a large table, the time by which it is sorted: only near the batch's times is looked
    :param index: where, besides, older versions lie; for rows whose time may be corrected
    """
    table = identifier(table)
    batch, old, changes = (f"{table.rpartition('.')[2]}_{what}" for what in ("batch", "old", "changes"))

    def same_key(other: str) -> str:
        equal = [f"{table}.{identifier(name)} = {other}.{name}" for name in key]
        return " AND ".join([*equal, *([times.hold(f"{table}.{within}")] if within else [])])

    yield f"CREATE TEMP TABLE {batch} (LIKE {table})"
    selected = (yield f"INSERT INTO {batch}\n{sql}").row_count
    if not selected:
        return Replaced()
    times = near = Ranges()
    if within and index:
        near = yield from index.near(batch)
        times = yield from index.times(within, batch, near)
    elif within:
        times = yield from ranges_of_times(within, batch)
    yield f"CREATE TEMP TABLE {old} (LIKE {table})"
    found = yield (
        f"INSERT INTO {old}\nSELECT {table}.* FROM {table} INNER JOIN {batch} ON {same_key(batch)}"
    )
    new, updated = batch, 0
    if found.row_count:
        new = changes
        yield f"CREATE TEMP TABLE {changes} (LIKE {table})"
        changed = (
            yield f"INSERT INTO {changes}\nSELECT * FROM {batch}\nEXCEPT\nSELECT * FROM {old}"
        ).row_count
        if changed:
            updated = (yield f"DELETE FROM {table} USING {changes} WHERE {same_key(changes)}").row_count
            yield f"INSERT INTO {table} SELECT * FROM {changes}"
    else:  # identical copies become one here, too
        changed = (yield f"INSERT INTO {table} SELECT DISTINCT * FROM {batch}").row_count
    if changed and within and index:
        yield index.add(within, new, near)
    return Replaced(
        inserted=changed - updated,
        updated=updated,
        unchanged=selected - changed,
        within=times.hold(str(within)),
        indexed=near.hold(index.column) if index else "1 = 1",
    )
