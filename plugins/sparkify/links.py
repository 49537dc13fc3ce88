"""What the web UI offers beside the log of a staging task: its manifest, and the rows that COPY rejected."""

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from airflow.configuration import conf
from airflow.providers.amazon.aws.links.base_aws import BASE_AWS_CONSOLE_LINK, BaseAwsLink
from airflow.sdk import BaseOperatorLink

from sparkify.compat import HAS_PAGES
from sparkify.files import split_url

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from airflow.providers.common.compat.sdk import TaskInstanceKey


def pipeline_view() -> str:
    """Return the address of the page's Pipeline view in the web UI."""
    return f"{conf.get('api', 'base_url', fallback='').rstrip('/')}/plugin/sparkify/sparkify/#pipeline"


class ManifestLink(BaseOperatorLink):
    """Leads to the manifest of the task's COPY, also when the COPY failed."""

    name = "Manifest"

    def get_link(self, operator: Any, *, ti_key: "TaskInstanceKey") -> str:
        """
        Return the address that :attr:`StageToRedshiftOperator.manifest_page` holds, empty if nothing was new.

        :param operator: the task, after it ran
        :param ti_key: the task instance
        """
        return operator.manifest_page


class RejectedRowsLink(BaseOperatorLink):
    """Leads to the rows of the page that this run of the task rejected."""

    name = "Rejected rows"

    def get_link(self, operator: Any, *, ti_key: "TaskInstanceKey") -> str:
        """
        Return an address below that of the web UI.

        :param operator: the task, after it ran
        :param ti_key: the task instance
        """
        rows = urlencode({"dataset": operator.table, "run": ti_key.run_id})
        return f"{pipeline_view()}?{rows}"


#: Those of a staging task.
STAGING_LINKS = (ManifestLink(), RejectedRowsLink()) if HAS_PAGES else (ManifestLink(),)


def object_page(s3: "S3Hook", url: str, region: str) -> str:
    """
    Return where a browser shows an object: in AWS's console, or at the endpoint of another store.

    :param s3: whose connection names the endpoint of a store that is not Amazon's
    :param url: ``s3://…`` of the object
    :param region: AWS region of its bucket
    """
    bucket, key = split_url(url)
    if endpoint := s3.conn_config.get_service_endpoint_url("s3"):
        return f"{endpoint}/{bucket}/{quote(key)}"
    console = BASE_AWS_CONSOLE_LINK.format(aws_domain=BaseAwsLink.get_aws_domain(s3.conn_partition))
    return f"{console}/s3/object/{bucket}?{urlencode({'region': region, 'prefix': key})}"
