"""A hub as a child process, and what a test asks of it."""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request


class Hub:
    """`whimbrel hub` with a fresh data folder, on ports of a loopback address of its own.

    azure-iot-device knows port 8883 (and 443 for WebSockets) and no other, azure-eventhub only 5671, so the address makes
    room for them: on Linux all of 127.0.0.0/8 is this machine.
    """

    def __init__(self, whimbrel, folder):
        self.folder = pathlib.Path(folder)
        self.address = _free_address()
        self.has_443 = _can_listen(self.address, 443)
        listeners = {"mqtt": 0, "mqtts": 8883, "amqp": 0, "amqps": 5671, "http": 0, "https": 443 if self.has_443 else 0}
        command = [whimbrel, "hub", "--data", str(self.folder / "data"), "--host-name", self.address]
        for name, port in listeners.items():
            command += [f"--{name}", f"{self.address}:{port}"]
        self._log = open(self.folder / "hub.log", "w")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)
        self._service = self._wait_for_service()
        parts = dict(part.split("=", 1) for part in self._service["connection_string"].split(";"))
        self._policy = f"SharedAccessKeyName={parts['SharedAccessKeyName']};SharedAccessKey={parts['SharedAccessKey']}"
        self._bearer = f"Bearer {parts['SharedAccessKeyName']}:{parts['SharedAccessKey']}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.send_signal(signal.SIGINT)
        try:
            code = self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise AssertionError("the hub did not stop within 30 s")
        finally:
            self._log.close()
        assert code == 0, f"the hub ended with {code}: {self.log()}"

    def log(self):
        """What the hub printed."""
        return (self.folder / "hub.log").read_text()[-2000:]

    def port(self, listener):
        """Port of `mqtt`, `mqtts`, `http` or `https`."""
        return int(str(self._service[listener]).rsplit(":", 1)[1])

    @property
    def ca(self):
        """The certificate to trust."""
        return self._service["ca"]

    @property
    def event_hub(self):
        """Name of the event log: the hub's own name is an address, which has no labels."""
        return "events"

    @property
    def event_hubs(self):
        """Connection string for programs that read events."""
        return f"Endpoint=sb://{self.address}/;{self._policy};EntityPath={self.event_hub}"

    def add_device(self, device, authentication=None):
        """Creates a device; gives its connection string."""
        wanted = {"authentication": authentication} if authentication else {}
        return self._request("PUT", f"/v1/devices/{device}", wanted).get("connection_string")

    def knows_command(self, device, message_id):
        """Whether the hub has taken this command in."""
        try:
            return bool(self.command(device, message_id))
        except AssertionError:
            return False

    @property
    def service(self):
        """Connection string for back ends."""
        return self._service["connection_string"]

    def send_command(self, device, body, message_id, **more):
        """Puts a command into the queue of a device."""
        document = {"body": {"text": body}, "message_id": message_id} | more
        path = f"/v1/devices/{urllib.parse.quote(device)}/commands"
        return self._request("POST", path, document, content_type="application/vnd.whimbrel.command+json")

    def command(self, device, message_id):
        """Where a command is, or how it ended."""
        quote = urllib.parse.quote
        return self._request("GET", f"/v1/devices/{quote(device)}/commands/{quote(message_id, safe='')}")

    def events(self, device):
        """All stored events of a device: the order of arrival, bodies as bytes."""
        return self._events(f"device={urllib.parse.quote(device)}")

    def events_of_partition(self, partition):
        """All stored events of a partition, in the same form."""
        return self._events(f"partition={partition}")

    def _events(self, which):
        text = self._request("GET", f"/v1/events?{which}&body=base64", raw=True)
        events = [json.loads(line) for line in text.splitlines() if line.strip()]
        for event in events:
            event["body"] = base64.b64decode(event["body"]["base64"])
        return events

    def _request(self, method, path, document=None, raw=False, content_type="application/json"):
        url = f"http://{self.address}:{self.port('http')}{path}"
        headers = {"Authorization": self._bearer, "Content-Type": content_type}
        body = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(url, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()}") from error
        return text if raw else json.loads(text or "{}")

    def _wait_for_service(self):
        file = self.folder / "data" / "service.json"
        deadline = time.monotonic() + 60
        while True:
            if self._process.poll() is not None:
                raise AssertionError(f"the hub ended at once: {self.log()}")
            try:
                return json.loads(file.read_text())
            except (FileNotFoundError, json.JSONDecodeError):
                assert time.monotonic() < deadline, f"the hub did not start: {self.log()}"
                time.sleep(0.05)


def token(connection_string, lifetime=3600):
    """A SAS token for a device, and the device id it is for."""
    parts = dict(part.split("=", 1) for part in connection_string.split(";"))
    resource = urllib.parse.quote(f"{parts['HostName']}/devices/{parts['DeviceId']}", safe="")
    expiry = int(time.time()) + lifetime
    signed = f"{resource}\n{expiry}".encode()
    key = base64.b64decode(parts["SharedAccessKey"])
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
    signature = urllib.parse.quote(signature, safe="")
    return f"SharedAccessSignature sr={resource}&sig={signature}&se={expiry}"


def _can_listen(address, port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            return True
        except OSError:
            return False


def _free_address():
    for _ in range(20):
        address = f"127.{random.randint(2, 250)}.{random.randint(0, 250)}.{random.randint(2, 250)}"
        if _can_listen(address, 8883):
            return address
    return "127.0.0.1"
