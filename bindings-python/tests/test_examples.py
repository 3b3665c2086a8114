"""The programs in `examples/python` run to a good end; each judges itself."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples" / "python"
# Those of every language, and one of our own.
NAMES = ["alerts_first", "back_end", "blocking", "receive_commands", "send_telemetry", "survive_outage"]


def test_the_list_is_complete() -> None:
    assert sorted(file.stem for file in EXAMPLES.glob("*.py")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name: str, tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout and not done.stderr, done.stderr
    assert not list(tmp_path.iterdir()), "it leaves nothing behind"


@pytest.mark.parametrize("checker", [("mypy", "--strict", "--config-file="), ("pyright", "--pythonpath", sys.executable)])
def test_their_types_are_right(checker: tuple[str, ...], tmp_path: pathlib.Path) -> None:
    files = [str(EXAMPLES / f"{name}.py") for name in NAMES]
    command = [sys.executable, "-m", *checker, *files]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
