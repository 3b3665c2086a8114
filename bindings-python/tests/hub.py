"""A hub of its own for the tests: the `whimbrel` command as a child process, with its data in a temporary folder."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from datetime import timedelta
from typing import Any, Dict, List, Optional

BINARY = os.environ.get("WHIMBREL_BINARY") or str(
    pathlib.Path(os.environ.get("CARGO_TARGET_DIR", pathlib.Path(__file__).parents[2] / "target")) / "debug" / "whimbrel"
)


class Hub:
    """Started at once; stopped by `stop`, and started again on the same ports by `start`."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._addresses = {name: "127.0.0.1:0" for name in ("mqtt", "amqp", "http")}
        self.start()

    def start(self) -> None:
        data = self._folder / "data"
        file = data / "service.json"
        file.unlink(missing_ok=True)
        command = [BINARY, "hub", "--data", str(data), "--mqtts", "off", "--amqps", "off", "--https", "off"]
        for name, address in self._addresses.items():
            command += [f"--{name}", address]
        self._log = open(self._folder / "hub.log", "a")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 60
        while True:
            assert self._process.poll() is None, (self._folder / "hub.log").read_text()[-2000:]
            try:
                self._service: Dict[str, Any] = json.loads(file.read_text())
                break
            except (FileNotFoundError, json.JSONDecodeError):
                assert time.monotonic() < deadline, "the hub did not start"
                time.sleep(0.02)
        for name in self._addresses:
            self._addresses[name] = str(self._service[name]).split("//")[-1]

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        code = self._process.wait(60)
        self._log.close()
        assert code == 0, (self._folder / "hub.log").read_text()[-2000:]

    def device_options(self, protocol: str = "mqtt") -> Dict[str, Any]:
        return {"server": f"{protocol}://{self._addresses[protocol]}"}

    def service_options(self) -> Dict[str, Any]:
        # A slow machine is no reason to fail.
        patience = {"connect_timeout": timedelta(seconds=20), "send_timeout": timedelta(minutes=1)}
        amqp, http = self._addresses["amqp"], self._addresses["http"]
        return {"server": f"amqp://{amqp}", "http_server": f"http://{http}", **patience}

    @property
    def service_connection_string(self) -> str:
        return str(self._service["connection_string"])

    def create_device(self, device: str, authentication: Optional[Dict[str, Any]] = None) -> str:
        """Creates a device; gives its connection string."""
        wanted = {"authentication": authentication} if authentication else {}
        path = f"/v1/devices/{urllib.parse.quote(device)}"
        return str(self._request("PUT", path, wanted)["connection_string"])

    def events(self, device: str) -> List[Dict[str, Any]]:
        """All stored events of a device."""
        url = f"/v1/events?device={urllib.parse.quote(device)}&body=text"
        text = self._ask("GET", url, None)
        return [json.loads(line) for line in text.splitlines() if line.strip()]

    def _request(self, method: str, path: str, document: Any) -> Any:
        return json.loads(self._ask(method, path, document) or "{}")

    def _ask(self, method: str, path: str, document: Any) -> str:
        parts = dict(part.split("=", 1) for part in self.service_connection_string.split(";"))
        bearer = f"Bearer {parts['SharedAccessKeyName']}:{parts['SharedAccessKey']}"
        body = None if document is None else json.dumps(document).encode()
        headers = {"Authorization": bearer, "Content-Type": "application/json"}
        request = urllib.request.Request(f"http://{self._addresses['http']}{path}", body, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return str(answer.read().decode())
