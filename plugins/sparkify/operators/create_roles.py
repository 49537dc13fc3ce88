"""Create the database user of the pipeline and the role of its readers."""

from collections.abc import Sequence
from contextlib import closing
from hashlib import md5
from typing import TYPE_CHECKING, Any

from airflow.providers.common.sql.operators.sql import BaseSQLOperator
from airflow.sdk import Connection

from sparkify.compat import AirflowFailException
from sparkify.errors import explained
from sparkify.sql import Transaction, each_statement, identifier, literal, quoted, role, run_in_transaction
from sparkify.tables import TABLES

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook
    from airflow.sdk import Context


class CreateRolesOperator(BaseSQLOperator):
    """
    Create the pipeline's user and the analysts' role where they are missing, and grant them what they need.

    Redshift has no ``CREATE USER IF NOT EXISTS``. A user who is missing gets the password of the pipeline's
    own connection if that logs in by this name with one, as a digest; else none, and logs in by IAM. A user
    who is there keeps what it has. All grants are one transaction, and may be repeated.

    :param user: the pipeline's database user (templated)
    :param schema: the schema that it is to own (templated)
    :param analysts_role: the role, empty for none (templated)
    :param iam_role: ARN of the role that the user's COPY reads S3 with, or ``default`` (templated)
    :param grants: statements, or ``.sql`` files, for the user (templated)
    :param table_grants: statements, or ``.sql`` files, on the tables, which the owner repeats whenever it
        creates them; here they run if the tables are there (templated)
    :param pipeline_conn_id: the connection that the pipeline logs in with
    :param conn_id: the warehouse, as a superuser
    """

    template_fields: Sequence[str] = (
        *("user", "schema", "analysts_role", "iam_role", "grants", "table_grants"),
        *BaseSQLOperator.template_fields,
    )
    template_ext: Sequence[str] = (".sql",)

    def __init__(
        self,
        *,
        user: str,
        schema: str,
        analysts_role: str,
        iam_role: str,
        grants: Sequence[str],
        table_grants: Sequence[str],
        pipeline_conn_id: str = "redshift",
        conn_id: str = "redshift_admin",
        **kwargs: Any,
    ) -> None:
        super().__init__(conn_id=conn_id, **kwargs)
        self.user, self.schema, self.analysts_role = user, schema, analysts_role
        self.iam_role = iam_role
        self.grants, self.table_grants = grants, table_grants
        self.pipeline_conn_id = pipeline_conn_id

    def execute(self, context: "Context") -> None:
        """
        Create what is missing, and grant.

        :raises ValueError: if a name is not of the form that may stand in a statement
        :raises AirflowFailException: if the schema belongs to another user
        """
        with explained("Creating roles", self.conn_id):
            hook = self.get_db_hook()
            role(self.iam_role)  # before anything is created
            self._create_user(hook)
            run_in_transaction(hook, self.transaction())

    def _create_user(self, hook: "DbApiHook") -> None:
        user, password = quoted(self.user), self._password()
        # Not by the hook, which logs statements and hands them to lineage
        with closing(hook.get_conn()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute("SELECT 1 FROM svv_user_info WHERE user_name = %s", [self.user])
            if not cursor.fetchone():
                cursor.execute(f"CREATE USER {user} PASSWORD {password}")
                self.log.info(
                    "Created user %s, who logs in by %s", user, "IAM" if password == "DISABLE" else "password"
                )
            connection.commit()

    def _password(self) -> str:
        """Return what follows PASSWORD: https://docs.aws.amazon.com/redshift/latest/dg/r_CREATE_USER.html."""
        connection = Connection.get(self.pipeline_conn_id)
        if connection.login != self.user or not connection.password or connection.extra_dejson.get("iam"):
            return "DISABLE"
        digest = md5(f"{connection.password}{self.user}".encode(), usedforsecurity=False).hexdigest()
        return f"'md5{digest}'"

    def transaction(self) -> Transaction[None]:
        """Yield the statements of all grants."""
        schema = identifier(self.schema)
        yield from each_statement(self.get_db_hook(), self.grants)
        # https://docs.aws.amazon.com/redshift/latest/dg/r_CREATE_SCHEMA.html shows how to ask for the owner
        owners = yield (
            "SELECT usename FROM pg_namespace INNER JOIN pg_user ON nspowner = usesysid"
            f" WHERE nspname = {literal(schema)}"
        )
        ((owner,),) = owners.rows
        if owner != self.user:
            raise AirflowFailException(
                f"Schema {schema} belongs to {owner}. Choose another (variable sparkify_schema), or"
                f" ALTER SCHEMA {schema} OWNER TO {quoted(self.user)}"
            )
        yield from self._grant_iam_role()
        if not self.analysts_role:
            return
        analysts = identifier(self.analysts_role)
        if not (yield ("SELECT 1 FROM svv_roles WHERE role_name = %s", [analysts])).rows:
            yield f"CREATE ROLE {analysts}"
            self.log.info("Created role %s: GRANT ROLE %s TO its users", analysts, analysts)
        found = yield ("SELECT table_name FROM svv_tables WHERE table_schema = %s", [schema])
        if {name for (name,) in found.rows}.issuperset(TABLES):
            yield f"SET search_path TO {schema}"
            yield from each_statement(self.get_db_hook(), self.table_grants)
        else:
            self.log.info("Role %s is granted the tables when the first run creates them", analysts)

    def _grant_iam_role(self) -> Transaction[None]:
        """
        Yield the GRANT of COPY's IAM role, if the user has not got it: by default, everybody has each.

        https://docs.aws.amazon.com/redshift/latest/dg/r_GRANT-usage-notes.html#r_GRANT-usage-notes-assumerole
        """
        arn = role(self.iam_role)
        if self.iam_role == "default":
            self.log.info(
                "Where ASSUMEROLE is not everybody's: GRANT ASSUMEROLE ON default TO %s FOR COPY", self.user
            )
            return
        granted = yield f"SELECT HAS_ASSUMEROLE_PRIVILEGE({literal(self.user)}, {arn}, 'COPY') AS granted"
        if not granted.rows[0][0]:
            yield f"GRANT ASSUMEROLE ON {arn} TO {quoted(self.user)} FOR COPY"
