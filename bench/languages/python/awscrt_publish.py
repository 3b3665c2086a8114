"""awscrt's MQTT 5 client, which keeps messages in memory: one thread publishes as far as the window goes."""

import threading

from awscrt import mqtt5

from common import TOPIC, Measurement, arguments, version


def main():
    given = arguments()
    measurement = Measurement()
    connected, stopped = threading.Event(), threading.Event()
    client = mqtt5.Client(
        mqtt5.ClientOptions(
            host_name=given.host,
            port=given.port,
            connect_options=mqtt5.ConnectPacket(client_id="bench", keep_alive_interval_sec=60),
            on_lifecycle_event_connection_success_fn=lambda _: connected.set(),
            on_lifecycle_event_stopped_fn=lambda _: stopped.set(),
        )
    )
    client.start()
    if not connected.wait(30):
        raise SystemExit("no connection")
    window = threading.Semaphore(given.concurrency)
    failures = []

    def done(future):
        if future.exception() is not None:
            failures.append(future.exception())
        window.release()

    measurement.begin()
    for _ in range(given.messages):
        window.acquire()
        packet = mqtt5.PublishPacket(topic=TOPIC, payload=given.body, qos=mqtt5.QoS.AT_LEAST_ONCE)
        client.publish(packet).add_done_callback(done)
    for _ in range(given.concurrency):
        window.acquire()
    measurement.end()
    if failures:
        raise SystemExit(f"{len(failures)} were not acknowledged: {failures[0]}")
    client.stop()
    stopped.wait(30)
    measurement.tell(given.messages, version("awscrt"))


main()
