"""Runs the C examples against a real hub, and judges what the hub saw. Started by `cargo xtask test --part c`.

The last line is `N passed, N failed`. `--measure SECONDS` runs the firmware only, for longer, while its network is cut and restored.
"""

import argparse
import json
import os
import pathlib
import queue
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "bindings-c" / "tests"))
from hub import Hub  # noqa: E402

LIMIT = 180
NAMES = ["send_telemetry", "survive_outage", "alerts_first", "receive_commands", "gateway", "firmware"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=pathlib.Path, required=True, help="folder with the compiled examples")
    parser.add_argument("--whimbrel", required=True, help="the command whimbrel")
    parser.add_argument("--cuts", type=int, default=6, help="how often the firmware's power is cut")
    parser.add_argument("--measure", type=int, metavar="SECONDS")
    parser.add_argument("--only", choices=NAMES)
    given = parser.parse_args()
    assert sorted(file.stem for file in HERE.glob("*.c")) == sorted(NAMES), "the list of examples is not complete"
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="whimbrel-examples-") as folder:
        folder = pathlib.Path(folder)
        with Hub(given.whimbrel, folder / "hub") as hub:
            if given.measure:
                measure(Example(given, hub, folder, "firmware"), given.measure)
                return
            for name in NAMES:
                if given.only and name != given.only:
                    continue
                started = time.monotonic()
                try:
                    globals()[name](Example(given, hub, folder, name))
                    passed += 1
                    print(f"ok: {name} ({time.monotonic() - started:.1f} s)", flush=True)
                except (AssertionError, subprocess.TimeoutExpired) as problem:
                    failed += 1
                    print(f"failed: {name}\n{problem}", flush=True)
                    hub.stop()
                    hub.start()
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


class Example:
    """A program with a device and an outbox of its own."""

    def __init__(self, given, hub, folder, name):
        self.given, self.hub, self.name = given, hub, name
        self._program = given.programs / name
        self._environment = {
            **os.environ,
            "WHIMBREL_CONNECTION_STRING": hub.add(name),
            "WHIMBREL_SERVER": hub.server,
            "WHIMBREL_OUTBOX": str(folder / f"{name}-outbox"),
        }

    def start(self, *arguments, server=None):
        environment = {**self._environment, **({"WHIMBREL_SERVER": server} if server else {})}
        return Running([str(self._program), *map(str, arguments)], environment)

    def run(self, *arguments, **how):
        return self.start(*arguments, **how).good_end()


class Running:
    """A program whose lines are read as they come."""

    def __init__(self, command, environment):
        self.lines = []
        self._news = queue.Queue()
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            if not line.endswith("\n"):
                # Cut by a kill.
                break
            self.lines.append(line.rstrip("\n"))
            self._news.put(line.rstrip("\n"))
        self._news.put(None)

    def wait_for(self, text):
        while True:
            line = self._news.get(timeout=LIMIT)
            assert line is not None, f"it ended without saying {text!r}: {self.lines} {self._process.stderr.read()}"
            if text in line:
                return

    def kill(self):
        assert self._process.poll() is None, f"it ended by itself: {self.lines[-5:]} {self._process.stderr.read()}"
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def good_end(self):
        code = self._process.wait(timeout=LIMIT)
        self._reader.join()
        errors = self._process.stderr.read()
        assert code == 0 and not errors, f"it ended with {code}: {self.lines[-20:]} {errors}"
        return self.lines


def send_telemetry(example):
    lines = example.run()
    assert lines[-1].startswith("stored in partition"), lines
    (event,) = example.hub.events(example.name)
    assert body(event) == '{"t":21.5}' and event["properties"]["room"] == "attic", event


def survive_outage(example):
    example.hub.stop()
    running = example.start()
    running.wait_for("waiting for the hub")
    example.hub.start()
    lines = running.good_end()
    assert lines[-1] == "accepted 500 = delivered 500 + queued 0", lines
    assert [int(body(event)) for event in example.hub.events(example.name)] == list(range(500))


def alerts_first(example):
    example.hub.stop()
    running = example.start()
    running.wait_for("waiting for the hub")
    example.hub.start()
    running.good_end()
    bodies = [body(event) for event in example.hub.events(example.name)]
    assert bodies == ["overheat", *map(str, range(1000))], bodies[:5]


