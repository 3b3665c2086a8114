"""An alert overtakes all the telemetry that waits."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import timedelta

from whimbrel import DeviceClient, Lane, OutcomeKind, Position, ServiceClient
from whimbrel.testing import LocalHub

READINGS = 1_000


async def main() -> None:
    with tempfile.TemporaryDirectory() as outbox:
        async with LocalHub() as hub:
            connection_string = hub.create_device("boiler-7")
            hub.stop()
            backoff = (timedelta(milliseconds=10), timedelta(milliseconds=100))
            way = hub.device_options()
            async with DeviceClient.open(connection_string, outbox=outbox, backoff=backoff, **way) as device:
                # While the hub is away, readings pile up. Then something happens.
                await device.send_many(str(number).encode() for number in range(READINGS))
                alert = await device.send(b"overheat", lane=Lane.ALERT, properties={"limit": "95"})
                print(f"{READINGS} readings wait, and behind them an alert")

                hub.start()
                outcome = await alert.outcome()
                print(f"the alert ended as {outcome.kind.value}")
                left = await device.flush(timedelta(seconds=30))
                if outcome.kind != OutcomeKind.DELIVERED or left != 0:
                    raise SystemExit(f"the alert ended as {outcome}, and {left} messages are left")

            read = []
            async with ServiceClient.connect(hub.service_connection_string, **hub.service_options()) as service:
                async with service.events(position=Position.BEGINNING) as events:
                    async for event in events:
                        read.append(event.body)
                        if len(read) == READINGS + 1:
                            break
    print(f"the first of {len(read)} events: {read[0].decode()}")
    if read != [b"overheat", *(str(number).encode() for number in range(READINGS))]:
        raise SystemExit("the alert was not first, or the readings were out of order")


if __name__ == "__main__":
    asyncio.run(main())
