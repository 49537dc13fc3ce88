"""
The floor: what PostgreSQL takes for rows that need neither be fetched nor parsed.

The staged rows are there as ready text, psql copies them straight into PostgreSQL, past the local Redshift
and without Airflow, and the same transforms follow.
"""

from pathlib import Path

from benchmarks.peers.plain_sql import STAGING, STAR, create_table, fill_table


def script(folder: Path) -> str:
    """
    Return what psql has to run.

    :param folder: holds a file of text for each staging table
    """
    lines = []
    for table in STAGING:
        lines += [f"{create_table(table)};", f"\\copy {table} FROM '{folder / table}'"]
    for table in STAR:
        lines += [f"{create_table(table)};", f"{fill_table(table)};"]
    return "\n".join(lines)
