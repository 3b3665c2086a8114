"""A hub for a test, in one line. It is the `whimbrel` command (`pip install whimbrel-hub`) as a process of its own.

    with LocalHub() as hub:
        device = await whimbrel.DeviceClient.open(hub.create_device("thermostat-1"), **hub.device_options())

In pytest the fixtures `whimbrel_hub` (one for each test) and `whimbrel_session_hub` (one for all) give one that runs.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import typing
import urllib.parse
import weakref
from collections.abc import Iterator, Mapping
from datetime import timedelta

__all__ = ["DeviceWay", "LocalHub", "ServiceWay", "find_program"]

_LISTENERS = ("mqtt", "mqtts", "amqp", "amqps", "http", "https")
# They say what hub there is to be, and that is for this module to say.
_FOREIGN = ("WHIMBREL_HUB_", "WHIMBREL_DATA")
_REQUEST_TIMEOUT = 30.0


class _Way(typing.TypedDict):
    server: str


class DeviceWay(_Way, total=False):
    """Keyword options of `DeviceClient.open` that lead to a hub on this machine."""

    ca_file: str


class ServiceWay(_Way):
    """Keyword options of `ServiceClient.connect` that lead to a hub on this machine."""

    http_server: str


class LocalHub:
    """A hub on free ports of this machine, for tests. `with` and `async with` start it and close it at the end.

    `folder` is where its data is kept; without one it is a temporary folder that goes when this is closed. `settings` are those of
    a hub by their names in `hub.toml` (`whimbrel hub --print-config` prints them), such as `{"command-lock": "1s"}`. `program` is
    the `whimbrel` command, by default what `find_program` finds. `start_timeout` is how long a start may take.

    The hub ends with the process that started it, also when that is killed. One object may be used by several threads.
    """

    def __init__(
        self,
        *,
        folder: str | os.PathLike[str] | None = None,
        settings: Mapping[str, str | int | bool] | None = None,
        program: str | os.PathLike[str] | None = None,
        start_timeout: timedelta = timedelta(seconds=60),
    ) -> None:
        self._program = None if program is None else os.fspath(program)
        self._settings = dict(settings or {})
        for name in ("data", "memory"):
            if name in self._settings:
                raise ValueError(f"the setting {name} is not for a LocalHub: it finds its hub by the data folder (see folder)")
        self._start_timeout = start_timeout.total_seconds()
        self._ports: dict[str, str] = {}
        self._service: dict[str, typing.Any] = {}
        # For the whole of a start or stop: they follow one another.
        self._lock = threading.RLock()
        self._own = _Own(None if folder is None else pathlib.Path(folder).absolute())
        self._release = weakref.finalize(self, self._own.release)

    def start(self) -> LocalHub:
        """Starts the hub and returns when it listens; after `stop` or `kill` with the same ports and data. Nothing when it runs.

        Blocks, 0.1 s or so. Raises `FileNotFoundError` when there is no `whimbrel` command, `RuntimeError` with what the hub printed
        when it ends instead of listening, `TimeoutError` after `start_timeout`.
        """
        with self._lock:
            if self.running:
                return self
            if not self._release.alive:
                raise RuntimeError("this LocalHub is closed: make a new one")
            data = self._own.prepare()
            command = [self._program or find_program(), "hub", "--while-stdin", "--data", str(data)]
            listeners = {name: self._ports.get(name, "127.0.0.1:0") for name in _LISTENERS}
            for name, value in {**listeners, **self._settings}.items():
                command.append(f"--{name}={_text(value)}")
            environment = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
            with open(self._own.log, "ab") as log:
                process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment
                )
            self._own.process = process
            try:
                self._service = self._wait(process, data)
            except BaseException:
                self._own.end()
                raise
            for name in _LISTENERS:
                address = self._service.get(name)
                self._ports[name] = "off" if address is None else address.rsplit("/", 1)[-1]
            return self

    def stop(self) -> None:
        """Stops the hub as an operator would, and returns when it has ended; `start` starts it again. Nothing when it does not run.

        Connections may finish what they began (setting `stop-timeout`). Raises `RuntimeError` when the hub ended with an error.
        """
        with self._lock:
            process = self._own.process
            if process is None or process.poll() is not None:
                return
            if sys.platform == "win32":
                # No signal there means "stop"; the end of the input does.
                assert process.stdin is not None
                process.stdin.close()
            else:
                process.terminate()
            try:
                code = process.wait(60)
            except subprocess.TimeoutExpired:
                self._own.end()
                raise TimeoutError(f"the hub did not stop within a minute\n{self.log}") from None
            self._own.end()
            if code != 0:
                raise RuntimeError(f"the hub ended with {code}\n{self.log}")

    def kill(self) -> None:
        """Ends the hub with no warning, as a power cut would (SIGKILL); `start` starts it again. What it acknowledged it has."""
        with self._lock:
            self._own.end()

    def close(self) -> None:
        """Ends the hub for good, and deletes its data if the folder is a temporary one."""
        with self._lock:
            try:
                if self._release.alive:
                    self.stop()
            finally:
                self._release()

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        process = self._own.process
        return process is not None and process.poll() is None

    @property
    def pid(self) -> int | None:
        """Id of the process, when it runs."""
        process = self._own.process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def folder(self) -> pathlib.Path:
        """Where the data is. What is in it is the hub's."""
        if self._own.folder is None:
            raise RuntimeError("the hub was not started")
        return self._own.folder

    @property
    def log(self) -> str:
        """The end of what the hub printed; the variable WHIMBREL_LOG says how much that is, such as `debug`."""
        try:
            return self._own.log.read_text(errors="replace")[-4000:]
        except OSError:
            return ""

    @property
    def ca_file(self) -> str:
        """The certificate to trust, for the listeners with TLS."""
        return str(self._known("ca"))

    @property
    def service_connection_string(self) -> str:
        """Connection string of the policy that may do everything."""
        return str(self._known("connection_string"))

    def address(self, listener: str) -> str:
        """Where it listens, such as `127.0.0.1:41234`; `listener` is mqtt, mqtts, amqp, amqps, http or https."""
        if listener not in _LISTENERS:
            raise ValueError(f"there is no listener {listener}: they are {', '.join(_LISTENERS)}")
        return str(self._known(listener)).rsplit("/", 1)[-1]

    def device_options(self, listener: str = "mqtt") -> DeviceWay:
        """Keyword options of `DeviceClient.open` that lead to this hub: by MQTT without TLS, or by another listener."""
        way: DeviceWay = {"server": f"{listener}://{self.address(listener)}"}
        if listener.endswith("s"):
            way["ca_file"] = self.ca_file
        return way

    def service_options(self) -> ServiceWay:
        """Keyword options of `ServiceClient.connect` that lead to this hub, without TLS."""
        return {"server": f"amqp://{self.address('amqp')}", "http_server": f"http://{self.address('http')}"}

    def create_device(self, device_id: str) -> str:
        """Creates a device with keys made by the hub; gives its connection string. Blocks for a few milliseconds.

        Raises `RuntimeError` with what the hub says when it refuses (the device is there already, the id is no good), and an
        `OSError` when it does not run.
        """
        policy = dict(part.split("=", 1) for part in self.service_connection_string.split(";"))
        # The key itself, as the hub allows on its own machine.
        bearer = f"Bearer {policy['SharedAccessKeyName']}:{policy['SharedAccessKey']}"
        headers = {"Authorization": bearer, "Content-Type": "application/json"}
        path = f"/v1/devices/{urllib.parse.quote(device_id, safe='')}"
        connection = http.client.HTTPConnection(self.address("http"), timeout=_REQUEST_TIMEOUT)
        try:
            connection.request("PUT", path, b"{}", headers)
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        finally:
            connection.close()
        if not 200 <= answer.status < 300:
            raise RuntimeError(f"the hub did not create {device_id}: {answer.status} {_message(text)}")
        return str(json.loads(text)["connection_string"])

    def __enter__(self) -> LocalHub:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> LocalHub:
        try:
            return await asyncio.to_thread(self.start)
        except BaseException:
            # Also when cancelled: the thread goes on until the hub is there, and closing waits for that.
            await asyncio.to_thread(self.close)
            raise

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def __repr__(self) -> str:
        return f"<LocalHub {f'process {self.pid}' if self.running else 'not running'}>"

    def _known(self, name: str) -> typing.Any:
        if not self._service:
            raise RuntimeError("the hub was not started")
        value = self._service.get(name)
        if value is None:
            raise RuntimeError(f"this hub has no {name}: it is off by a setting")
        return value

    def _wait(self, process: subprocess.Popen[bytes], data: pathlib.Path) -> dict[str, typing.Any]:
        """The hub writes the file when it listens; one with another process id is of an earlier life."""
        deadline = time.monotonic() + self._start_timeout
        while True:
            code = process.poll()
            service = _read(data / "service.json")
            if service.get("pid") == process.pid:
                return service
            if code is not None:
                raise RuntimeError(f"the hub ended with {code} instead of starting\n{self.log}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the hub did not start within {self._start_timeout:g} s\n{self.log}")
            time.sleep(0.005)


