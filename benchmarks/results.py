"""What a benchmark found: printed, kept as JSON, and written to its place in ``docs/benchmarks.md``."""

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).parents[1]
FOLDER = REPOSITORY / "benchmarks" / "results"
PAGE = REPOSITORY / "docs" / "benchmarks.md"
# Measured when a benchmark begins: what it does itself, or one before it did, is no sign of a busy machine.
BUSY_BEFORE = psutil.cpu_percent(interval=1)


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
    Print tables, and keep them with the date, the machine and the versions.

    :param name: the benchmark
    :param tables: what it found
    """
    result = {**circumstances(), "tables": [asdict(table) for table in tables]}
    write(name, result, "\n\n".join([*(table.markdown() for table in tables), measured(result)]))


def circumstances(**versions: str) -> dict[str, Any]:
    """
    Return when, on which machine and of which versions something was measured.

    :param versions: those of what takes part besides Airflow
    """
    names = re.findall(r"^model name\s*: (.*)$", _read("/proc/cpuinfo"), re.MULTILINE)
    machine = {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.system(),
        "busy_before": BUSY_BEFORE,
    }
    own = {"Airflow": version("apache-airflow"), "Python": platform.python_version()}
    return {"date": f"{datetime.now():%Y-%m-%d}", "machine": machine, "versions": own | versions}


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


def measured(result: Mapping[str, Any]) -> str:
    """
    Return the sentences that say when and on what it was measured, and whether the machine was busy.

    :param result: what :func:`circumstances` returned, and more
    """
    machine = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    busy = machine["busy_before"]
    warning = "**Other programs kept the machine busy: the times are too long, the ratios rough.** "
    return (
        f"{warning if busy > 20 else ''}Measured on {result['date']}: {machine['cores']} cores,"
        f" {machine['cpu']}, {machine['system']}, {busy:.0f} % busy before. {versions}."
    )


def write(name: str, result: Mapping[str, Any], text: str) -> None:
    """
    Print a text, and write it to its place in the page; write the result to its file of JSON.

    :param name: the benchmark, as the page marks its place
    :param result: what was measured
    :param text: the same, in Markdown
    :raises ValueError: if the page has no such place
    """
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"\n{text}")
    begin, end = f"<!-- {name}: written by make bench -->", f"<!-- end of {name} -->"
    before, found, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{PAGE} has no lines {begin} and {end}")
    PAGE.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")
