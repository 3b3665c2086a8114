"""Programs that know nothing of Whimbrel talk to its hub, unmodified: paho-mqtt, mosquitto_pub, and Azure's for Python and Node.

Each sends messages with properties, which are read back over HTTP and compared, or reads events, receives commands, sends
them, or manages devices. Prints one line for each test: `ok NAME`, `not ok NAME: why` or `skip NAME: why`. Ends with 1 when a
test failed.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse

import commands
from hub import Hub, token

HERE = pathlib.Path(__file__).parent
TIMEOUT = 120
HOSTILE = "a b/c&d=e?f%g+h#ü"


class Skipped(Exception):
    """Something this test needs is not there."""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--whimbrel", required=True)
    parser.add_argument("--mosquitto-pub")
    parser.add_argument("--node")
    parser.add_argument("--node-packages", type=pathlib.Path)
    parser.add_argument("names", nargs="*", help="run only these tests")
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory(prefix="whimbrel-peers-") as folder:
        with Hub(options.whimbrel, folder) as hub:
            bench = Bench(hub, pathlib.Path(folder), options)
            for name, test in TESTS.items():
                if options.names and name not in options.names:
                    continue
                try:
                    test(bench)
                    print(f"ok {name}", flush=True)
                except Skipped as why:
                    print(f"skip {name}: {why}", flush=True)
                except Exception as error:  # every failure is reported, and the next test runs
                    failed = True
                    print(f"not ok {name}: {' '.join(str(error).split())}", flush=True)
            if failed:
                print(hub.log())
    sys.exit(1 if failed else 0)


class Bench:
    """The hub, and how to run peers against it."""

    def __init__(self, hub, folder, options):
        self.hub = hub
        self.folder = folder
        self.mosquitto_pub = options.mosquitto_pub
        self._node, self._node_packages = options.node, options.node_packages
        self._devices = 0

    def device(self, authentication=None):
        """A new device: id and connection string."""
        self._devices += 1
        device = f"peer-{self._devices}"
        return device, self.hub.add_device(device, authentication)

    def run(self, script, task, paths=()):
        """Runs a peer's script with its task on stdin; gives what it printed."""
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(map(str, paths)))
        command = [sys.executable, str(HERE / script)]
        finished = subprocess.run(
            command, input=json.dumps(task), text=True, capture_output=True, timeout=TIMEOUT, env=environment
        )
        assert finished.returncode == 0, f"{script}: {finished.stderr[-1500:]}"
        return finished.stdout

    def start_node(self, script, task, trusting=False):
        """Starts a peer's script for Node with its task on stdin; `trusting` has all of TLS trust the hub's authority."""
        if not self._node:
            raise Skipped("node or its packages are not to be had")
        # Next to its packages, where node looks for them.
        place = self._node_packages / script
        shutil.copyfile(HERE / "node" / script, place)
        environment = dict(os.environ)
        if trusting:
            environment["NODE_EXTRA_CA_CERTS"] = self.hub.ca
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [self._node, str(place)], stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment
        )
        process.stdin.write(json.dumps(task))
        process.stdin.close()
        process.stdin = None
        return process

    def finish(self, process):
        """Waits until a script for Node has ended well; gives what it printed."""
        try:
            out, errors = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            out, errors = process.communicate()
            raise AssertionError(f"{process.args[1]} did not end: {out[-500:]} {errors[-1000:]}") from None
        assert process.returncode == 0, f"{process.args[1]}: {errors[-1500:]}"
        return out

    def run_node(self, script, task, trusting=False):
        """Runs a peer's script for Node to its end; gives what it printed."""
        return self.finish(self.start_node(script, task, trusting))

    def need_443(self, needed):
        """Skips the test where it needs port 443 and there is none."""
        if needed and not self.hub.has_443:
            raise Skipped("port 443 is not to be had on this machine")

    def paho(self, device, transport, **task):
        """Runs paho-mqtt 2 over `tcp`, `tls`, `ws` or `wss`."""
        listener = {"tcp": "mqtt", "tls": "mqtts", "ws": "http", "wss": "https"}[transport]
        task |= {"device": device, "host": self.hub.address, "port": self.hub.port(listener)}
        task["transport"] = "websockets" if transport.startswith("ws") else "tcp"
        if transport in ("tls", "wss"):
            task["ca"] = self.hub.ca
        self.run("paho_peer.py", task, [paho_2()])

    def user_name(self, device):
        """The user name of CONNECT."""
        return f"{self.hub.address}/{device}/?api-version=2021-04-12"

    def certificate(self, device):
        """A certificate a device made for itself: files of it and of its key, and its thumbprint."""
        openssl = shutil.which("openssl")
        if not openssl:
            raise Skipped("openssl is not installed")
        certificate, key = self.folder / f"{device}.pem", self.folder / f"{device}.key"
        subprocess.run(
            [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={device}"]
            + ["-keyout", str(key), "-out", str(certificate)],
            check=True,
            capture_output=True,
        )
        der = base64.b64decode("".join(certificate.read_text().split("-----")[2].split()))
        return str(certificate), str(key), hashlib.sha256(der).hexdigest()

    def expect(self, device, expected):
        """Compares the stored events of a device with (body, application properties, system properties)."""
        deadline = time.monotonic() + 30
        while True:
            events = self.hub.events(device)
            if len(events) >= len(expected) or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        stored = [(event["body"].decode(), event["properties"], given(event["system"])) for event in events]
        assert len(stored) == len(expected), f"{len(stored)} events are stored, not {len(expected)}"
        for number, (found, wanted) in enumerate(zip(stored, expected)):
            assert found == wanted, f"event {number} is {found}, not {wanted}"


def given(system):
    """The system properties a device set itself."""
    return {name: value for name, value in system.items() if name not in ("generation", "auth_method")}


def paho_2():
    """Folder with paho-mqtt 2 in it; azure-iot-device needs an older one in the environment itself."""
    wanted = (HERE / "requirements-paho.txt").read_text()
    folder = pathlib.Path(sys.prefix) / "paho-2"
    stamp = folder / "installed.txt"
    if not stamp.is_file() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            + ["--target", str(folder), "--no-deps", "-r", str(HERE / "requirements-paho.txt")],
            check=True,
            capture_output=True,
        )
        stamp.write_text(wanted)
    return folder


