"""Write ``docs/speed.md`` from what the benchmarks saved: nothing on that page is typed by hand.

Each script of this folder that can save has a section: its docstring, how and where it was measured, and its tables; or
that it was not measured yet.

Run: ``python benchmarks/speed_page.py``.
"""

import ast
import json
import math
import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PAGE = FOLDER.parent / "docs" / "speed.md"
SAVES = re.compile(r"^ *from results import", re.MULTILINE)
HEAD = """# How accurate, how fast

Made by `python benchmarks/speed_page.py` from the files of `benchmarks/results/`, which the scripts of `benchmarks/`
write with `--save`. Change those, not this page.

How to read it: *a (b to c)* is the median of the runs and their range, *a ± b* a value and its standard error; a number
without either has no randomness, is an error by itself, or was measured once. *Its time ÷ ours* is taken within each
round, so that what else the machine does meets both sides; above 1, the other side took longer. Ratios carry over to
other machines better than seconds do, and neither does to other sizes of data.
"""


def scripts(folder=FOLDER):
    """Return the scripts that can save what they measure."""
    return [path for path in sorted(folder.glob("*.py")) if SAVES.search(path.read_text(encoding="utf-8"))]


def measured(script, folder=FOLDER / "results"):
    """Return the record of a script, or None where there is none."""
    path = folder / f"{script.stem}.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path.name} must be a file that --save wrote; it is no JSON ({error}). Measure anew."
        ) from None
    missing = {"command", "date", "machine", "threads", "versions", "tables"} - set(found)
    if missing:
        raise ValueError(f"{path.name} must be a file that --save wrote; it lacks {sorted(missing)}. Measure anew.")
    return found


def page(folder=FOLDER):
    """Return the page."""
    found = {script: measured(script, folder / "results") for script in scripts(folder)}
    rows = [
        f"| {title(script)} | `benchmarks/{script.name}` | {record['date'] if record else 'not measured yet'} |"
        for script, record in found.items()
    ]
    overview = "\n".join(["| what | script | measured |", "|---|---|---|", *rows])
    return "\n".join([HEAD, overview, *(section(script, record) for script, record in found.items())])


def docstring(script):
    return ast.get_docstring(ast.parse(script.read_text(encoding="utf-8")))


def title(script):
    """Return what a script compares: its first line up to the colon."""
    return docstring(script).splitlines()[0].split(": ")[0].rstrip(".").replace("``", "`")


def section(script, record):
    """Return the section of a script."""
    paragraphs = docstring(script).split("\n\n")
    told = [p.replace("``", "`") for p in paragraphs[1:] if not p.startswith(("Run:", "    "))]
    body = [where(record), *map(table, record["tables"])] if record else [
        f"**Not measured yet.** `python benchmarks/{script.name} --save` measures it."
    ]  # fmt: skip
    of_what = paragraphs[0].replace("``", "`").split(": ", 1)[-1]
    return "\n\n".join([f"\n## {title(script)}", f"*{of_what}*", *told, *body]) + "\n"


def where(record):
    threads = f"{record['threads']} thread{'s' if record['threads'] != 1 else ''}"
    software = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return f"Measured on {record['date']}, {record['machine']}, {threads}, by `{record['command']}`; {software}."


def table(one):
    """Return a table in Markdown; a row without some column has an empty cell there."""
    columns = list(dict.fromkeys(column for row in one["rows"] for column in row))
    rows = [columns, *([said(row.get(column, "")) for column in columns] for row in one["rows"])]
    head, *body = ["| " + " | ".join(map(escaped, row)) + " |" for row in rows]
    return "\n".join([f"**{one['title']}**", "", head, "|" + "---|" * len(columns), *body])


def escaped(text):
    return text.replace("|", r"\|")


def said(cell):
    """Return a cell in words."""
    if isinstance(cell, dict) and "median" in cell:
        if cell["runs"] == 1:
            return f"{number(cell['median'], 3)} (one run)"
        return "{} ({} to {})".format(*(number(cell[key], 3) for key in ("median", "low", "high")))
    if isinstance(cell, dict):
        return with_error(cell["value"], cell["stderr"])
    return cell if isinstance(cell, str) else number(cell, 5)


def number(value, digits):
    """Return a number with so many digits that count; whole numbers and large ones in full."""
    return str(int(value)) if value == int(value) or abs(value) >= 10**digits else f"{value:.{digits}g}"


def with_error(value, stderr):
    """Return a value and its standard error, to the second digit of the error."""
    if not (stderr > 0 and math.isfinite(stderr)):
        return f"{number(value, 5)} ± {stderr:g}"
    decimals = max(0, 1 - math.floor(math.log10(stderr)))
    return f"{value:.{decimals}f} ± {stderr:.{decimals}f}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.name}: {sum(measured(s) is not None for s in scripts())} of {len(scripts())} scripts measured")
