"""The operators that the DAGs are wired from."""

from sparkify.operators.create_roles import CreateRolesOperator
from sparkify.operators.create_tables import CreateTablesOperator
from sparkify.operators.data_quality import DataQualityOperator
from sparkify.operators.load_dimension import LoadDimensionOperator
from sparkify.operators.load_fact import LoadFactOperator
from sparkify.operators.record_files import RecordFilesOperator
from sparkify.operators.stage_to_redshift import StageToRedshiftOperator

__all__ = [
    "CreateRolesOperator",
    "CreateTablesOperator",
    "DataQualityOperator",
    "LoadDimensionOperator",
    "LoadFactOperator",
    "RecordFilesOperator",
    "StageToRedshiftOperator",
]