def bag(properties):
    """A property bag as it stands in a topic."""
    quote = lambda text: urllib.parse.quote(text, safe="")
    return "&".join(f"{quote(name)}={quote(value)}" for name, value in properties.items())


def topic_messages(device):
    """Publications with properties in the topic, and the events they become."""
    application = {"room": HOSTILE, "empty": ""}
    system = {"$.mid": "m-1", "$.cid": "c/1", "$.ct": "application/json", "$.ce": "utf-8"}
    topic = f"devices/{device}/messages/events/"
    messages = [
        {"topic": topic + bag(system | application), "body": '{"t":21.5}', "qos": 1},
        {"topic": topic, "body": "at most once", "qos": 0},
    ]
    messages += [{"topic": f"{topic}n={n}", "body": str(n), "qos": 1} for n in range(500)]
    named = {"message_id": "m-1", "correlation_id": "c/1", "content_type": "application/json", "content_encoding": "utf-8"}
    expected = [('{"t":21.5}', application, named), ("at most once", {}, {})]
    expected += [(str(n), {"n": str(n)}, {}) for n in range(500)]
    return messages, expected


def telemetry_messages():
    """Publications with properties of MQTT 5, and the events they become."""
    user = [["message-id", "m-1"], ["content-encoding", "utf-8"], ["@room", HOSTILE], ["@empty", ""]]
    first = {"body": "{}", "qos": 1, "content_type": "application/json", "user_properties": user}
    messages = [first] + [{"body": str(n), "qos": 1, "user_properties": []} for n in range(500)]
    for message in messages:
        message["topic"] = "$iothub/telemetry"
    named = {"message_id": "m-1", "content_type": "application/json", "content_encoding": "utf-8"}
    expected = [("{}", {"room": HOSTILE, "empty": ""}, named)] + [(str(n), {}, {}) for n in range(500)]
    return messages, expected


def paho_on(transport):
    """paho-mqtt, MQTT 3.1.1, SAS token as password."""

    def test(bench):
        device, connection = bench.device()
        messages, expected = topic_messages(device)
        bench.paho(
            device, transport, version=4, user_name=bench.user_name(device), password=token(connection), messages=messages
        )
        bench.expect(device, expected)

    return test


