"""A back end reads events with checkpoints, and sends a command and follows it to its end."""

from __future__ import annotations

import asyncio
import json
import tempfile
from datetime import timedelta

from whimbrel import CommandOutcome, DeviceClient, FileCheckpoints, ServiceClient
from whimbrel.testing import LocalHub


async def back_end(service: ServiceClient, folder: str) -> str:
    """Deals with one event, and gives what it said."""
    # Several programs that open the same folder share the partitions. After a restart this goes on behind the checkpoints.
    async with service.events(checkpoints=FileCheckpoints(folder)) as events:
        async for event in events:
            print(f"{event.device_id} says {event.body.decode()}, number {event.sequence} of partition {event.partition}")
            await event.checkpoint()
            return event.body.decode()
    raise SystemExit("the reader was closed")


async def main() -> None:
    async with LocalHub() as hub:
        connection_string = hub.create_device("thermostat-1")
        way = hub.device_options()
        async with DeviceClient.open(connection_string, outbox_in_memory=True, **way) as device:
            await device.send_json({"t": 31.5})

            # The back end: the connection string of a policy, and for this hub the addresses it listens on.
            async with ServiceClient.connect(hub.service_connection_string, **hub.service_options()) as service:
                with tempfile.TemporaryDirectory() as folder:
                    said = [await back_end(service, folder)]
                    await device.send_json({"t": 31.7})
                    said.append(await back_end(service, folder))
                if [json.loads(text)["t"] for text in said] != [31.5, 31.7]:
                    raise SystemExit(f"the second reader did not go on behind the first: {said}")

                # When this returns, the hub has stored the command for the device, be it connected or not.
                tracked = await service.send("thermostat-1", b"cool down", expires_in=timedelta(minutes=10))
                print(f"command {tracked.message_id} is on its way")

                # On the device: taken when the program is ready, completed when it was done.
                command = await device.inbox().next()
                if command is None:
                    raise SystemExit("the device was closed")
                print(f"the device does: {command.body.decode()}")
                await command.complete()

                # After a restart, the message id alone leads back to it.
                outcome = await service.tracked("thermostat-1", tracked.message_id).outcome()
                print(f"it ended as {outcome.value}")
                if outcome != CommandOutcome.COMPLETED:
                    raise SystemExit("it was not completed")


if __name__ == "__main__":
    asyncio.run(main())
