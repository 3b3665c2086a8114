"""paho-mqtt 2, which keeps messages in memory, with its own thread: one thread publishes as far as the window goes."""

import threading

import paho.mqtt
from paho.mqtt import client as mqtt

from common import TOPIC, Measurement, arguments


def main():
    given = arguments()
    measurement = Measurement()
    connected = threading.Event()
    window = threading.Semaphore(given.concurrency)
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="bench")
    client.max_inflight_messages_set(given.concurrency)
    client.on_connect = lambda *_: connected.set()
    client.on_publish = lambda *_: window.release()
    client.connect(given.host, given.port)
    client.loop_start()
    if not connected.wait(30):
        raise SystemExit("no connection")
    measurement.begin()
    for _ in range(given.messages):
        window.acquire()
        client.publish(TOPIC, given.body, qos=1)
    for _ in range(given.concurrency):
        window.acquire()
    measurement.end()
    client.disconnect()
    client.loop_stop()
    measurement.tell(given.messages, paho.mqtt.__version__)


main()
