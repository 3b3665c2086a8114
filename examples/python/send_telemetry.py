"""A device sends a measurement, and a back end reads it."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import timedelta

from whimbrel import DeviceClient, OutcomeKind, Position, ServiceClient
from whimbrel.testing import LocalHub


async def main() -> None:
    # A hub for this program. In earnest it is `whimbrel hub` somewhere, or Azure IoT Hub.
    async with LocalHub() as hub:
        connection_string = hub.create_device("thermostat-1")

        # Opening does not wait for the network. The outbox is a folder that survives this process.
        with tempfile.TemporaryDirectory() as outbox:
            async with DeviceClient.open(connection_string, outbox=outbox, **hub.device_options()) as device:
                # When this returns, the message is on the disk: it is Whimbrel's job now.
                receipt = await device.send_json(
                    {"t": 21.5}, properties={"room": "attic"}, expires_in=timedelta(hours=1)
                )

                # Nobody has to wait for the outcome; it can also be asked for later, by receipt.message_id.
                outcome = await receipt.outcome()
                if outcome.kind != OutcomeKind.DELIVERED:
                    raise SystemExit(f"it ended as {outcome}")
                print(f"stored in partition {outcome.partition} as number {outcome.sequence}")

        async with ServiceClient.connect(hub.service_connection_string, **hub.service_options()) as service:
            async with service.events(position=Position.BEGINNING) as events:
                async for event in events:
                    print(f"{event.device_id} in the {event.properties['room']}: {event.body.decode()}")
                    if event.sequence != outcome.sequence or event.content_type != "application/json":
                        raise SystemExit(f"this is not what was sent: {event}")
                    break


if __name__ == "__main__":
    asyncio.run(main())
