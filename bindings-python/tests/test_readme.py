"""What the READMEs open with runs as it stands."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

from whimbrel.testing import find_program

PACKAGE = pathlib.Path(__file__).parents[1]
READMES = {"whimbrel": PACKAGE / "README.md", "whimbrel-hub": PACKAGE / "hub" / "README.md"}
RUN = {"python": [sys.executable, "-c"], "sh": ["sh", "-e", "-c"]}


def first_block(readme: pathlib.Path) -> tuple[str, str]:
    """The language and the text of the first code block."""
    found = re.search(r"^```(\w+)\n(.*?)^```$", readme.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None, f"{readme} has no example"
    return found[1], found[2]


@pytest.mark.parametrize("name", READMES)
def test_the_first_example_runs(name: str, tmp_path: pathlib.Path) -> None:
    language, text = first_block(READMES[name])
    # As after `pip install`: the command is found.
    path = os.pathsep.join([os.path.dirname(find_program()), os.environ["PATH"]])
    done = subprocess.run(
        [*RUN[language], text],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout, "an example shows something"


def test_the_readme_of_the_project_shows_the_same_example() -> None:
    language, text = first_block(READMES["whimbrel"])
    assert f"```{language}\n{text}```\n" in (PACKAGE.parent / "README.md").read_text()
