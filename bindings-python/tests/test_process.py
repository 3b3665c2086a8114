"""Processes: forks, signals, their end."""

from __future__ import annotations

import asyncio
import gc
import os
import pathlib
import signal
import subprocess
import sys
import time
import warnings
from typing import Any, Callable, Dict

import pytest
from conftest import CONNECTION_STRING

import whimbrel
import whimbrel.sync

Options = Dict[str, Any]

# Python warns of forking with threads; that it is survived is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def in_child(work: Callable[[], None]) -> int:
    """Does `work` in a forked child; its exit status, 0 when it raised nothing."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    deadline = time.monotonic() + 60
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError("the child hangs")
        time.sleep(0.01)


def test_behind_a_fork_old_objects_fail_and_new_ones_work(offline: Options, tmp_path: pathlib.Path) -> None:
    device = whimbrel.sync.DeviceClient.open(CONNECTION_STRING, **offline)
    receipt = device.send(b"x")
    inbox, changes, many = device.inbox(), device.connection_changes(), device.send_many([b"y"] * 100)
    service = whimbrel.sync.ServiceClient.connect(
        "HostName=h;SharedAccessKeyName=s;SharedAccessKey=c2VjcmV0", server="amqp://127.0.0.1:9"
    )
    tracked = service.tracked("d", "m")
    events = service.registry

    def child() -> None:
        for use in (
            lambda: device.send(b"x"),
            lambda: device.send_many([b"x"]),
            lambda: device.account(),
            lambda: device.counters(),
            lambda: device.connection,
            lambda: device.inbox(),
            lambda: device.receipt("m"),
            lambda: device.close(),
            lambda: inbox.next(),
            lambda: next(changes),
            lambda: receipt.message_id,
            lambda: receipt.state(),
            lambda: receipt.outcome(),
            lambda: many[0],
            lambda: service.send("d", b"x"),
            lambda: service.tracked("d", "m"),
            lambda: service.close(),
            lambda: tracked.outcome(),
            lambda: events.get("d"),
        ):
            with pytest.raises(whimbrel.Closed, match="forked; make a new one"):
                use()
        options = {**offline, "outbox": tmp_path / "of-the-child"}
        with whimbrel.sync.DeviceClient.open(CONNECTION_STRING, **options) as fresh:
            assert fresh.send(b"x").state().state == "queued"

        async def again() -> None:
            async with whimbrel.DeviceClient.open(CONNECTION_STRING, **options) as fresh:
                assert (await fresh.send(b"x")).state().state == "queued"
                with pytest.raises(whimbrel.Closed):
                    await whimbrel.DeviceClient(device._native).send(b"x")

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            asyncio.run(again())
            gc.collect()

    assert in_child(child) == 0
    # A child of a child, and the parent as before.
    assert in_child(lambda: None if in_child(child) == 0 else sys.exit(1)) == 0
    assert device.send(b"z").state().state == "queued" and device.account().accepted == 102
    device.close()
    service.close()


def test_a_fork_in_a_running_loop(offline: Options, tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        async with whimbrel.DeviceClient.open(CONNECTION_STRING, **offline) as device:
            await device.send(b"x")
            waiting = asyncio.create_task(device.inbox().next())
            await asyncio.sleep(0)

            def child() -> None:
                async def fresh() -> None:
                    options = {**offline, "outbox": tmp_path / "of-the-child"}
                    async with whimbrel.DeviceClient.open(CONNECTION_STRING, **options) as device:
                        await device.send(b"x")

                asyncio.events._set_running_loop(None)
                asyncio.run(fresh())

            assert in_child(child) == 0
            await device.send(b"y")
            waiting.cancel()

    asyncio.run(main())


def test_a_child_does_not_keep_the_folder(offline: Options) -> None:
    """A child that sleeps has the files of its parent, also the one with the lock."""
    device = whimbrel.sync.DeviceClient.open(CONNECTION_STRING, **offline)
    device.send(b"x")
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        device.close()
        with whimbrel.sync.DeviceClient.open(CONNECTION_STRING, **offline) as again:
            assert again.account().queued == 1
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


PROLOGUE = f"""
import asyncio, logging, os, signal, sys, threading
from datetime import timedelta
import whimbrel, whimbrel.sync
CS = {CONNECTION_STRING!r}
OPTIONS = dict(outbox_in_memory=True, server="mqtt://127.0.0.1:9", close_deadline=timedelta(0))
"""


def run(program: str, *flags: str, **more: Any) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *flags, "-c", PROLOGUE + program]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **more)


@pytest.mark.parametrize("wait", ["device.inbox().next()", "receipt.outcome()", "device.flush(timedelta(days=1))"])
def test_ctrl_c_ends_waiting(wait: str) -> None:
    done = run(
        f"""
