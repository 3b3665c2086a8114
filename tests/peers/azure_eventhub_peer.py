"""Reads events with azure-eventhub, as its documentation shows; prints what it saw as JSON."""

import datetime
import json
import sys
import threading

from azure.eventhub import EventHubConsumerClient
from azure.iot.device import IoTHubDeviceClient

PATIENCE = 60


def main():
    task = json.load(sys.stdin)
    partition = task["partition"]
    seen = {}
    with consumer(task) as client:
        properties = client.get_eventhub_properties()
        seen["name"] = properties["eventhub_name"]
        seen["partitions"] = properties["partition_ids"]
        state = client.get_partition_properties(partition)
        seen["last_sequence"] = state["last_enqueued_sequence_number"]
        seen["last_offset"] = state["last_enqueued_offset"]
        seen["first_sequence"] = state["beginning_sequence_number"]
        seen["is_empty"] = state["is_empty"]
    seen["all"] = read(task, task["count"], starting_position="-1")
    middle = seen["all"][task["count"] // 2]
    at = datetime.datetime.fromisoformat(middle["enqueued_at"])
    seen["after_offset"] = read(task, 1, starting_position=middle["offset"])
    seen["at_offset"] = read(task, 1, starting_position=middle["offset"], starting_position_inclusive=True)
    seen["after_sequence"] = read(task, 1, starting_position=middle["sequence"])
    seen["at_time"] = read(task, 1, starting_position=at, starting_position_inclusive=True)
    seen["alone"] = read(task, 1, starting_position="-1", owner_level=1)
    seen["latest"] = latest(task)
    print(json.dumps(seen, default=bytes.decode))


def consumer(task, group="$Default"):
    return EventHubConsumerClient.from_connection_string(
        task["connection_string"], consumer_group=group, connection_verify=task["ca"], retry_total=0
    )


def read(task, count, meanwhile=None, **options):
    """The next events from a position."""
    events, enough, failed = [], threading.Event(), []
    client = consumer(task)

    def on_event(context, event):
        if len(events) < count:
            events.append(describe(event, context.last_enqueued_event_properties))
        if len(events) == count:
            enough.set()

    def on_error(_, error):
        failed.append(error)
        enough.set()

    def receive():
        client.receive(
            on_event, on_error=on_error, partition_id=task["partition"], track_last_enqueued_event_properties=True, **options
        )

    thread = threading.Thread(target=receive)
    thread.start()
    if meanwhile:
        meanwhile(enough)
    in_time = enough.wait(PATIENCE)
    client.close()
    thread.join(PATIENCE)
    assert not failed, failed
    assert in_time, f"{len(events)} of {count} events came: {options}"
    return events


def latest(task):
    """What is read from the end, while a device sends until something is seen."""
    device = IoTHubDeviceClient.create_from_connection_string(
        task["device"], server_verification_cert=open(task["ca"]).read()
    )
    device.connect()

    def send(enough):
        for number in range(PATIENCE):
            device.send_message(f"late {number}")
            if enough.wait(1):
                break

    seen = read(task, 1, meanwhile=send, starting_position="@latest")
    device.shutdown()
    return seen


def describe(event, last):
    text = lambda value: value.decode() if isinstance(value, bytes) else value
    return {
        "body": event.body_as_str(),
        "sequence": event.sequence_number,
        "offset": event.offset,
        "enqueued_at": event.enqueued_time.isoformat(),
        "properties": {text(name): text(value) for name, value in (event.properties or {}).items()},
        "message_id": event.message_id,
        "correlation_id": event.correlation_id,
        "content_type": event.content_type,
        "content_encoding": event.raw_amqp_message.properties and event.raw_amqp_message.properties.content_encoding,
        "device": text(event.system_properties[b"iothub-connection-device-id"]),
        "source": text(event.system_properties[b"iothub-message-source"]),
        "last_sequence": last["sequence_number"],
        "last_offset": last["offset"],
    }


if __name__ == "__main__":
    main()
