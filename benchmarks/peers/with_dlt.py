"""
The star by dlt: its filesystem source and its PostgreSQL destination, then the transforms.

``python -m benchmarks.peers.with_dlt S3_ENDPOINT POSTGRES_URL FOLDER``, in ``.venv-bench``. The settings
are the fastest that dlt documents for PostgreSQL: Arrow tables, which skip its normalizer for Python
objects, loaded as CSV by COPY
(https://dlthub.com/docs/dlt-ecosystem/destinations/postgres#fast-loading-with-arrow-tables-and-csv). dlt
lists the objects; obstore fetches a page of them at once, since dlt's own s3fs takes minutes for 15,000.
"""

import io
import os
import sys
from collections.abc import Iterable, Iterator

import psycopg
import pyarrow as pa
import pyarrow.json

from benchmarks.peers.objects import BUCKET, contents, open_bucket
from benchmarks.peers.plain_sql import STAR, create_table, fill_table

EVENTS = pa.schema(
    {
        "artist": pa.string(),
        "auth": pa.string(),
        "firstName": pa.string(),
        "gender": pa.string(),
        "itemInSession": pa.int32(),
        "lastName": pa.string(),
        "length": pa.float64(),
        "level": pa.string(),
        "location": pa.string(),
        "method": pa.string(),
        "page": pa.string(),
        "registration": pa.float64(),
        "sessionId": pa.int64(),
        "song": pa.string(),
        "status": pa.int32(),
        "ts": pa.int64(),
        "userAgent": pa.string(),
        "userId": pa.string(),
    }
)
SONGS = pa.schema(
    {
        "num_songs": pa.int32(),
        "artist_id": pa.string(),
        "artist_latitude": pa.float64(),
        "artist_longitude": pa.float64(),
        "artist_location": pa.string(),
        "artist_name": pa.string(),
        "song_id": pa.string(),
        "title": pa.string(),
        "duration": pa.float64(),
        "year": pa.int32(),
    }
)


def main(endpoint: str, postgres: str, folder: str) -> None:
    """
    Load, then transform.

    :param endpoint: the URL of S3
    :param postgres: the URL of an empty database
    :param folder: where dlt may keep its files
    """
    os.environ |= {
        "DLT_DATA_DIR": folder,  # read when dlt is imported
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "RUNTIME__LOG_LEVEL": "ERROR",
        "NORMALIZE__DATA_WRITER__DISABLE_COMPRESSION": "true",
    }
    import dlt
    from dlt.sources.credentials import AwsCredentials
    from dlt.sources.filesystem import filesystem

    aws = AwsCredentials(
        aws_access_key_id="local",
        aws_secret_access_key="local",
        region_name="us-west-2",
        endpoint_url=endpoint,
    )
    bucket = open_bucket(endpoint)

    def read(table: str, prefix: str, schema: pa.Schema, page: int) -> dlt.sources.DltResource:
        """Return a resource of what lies below a prefix."""

        @dlt.transformer(name=table, parallelized=True, write_disposition="replace")
        def rows(files: list) -> Iterator[pa.Table]:
            keys = [each["file_url"].removeprefix(f"s3://{BUCKET}/") for each in files]
            yield arrow_table(contents(bucket, keys), schema)

        rows.apply_hints(columns={"ts": {"timezone": False}} if "ts" in schema.names else None)
        files = filesystem(f"s3://{BUCKET}/", aws, file_glob=f"{prefix}/**/*.json", files_per_page=page)
        return files | rows

    pipeline = dlt.pipeline("peer", destination=dlt.destinations.postgres(postgres), dataset_name="staging")
    events = read("staging_events", "log_data", EVENTS, page=3)
    songs = read("staging_songs", "song_data", SONGS, page=1000)
    pipeline.run([events, songs], loader_file_format="csv")
    with psycopg.connect(postgres) as connection:
        connection.execute("SET search_path = public, staging")
        for table in STAR:
            connection.execute(create_table(table).encode())
            connection.execute(fill_table(table).encode())


def arrow_table(lines: Iterable[bytes], schema: pa.Schema) -> pa.Table:
    """Return the rows of some files, named and typed as in the staging table."""
    options = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    table = pa.json.read_json(io.BytesIO(b"\n".join(lines)), parse_options=options)
    if "ts" in schema.names:
        moments = table["ts"].cast(pa.timestamp("ms")).cast(pa.timestamp("us"))
        table = table.set_column(schema.get_field_index("ts"), "ts", moments)
    return table.rename_columns([name.lower() for name in schema.names])


if __name__ == "__main__":
    main(*sys.argv[1:])
