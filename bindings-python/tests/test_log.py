"""The log reaches Python's logging, on a thread of its own that starts with the first client."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
from typing import Any, Dict

import pytest
from conftest import CONNECTION_STRING

import whimbrel

Options = Dict[str, Any]


def test_records_come_at_the_level_that_is_wanted(offline: Options, caplog: pytest.LogCaptureFixture) -> None:
    async def until(said: str) -> logging.LogRecord:
        deadline = time.monotonic() + 60
        while True:
            for record in caplog.records:
                if said in record.getMessage() and record.name.startswith("whimbrel."):
                    return record
            assert time.monotonic() < deadline, [record.getMessage() for record in caplog.records]
            await asyncio.sleep(0.01)

    async def main() -> None:
        caplog.set_level(logging.INFO, "whimbrel")
        async with whimbrel.DeviceClient.open(CONNECTION_STRING, **offline):
            record = await until("outbox open")
            assert record.levelno == logging.INFO and "::" not in record.name
        caplog.clear()
        caplog.set_level(logging.ERROR, "whimbrel")
        async with whimbrel.DeviceClient.open(CONNECTION_STRING, **offline):
            caplog.set_level(logging.INFO, "whimbrel")
        # Nothing but errors was recorded; the level is looked at when a client is opened.
        async with whimbrel.DeviceClient.open(CONNECTION_STRING, **offline):
            await until("outbox open")
        opened = [record for record in caplog.records if "outbox open" in record.getMessage()]
        assert len(opened) == 1
        # A logger below may want more.
        caplog.clear()
        caplog.set_level(logging.ERROR, "whimbrel")
        caplog.set_level(logging.INFO, "whimbrel.outbox")
        async with whimbrel.DeviceClient.open(CONNECTION_STRING, **offline):
            await until("outbox open")

    asyncio.run(main())


def test_nothing_happens_at_import_and_nothing_is_printed() -> None:
    program = """
import json, logging, threading, os
before = len(os.listdir("/proc/self/task"))
import whimbrel, whimbrel.sync
after = len(os.listdir("/proc/self/task"))
with whimbrel.sync.DeviceClient.open(CS, outbox_in_memory=True, server="mqtt://127.0.0.1:9", **OPTIONS):
    opened = len(os.listdir("/proc/self/task"))
print(json.dumps([after - before, opened - before, logging.getLogger("whimbrel").level]))
"""
    program = f"from datetime import timedelta\nCS = {CONNECTION_STRING!r}\nOPTIONS = dict(close_deadline=timedelta(0))\n" + program
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stderr == "" and done.returncode == 0
    at_import, when_opened, level = json.loads(done.stdout)
    assert (at_import, level) == (0, 0) and when_opened > 0
