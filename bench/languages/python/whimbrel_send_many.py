"""whimbrel for asyncio: one task that sends batches."""

import asyncio

import whimbrel

from common import Measurement, arguments, version
from whimbrel_common import CONNECTION_STRING, LONG, connected, options, settled


async def main():
    given = arguments()
    measurement = Measurement()
    async with whimbrel.DeviceClient.open(CONNECTION_STRING, **options(given)) as device:
        await connected(device)
        async with measurement.running():
            left = given.messages
            while left:
                count = min(given.batch, left)
                await device.send_many([given.body] * count)
                left -= count
            await device.flush(LONG)
        settled(device, given.messages)
    measurement.tell(given.messages, version("whimbrel"))


asyncio.run(main())
