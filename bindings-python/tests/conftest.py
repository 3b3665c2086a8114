"""What the tests share."""

from __future__ import annotations

import pathlib
from datetime import timedelta
from typing import Any, Dict, Iterator

import pytest

from whimbrel.testing import LocalHub

CONNECTION_STRING = "HostName=hub.example;DeviceId=d1;SharedAccessKey=c2VjcmV0LWtleQ=="


@pytest.fixture
def offline(tmp_path: pathlib.Path) -> Dict[str, Any]:
    """Options of a device that reaches no hub, with an outbox of its own."""
    return {"outbox": tmp_path / "outbox", "server": "mqtt://127.0.0.1:9", "close_deadline": timedelta(0)}


@pytest.fixture(scope="session")
def hub() -> Iterator[LocalHub]:
    """A hub that all tests share; each uses devices of its own."""
    with LocalHub() as hub:
        yield hub
