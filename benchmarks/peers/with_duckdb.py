"""
The star by DuckDB, left in its file, or written to PostgreSQL as well.

``python -m benchmarks.peers.with_duckdb S3_ENDPOINT FOLDER [POSTGRES_URL]``, in ``.venv-bench``. DuckDB's
own way to S3, the extension httpfs, comes from DuckDB's site and not from the package index. So obstore
fetches the objects; the small ones become lines of one file, which DuckDB reads far faster than 15,000. For
the same reason ADBC, and not DuckDB's extension for PostgreSQL, writes the star there.
"""

import sys
from pathlib import Path

import adbc_driver_postgresql.dbapi
import duckdb

from benchmarks.peers.objects import contents, open_bucket
from benchmarks.peers.plain_sql import STAGING, STAR, create_table, fill_table

READ_EVENTS = """
INSERT INTO staging_events BY NAME
SELECT * REPLACE (make_timestamp(ts * 1000) AS ts)
FROM read_json($file, format = 'newline_delimited', columns = {
    artist: 'VARCHAR', auth: 'VARCHAR', firstName: 'VARCHAR', gender: 'VARCHAR', itemInSession: 'INTEGER',
    lastName: 'VARCHAR', length: 'DOUBLE', level: 'VARCHAR', location: 'VARCHAR', method: 'VARCHAR',
    page: 'VARCHAR', registration: 'DOUBLE', sessionId: 'BIGINT', song: 'VARCHAR', status: 'INTEGER',
    ts: 'BIGINT', userAgent: 'VARCHAR', userId: 'VARCHAR'
})
"""
READ_SONGS = """
INSERT INTO staging_songs BY NAME
FROM read_json($file, format = 'newline_delimited', columns = {
    num_songs: 'INTEGER', artist_id: 'VARCHAR', artist_latitude: 'DOUBLE', artist_longitude: 'DOUBLE',
    artist_location: 'VARCHAR', artist_name: 'VARCHAR', song_id: 'VARCHAR', title: 'VARCHAR',
    duration: 'DOUBLE', year: 'INTEGER'
})
"""


def main(endpoint: str, folder: str, postgres: str = "") -> None:
    """
    Fetch, read, transform.

    :param endpoint: the URL of S3
    :param folder: an empty folder, for the objects and for ``star.duckdb``
    :param postgres: the URL of an empty database
    """
    fetch(endpoint, Path(folder))
    star = duckdb.connect(f"{folder}/star.duckdb")
    for table in (*STAGING, *STAR):
        star.execute(create_table(table))
    star.execute(READ_EVENTS, {"file": f"{folder}/events/*.json"})
    star.execute(READ_SONGS, {"file": f"{folder}/songs.json"})
    for table in STAR:
        star.execute(fill_table(table))
    if postgres:
        write(star, postgres)
    star.close()


def fetch(endpoint: str, folder: Path) -> None:
    """Fetch the logs as files, and the songs as lines of one."""
    bucket = open_bucket(endpoint)
    (folder / "events").mkdir()
    logs, songs = (
        [each["path"] for page in bucket.list(prefix) for each in page]
        for prefix in ("log_data", "song_data")
    )
    for number, content in enumerate(contents(bucket, logs)):
        (folder / "events" / f"{number}.json").write_bytes(content)
    (folder / "songs.json").write_bytes(b"\n".join(contents(bucket, songs)))


def write(star: duckdb.DuckDBPyConnection, postgres: str) -> None:
    """Write the star's tables to PostgreSQL, in one transaction."""
    with adbc_driver_postgresql.dbapi.connect(postgres) as connection, connection.cursor() as cursor:
        for table in STAR:
            cursor.execute(create_table(table))
            cursor.adbc_ingest(table, star.table(table).to_arrow_reader(), mode="append")
        connection.commit()


if __name__ == "__main__":
    main(*sys.argv[1:])
