"""Create tables, and bring older ones up to date."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.sql.operators.sql import BaseSQLOperator

from sparkify.compat import AirflowFailException
from sparkify.errors import explained, sqlstate
from sparkify.sql import Transaction, each_statement, run_in_transaction, run_one_by_one, run_statement
from sparkify.tables import defined_columns

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook
    from airflow.sdk import Context

RECORD = "etl_migrations"


class CreateTablesOperator(BaseSQLOperator):
    """
    Create the tables that are missing, and bring those of an older release up to date by migrations.

    Usually two SELECTs find that nothing is to do. If not, missing tables are created as they should be now.
    Then each migration runs that is not in ``etl_migrations``. Its first statement is a SELECT that finds
    what still is as it was before; only if it does, the others change that. So it does not matter whether a
    table is new or old, recorded or not, nor where an earlier try was cut off.

    A single change runs outside of transactions, where alone Redshift makes a column longer
    (https://docs.aws.amazon.com/redshift/latest/dg/r_ALTER_TABLE.html); several are one transaction. They
    have a connection of their own, beside the one that holds the lock of ``etl_migrations``, so none of them
    may touch that table.

    :param ddl: of each table, a ``CREATE TABLE IF NOT EXISTS``, or a ``.sql`` file (templated)
    :param migrations: in order, by their names: a SELECT and what changes what it finds, each but the last
        ended by a semicolon, or a ``.sql`` file (templated)
    :param afterwards: statements, or ``.sql`` files, that run whenever a table was created or changed, in the
        transaction without which that does not count, such as GRANTs (templated)
    :param conn_id: the warehouse; its connection type picks the hook
    """

    template_fields: Sequence[str] = ("ddl", "migrations", "afterwards", *BaseSQLOperator.template_fields)
    template_ext: Sequence[str] = (".sql",)

    def __init__(
        self,
        *,
        ddl: Mapping[str, str],
        migrations: Mapping[str, str],
        afterwards: Sequence[str] = (),
        conn_id: str = "redshift",
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault(
            "doc_md", "Creates the tables that are missing, and brings those of an older release up to date."
        )
        super().__init__(conn_id=conn_id, **kwargs)
        if RECORD not in ddl:
            raise ValueError(f"{self.task_id}: without {RECORD}, no migration can be recorded")
        self.ddl, self.migrations, self.afterwards = ddl, migrations, afterwards

    def execute(self, context: "Context") -> dict[str, list[str]]:
        """
        Create and change what has to be.

        :return: for XCom: the names of tables that were ``created``, and of migrations that were ``applied``
        :raises AirflowFailException: if the tables belong to a newer release
        """
        with explained("Creating tables", self.conn_id):
            hook = self.get_db_hook()
            missing, pending = run_one_by_one(hook, self.look())
            if RECORD in missing:
                self._create_record(hook)
            if missing:
                # The tables may lack columns that a pending migration adds and a GRANT names.
                run_in_transaction(hook, self.create(missing, [] if pending else self.afterwards))
                self.log.info("Created %s", ", ".join(missing))
            applied = run_in_transaction(hook, self.migrate(hook, context["run_id"])) if pending else []
        if not missing and not pending:
            self.log.info("All %d tables and %d migrations are there", len(self.ddl), len(self.migrations))
        return {"created": missing, "applied": applied}

    def look(self) -> Transaction[tuple[list[str], list[str]]]:
        """
        Yield the statements that find out what is there.

        Two, since Redshift does not run the functions of such views of its catalog over tables
        (https://docs.aws.amazon.com/redshift/latest/dg/c_join_PG.html).

        :return: the tables and the migrations that are not
        :raises AirflowFailException: if a table lacks a column that no migration adds
        """
        found = yield 'SELECT tablename, "column" FROM pg_table_def WHERE schemaname = CURRENT_SCHEMA()'
        there: dict[str, set[str]] = {}
        for table, column in found.rows:
            there.setdefault(table, set()).add(column)
        recorded = (yield from self._recorded()) if RECORD in there else set()
        pending = [name for name in self.migrations if name not in recorded]
        if not pending:  # a migration may add the column
            self._require_columns(there)
        return [table for table in self.ddl if table not in there], pending

    def _require_columns(self, there: Mapping[str, set[str]]) -> None:
        lacking = [
            f"{table} is not as defined (lacks {', '.join(missing)})"
            for table in self.ddl
            if table in there
            if (missing := [c.name for c in defined_columns(self.ddl[table]) if c.name not in there[table]])
        ]
        if lacking:
            raise AirflowFailException(
                f"{'; '.join(lacking)}. Trigger sparkify_check_setup: it lists every difference."
            )

    def _recorded(self) -> Transaction[set[str]]:
        recorded = {name for (name,) in (yield f"SELECT migration FROM {RECORD}").rows}
        unknown = sorted(recorded - set(self.migrations))
        if unknown:
            raise AirflowFailException(
                f"The tables are of a newer release, whose migrations this one does not know: "
                f"{', '.join(unknown)}. Deploy that release again; this one could overwrite what it has added"
            )
        return recorded

    def _create_record(self, hook: "DbApiHook") -> None:
        """Create the table whose lock makes runs wait for each other; two may do so at the same moment."""
        try:
            run_statement(hook, self.ddl[RECORD])
        except Exception as error:
            if sqlstate(error) is None or RECORD in run_one_by_one(hook, self.look())[0]:
                raise

    def create(self, missing: Sequence[str], afterwards: Sequence[str]) -> Transaction[None]:
        """
        Yield the statements of the transaction that creates tables.

        :param missing: their names
        :param afterwards: statements to run at its end
        """
        yield f"LOCK {RECORD}"
        for table in missing:
            yield self.ddl[table]
        yield from each_statement(self.get_db_hook(), afterwards)

    def migrate(self, hook: "DbApiHook", run_id: str) -> Transaction[list[str]]:
        """
        Yield the statements of the transaction that records migrations, which run on other connections.

        Its lock, which comes first as in :func:`sparkify.batches.take_staging`, makes a second run wait.

        :param hook: opens the other connections
        :param run_id: the run
        :return: the names of the migrations that found something to change
        """
        yield f"LOCK {RECORD}"
        recorded = yield from self._recorded()
        applied = []
        pending = [name for name in self.migrations if name not in recorded]
        for name in pending:
            find, *changes = hook.split_sql_string(self.migrations[name], strip_semicolon=True)
            if run_statement(hook, find).rows:
                self.log.info("Applying %s", name)
                run = run_one_by_one if len(changes) == 1 else run_in_transaction
                run(hook, each_statement(hook, changes))
                applied.append(name)
            yield f"INSERT INTO {RECORD} VALUES (%s, %s, SYSDATE)", [name, run_id]
        if pending:
            yield from each_statement(self.get_db_hook(), self.afterwards)
        self.log.info("Recorded %s; %d of them had something to change", ", ".join(pending), len(applied))
        return applied
