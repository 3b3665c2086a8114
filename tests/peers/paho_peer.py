"""Sends messages with paho-mqtt 2 and waits for every acknowledgement. Reads its task as JSON from stdin."""

import json
import ssl
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

TIMEOUT = 60


def main():
    task = json.load(sys.stdin)
    version = mqtt.MQTTv5 if task["version"] == 5 else mqtt.MQTTv311
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2, client_id=task["device"], protocol=version, transport=task["transport"]
    )
    connected, closed = threading.Event(), threading.Event()
    refused = []

    def on_connect(_client, _userdata, _flags, reason, _properties):
        if reason.is_failure:
            refused.append(str(reason))
        connected.set()

    client.on_connect = on_connect
    client.on_disconnect = lambda *_: closed.set()
    if "ca" in task:
        client.tls_set(ca_certs=task["ca"], tls_version=ssl.PROTOCOL_TLS_CLIENT)
    if task["transport"] == "websockets":
        client.ws_set_options(path="/$iothub/websocket")
    if "user_name" in task:
        client.username_pw_set(task["user_name"], task.get("password"))
    if "will" in task:
        client.will_set(task["will"]["topic"], task["will"]["body"], qos=1)
    client.connect(task["host"], task["port"], properties=connect_properties(task))
    client.loop_start()
    assert connected.wait(TIMEOUT), "no CONNACK"
    if task.get("expect") == "refused":
        assert refused, "the hub let it in"
        return
    assert not refused, f"refused: {refused}"
    sent = [
        client.publish(message["topic"], message["body"].encode(), message["qos"], properties=properties(message))
        for message in task["messages"]
    ]
    if task.get("expect") == "closed":
        assert closed.wait(TIMEOUT), "the hub did not close the connection"
        return
    for info in sent:
        info.wait_for_publish(TIMEOUT)
        assert info.is_published(), "not acknowledged"
    if "will" in task:
        # Without DISCONNECT: the hub has to publish the will.
        client.loop_stop()
        client.socket().close()
    else:
        client.disconnect()
        client.loop_stop()


def connect_properties(task):
    if "authentication" not in task:
        return None
    made = Properties(PacketTypes.CONNECT)
    made.AuthenticationMethod = task["authentication"]["method"]
    made.AuthenticationData = bytes.fromhex(task["authentication"]["data"])
    made.UserProperty = [tuple(pair) for pair in task["authentication"]["properties"]]
    return made


def properties(message):
    if "user_properties" not in message:
        return None
    made = Properties(PacketTypes.PUBLISH)
    made.UserProperty = [tuple(pair) for pair in message["user_properties"]]
    if "content_type" in message:
        made.ContentType = message["content_type"]
    return made


if __name__ == "__main__":
    main()