def paho_5(bench):
    """paho-mqtt, MQTT 5, SAS token as password."""
    device, connection = bench.device()
    messages, expected = telemetry_messages()
    bench.paho(
        device, "tls", version=5, user_name=bench.user_name(device), password=token(connection), messages=messages
    )
    bench.expect(device, expected)


def paho_5_enhanced(bench):
    """paho-mqtt, MQTT 5, authentication method SAS."""
    device, connection = bench.device()
    key = base64.b64decode(connection.split("SharedAccessKey=", 1)[1])
    expiry = str((int(time.time()) + 3600) * 1000)
    signed = f"{bench.hub.address}\n{device}\n\n\n{expiry}\n".encode()
    properties = [["api-version", "2020-10-01-preview"], ["host", bench.hub.address], ["sas-expiry", expiry]]
    signature = hmac.new(key, signed, hashlib.sha256).hexdigest()
    authentication = {"method": "SAS", "data": signature, "properties": properties}
    messages, expected = telemetry_messages()
    bench.paho(device, "tls", version=5, authentication=authentication, messages=messages)
    bench.expect(device, expected)


def paho_will(bench):
    """paho-mqtt that vanishes: its will becomes an event."""
    device, connection = bench.device()
    topic = f"devices/{device}/messages/events/"
    will = {"topic": topic + "last=yes", "body": "gone"}
    messages = [{"topic": topic, "body": "here", "qos": 1}]
    bench.paho(
        device,
        "tls",
        version=4,
        user_name=bench.user_name(device),
        password=token(connection),
        messages=messages,
        will=will,
    )
    bench.expect(device, [("here", {}, {}), ("gone", {"last": "yes", "iothub-MessageType": "Will"}, {})])


def paho_with_a_wrong_key(bench):
    """paho-mqtt with a token another key made."""
    device, connection = bench.device()
    guessed = connection.split("SharedAccessKey=", 1)[0] + "SharedAccessKey=" + base64.b64encode(b"guessed" * 4).decode()
    bench.paho(
        device,
        "tls",
        version=4,
        user_name=bench.user_name(device),
        password=token(guessed),
        messages=[],
        expect="refused",
    )


def paho_on_the_topic_of_another(bench):
    """paho-mqtt that publishes as somebody else."""
    victim, _ = bench.device()
    thief, connection = bench.device()
    bench.paho(
        thief,
        "tls",
        version=4,
        user_name=bench.user_name(thief),
        password=token(connection),
        messages=[{"topic": f"devices/{victim}/messages/events/", "body": "forged", "qos": 1}],
        expect="closed",
    )
    bench.expect(victim, [])
    bench.expect(thief, [])


def mosquitto(version):
    """mosquitto_pub, lines from stdin."""

    def test(bench):
        if not bench.mosquitto_pub:
            raise Skipped("mosquitto_pub is not installed")
        device, connection = bench.device()
        command = [bench.mosquitto_pub, "-V", version, "-h", bench.hub.address, "-p", str(bench.hub.port("mqtts"))]
        command += ["--cafile", bench.hub.ca, "-i", device, "-u", bench.user_name(device), "-P", token(connection)]
        command += ["-q", "1", "-l"]
        if version == "mqttv5":
            command += ["-t", "$iothub/telemetry", "-D", "publish", "user-property", "@room", HOSTILE]
            command += ["-D", "publish", "content-type", "text/plain"]
        else:
            command += ["-t", f"devices/{device}/messages/events/" + bag({"$.ct": "text/plain", "room": HOSTILE})]
        lines = [f"line {n}" for n in range(200)]
        finished = subprocess.run(command, input="\n".join(lines), text=True, capture_output=True, timeout=TIMEOUT)
        assert finished.returncode == 0, finished.stderr
        bench.expect(device, [(line, {"room": HOSTILE}, {"content_type": "text/plain"}) for line in lines])

    return test


def azure_messages():
    """What azure-iot-device is to send, and the events they become."""
    system = {"message_id": "m-1", "correlation_id": "c-1", "content_type": "application/json", "content_encoding": "utf-8"}
    messages = [{"body": '{"t":21.5}', "system": system, "properties": {"room": HOSTILE, "n": "1"}}]
    messages += [{"body": str(n), "system": {}, "properties": {}} for n in range(50)]
    expected = [('{"t":21.5}', {"room": HOSTILE, "n": "1"}, system)] + [(str(n), {}, {}) for n in range(50)]
    return messages, expected


