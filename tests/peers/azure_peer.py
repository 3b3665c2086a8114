"""Sends messages with azure-iot-device, as its documentation shows, and waits for every acknowledgement."""

import json
import sys

from azure.iot.device import IoTHubDeviceClient, Message, X509


def main():
    task = json.load(sys.stdin)
    with open(task["ca"]) as file:
        trusted = file.read()
    options = {"server_verification_cert": trusted, "websockets": task["transport"] == "websockets"}
    if "certificate" in task:
        client = IoTHubDeviceClient.create_from_x509_certificate(
            X509(task["certificate"], task["key"]), task["host"], task["device"], **options
        )
    else:
        client = IoTHubDeviceClient.create_from_connection_string(task["connection_string"], **options)
    client.connect()
    for wanted in task["messages"]:
        message = Message(wanted["body"])
        for name, value in wanted["system"].items():
            setattr(message, name, value)
        message.custom_properties.update(wanted["properties"])
        client.send_message(message)
    client.shutdown()


if __name__ == "__main__":
    main()
