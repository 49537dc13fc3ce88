import json
import os
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.local_redshift.conftest import Connect

ROLE = "IAM_ROLE 'arn:aws:iam::123456789012:role/load'"


def test_copy_loads_json_from_s3(warehouse: psycopg.Connection, bucket: Any) -> None:
    bucket.put_object(Key="pets/1.json", Body=b'{"id": 1, "name": "Rex"}\n{"id": 2, "name": "\xc3\xa9"}')
    warehouse.execute("CREATE TABLE pets (id INT, name VARCHAR(10))")
    warehouse.execute(f"COPY pets FROM 's3://{bucket.name}/pets' {ROLE} FORMAT AS JSON 'auto'")
    assert warehouse.execute("SELECT * FROM pets ORDER BY id").fetchall() == [(1, "Rex"), (2, "é")]
