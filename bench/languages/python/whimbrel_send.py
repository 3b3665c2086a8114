"""whimbrel for asyncio: many tasks that send one message after the other."""

import asyncio

import whimbrel

from common import Measurement, arguments, version
from whimbrel_common import CONNECTION_STRING, LONG, connected, options, settled


async def main():
    given = arguments()
    measurement = Measurement()
    async with whimbrel.DeviceClient.open(CONNECTION_STRING, **options(given)) as device:
        await connected(device)
        tasks = min(given.concurrency, given.messages)

        async def sender(count):
            for _ in range(count):
                await device.send(given.body)

        async with measurement.running():
            shares = [given.messages // tasks + (index < given.messages % tasks) for index in range(tasks)]
            await asyncio.gather(*map(sender, shares))
            await device.flush(LONG)
        settled(device, given.messages)
    measurement.tell(given.messages, version("whimbrel"))


asyncio.run(main())