def azure(transport):
    """azure-iot-device with a connection string."""

    def test(bench):
        bench.need_443(transport == "websockets")
        device, connection = bench.device()
        messages, expected = azure_messages()
        task = {"transport": transport, "ca": bench.hub.ca, "connection_string": connection, "messages": messages}
        bench.run("azure_peer.py", task)
        bench.expect(device, expected)

    return test


def azure_x509(bench):
    """azure-iot-device with a certificate."""
    certificate, key, thumbprint = bench.certificate("peer-x509")
    device, _ = bench.device({"type": "selfSigned", "primary_thumbprint": thumbprint})
    messages, expected = azure_messages()
    task = {"transport": "tcp", "ca": bench.hub.ca, "certificate": certificate, "key": key}
    bench.run("azure_peer.py", task | {"host": bench.hub.address, "device": device, "messages": messages})
    bench.expect(device, expected)


def azure_eventhub(bench):
    """azure-eventhub with an Event Hubs-compatible connection string."""
    device, connection = bench.device()
    messages, expected = azure_messages()
    task = {"transport": "tcp", "ca": bench.hub.ca, "connection_string": connection, "messages": messages}
    bench.run("azure_peer.py", task)
    partition = bench.hub.events(device)[0]["partition"]
    stored = bench.hub.events_of_partition(partition)
    task = {"ca": bench.hub.ca, "connection_string": bench.hub.event_hubs, "device": connection}
    seen = json.loads(bench.run("azure_eventhub_peer.py", task | {"partition": str(partition), "count": len(stored)}))
    last = stored[-1]
    assert seen["name"] == bench.hub.event_hub and seen["partitions"] == ["0", "1", "2", "3"], seen["partitions"]
    position = (seen["first_sequence"], seen["last_sequence"], seen["last_offset"], seen["is_empty"])
    assert position == (0, last["sequence"], last["offset"], False), position
    every = [(event["sequence"], event["offset"], event["device"], event["body"].encode()) for event in seen["all"]]
    wanted = [(event["sequence"], event["offset"], event["device"], event["body"]) for event in stored]
    assert every == wanted, f"{every[:3]} …, not {wanted[:3]} …"
    for event in seen["all"]:
        assert event["source"] == "Telemetry", event
        assert (event["last_sequence"], event["last_offset"]) == (last["sequence"], last["offset"]), event
    mine = [event for event in seen["all"] if event["device"] == device]
    for event, (body, properties, system) in zip(mine, expected, strict=True):
        found = {name: event[name] for name in system}
        assert (event["body"], event["properties"], found) == (body, properties, system), event
    middle = seen["all"][len(stored) // 2]["sequence"]
    first = {name: seen[name][0]["sequence"] for name in ("after_offset", "at_offset", "after_sequence", "alone")}
    wanted = {"after_offset": middle + 1, "at_offset": middle, "after_sequence": middle + 1, "alone": 0}
    assert first == wanted, f"{first}, not {wanted}"
    at = seen["all"][len(stored) // 2]["enqueued_at"]
    assert seen["at_time"][0]["enqueued_at"] == at and seen["at_time"][0]["sequence"] <= middle, seen["at_time"]
    late = seen["latest"][0]
    assert late["sequence"] > last["sequence"] and late["body"].startswith("late "), late


TESTS = {
    "paho_tcp": paho_on("tcp"),
    "paho_tls": paho_on("tls"),
    "paho_websocket": paho_on("ws"),
    "paho_secure_websocket": paho_on("wss"),
    "paho_mqtt5_password": paho_5,
    "paho_mqtt5_authentication_method": paho_5_enhanced,
    "paho_will": paho_will,
    "paho_with_a_wrong_key": paho_with_a_wrong_key,
    "paho_on_the_topic_of_another": paho_on_the_topic_of_another,
    "mosquitto_3_1_1": mosquitto("mqttv311"),
    "mosquitto_5": mosquitto("mqttv5"),
    "azure_iot_device": azure("tcp"),
    "azure_iot_device_websocket": azure("websockets"),
    "azure_iot_device_x509": azure_x509,
    **commands.TESTS,
    "azure_eventhub": azure_eventhub,
}

if __name__ == "__main__":
    main()
