"""What a benchmark measured, as a file: date, machine, versions and tables, from which ``docs/speed.md`` is made.

A script calls ``keep`` where it prints a row, and ``save`` at its end; with ``--save`` the rows are written to
``benchmarks/results/<script>.json``, else nothing is. A cell is a number, a text, or one of

- ``ranged(values)``: the median over runs, with the smallest, the largest and how many;
- ``uncertain(value, stderr)``: a mean with its standard error.
"""

import datetime
import importlib.metadata
import json
import math
import os
import platform
import statistics
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "results"
ALWAYS = ("probdl", "torch", "numpy", "scipy", "scikit-learn")

_tables = {}


def ranged(values):
    """Return the median of runs and their range, as a cell."""
    values = [float(v) for v in values]
    if not values:
        raise ValueError("values must hold at least one number; it is empty. Keep a row only where something ran.")
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "runs": len(values)}


def uncertain(value, stderr):
    """Return a value with its standard error, as a cell."""
    return {"value": float(value), "stderr": float(stderr)}


def keep(table, **cells):
    """Keep a row of the table of that title; its columns are the names of the cells."""
    _tables.setdefault(table, []).append({column.replace("_", " "): _plain(cell) for column, cell in cells.items()})


def add_flag(parser):
    """Add ``--save`` to the options of a script."""
    parser.add_argument("--save", action="store_true", help="write the rows to benchmarks/results/, for docs/speed.md")


def save(options, script, peers=(), folder=FOLDER):
    """Write what was kept, if the script was asked to; return the path, or None."""
    if not options.save:
        return None
    if not _tables:
        raise RuntimeError(f"{Path(script).name} kept no rows, so that there is nothing to save; run it in full.")
    path = Path(folder) / f"{Path(script).stem}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record(options, script, peers), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def record(options, script, peers=()):
    """Return the file's content: how and where it was measured, and the tables."""
    return {
        "benchmark": Path(script).stem,
        "command": " ".join(["python", f"benchmarks/{Path(script).name}", *map(_without_folder, sys.argv[1:])]),
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores {platform.machine()}",
        "threads": getattr(options, "threads", 1),
        "versions": {"Python": platform.python_version(), **versions((*ALWAYS, *peers))},
        "tables": [{"title": title, "rows": rows} for title, rows in _tables.items()],
    }


def versions(packages):
    """Return the versions of those packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _plain(cell):
    """Return a cell as JSON has it: NumPy's and torch's numbers as Python's, what is not finite as text."""
    if isinstance(cell, (str, dict, int)) or cell is None:
        return cell
    return float(cell) if math.isfinite(cell) else str(float(cell))


def _without_folder(argument):
    return Path(argument).name if os.sep in argument else argument
