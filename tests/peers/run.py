"""Public MQTT clients against the hub: they know nothing of Whimbrel, and what they send has to be read back whole.

Prints one line per test: `ok NAME`, `not ok NAME: why` or `skip NAME: why`. Ends with 1 when one of them is not ok.
"""

import argparse
import base64
import contextlib
import hashlib
import hmac
import json
import pathlib
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

import paho.mqtt.client as mqtt
from azure.iot.device import IoTHubDeviceClient, Message

TIMEOUT = 30
# The only port azure-iot-device connects to.
AZURE_PORT = 8883


class Hub:
    """A hub process on a temporary folder."""

    def __init__(self, whimbrel, folder, mqtts_port):
        self.whimbrel, self.folder = whimbrel, folder
        listen = ["--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--https", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [whimbrel, "hub", "--data", folder, "--mqtts", f"127.0.0.1:{mqtts_port}", *listen],
            stdout=subprocess.DEVNULL,
        )
        self.service = self._wait_for_service_file()
        self.ca = self.service["ca"]

    def _wait_for_service_file(self):
        file, end = pathlib.Path(self.folder, "service.json"), time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError("the hub did not start")
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
                return json.loads(file.read_text())
            time.sleep(0.05)
        raise RuntimeError("the hub does not come up")

    def port(self, listener):
        return int(self.service[listener].rsplit(":", 1)[1])

    def add(self, device):
        """Makes a device; its connection string, in parts and as a whole."""
        output = subprocess.run(
            [self.whimbrel, "device", "add", device, "--data", self.folder],
            check=True, capture_output=True, text=True,
        ).stdout
        text = next(word for word in output.split() if word.startswith("HostName="))
        return dict(part.split("=", 1) for part in text.split(";")), text

    def events(self, device):
        """Everything the hub holds of a device."""
        output = subprocess.run(
            [self.whimbrel, "monitor", "--json", "--from", "beginning", "--device", device, "--data", self.folder],
            check=True, capture_output=True, text=True,
        ).stdout
        return [json.loads(line) for line in output.splitlines()]

    def stop(self):
        self.process.terminate()
        if self.process.wait(TIMEOUT) != 0:
            raise AssertionError(f"the hub ended with {self.process.returncode}")


def sas(parts, lifetime=3600):
    """A token as Azure's documentation describes it."""
    resource = urllib.parse.quote(f"{parts['HostName']}/devices/{parts['DeviceId']}", safe="")
    expiry = int(time.time()) + lifetime
    key = base64.b64decode(parts["SharedAccessKey"])
    signature = base64.b64encode(hmac.new(key, f"{resource}\n{expiry}".encode(), hashlib.sha256).digest())
    return f"SharedAccessSignature sr={resource}&sig={urllib.parse.quote(signature, safe='')}&se={expiry}"


def user_name(parts):
    return f"{parts['HostName']}/{parts['DeviceId']}/?api-version=2021-04-12"


class Paho:
    """A paho client that waits for what it asked for."""

    def __init__(self, hub, parts, password=None, **options):
        self.client = mqtt.Client(client_id=parts["DeviceId"], **options)
        self.client.username_pw_set(user_name(parts), password or sas(parts))
        self.client.tls_set(ca_certs=hub.ca, tls_version=ssl.PROTOCOL_TLS_CLIENT)
        self.answered, self.answer = threading.Event(), None
        self.client.on_connect = self._on_connect

    def _on_connect(self, client, user_data, flags, reason, properties=None):
        self.answer = int(getattr(reason, "value", reason))
        self.answered.set()

    def connect(self, port):
        self.client.connect("localhost", port, keepalive=30)
        self.client.loop_start()
        if not self.answered.wait(TIMEOUT):
            raise AssertionError("no CONNACK")
        return self.answer

    def publish(self, topic, payload, **options):
        # Returns after PUBACK: the hub has it on its disk.
        info = self.client.publish(topic, payload, qos=1, **options)
        info.wait_for_publish(TIMEOUT)
        if not info.is_published():
            raise AssertionError(f"no PUBACK for {topic}")

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


def bag(**properties):
    system = {"mid": "$.mid", "ct": "$.ct", "ce": "$.ce"}
    pairs = ((system.get(name, name), value) for name, value in properties.items())
    return "&".join(f"{urllib.parse.quote(name, safe='')}={urllib.parse.quote(value, safe='')}" for name, value in pairs)


def only(events):
    equal(len(events), 1)
    return events[0]


def equal(found, wanted):
    if found != wanted:
        raise AssertionError(f"found {found!r}, not {wanted!r}")


def check_event(event, body, properties, **system):
    equal(event["body"], body)
    equal(event["properties"], properties)
    equal({name: event["system"].get(name) for name in system}, system)


def paho_over_tls(hub):
    parts, _ = hub.add("paho-tls")
    paho = Paho(hub, parts)
    equal(paho.connect(hub.port("mqtts")), 0)
    topic = bag(room="attic, left", **{"mid": "m-1", "ct": "application/json", "ce": "utf-8"})
    paho.publish(f"devices/paho-tls/messages/events/{topic}", '{"t":21.5}')
    for number in range(500):
        paho.client.publish("devices/paho-tls/messages/events/", str(number), qos=1)
    paho.publish("devices/paho-tls/messages/events/", "last")
    paho.close()
    first, *rest = hub.events("paho-tls")
    check_event(
        first, {"json": {"t": 21.5}}, {"room": "attic, left"},
        message_id="m-1", content_type="application/json", content_encoding="utf-8",
    )
    equal([event["body"]["text"] for event in rest], [*map(str, range(500)), "last"])


