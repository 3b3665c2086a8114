"""A back end sends commands to a device, which deals with one and rejects another; the back end sees how they ended."""

from __future__ import annotations

import asyncio
import tempfile

from whimbrel import CommandOutcome, DeviceClient, ServiceClient
from whimbrel.testing import LocalHub


async def main() -> None:
    async with LocalHub() as hub:
        connection_string = hub.create_device("valve-2")
        async with ServiceClient.connect(hub.service_connection_string, **hub.service_options()) as service:
            # The device is away. Its commands wait at the hub.
            opening = await service.send("valve-2", b"open", message_id="c-1")
            singing = await service.send("valve-2", b"sing", message_id="c-2")
            print(f"sent {opening.message_id} and {singing.message_id}")

            with tempfile.TemporaryDirectory() as outbox:
                async with DeviceClient.open(connection_string, outbox=outbox, **hub.device_options()) as device:
                    settled = 0
                    async for command in device.inbox():
                        print(f"the device is asked to {command.body.decode()}")
                        # Nothing is acknowledged before the program says so, and what is completed never comes again.
                        if command.body == b"open":
                            await command.complete()
                        else:
                            await command.reject()
                        settled += 1
                        if settled == 2:
                            break

            for tracked, expected in ((opening, CommandOutcome.COMPLETED), (singing, CommandOutcome.REJECTED)):
                outcome = await tracked.outcome()
                print(f"{tracked.message_id} ended as {outcome.value}")
                if outcome != expected:
                    raise SystemExit(f"{tracked.message_id} was to end as {expected.value}")


if __name__ == "__main__":
    asyncio.run(main())
