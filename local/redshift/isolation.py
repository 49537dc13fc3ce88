"""
What keeps transactions apart, as Amazon documents it; PostgreSQL's REPEATABLE READ gives each its snapshot.

Two things are added. A statement waits for its tables before the snapshot is taken, and not after, so that it
sees what it waited for. And under SERIALIZABLE, a statement fails that would close a cycle of transactions,
each of which has to come before the next in any serial order. As on Redshift, tables are the smallest unit.

https://docs.aws.amazon.com/redshift/latest/dg/c_serial_isolation.html
https://docs.aws.amazon.com/redshift/latest/dg/c_serial_isolation-serializable-isolation-troubleshooting.html
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from sqlglot import exp
from sqlglot.dialects.postgres import Postgres

from local.redshift import columns
from local.redshift.errors import SqlError

# As STV_DB_ISOLATION_LEVEL shows them: https://docs.aws.amazon.com/redshift/latest/dg/r_STV_DB_ISOLATION_LEVEL.html
SERIALIZABLE = "Serializable"
SNAPSHOT = "Snapshot Isolation"

_NEVER = float("inf")


@dataclass(frozen=True)
class Footprint:
    """
    The tables that a statement touches, under names that PostgreSQL knows.

    :param reads: whose rows it reads; in UPDATE, DELETE and MERGE also those that it writes
    :param writes: whose rows it writes
    :param adds: whether it only adds rows to these
    """

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    adds: bool = False

    def locks(self, level: str) -> list[str]:
        """
        Return the statements that wait for the tables, in the modes that Redshift locks them in.

        Under SNAPSHOT, those who only add rows share a table
        (https://repost.aws/knowledge-center/prevent-locks-blocking-queries-redshift,
        https://docs.aws.amazon.com/redshift/latest/dg/c_write_readwrite.html).

        :param level: the isolation level
        """
        write = "ROW EXCLUSIVE" if self.adds and level == SNAPSHOT else "SHARE ROW EXCLUSIVE"
        locks = [
            f"LOCK TABLE {', '.join(tables)} IN {mode} MODE"
            for tables, mode in ((self.reads, "ACCESS SHARE"), (self.writes, write))
            if tables
        ]
        # Outside of a block, PostgreSQL takes LOCK as the second statement of several. All users may lock all
        # tables, as members of pg_maintain: the statement itself says what they may do with them
        return ["SHOW server_version", *locks] if locks else []

    def tables(self) -> str:
        """Return the query of what :meth:`Isolation.enter` wants to know; it fixes the snapshot."""
        names = (
            f"({written}, ARRAY[{', '.join(map(_literal, tables))}]::text[])"
            for written, tables in (("false", self.reads), ("true", self.writes))
        )
        return (
            "SELECT pg_backend_pid(), pg_current_xact_id(), pg_current_snapshot(), names.written, used.*"
            f" FROM (VALUES {', '.join(names)}) AS names (written, list)"
            " CROSS JOIN LATERAL rs_catalog.user_tables(names.list) AS used"
        )


NOTHING = Footprint()


def _literal(value: str) -> str:
    return exp.Literal.string(value).sql(Postgres)


def footprint(tree: exp.Expr) -> Footprint:
    """
    Return which tables a statement touches.

    :param tree: the statement, names in lower case
    """
    reads = tuple(sorted(columns.tables(tree)))
    match tree:
        case exp.Insert():
            target = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
            return Footprint(reads, (columns.table_name(target),), adds=True)
        case exp.Update() | exp.Delete() | exp.Merge():
            return Footprint(reads, (columns.table_name(tree.this),))
    return Footprint(reads)


@dataclass(eq=False)
class Transaction:
    """
    A transaction, and what it has read and written so far.

    :param began: when, at a time before its snapshot
    :param ended: when, at a time after its commit
    :param xid: PostgreSQL's number of it
    :param pid: the process id of its session
    :param snapshot: which transactions it sees, in PostgreSQL's notation
    :param reads: the numbers of the tables that it has read
    :param writes: the numbers of those that it has written, and when
    """

    began: int
    ended: float = _NEVER
    xid: int = 0
    pid: int = 0
    snapshot: str = ""
    reads: set[int] = field(default_factory=set)
    writes: dict[int, int] = field(default_factory=dict)

    def sees(self, other: "Transaction") -> bool:
        """
        Tell whether another transaction's changes are in the snapshot.

        https://www.postgresql.org/docs/18/functions-info.html#FUNCTIONS-PG-SNAPSHOT-PARTS

        :param other: a transaction that has committed, or has not ended
        """
        low, high, running = self.snapshot.split(":")
        return other.xid < int(low) or (other.xid < int(high) and str(other.xid) not in running.split(","))

    def precedes(self, other: "Transaction") -> Iterator[int]:
        """
        Yield the tables that put this transaction before another in any serial order.

        :param other: another transaction
        """
        for table in self.reads & other.writes.keys():
            if not self.sees(other):
                yield table
        for table, written in self.writes.items():
            if written < other.writes.get(table, 0) or (table in other.reads and other.sees(self)):
                yield table


class Isolation:
    """
    The transactions that are under way, and those of the past that can still be part of a cycle.

    :param level: :data:`SERIALIZABLE` or :data:`SNAPSHOT`
    """

    def __init__(self, level: str) -> None:
        self.level = level
        #: How many clients are connected.
        self.sessions = 0
        self._transactions: list[Transaction] = []
        self._clock = count(1)

    def check_change(self) -> None:
        """
        Refuse to change the level while there are other clients.

        https://docs.aws.amazon.com/redshift/latest/dg/r_ALTER_DATABASE.html

        :raises SqlError: 55006 if there are
        """
        if self.sessions > 1:
            raise SqlError("database is being accessed by other users", "55006")

    def begin(self) -> Transaction:
        """Return a new transaction, whose snapshot must not have been taken yet."""
        self._transactions.append(Transaction(next(self._clock)))
        return self._transactions[-1]

    def enter(self, transaction: Transaction, tables: Sequence[Sequence[str | None]]) -> None:
        """
        Note what a statement that is about to run reads and writes.

        :param transaction: the statement's
        :param tables: what :meth:`Footprint.tables` answered
        :raises SqlError: 1023 if the transaction can then not be serialized, 1018 for a table that is not in
            its snapshot
        """
        for pid, xid, snapshot, written, table, is_known in tables:
            if is_known == "f":
                raise SqlError("1018", detail="Relation does not exist")
            transaction.pid, transaction.xid, transaction.snapshot = (
                int(pid or 0),
                int(xid or 0),
                str(snapshot),
            )
            if written == "t":
                transaction.writes[int(table or 0)] = next(self._clock)
            else:
                transaction.reads.add(int(table or 0))
        cycle = self._cycle(transaction) if self.level == SERIALIZABLE else []
        if cycle:
            raise _violation(cycle, next(cycle[0].precedes(cycle[1])))

    def update_conflict(self, transaction: Transaction) -> SqlError:
        """
        Return how Redshift reports a row that another transaction has changed since the snapshot.

        :param transaction: the one that cannot change the row
        """
        table = max(transaction.writes, key=transaction.writes.__getitem__, default=0)
        changed = (
            other for other in self._transactions if table in other.writes and other is not transaction
        )
        return _violation([transaction, *(other for other in changed if not transaction.sees(other))], table)

    def end(self, transaction: Transaction, *, committed: bool) -> None:
        """
        Note the end of a transaction, and forget those that can no longer be part of a cycle.

        :param transaction: the transaction
        :param committed: whether its changes are kept
        """
        transaction.ended = next(self._clock)
        known = [other for other in self._transactions if committed or other is not transaction]
        # Of those that have ended, only what overlaps one that has not, directly or through others
        kept = [other for other in known if other.ended is _NEVER]
        for overlapped in kept:
            kept += [other for other in known if other not in kept and other.ended > overlapped.began]
        self._transactions = kept

    def _cycle(self, transaction: Transaction) -> list[Transaction]:
        """Return a cycle of transactions that begins with this one; none if there is none."""
        paths, reached = [[transaction]], set[Transaction]()
        for path in paths:
            for other in self._transactions:
                if other is not path[-1] and other not in reached and any(path[-1].precedes(other)):
                    if other is transaction:
                        return path
                    reached.add(other)
                    paths.append([*path, other])
        return []


def _violation(cycle: Sequence[Transaction], table: int) -> SqlError:
    # https://repost.aws/knowledge-center/redshift-serializable-isolation
    xids = ", ".join(str(transaction.xid) for transaction in cycle)
    return SqlError(
        "1023",
        detail=f"Serializable isolation violation on table - {table}, transactions forming the cycle are:"
        f" {xids} (pid:{cycle[0].pid})",
    )
