"""Receives commands with azure-iot-device, as its documentation shows, until it has as many as the task says."""

import json
import queue
import sys

from azure.iot.device import IoTHubDeviceClient


def main():
    task = json.load(sys.stdin)
    with open(task["ca"]) as file:
        trusted = file.read()
    client = IoTHubDeviceClient.create_from_connection_string(
        task["connection_string"], server_verification_cert=trusted, websockets=task["transport"] == "websockets"
    )
    received = queue.Queue()
    client.on_message_received = received.put
    client.connect()
    commands = [received.get(timeout=60) for _ in range(task["commands"])]
    # What it has not acknowledged yet comes again: the acknowledgement leaves with the handler's return.
    client.shutdown()
    print(
        json.dumps(
            [
                {
                    "body": command.data.decode(),
                    "id": command.message_id,
                    "correlation_id": command.correlation_id,
                    "content_type": command.content_type,
                    "properties": command.custom_properties,
                }
                for command in commands
            ]
        )
    )


if __name__ == "__main__":
    main()
