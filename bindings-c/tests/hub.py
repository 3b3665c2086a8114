"""A hub for the C tests and examples: `whimbrel hub` on free ports of this machine."""

import json
import subprocess
import time


class Hub:
    """Ends with this process. `stop` and `start` keep ports and data."""

    def __init__(self, whimbrel, folder):
        self._whimbrel, self._data = whimbrel, folder
        self._ports = dict.fromkeys(("mqtt", "amqp", "http"), "127.0.0.1:0")
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def server(self):
        return f"mqtt://{self._ports['mqtt']}"

    def start(self):
        listeners = [f"--{name}={address}" for name, address in self._ports.items()]
        off = [f"--{name}=off" for name in ("mqtts", "amqps", "https")]
        file = self._data / "service.json"
        # That of an earlier start tells nothing of this one.
        file.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [self._whimbrel, "hub", "--while-stdin", "--data", self._data, *listeners, *off],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        limit = time.monotonic() + 60
        while True:
            assert self._process.poll() is None and time.monotonic() < limit, "the hub did not start"
            try:
                told = json.loads(file.read_text())
                self._ports = {name: told[name].rsplit("/", 1)[-1] for name in self._ports}
                return
            except (OSError, ValueError):
                time.sleep(0.02)

    def stop(self):
        if self._process.poll() is None:
            self._process.communicate(timeout=60)

    def add(self, device):
        """Its connection string."""
        return json.loads(self.do("device", "add", device, "--json"))["connection_string"]

    def command(self, device, number):
        """One that tests expect, with everything that it can have."""
        what = ["--id", f"c-{number}", "--correlation-id", f"of-{number}", "--content-type", "text/plain"]
        what += ["--content-encoding", "utf-8", "-p", "room=attic", "-p", "floor=2"]
        self.do("command", "send", device, f"do {number}", *what)

    def events(self, device):
        """All that there are of it, oldest first."""
        return [json.loads(line) for line in self.do("monitor", "--device", device, "--json").splitlines()]

    def do(self, *words):
        """What the command prints."""
        command = [self._whimbrel, *words, "--data", str(self._data)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout
