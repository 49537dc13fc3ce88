import json
from datetime import datetime
from typing import Any

import pytest

from sparkify import compat
from sparkify.files import S3Object
from sparkify.state import describe_listing, forget, recall, remember
from tests.conftest import context

LISTING = describe_listing("s3://in/a/", [S3Object("in", "a/1.json", "etag", 10, datetime(2018, 11, 1))])


@pytest.fixture
def variables(monkeypatch):
    """Airflow's Variables, in place of those that only a running task can reach."""
    kept: dict[str, str] = {}

    class Variable:
        @staticmethod
        def get(key, default, deserialize_json):
            return json.loads(kept[key]) if key in kept else default

        @staticmethod
        def set(key, value, description, serialize_json):
            kept[key] = json.dumps(value)

        @staticmethod
        def delete(key):
            kept.pop(key, None)

    monkeypatch.setattr(compat, "Variable", Variable)
    return kept


def test_without_an_asset_state_store_a_variable_keeps_what_was_listed(variables):
    task: Any = {"run_id": "run 1"}
    assert recall(task) == {}
    remember(task, {"staging_songs": LISTING})
    assert recall(task) == {"staging_songs": LISTING}
    assert list(variables) == ["sparkify_warehouse_listings"]
    forget(task)
    assert recall(task) == {}


def test_with_one_no_variable_is_written(variables):
    task = context()
    remember(task, {"staging_songs": LISTING})
    assert recall(task) == {"staging_songs": LISTING}
    assert variables == {}
