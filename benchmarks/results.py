"""What a benchmark found: tables that are printed, and kept as JSON for the documentation to be made of."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.peers.report import machine

FOLDER = Path(__file__).parent / "results"
# Read when a benchmark begins: what it does itself is no sign of a busy machine.
LOAD_BEFORE = os.getloadavg()[0]


@dataclass(frozen=True)
class Table:
    """
    One table of figures.

    :param title: what it is about
    :param columns: what stands above the columns
    :param rows: a text for what each row is about, and its figures; or more texts
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float]]

    def markdown(self) -> str:
        """Return the table in Markdown."""
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)]]
        lines += [[_text(cell) for cell in row] for row in self.rows]
        return "\n".join([f"**{self.title}**", "", *(f"| {' | '.join(line)} |" for line in lines)])


def _text(cell: str | float) -> str:
    if isinstance(cell, float):
        return f"{cell:,.0f}" if cell >= 100 else f"{cell:,.3g}"
    return cell if isinstance(cell, str) else f"{cell:,}"


def keep(name: str, tables: Sequence[Table]) -> None:
    """
    Print tables, and write them to ``benchmarks/results/<name>.json`` with the date and the machine.

    :param name: the benchmark
    :param tables: what it found
    """
    for table in tables:
        print(f"\n{table.markdown()}")
    result = {
        "date": f"{datetime.now():%Y-%m-%d}",
        "machine": machine() | {"load_before": LOAD_BEFORE},
        "versions": {"Airflow": version("apache-airflow")},
        "tables": [asdict(table) for table in tables],
    }
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
