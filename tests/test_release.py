"""What a release is made of: a citation, forms for issues, and a script that does its steps."""

import os
import re
import subprocess

import pytest
from house import ROOT
from test_house import pyproject

FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
SCRIPT = ROOT / ".ci" / "release"


def test_the_citation_says_the_version_and_the_license_of_the_package():
    said = dict(re.findall(r"^([\w-]+): (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE))
    project = pyproject()["project"]
    assert (said["version"], said["license"], said["title"]) == (project["version"], project["license"], "probdl")
    assert {"cff-version", "message", "type"} <= set(said)


def test_the_changelog_has_an_entry_of_the_version():
    entry = rf"^## \[{re.escape(pyproject()['project']['version'])}\] - "
    assert re.search(entry, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_steps_of_a_release_are_a_script_that_stops_at_the_first_failure():
    text = SCRIPT.read_text(encoding="utf-8")
    assert os.access(SCRIPT, os.X_OK)
    assert "set -euo pipefail" in text
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    steps = [
        text.index(step) for step in ("-m build", "check --strict", 'pip" install --quiet "$work"/dist', 'pip" check')
    ]
    assert steps == sorted(steps)


@pytest.mark.parametrize("form", [form for form in FORMS if form.stem != "config"], ids=lambda path: path.stem)
def test_a_form_for_issues_asks_for_what_is_needed(form):
    yaml = pytest.importorskip("yaml", reason="PyYAML reads the forms")
    read = yaml.safe_load(form.read_text(encoding="utf-8"))
    assert {"name", "description", "labels", "body"} == set(read)
    ids = [field["id"] for field in read["body"]]
    assert len(set(ids)) == len(ids) >= 2
    assert all(field["attributes"]["label"] for field in read["body"])
    assert read["body"][0]["validations"] == {"required": True}


def test_there_are_forms_for_errors_wishes_and_questions():
    assert [form.stem for form in FORMS] == ["bug", "config", "feature", "question"]
