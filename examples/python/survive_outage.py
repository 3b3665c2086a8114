"""The hub is away and the device program is restarted; nothing is lost, nothing comes twice, the order is kept."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import timedelta

from whimbrel import DeviceClient, DeviceOptions, Position, ServiceClient
from whimbrel.testing import LocalHub

MESSAGES = 500


async def main() -> None:
    with tempfile.TemporaryDirectory() as outbox:
        async with LocalHub() as hub:
            connection_string = hub.create_device("pump-3")
            options: DeviceOptions = {
                "outbox": outbox,
                "backoff": (timedelta(milliseconds=10), timedelta(milliseconds=100)),
                "close_deadline": timedelta(0),
                "server": hub.device_options()["server"],
            }
            hub.stop()
            print("the hub is away")

            # Two lives of the device program: each sends its half and ends, with no hub in sight.
            for half in (range(MESSAGES // 2), range(MESSAGES // 2, MESSAGES)):
                async with DeviceClient.open(connection_string, **options) as device:
                    await device.send_many(str(number).encode() for number in half)
                    print(f"the device has {device.account().queued} messages in its outbox and is restarted")

            hub.start()
            print("the hub is back")
            async with DeviceClient.open(connection_string, **options) as device:
                left = await device.flush(timedelta(seconds=30))
                account = device.account()
                print(f"accepted {account.accepted} = delivered {account.delivered} + queued {left}")

            read = []
            async with ServiceClient.connect(hub.service_connection_string, **hub.service_options()) as service:
                async with service.events(position=Position.BEGINNING) as events:
                    async for event in events:
                        read.append(int(event.body))
                        if len(read) == MESSAGES:
                            break
    if read != list(range(MESSAGES)) or left != 0 or account.delivered != MESSAGES:
        raise SystemExit(f"{left} messages are left, and these events came: {read}")
    print(f"read {MESSAGES} events, each once, in order")


if __name__ == "__main__":
    asyncio.run(main())
