"""What a task reads and writes, for OpenLineage's provider where that is installed."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from airflow.providers.common.sql.operators.sql import BaseSQLOperator
from airflow.sdk import Asset

from sparkify.compat import with_check_results
from sparkify.files import split_url

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage


def table_assets(*tables: str) -> list[Asset]:
    """
    Return tables as Airflow's asset graph and other DAGs know them.

    :param tables: their names
    """
    return [Asset(f"sparkify_{table}", extra={"table": table}) for table in tables]


class LineageOperator(BaseSQLOperator):
    """
    An operator whose assets are its lineage.

    The provider (2.20.3) parses each statement by itself, but finds no table in a COPY, nor in a SELECT that
    begins with WITH. So it calls the method below
    (https://airflow.apache.org/docs/apache-airflow-providers-openlineage/stable/guides/developer.html).
    """

    #: ``s3://bucket/prefix`` that the task reads besides tables.
    prefix = ""

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> "OperatorLineage":
        """
        Return the tables among the inlets and outlets, in the warehouse's current schema, and the prefix.

        What checks have found goes along with the table that each is about. That too needs this method, which
        the provider calls when the task has failed as well.

        :param task_instance: the task instance; its numbers are in its XCom
        """
        from airflow.providers.common.compat.openlineage.facet import Dataset
        from airflow.providers.openlineage.extractors import OperatorLineage
        from airflow.providers.openlineage.sqlparser import SQLParser

        hook: Any = self.get_db_hook()
        database = hook.get_openlineage_database_info(hook.get_connection(self.conn_id))
        schema = f"{database.database}.{hook.get_openlineage_default_schema()}"
        namespace = SQLParser.create_namespace(database)

        def tables(assets: Iterable[Any]) -> list[Dataset]:
            names = [asset.extra["table"] for asset in assets if "table" in asset.extra]
            return [Dataset(namespace, f"{schema}.{name}") for name in names]

        inputs = tables(self.inlets)
        if self.prefix:
            bucket, key = split_url(self.prefix)
            inputs.append(Dataset(f"s3://{bucket}", key))
        lineage: OperatorLineage = OperatorLineage(inputs=inputs, outputs=tables(self.outlets))
        return with_check_results(self, lineage)
