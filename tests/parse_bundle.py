"""
Parse and render every DAG of an unpacked bundle, and print what Airflow would store of each, as JSON.

For a process of its own, which has not imported the repository's plugins.
"""

import hashlib
import json
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
from airflow.models import DagBag
from airflow.sdk import Connection
from airflow.serialization.serialized_objects import SerializedDAG

try:
    from airflow.serialization.serialized_objects import DagSerialization
except ImportError:
    DagSerialization = SerializedDAG  # type: ignore[misc, assignment]


CONNECTION = Connection(conn_id="any", conn_type="redshift", host="host", login="user", schema="database")


class Anything(defaultdict[str, str]):
    """Has a value for every name: Airflow's Variables, or what a task returned."""

    def __init__(self) -> None:
        super().__init__(lambda: "s3://bucket/prefix/")


def main(folder: Path) -> None:
    """
    Print a hash of each DAG, by its id.

    :param folder: the bundle, unpacked
    """
    dagbag = DagBag(dag_folder=str(folder / "dags"))
    assert dagbag.import_errors == {}, dagbag.import_errors
    imported = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "sparkify"}
    for module in imported.values():
        assert Path(str(module.__file__)).is_relative_to(folder / "plugins"), module
    hashes = {}
    for dag_id, dag in dagbag.dags.items():
        stored = json.dumps(DagSerialization.to_dict(dag), sort_keys=True)
        hashes[dag_id] = hashlib.sha256(stored.encode()).hexdigest()
        dag.template_undefined = jinja2.StrictUndefined
        for task in dag.tasks:
            context: Any = {
                "conn": defaultdict(lambda: CONNECTION),
                "dag": dag,
                "ti": SimpleNamespace(xcom_pull=lambda task_ids: Anything()),
                "run_id": "run 1",
                "params": {name: dag.params[name] for name in dag.params},
                "var": {"value": Anything()},
            }
            task.render_template_fields(context)
    print(json.dumps(hashes))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
