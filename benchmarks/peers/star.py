"""
Whether stars are the same: their tables' row counts, and checksums in which the order of rows does not count.

``python -m benchmarks.peers.star FILE``, in ``.venv-bench``, prints those of a file of DuckDB.
"""

import json
import sys
from collections.abc import Iterable, Mapping

from benchmarks.peers.plain_sql import STAR, columns

#: Rows and checksum, by table.
Star = Mapping[str, tuple[int, int]]


class StarsDiffer(Exception):
    """Competitors came to different stars, so their times say nothing."""


def summary(table: str) -> str:
    """
    Return a query of a table's rows and of their checksum, which PostgreSQL and DuckDB both answer alike.

    The checksum is the sum of each row's MD5, its first 60 bits.

    :param table: a table of the star
    """
    texts = ", '|', ".join(map(_text, columns(table), columns(table).values()))
    checksum = f"SUM(CAST(CONCAT('0x', SUBSTR(MD5(CONCAT({texts})), 1, 15)) AS BIGINT))"
    return f"SELECT COUNT(*), CAST(COALESCE({checksum}, 0) AS VARCHAR) FROM {table}"


def _text(column: str, data_type: str) -> str:
    text = f"CAST({column} AS VARCHAR)"
    if data_type == "DOUBLE PRECISION":  # 200 here is 200.0 there
        text = f"REGEXP_REPLACE({text}, '[.]0$', '')"
    return f"COALESCE({text}, '\\N')"


def star_of(rows: Iterable[tuple[int, str]]) -> Star:
    """
    Return a star from the answers to the summaries of its tables.

    :param rows: the answers, in the order of ``STAR``
    """
    return {table: (int(count), int(checksum)) for table, (count, checksum) in zip(STAR, rows, strict=True)}


def require_same(stars: Mapping[str, Star]) -> None:
    """
    Check that all competitors came to the same star, and that it has rows.

    :param stars: each competitor's
    :raises StarsDiffer: if they did not, with each table that differs
    """
    problems = []
    for table in STAR:
        found = {competitor: star.get(table) for competitor, star in stars.items()}
        if len(set(found.values())) > 1:
            told = ", ".join(f"{competitor} {value}" for competitor, value in found.items())
            problems.append(f"{table} (rows, checksum): {told}")
        elif not any(value and value[0] for value in found.values()):
            problems.append(f"{table} is empty")
    if problems:
        raise StarsDiffer("; ".join(problems))


def main(file: str) -> None:
    """
    Print the rows and the checksum of each table, as JSON.

    :param file: a database of DuckDB
    """
    import duckdb

    with duckdb.connect(file, read_only=True) as star:
        print(json.dumps([star.execute(summary(table)).fetchone() for table in STAR]))


if __name__ == "__main__":
    main(*sys.argv[1:])
