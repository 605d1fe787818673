"""What the README shows runs, what it links to exists, and its two commands are the ones that are promised."""

import re

import matplotlib.pyplot as plt
import pytest
from house import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
INSTALL_AND_RUN = "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/python examples/quickstart.py"
INSTALL_AND_TEST = 'python3 -m venv .venv && .venv/bin/pip install ".[test]" && .venv/bin/pytest'
BLOCK = re.compile(r"(?P<skip><!-- no test -->\s*)?^```python[^\n]*\n(?P<code>.*?)^```\s*$", re.MULTILINE | re.DOTALL)


def blocks(text):
    """Return (line, code) of every python block that is not marked <!-- no test -->."""
    return [
        (text.count("\n", 0, found.start("code")), found["code"]) for found in BLOCK.finditer(text) if not found["skip"]
    ]


def test_the_reader_of_blocks_finds_python_and_obeys_the_mark():
    text = "```python\na\n```\n```bash\nb\n```\n<!-- no test -->\n```python\nc\n```\n\n```python\nd\ne\n```\n"
    assert blocks(text) == [(1, "a\n"), (12, "d\ne\n")]


def test_the_blocks_of_the_readme_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "readme"}
    for line, code in blocks(README):
        exec(compile("\n" * line + code, str(ROOT / "README.md"), "exec"), namespace)
    plt.close("all")


@pytest.mark.parametrize("command", [INSTALL_AND_RUN, INSTALL_AND_TEST])
def test_the_readme_gives_each_command_on_one_line(command):
    assert command in [line.strip("` ") for line in README.splitlines()]


def test_ci_takes_its_test_command_from_the_readme():
    pattern = re.search(r"grep -oE -m 1 '([^']+)' README\.md", (ROOT / ".ci" / "run").read_text())[1]
    found = [match[0] for match in map(re.compile(pattern).search, README.splitlines()) if match]
    assert found[:1] == [INSTALL_AND_TEST]


def test_what_the_readme_links_to_exists():
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)\s#]+)", README) + re.findall(r'src="(?!https?:)([^"]+)"', README)
    assert [link for link in links if not (ROOT / link).exists()] == []
