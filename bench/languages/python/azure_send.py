"""azure-iot-device for asyncio, which keeps messages in memory and speaks TLS only: tasks that send one message after the
other."""

import asyncio
import pathlib

from azure.iot.device import Message
from azure.iot.device.aio import IoTHubDeviceClient

from common import Measurement, arguments, version


async def main():
    given = arguments()
    measurement = Measurement()
    client = IoTHubDeviceClient.create_from_connection_string(
        f"HostName={given.host};DeviceId=bench;SharedAccessKey=c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0",
        server_verification_cert=pathlib.Path(given.ca).read_text(),
    )
    await client.connect()
    tasks = min(given.concurrency, given.messages)

    async def sender(count):
        for _ in range(count):
            await client.send_message(Message(given.body))

    async with measurement.running():
        shares = [given.messages // tasks + (index < given.messages % tasks) for index in range(tasks)]
        await asyncio.gather(*map(sender, shares))
    await client.shutdown()
    measurement.tell(given.messages, version("azure-iot-device"))


asyncio.run(main())
