"""`whimbrel.testing`: the hub that tests of programs start."""

from __future__ import annotations

import asyncio
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from datetime import timedelta
from typing import Callable

import pytest

import whimbrel
from whimbrel.testing import LocalHub, find_program

BACKOFF = (timedelta(milliseconds=10), timedelta(milliseconds=100))


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and that nobody has waited for does not."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


def until(met: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not met():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def listens(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_the_fixtures_give_hubs_that_run(whimbrel_hub: LocalHub, whimbrel_session_hub: LocalHub) -> None:
    assert whimbrel_hub.running and whimbrel_session_hub.running
    assert whimbrel_hub.pid != whimbrel_session_hub.pid
    for hub in (whimbrel_hub, whimbrel_session_hub):
        assert all(listens(hub.address(name)) for name in ("mqtt", "mqtts", "amqp", "amqps", "http", "https"))
        assert hub.create_device("d").startswith("HostName=localhost;DeviceId=d;SharedAccessKey=")


def test_ports_and_data_stay_over_stop_and_kill(tmp_path: pathlib.Path) -> None:
    with LocalHub(folder=tmp_path / "hub") as hub:
        hub.create_device("d")
        ways, pids = [(hub.device_options(), hub.device_options("mqtts"), hub.service_options())], [hub.pid]
        for end in (hub.stop, hub.kill):
            end()
            assert not hub.running and hub.pid is None and not listens(hub.address("mqtt"))
            end()  # Nothing happens.
            assert hub.start() is hub
            ways.append((hub.device_options(), hub.device_options("mqtts"), hub.service_options()))
            pids.append(hub.pid)
            with pytest.raises(RuntimeError, match="409"):
                hub.create_device("d")
        assert ways[0] == ways[1] == ways[2] and len(set(pids)) == 3
    assert (tmp_path / "hub" / "service.json").exists(), "a folder that was given is left"
    assert not hub.running
    with pytest.raises(RuntimeError, match="closed"):
        hub.start()


def test_async_with_starts_and_closes() -> None:
    async def main() -> None:
        async with LocalHub() as hub:
            pid, folder = hub.pid, hub.folder
            assert pid is not None and alive(pid)
        assert not alive(pid) and not folder.parent.exists()

    asyncio.run(main())


def test_a_cancelled_start_leaves_no_hub() -> None:
    async def main() -> None:
        hub = LocalHub()

        async def start() -> None:
            async with hub:
                raise AssertionError("it was cancelled before")

        task = asyncio.create_task(start())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not hub.running
        with pytest.raises(RuntimeError, match="closed"):
            hub.start()

    asyncio.run(main())


def test_a_hub_that_nobody_holds_ends() -> None:
    hub = LocalHub().start()
    pid, folder = hub.pid, hub.folder
    assert pid is not None
    del hub
    assert not alive(pid) and not folder.parent.exists()


CHILD = """
    import sys
    from whimbrel.testing import LocalHub
    hub = LocalHub().start()
    print(hub.pid, hub.folder, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["ends", "killed"])
def test_the_hub_ends_with_the_process_that_started_it(how: str) -> None:
    code = [sys.executable, "-c", textwrap.dedent(CHILD)]
    with subprocess.Popen(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        pid, folder = child.stdout.readline().split()
        assert alive(int(pid))
        if how == "killed":
            child.kill()
    until(lambda: not alive(int(pid)), "the hub is still there")
    temporary = pathlib.Path(folder).parent
    # Where the process was killed, nobody was left to delete the folder.
    assert temporary.exists() == (how == "killed")
    shutil.rmtree(temporary, ignore_errors=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_by_fork_does_not_end_it() -> None:
    code = """
        import os, sys
        from whimbrel.testing import LocalHub
        hub = LocalHub().start()
        child = os.fork()
        if child == 0:
            sys.exit()  # With everything that is done at exit.
        assert os.waitpid(child, 0)[1] == 0
        assert hub.running and hub.folder.exists()
        hub.create_device("d")
        hub.close()
        assert not hub.folder.exists()
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], check=True)


def test_settings_are_those_of_the_hub() -> None:
    with LocalHub(settings={"mqtts": "off", "partitions": 2, "command-count-lock-expiry": True}) as hub:
        hub.stop()
        hub.start()
        with pytest.raises(RuntimeError, match="mqtts"):
            hub.device_options("mqtts")
        with pytest.raises(ValueError, match="mqtt, mqtts"):
            hub.address("coap")
    with pytest.raises(RuntimeError, match="retension"):
        LocalHub(settings={"retension": "1d"}).start()
    with pytest.raises(ValueError, match="folder"):
        LocalHub(settings={"memory": True})


def test_variables_about_other_hubs_do_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("WHIMBREL_HUB_MQTT", "off")
    monkeypatch.setenv("WHIMBREL_DATA", str(tmp_path / "other"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with LocalHub() as hub:
        assert listens(hub.address("mqtt"))
        hub.create_device("a'b")
    assert not (tmp_path / "other").exists()


def test_where_the_program_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    for name in ("told", "scripts", "path"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "whimbrel").write_text("#!/bin/sh\nexit 7\n")
        (tmp_path / name / "whimbrel").chmod(0o755)
    monkeypatch.setattr("sysconfig.get_path", lambda *_: str(tmp_path / "scripts"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("WHIMBREL_BINARY", str(tmp_path / "told" / "whimbrel"))
    assert find_program() == str(tmp_path / "told" / "whimbrel")
    monkeypatch.delenv("WHIMBREL_BINARY")
    assert find_program() == str(tmp_path / "scripts" / "whimbrel")
    (tmp_path / "scripts" / "whimbrel").unlink()
    assert find_program() == str(tmp_path / "path" / "whimbrel")
    with pytest.raises(RuntimeError, match="ended with 7"):
        LocalHub().start()
    (tmp_path / "path" / "whimbrel").unlink()
    with pytest.raises(FileNotFoundError, match="pip install whimbrel-hub"):
        LocalHub().start()
    monkeypatch.setenv("WHIMBREL_BINARY", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        LocalHub().start()


def test_a_hub_that_does_not_get_ready_is_ended(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "whimbrel"
    program.write_text('#!/bin/sh\necho $$ > "$0.pid"\necho working\nexec sleep 600\n')
    program.chmod(0o755)
    hub = LocalHub(program=program, start_timeout=timedelta(seconds=1))
    with pytest.raises(TimeoutError, match="working"):
        hub.start()
    assert not hub.running and not alive(int(pathlib.Path(f"{program}.pid").read_text()))


def test_a_client_outlives_the_hub(whimbrel_hub: LocalHub, tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        secret = whimbrel_hub.create_device("pump")
        async with whimbrel.DeviceClient.open(
            secret, outbox=tmp_path / "outbox", backoff=BACKOFF, **whimbrel_hub.device_options()
        ) as device:
            await (await device.send(b"1")).outcome()
            whimbrel_hub.kill()
            receipt = await device.send(b"2")
            whimbrel_hub.start()
            outcome = await receipt.outcome()
            assert outcome.kind == "delivered" and outcome.sequence is not None
        async with whimbrel.DeviceClient.open(
            secret, outbox_in_memory=True, **whimbrel_hub.device_options("amqps")
        ) as device:
            assert (await (await device.send(b"3")).outcome()).kind == "delivered"

    asyncio.run(main())