device = whimbrel.sync.DeviceClient.open(CS, **OPTIONS)
receipt = device.send(b"x")
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    {wait}
except KeyboardInterrupt:
    print("interrupted")
device.send(b"y")
device.close()
"""
    )
    assert (done.stdout, done.stderr, done.returncode) == ("interrupted\n", "", 0)


def test_a_signal_handler_that_returns_does_not_end_waiting() -> None:
    done = run(
        """
device = whimbrel.sync.DeviceClient.open(CS, **OPTIONS)
signal.signal(signal.SIGINT, lambda *_: print("handled"))
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    device.inbox().next(timeout=timedelta(seconds=1))
except whimbrel.DeliveryTimeout:
    print("timeout")
device.close()
"""
    )
    assert (done.stdout, done.stderr, done.returncode) == ("handled\ntimeout\n", "", 0)


@pytest.mark.parametrize(
    "end",
    [
        "pass",
        "sys.exit(0)",
        "threading.Thread(target=device.inbox().next, daemon=True).start()",
        "logging.basicConfig(level=1, stream=sys.stdout)",
    ],
)
def test_the_interpreter_ends_with_an_open_client(end: str) -> None:
    done = run(
        f"""
device = whimbrel.sync.DeviceClient.open(CS, **OPTIONS)
receipts = [device.send(b"x") for _ in range(100)]
many = device.send_many([b"x"] * 1000)
{end}
""",
        "-W",
        "ignore",
    )
    assert (done.stderr, done.returncode) == ("", 0)


def test_the_interpreter_ends_in_the_middle_of_a_loop() -> None:
    done = run(
        """
async def main():
    device = await whimbrel.DeviceClient.open(CS, **OPTIONS)
    for _ in range(1000):
        asyncio.ensure_future(device.send(b"x"))
    asyncio.ensure_future(device.inbox().next())
    await asyncio.sleep(0)
    os._exit(0) if len(sys.argv) > 1 else None
    raise SystemExit(0)
asyncio.run(main())
""",
        "-W",
        "ignore",
    )
    assert done.returncode == 0, done.stderr


def test_the_asyncio_repl() -> None:
    lines = f"""
import whimbrel
from datetime import timedelta
device = await whimbrel.DeviceClient.open({CONNECTION_STRING!r}, outbox_in_memory=True, server="mqtt://127.0.0.1:9", close_deadline=timedelta(0))
receipt = await device.send(b"x")
print("state", receipt.state().state)
await device.close()
exit()
"""
    done = subprocess.run(
        [sys.executable, "-m", "asyncio"], input=lines, capture_output=True, text=True, timeout=120
    )
    assert "state queued" in done.stdout, done.stdout + done.stderr
    assert "Error" not in done.stderr, done.stderr


def test_a_client_that_was_never_closed_is_warned_about(offline: Options) -> None:
    device = whimbrel.sync.DeviceClient.open(CONNECTION_STRING, **offline)
    device.send(b"x")
    with pytest.warns(ResourceWarning, match="unclosed <whimbrel device client"):
        del device
        gc.collect()
    service = whimbrel.sync.ServiceClient.connect("HostName=h;SharedAccessKeyName=s;SharedAccessKey=c2VjcmV0")
    with pytest.warns(ResourceWarning, match="unclosed <whimbrel service client"):
        del service
        gc.collect()
    # It closes in the background, and the folder is free then.
    deadline = time.monotonic() + 60
    while True:
        try:
            with whimbrel.sync.DeviceClient.open(CONNECTION_STRING, **offline) as again:
                assert again.account().queued == 1
            break
        except whimbrel.InUse:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_logs_come_behind_a_fork(offline: Options, tmp_path: pathlib.Path) -> None:
    with whimbrel.sync.DeviceClient.open(CONNECTION_STRING, **offline):
        pass

    def child() -> None:
        import logging

        seen = []

        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                seen.append(record.getMessage())

        logger = logging.getLogger("whimbrel")
        logger.addHandler(Handler())
        logger.setLevel(logging.INFO)
        options = {**offline, "outbox": tmp_path / "of-the-child"}
        with whimbrel.sync.DeviceClient.open(CONNECTION_STRING, **options):
            pass
        deadline = time.monotonic() + 30
        while not any("outbox open" in message for message in seen):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    assert in_child(child) == 0
