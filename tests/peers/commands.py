"""Tests of commands with public clients: azure-iot-device receives them, azure-iothub sends them and reads feedback."""

import json
import time

BODIES = ["first", "second", "third"]


def deliver(bench, device):
    """Sends three commands to a device; the first one with all properties."""
    first = {"correlation_id": "c/1", "content_type": "application/json", "properties": {"when": "now", "to": "all"}}
    for number, body in enumerate(BODIES):
        bench.hub.send_command(device, body, f"{device}-{number}", **(first if number == 0 else {}))


def ended(bench, device, message_id, outcome):
    """Waits until a command has ended as it should."""
    deadline = time.monotonic() + 30
    while True:
        found = bench.hub.command(device, message_id)
        if found["outcome"] or time.monotonic() > deadline:
            assert found["outcome"] == outcome, f"{message_id} is {found}, not {outcome}"
            return
        time.sleep(0.05)


def python_device(transport):
    """azure-iot-device for Python, MQTT 3.1.1: commands that waited for it."""

    def test(bench):
        bench.need_443(transport == "websockets")
        device, connection = bench.device()
        deliver(bench, device)
        task = {"transport": transport, "ca": bench.hub.ca, "connection_string": connection, "commands": len(BODIES)}
        got = json.loads(bench.run("azure_commands_peer.py", task))
        assert [command["body"] for command in got] == BODIES, got
        first = got[0]
        assert first["properties"] == {"when": "now", "to": "all"}, first
        named = (first["id"], first["correlation_id"], first["content_type"])
        assert named == (f"{device}-0", "c/1", "application/json"), first
        for number in range(len(BODIES)):
            ended(bench, device, f"{device}-{number}", "Success")

    return test


def node_device(transport):
    """azure-iot-device for Node: events, and commands settled in the ways its transport has."""

    def test(bench):
        bench.need_443(transport in ("mqtt-ws", "amqp-ws", "http"))
        device, connection = bench.device()
        deliver(bench, device)
        # On MQTT 3.1.1 nothing can be rejected.
        rejects = not transport.startswith("mqtt")
        if rejects:
            bench.hub.send_command(device, "reject this", f"{device}-no")
        messages = [{"body": '{"t":21.5}', "id": "m-1", "properties": {"room": "a b/c&d=e"}}]
        messages += [{"body": str(number), "properties": {}} for number in range(20)]
        task = {
            "transport": transport,
            "ca": bench.hub.ca,
            "connection_string": connection,
            "commands": len(BODIES) + rejects,
            "messages": messages,
        }
        got = [json.loads(line) for line in bench.run_node("device_peer.js", task).splitlines()]
        bodies = [command["body"] for command in got if command["how"] == "complete"]
        assert bodies == BODIES, got
        for number in range(len(BODIES)):
            ended(bench, device, f"{device}-{number}", "Success")
        if rejects:
            ended(bench, device, f"{device}-no", "Rejected")
        events = bench.hub.events(device)
        assert [event["body"].decode() for event in events] == [message["body"] for message in messages], events
        assert events[0]["properties"] == {"room": "a b/c&d=e"}, events[0]
        assert events[0]["system"]["message_id"] == "m-1", events[0]

    return test


def node_service(bench):
    """azure-iothub: commands sent, and feedback about each, whatever became of it."""
    device, connection = bench.device()
    commands = [{"id": f"{device}-{n}", "body": body} for n, body in enumerate(["one", "reject two", "three"])]
    commands[0]["properties"] = {"when": "now"}
    task = {"connection_string": bench.hub.service, "device": device, "commands": commands}
    service = bench.start_node("service_peer.js", task, trusting=True)
    # It is not to be waited for by a device that gets nothing.
    deadline = time.monotonic() + 30
    while service.poll() is None and not bench.hub.knows_command(device, commands[-1]["id"]):
        assert time.monotonic() < deadline, "azure-iothub has not sent its commands"
        time.sleep(0.1)
    if service.poll() is not None:
        bench.finish(service)
    device_task = {
        "transport": "amqp",
        "ca": bench.hub.ca,
        "connection_string": connection,
        "commands": len(commands),
        "messages": [],
    }
    got = [json.loads(line) for line in bench.run_node("device_peer.js", device_task).splitlines()]
    assert [command["body"] for command in got] == [command["body"] for command in commands], got
    records = [json.loads(line) for line in bench.finish(service).splitlines()]
    outcomes = {record["originalMessageId"]: record["statusCode"] for record in records}
    wanted = {f"{device}-0": "Success", f"{device}-1": "Rejected", f"{device}-2": "Success"}
    assert outcomes == wanted, records
    for record in records:
        assert record["deviceId"] == device and record["description"] == record["statusCode"], record


def node_registry(bench):
    """azure-iothub: a device made, read, changed, listed and deleted."""
    bench.need_443(True)
    bench.run_node("service_peer.js", {"connection_string": bench.hub.service, "registry": "made-by-node"}, trusting=True)


def node_events(bench):
    """@azure/event-hubs: the way to the event log, the properties of hub and partitions, and every event."""
    device, connection = bench.device()
    messages = [{"body": f"event {number}", "properties": {"n": str(number)}} for number in range(50)]
    task = {"transport": "mqtt", "ca": bench.hub.ca, "connection_string": connection, "commands": 0, "messages": messages}
    bench.run_node("device_peer.js", task)
    stored = [event for partition in range(4) for event in bench.hub.events_of_partition(partition)]
    task = {"connection_string": bench.hub.service, "events": len(stored)}
    lines = [json.loads(line) for line in bench.run_node("events_peer.js", task, trusting=True).splitlines()]
    assert lines[0] == {"partitions": ["0", "1", "2", "3"], "stored": len(stored)}, lines[0]
    mine = [event for event in lines[1:] if event["device"] == device]
    assert [event["body"] for event in mine] == [message["body"] for message in messages], mine
    assert [event["properties"] for event in mine] == [message["properties"] for message in messages], mine


TESTS = {
    "azure_iot_device_commands": python_device("tcp"),
    "azure_iot_device_commands_websocket": python_device("websockets"),
    "node_azure_iot_device_mqtt": node_device("mqtt"),
    "node_azure_iot_device_mqtt_websocket": node_device("mqtt-ws"),
    "node_azure_iot_device_amqp": node_device("amqp"),
    "node_azure_iot_device_amqp_websocket": node_device("amqp-ws"),
    "node_azure_iot_device_http": node_device("http"),
    "node_azure_iothub_commands_and_feedback": node_service,
    "node_azure_iothub_registry": node_registry,
    "node_azure_event_hubs": node_events,
}