def receive_commands(example):
    for what in ("open", "sing"):
        example.hub.do("command", "send", example.name, what, "--id", what)
    lines = example.run()
    assert lines == ["the device is asked to open", "the device is asked to sing"], lines
    for what, outcome in (("open", '"Success"'), ("sing", '"Rejected"')):
        limit = time.monotonic() + 60
        while outcome not in (told := example.hub.do("command", "outcome", example.name, what, "--json")):
            assert time.monotonic() < limit, told
            time.sleep(0.05)


def gateway(example):
    running = example.start(20_000)
    example.hub.do("command", "send", example.name, "blink")
    lines = running.good_end()
    assert lines[-1].startswith("20000 messages sent, 20000 stored, 0 left"), lines
    assert len(example.hub.events(example.name)) == 20_000
    # And one that never ends by itself.
    running = example.start(1_000_000_000)
    example.hub.do("command", "send", example.name, "stop")
    lines = running.good_end()
    assert "command: stop" in lines, lines


def firmware(example):
    """Power is cut again and again; what was said to be stored is at the hub, once, and in order."""
    chance = random.Random(7)
    stored = []
    for life in range(example.given.cuts):
        link = Link(example.hub)
        running = example.start(life, 60, server=link.server)
        running.wait_for("stored")
        time.sleep(chance.uniform(0, 0.4))
        if life % 2:
            link.cut()
            time.sleep(chance.uniform(0, 0.2))
        running.kill()
        link.close()
        stored += [tuple(map(int, line.split()[1:])) for line in running.lines if line.startswith("stored ")]
    lines = example.run(example.given.cuts, 3)
    show(lines)
    stored += [tuple(map(int, line.split()[1:])) for line in lines if line.startswith("stored ")]
    account = dict(zip(*[iter(example.run("drain")[-1].split())] * 2))
    ended = sum(int(account[name]) for name in ("delivered", "expired", "dropped", "rejected", "queued"))
    assert int(account["accepted"]) == ended and account["queued"] == "0", account
    arrived = [json.loads(body(event)) for event in example.hub.events(example.name)]
    arrived = [(event["life"], event["n"]) for event in arrived]
    alarms = [sample for sample in arrived if sample[1] % 50 == 0]
    missing = sorted(set(stored) - set(alarms))
    assert stored and not missing, f"said to be stored, and never seen by the hub: {missing[:10]}"
    assert alarms == sorted(set(alarms)), "alarms came twice, or out of order"
    readings = [sample for sample in arrived if sample[1] % 50]
    assert readings == sorted(set(readings)), "readings came twice, or out of order"
    # A reading is sent before the interval is over that puts it on the disk: the hub may have some that a power cut took from the device.
    assert len(arrived) >= int(account["delivered"]), (len(arrived), account)
    print(f"  power was cut {example.given.cuts} times; {len(stored)} alarms stored, {len(arrived)} samples at the hub", flush=True)


def measure(example, seconds):
    """What each call took, while the network is cut and restored every second."""
    link = Link(example.hub)
    running = example.start(0, seconds, server=link.server)
    running.wait_for("sampling")
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        time.sleep(1)
        link.cut()
        time.sleep(1)
        link.restore()
    show(running.good_end())
    link.close()


def show(lines):
    for line in lines:
        if not line.startswith("stored "):
            print(f"  {line}", flush=True)


def body(event):
    """As text, however the command shows it."""
    shown = event["body"]
    return json.dumps(shown["json"], separators=(",", ":")) if "json" in shown else shown["text"]


class Link:
    """A way to the hub that can be cut."""

    def __init__(self, hub):
        host, port = hub.server.rsplit("/", 1)[-1].rsplit(":", 1)
        self._hub, self._is_cut, self._open = (host, int(port)), False, []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.server = f"mqtt://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        self._is_cut = True
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            connection.close()
        self._open = []

    def restore(self):
        self._is_cut = False

    def close(self):
        self.cut()
        self._listener.close()

    def _accept(self):
        while True:
            try:
                device, _ = self._listener.accept()
                if self._is_cut:
                    device.close()
                    continue
                hub = socket.create_connection(self._hub)
            except OSError:
                return
            self._open += [device, hub]
            for here, there in ((device, hub), (hub, device)):
                threading.Thread(target=self._pass, args=(here, there), daemon=True).start()

    @staticmethod
    def _pass(here, there):
        try:
            while data := here.recv(65536):
                there.sendall(data)
            there.shutdown(socket.SHUT_WR)
        except OSError:
            pass


if __name__ == "__main__":
    main()