class _Own:
    """What has to be released: apart from the hub object, so that it can be released when that is gone."""

    def __init__(self, folder: pathlib.Path | None) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self._temporary: pathlib.Path | None = None
        self._process_id = os.getpid()

    @property
    def log(self) -> pathlib.Path:
        """Where the hub's output goes."""
        return pathlib.Path() if self.folder is None else self.folder.with_name(f"{self.folder.name}.log")

    def prepare(self) -> pathlib.Path:
        """The data folder, made if need be."""
        if self.folder is None:
            self._temporary = pathlib.Path(tempfile.mkdtemp(prefix="whimbrel-hub-"))
            self.folder = self._temporary / "data"
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        return self.folder

    def end(self) -> None:
        """No process any more."""
        process, self.process = self.process, None
        if process is None:
            return
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()

    def release(self) -> None:
        """No process and no temporary folder any more. Not in a child by fork: they are its parent's."""
        if os.getpid() != self._process_id:
            return
        self.end()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)


def find_program() -> str:
    """The `whimbrel` command: the variable WHIMBREL_BINARY, else among the scripts of this Python, else in PATH.

    Raises `FileNotFoundError` that says how to get it.
    """
    told = os.environ.get("WHIMBREL_BINARY")
    if told:
        if not os.path.isfile(told):
            raise FileNotFoundError(f"WHIMBREL_BINARY is {told}, and there is no such file")
        return os.path.abspath(told)
    for folder in _script_folders():
        found = shutil.which("whimbrel", path=folder)
        if found:
            return found
    found = shutil.which("whimbrel")
    if found:
        return found
    raise FileNotFoundError("the whimbrel command is not here: pip install whimbrel-hub (or say where it is in WHIMBREL_BINARY)")


def _script_folders() -> Iterator[str]:
    yield sysconfig.get_path("scripts")
    user = "nt_user" if os.name == "nt" else "posix_user"
    if user in sysconfig.get_scheme_names():
        yield sysconfig.get_path("scripts", user)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read(path: pathlib.Path) -> dict[str, typing.Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text
