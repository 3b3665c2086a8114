"""What the tests share."""

from __future__ import annotations

import pathlib
import sys
from datetime import timedelta
from typing import Any, Dict, Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from hub import Hub

CONNECTION_STRING = "HostName=hub.example;DeviceId=d1;SharedAccessKey=c2VjcmV0LWtleQ=="


@pytest.fixture
def offline(tmp_path: pathlib.Path) -> Dict[str, Any]:
    """Options of a device that reaches no hub, with an outbox of its own."""
    return {"outbox": tmp_path / "outbox", "server": "mqtt://127.0.0.1:9", "close_deadline": timedelta(0)}


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub that all tests share; each uses devices of its own."""
    hub = Hub(tmp_path_factory.mktemp("hub"))
    yield hub
    hub.stop()
