"""Who is measured, and how much work each gets: about as much as it does in two to five seconds."""

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Subject:
    """One program with its command line."""

    key: str
    name: str
    language: str
    program: str
    messages: int
    concurrency: int = 1_000
    batch: int = 512
    # Whether it is ours.
    ours: bool = False
    # What a message is safe from when the call is over.
    keeps: str = "memory"
    # Speaks TLS only.
    tls: bool = False
    # Which of the Python environments.
    environment: str = "main"


SUBJECTS = [
    Subject("python-send", "whimbrel `send`", "python", "whimbrel_send.py", 200_000, ours=True, keeps="disk, synced"),
    Subject(
        "python-send-many", "whimbrel `send_many`", "python", "whimbrel_send_many.py", 600_000, ours=True, keeps="disk, synced"
    ),
    Subject(
        "python-sync-send", "whimbrel.sync `send`, 64 threads", "python", "whimbrel_sync_send.py", 60_000, 64, ours=True,
        keeps="disk, synced",
    ),
    Subject(
        "python-sync-send-many", "whimbrel.sync `send_many`", "python", "whimbrel_sync_send_many.py", 600_000, ours=True,
        keeps="disk, synced",
    ),
    Subject("gmqtt", "gmqtt", "python", "gmqtt_publish.py", 120_000),
    Subject("awscrt-python", "awscrt, MQTT 5", "python", "awscrt_publish.py", 50_000),
    # It gets slower with a larger window; this one is its best.
    Subject("paho", "paho-mqtt", "python", "paho_publish.py", 25_000, 100, environment="paho"),
    Subject("azure", "azure-iot-device, TLS", "python", "azure_send.py", 6_000, 100, tls=True),
    Subject("node-send", "whimbrel `send`", "node", "whimbrel_send.mjs", 200_000, ours=True, keeps="disk, synced"),
    Subject("node-send-many", "whimbrel `sendMany`", "node", "whimbrel_send_many.mjs", 600_000, ours=True, keeps="disk, synced"),
    Subject("mqttjs", "mqtt.js", "node", "mqttjs_publish.mjs", 120_000),
    Subject("mqttjs-level", "mqtt.js with mqtt-level-store", "node", "mqttjs_level_publish.mjs", 15_000, keeps="disk, not synced"),
    Subject("kotlin-send", "whimbrel `send`", "kotlin", "SendKt", 400_000, ours=True, keeps="disk, synced"),
    Subject("kotlin-send-many", "whimbrel `sendMany`", "kotlin", "SendManyKt", 1_200_000, ours=True, keeps="disk, synced"),
    Subject("swift-send", "whimbrel `send`", "swift", "whimbrel-bench-send", 200_000, ours=True, keeps="disk, synced"),
    Subject("swift-send-many", "whimbrel `sendMany`", "swift", "whimbrel-bench-send-many", 600_000, ours=True, keeps="disk, synced"),
    Subject("awscrt-node", "aws-crt, MQTT 5", "node", "awscrt_publish.mjs", 50_000),
    Subject("c-send", "whimbrel `send`, with a callback", "c", "whimbrel_send", 400_000, ours=True, keeps="disk, synced"),
    Subject("c-send-many", "whimbrel `send_many`", "c", "whimbrel_send_many", 800_000, ours=True, keeps="disk, synced"),
    Subject("paho-c", "Paho C", "c", "paho_publish", 100_000),
    Subject("paho-c-files", "Paho C with file persistence", "c", "paho_file_publish", 8_000, keeps="disk, not synced"),
]


@dataclass(frozen=True)
class Budget:
    """What a subject has to reach: so many times a peer of the same run, or a figure."""

    text: str
    subject: str
    peer: Optional[str] = None
    times: float = 1
    rate: Optional[float] = None


BUDGETS = [
    Budget("Python `send` at least 2 times gmqtt", "python-send", "gmqtt", 2),
    Budget("Python `send` at least 34 times azure-iot-device", "python-send", "azure", 34),
    Budget("Python `send_many` at least 250,000/s", "python-send-many", rate=250_000),
    Budget("Kotlin `send` at least as fast as Python's", "kotlin-send", "python-send", 1),
    Budget("Kotlin `sendMany` at least as fast as Python's `send_many`", "kotlin-send-many", "python-send-many", 1),
    Budget("Node `send` at least 1.5 times mqtt.js", "node-send", "mqttjs", 1.5),
    Budget("C `send` at least 7 times Paho C without storage", "c-send", "paho-c", 7),
    Budget("C `send` at least 90 times Paho C with file persistence", "c-send", "paho-c-files", 90),
    Budget("Node `send` at least 22 times mqtt.js with mqtt-level-store", "node-send", "mqttjs-level", 22),
    Budget("Swift `send` at least as many as Python", "swift-send", "python-send", 1),
    Budget("Swift `sendMany` at least as many as Python's `send_many`", "swift-send-many", "python-send-many", 1),
]