def paho_over_websocket(hub):
    parts, _ = hub.add("paho-ws")
    paho = Paho(hub, parts, transport="websockets")
    paho.client.ws_set_options(path="/$iothub/websocket")
    equal(paho.connect(int(urllib.parse.urlparse(hub.service["https"]).port)), 0)
    paho.publish("devices/paho-ws/messages/events/", b"\x00\xff binary")
    paho.close()
    check_event(only(hub.events("paho-ws")), {"base64": base64.b64encode(b"\x00\xff binary").decode()}, {})


def paho_with_a_wrong_key(hub):
    parts, _ = hub.add("paho-key")
    stolen = dict(parts, SharedAccessKey=base64.b64encode(b"guessed" * 4).decode())
    paho = Paho(hub, parts, password=sas(stolen))
    equal(paho.connect(hub.port("mqtts")), 5)
    paho.client.loop_stop()


def paho_on_the_topic_of_another(hub):
    hub.add("paho-victim")
    parts, _ = hub.add("paho-thief")
    paho = Paho(hub, parts)
    closed = threading.Event()
    paho.client.on_disconnect = lambda *_: closed.set()
    equal(paho.connect(hub.port("mqtts")), 0)
    paho.client.publish("devices/paho-victim/messages/events/", "forged", qos=1)
    if not closed.wait(TIMEOUT):
        raise AssertionError("the hub did not close the connection")
    paho.client.loop_stop()
    equal(hub.events("paho-victim"), [])


def azure_iot_device(hub):
    if hub.port("mqtts") != AZURE_PORT:
        raise Skip(f"port {AZURE_PORT} is taken, and it connects to no other")
    _, connection_string = hub.add("azure-python")
    ca = pathlib.Path(hub.ca).read_text()
    client = IoTHubDeviceClient.create_from_connection_string(connection_string, server_verification_cert=ca)
    client.connect()
    message = Message('{"temperature": 21.5}', message_id="m-1", content_encoding="utf-8", content_type="application/json")
    message.correlation_id = "c-1"
    message.custom_properties["room"] = "attic & left"
    message.custom_properties["näme"] = "wärme"
    client.send_message(message)
    for number in range(20):
        client.send_message(str(number))
    client.shutdown()
    first, *rest = hub.events("azure-python")
    check_event(
        first, {"json": {"temperature": 21.5}}, {"room": "attic & left", "näme": "wärme"},
        message_id="m-1", correlation_id="c-1", content_type="application/json", content_encoding="utf-8",
    )
    equal([event["body"]["text"] for event in rest], [str(number) for number in range(20)])


def mosquitto_pub(hub, program):
    parts, _ = hub.add("mosquitto")
    common = [
        program, "-h", "localhost", "-p", str(hub.port("mqtts")), "--cafile", hub.ca, "-V", "mqttv311", "-q", "1",
        "-i", "mosquitto", "-u", user_name(parts), "-P", sas(parts),
    ]
    one = [*common, "-t", "devices/mosquitto/messages/events/room=attic", "-m", "one"]
    subprocess.run(one, check=True, timeout=TIMEOUT)
    many = [*common, "-t", "devices/mosquitto/messages/events/", "-l"]
    lines = "".join(f"{number}\n" for number in range(200))
    subprocess.run(many, check=True, timeout=TIMEOUT, input=lines, text=True)
    first, *rest = hub.events("mosquitto")
    check_event(first, {"text": "one"}, {"room": "attic"})
    equal([event["body"]["text"] for event in rest], [str(number) for number in range(200)])


class Skip(Exception):
    """Not possible here."""


def free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--whimbrel", required=True)
    arguments.add_argument("--mosquitto-pub")
    arguments = arguments.parse_args()

    tests = [
        paho_over_tls, paho_over_websocket, paho_with_a_wrong_key, paho_on_the_topic_of_another, azure_iot_device,
    ]
    if arguments.mosquitto_pub:
        def with_mosquitto_pub(hub):
            mosquitto_pub(hub, arguments.mosquitto_pub)

        tests.append(with_mosquitto_pub)

    failed = False
    with tempfile.TemporaryDirectory(prefix="whimbrel-peers-") as folder:
        hub = Hub(arguments.whimbrel, folder, AZURE_PORT if free(AZURE_PORT) else 0)

        def the_hub_stops_well(hub):
            hub.stop()

        for test in [*tests, the_hub_stops_well]:
            name = test.__name__.replace("_", " ")
            try:
                test(hub)
                print(f"ok {name}")
            except Skip as why:
                print(f"skip {name}: {why}")
            except Exception as why:  # The next client still has something to say.
                failed = True
                print(f"not ok {name}: {type(why).__name__}: {why}")
        hub.process.kill()
    sys.exit(failed)


if __name__ == "__main__":
    main()
