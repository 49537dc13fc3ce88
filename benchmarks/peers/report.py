"""What comes of a competition: a table and a plot."""

import json
import re
import subprocess
from collections.abc import Mapping
from datetime import datetime
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import results

PLOT = results.REPOSITORY / "docs" / "benchmarks-peers.svg"

OURS = "this project"
# Of the bars of others, and of the parts of ours: white text on each has a contrast of 4.5 or more.
COLOURS = (("#3b5bdb",), ("#495057", "#b93a00", "#862e9c"))
WHAT = {
    OURS: "`airflow dags test sparkify_etl`: all of Airflow, the local Redshift, every check",
    "psql": "the floor: the staged rows as ready text, `COPY … FROM STDIN`, the transforms",
    "dlt": "dlt's filesystem source, Arrow tables, its PostgreSQL destination by CSV, the transforms",
    "DuckDB": "objects fetched by obstore, `read_json`, the transforms; the star stays in DuckDB's file",
    "DuckDB to PostgreSQL": "the same, and the star written to PostgreSQL by ADBC",
}
_TASK = re.compile(r"^(\S+) .*\[DAG TEST\] (starting|end task) task_id=(\w+)", re.MULTILINE)


def task_seconds(log: str) -> dict[str, float]:
    """
    Return how long each task took, by the times in Airflow's log, in their order.

    :param log: what ``airflow dags test`` printed
    """
    began: dict[str, datetime] = {}
    seconds: dict[str, float] = {}
    for at, what, task in _TASK.findall(log):
        moment = datetime.fromisoformat(at)
        if what == "starting":
            began[task] = moment
        else:
            seconds[task] = (moment - began[task]).total_seconds()
    return seconds


def versions(bench_python: Path) -> dict[str, str]:
    """
    Return the versions of the others.

    :param bench_python: the Python of their environment
    """
    code = "import json; from importlib.metadata import version as v; print(json.dumps([v(n) for n in %r]))"
    names = ["dlt", "duckdb", "obstore", "pyarrow", "adbc-driver-postgresql"]
    return dict(
        zip(names, json.loads(subprocess.check_output([bench_python, "-c", code % names])), strict=True)
    )


def write(result: Mapping[str, Any]) -> None:
    """
    Print the table, and write it and the plot to the documentation.

    :param result: everything that was measured
    """
    ours = result["ours"]
    summary = dict(result) | {
        "ours": {
            "tasks": ours["tasks"],
            "statements": len(ours["statements"]),
            "statement_seconds": sum(each["seconds"] for each in ours["statements"]),
            "slowest_statements": ours["statements"][:10],
        }
    }
    PLOT.write_text(plot(summary["seconds"], parts(summary)))
    results.write("peers", summary, table(summary))


def table(result: Mapping[str, Any]) -> str:
    """
    Return the results in Markdown.

    :param result: as it is in the JSON
    """
    seconds = result["seconds"]
    fastest_first = sorted(seconds, key=lambda name: median(seconds[name]))
    lines = ["| | seconds | of each round | ours take | what ran |", "|---|---|---|---|---|"]
    for name in fastest_first:
        ratio = median(seconds[OURS]) / median(seconds[name])
        each = ", ".join(f"{took:.1f}" for took in seconds[name])
        of_ours = "" if name == OURS else f"{ratio:.1f} times as long" if ratio >= 1 else f"{ratio:.2f} of it"
        lines.append(f"| {name} | {median(seconds[name]):.1f} | {each} | {of_ours} | {WHAT[name]} |")
    ours = result["ours"]
    tasks = sum(ours["tasks"].values())
    rows = ", ".join(f"{count:,} rows of `{name}`" for name, count in result["rows"].items())
    longest_first = sorted(ours["tasks"].items(), key=lambda task: -task[1])
    tasks_told = ", ".join(f"`{task}` {took:.1f} s" for task, took in longest_first)
    lines += [
        "",
        f"{result['events']:,} events in 30 files and {result['songs']:,} song objects led to {rows}.",
        "",
        f"In the last round, our tasks took {tasks:.1f} s, Airflow besides them"
        f" {seconds[OURS][-1] - tasks:.1f} s, and the warehouse's {ours['statements']} statements"
        f" {ours['statement_seconds']:.1f} s of the tasks' time. The tasks: {tasks_told}.",
        "",
        results.measured(result),
    ]
    return "\n".join(lines)


def parts(result: Mapping[str, Any]) -> dict[str, float]:
    """
    Return what our last round was made of, in seconds.

    :param result: as it is in the JSON
    """
    tasks = result["ours"]["tasks"]
    checks = sum(took for task, took in tasks.items() if task.startswith("check_"))
    # The first task in a process starts Airflow's API server there, and lists the objects.
    start = result["seconds"][OURS][-1] - sum(tasks.values()) + tasks["find_new_files"]
    return {
        "Airflow, listing": start,
        "loading": result["seconds"][OURS][-1] - start - checks,
        "checks": checks,
    }


def plot(seconds: Mapping[str, list[float]], ours: Mapping[str, float]) -> str:
    """
    Return a picture of the medians as bars, each with a line from the fastest round to the slowest.

    :param seconds: those of each round, by competitor
    :param ours: what a round of ours was made of, in seconds
    """
    width, left, bar, gap = 760, 190, 24, 14
    longest = max(max(each) for each in seconds.values())
    scale = (width - left - 90) / longest
    lines = []
    for number, name in enumerate(sorted(seconds, key=lambda name: median(seconds[name]))):
        top, middle = 44 + number * (bar + gap), median(seconds[name])
        centre, begin = top + bar / 2, float(left)
        shares = ours if name == OURS else {"": 1.0}
        low, high = (left + scale * edge(seconds[name]) for edge in (min, max))
        lines += [
            f'<text x="{left - 10}" y="{centre + 5}" text-anchor="end">{escape(name)}</text>',
        ]
        for (part, share), colour in zip(shares.items(), COLOURS[name == OURS], strict=True):
            long = scale * middle * share / sum(shares.values())
            lines += [
                f'<rect x="{begin:.1f}" y="{top}" width="{long:.1f}" height="{bar}" fill="{colour}"/>',
                f'<text x="{begin + 6:.1f}" y="{centre + 5}" fill="#fff">{escape(part)}</text>',
            ]
            begin += long
        lines += [
            f'<path d="M{low:.1f} {centre}H{high:.1f}" stroke="#222" stroke-width="2"/>',
            f'<text x="{high + 8:.1f}" y="{centre + 5}">{middle:.1f} s</text>',
        ]
    height = 44 + len(seconds) * (bar + gap)
    title = "Seconds to the same star, medians of the rounds; the line is from the fastest to the slowest"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
            ' font-size="14" fill="#222" role="img">',
            f"<title>{title}</title>",
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
            f'<text x="16" y="26">{title}</text>',
            *lines,
            "</svg>\n",
        ]
    )
