"""COPYs of a manifest's files into a staging table, and what Redshift reports of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparkify.files import S3Object, manifest, write_text
from sparkify.formats import copy_option
from sparkify.rejects import RejectedRow, read_copy_account, with_raw_lines
from sparkify.sql import Transaction, Warehouse

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

# The highest MAXERROR
# (https://docs.aws.amazon.com/redshift/latest/dg/copy-parameters-data-load.html#copy-maxerror).
MOST_ERRORS = 100_000
# Seconds between one look at Redshift's report of a COPY and the next.
PAUSES = (1, 2, 4, 8)


def manifest_url(folder: str, name: str) -> str:
    """
    Return where a run keeps a manifest.

    :param folder: ``s3://…`` of the run's own files
    :param name: the staging table, for the manifest of its files
    """
    return f"{folder}/{name}.manifest"


@dataclass(frozen=True)
class Copies:
    """
    COPYs files into a table.

    :param s3: the hook of the AWS connection
    :param table: the staging table
    :param statement: returns the COPY of a manifest, given its address and further options
    :param folder: ``s3://…`` of the run's own files
    """

    s3: "S3Hook"
    table: str
    statement: Callable[[str, Sequence[str]], str]
    folder: str

    def write_manifests(self, files: Sequence[S3Object], name: str) -> dict[str, str]:
        """
        Write a manifest of files, and return the manifests to COPY, by COPY's option for their compression.

        The option holds for all files of a COPY, so that there may be several.

        :param files: the files
        :param name: how the manifests' names begin
        """
        groups: dict[str, list[S3Object]] = {}
        for item in files:
            groups.setdefault(copy_option(item.key), []).append(item)
        if not groups:
            return {}
        url = write_text(self.s3, manifest_url(self.folder, name), manifest(files))
        if len(groups) == 1:
            return dict.fromkeys(groups, url)
        return {
            option: write_text(
                self.s3, manifest_url(self.folder, f"{name}.{option.lower() or 'plain'}"), manifest(group)
            )
            for option, group in groups.items()
        }

    def run(self, manifests: Mapping[str, str], max_errors: int) -> Transaction[None]:
        """
        Yield the COPY of each manifest.

        :param manifests: what :meth:`write_manifests` returned
        :param max_errors: with so many rejected rows, a COPY fails
        """
        for option, url in manifests.items():
            options = ["MANIFEST", f"MAXERROR {min(max_errors, MOST_ERRORS)}", *([option] if option else [])]
            yield self.statement(url, options)

    def read_report(
        self, warehouse: Warehouse, copy_of: Sequence[Any], files: Sequence[S3Object], copies: int
    ) -> tuple[list[Any], list[RejectedRow]]:
        """
        Return what Redshift reports of a transaction's COPYs.

        :param warehouse: the warehouse's hook, or a session
        :param copy_of: process id of the session, and when the transaction began
        :param files: the files
        :param copies: the number of COPYs
        :return: loaded and rejected rows of each COPY, empty if it is not reported yet; and the rejected rows
        """
        session_id, since = copy_of
        history, errors = read_copy_account(warehouse, session_id, since, copies, PAUSES)
        return history, list(with_raw_lines(self.s3, errors, [item.url for item in files]))
