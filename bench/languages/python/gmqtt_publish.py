"""gmqtt, which keeps messages in memory. Its `publish` waits for nothing, so its store of unacknowledged messages, which it lets
a program give, is where the acknowledgements are seen and the window is kept."""

import asyncio

import gmqtt
from gmqtt.storage import PersistentStorage

from common import TOPIC, Measurement, arguments, version


class Store(PersistentStorage):
    """Wakes the sender when half the window is free, which costs it less than to be woken for each message."""

    def __init__(self, window):
        super().__init__()
        self.half = window // 2
        self.waiter = None

    def remove_message_by_mid(self, mid):
        super().remove_message_by_mid(mid)
        if self.waiter is not None and len(self._messages) <= self.half and not self.waiter.done():
            self.waiter.set_result(None)

    async def room(self):
        self.waiter = asyncio.get_running_loop().create_future()
        await self.waiter
        self.waiter = None

    @property
    def count(self):
        return len(self._messages)


async def main():
    given = arguments()
    measurement = Measurement()
    store = Store(given.concurrency)
    client = gmqtt.Client("bench", persistent_storage=store)
    await client.connect(given.host, given.port)
    async with measurement.running():
        for _ in range(given.messages):
            if store.count >= given.concurrency:
                await store.room()
            client.publish(TOPIC, given.body, qos=1)
        await store.wait_empty()
    await client.disconnect()
    measurement.tell(given.messages, version("gmqtt"))


asyncio.run(main())
