"""Receiving commands."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from whimbrel.testing import LocalHub

import whimbrel


@pytest.mark.parametrize("protocol", ["mqtt", "amqp"])
def test_commands_come_with_all_they_say_and_are_settled(hub: LocalHub, protocol: str) -> None:
    name = f"inbox-{protocol}"
    connection_string = hub.create_device(name)
    options = hub.device_options(protocol)
    if protocol == "amqp":
        options["protocol"] = whimbrel.Protocol.AMQP

    async def main() -> None:
        service = await whimbrel.ServiceClient.connect(hub.service_connection_string, **hub.service_options())
        device = await whimbrel.DeviceClient.open(connection_string, outbox_in_memory=True, **options)
        inbox = device.inbox()
        properties = {"a": "b", "c": ""}
        tracked = await service.send(
            name, b"\0reboot\xff", properties=properties, message_id="m-1", correlation_id="c", content_type="text/plain"
        )
        command = await inbox.next()
        assert command is not None
        assert (command.body, command.properties) == (b"\0reboot\xff", properties)
        assert (command.message_id, command.correlation_id, command.content_type) == ("m-1", "c", "text/plain")
        assert command.sequence is not None and command.delivery_count == 0
        assert command.enqueued_at is not None and command.enqueued_at.tzinfo is not None
        assert "m-1" in repr(command) and "reboot" not in repr(command)
        await command.abandon()
        command = await inbox.next()
        assert command is not None and command.message_id == "m-1" and command.delivery_count == 1
        await command.complete()
        assert await tracked.outcome() == "completed"
        with pytest.raises(whimbrel.Conflict):
            await command.reject()

        rejected = await service.send_json(name, {"never": True})
        command = await inbox.next()
        assert command is not None and command.content_type == "application/json"
        await command.reject()
        assert await rejected.outcome() is whimbrel.CommandOutcome.REJECTED
        await device.close()
        await service.close()

    asyncio.run(main())


def test_iterating_ends_with_the_client(hub: LocalHub) -> None:
    connection_string = hub.create_device("inbox-ends")

    async def main() -> None:
        service = await whimbrel.ServiceClient.connect(hub.service_connection_string, **hub.service_options())
        device = await whimbrel.DeviceClient.open(connection_string, outbox_in_memory=True, **hub.device_options())
        for number in range(3):
            await service.send("inbox-ends", b"%d" % number)
        seen = []

        async def take() -> None:
            async for command in device.inbox():
                seen.append(command.body)
                await command.complete()

        taking = asyncio.create_task(take())
        while len(seen) < 3:
            await asyncio.sleep(0.01)
        await device.close()
        await taking
        assert seen == [b"0", b"1", b"2"]
        await service.close()

    asyncio.run(main())


def test_mqtt_3_cannot_give_back(hub: LocalHub) -> None:
    connection_string = hub.create_device("inbox-3")

    async def main() -> None:
        service = await whimbrel.ServiceClient.connect(hub.service_connection_string, **hub.service_options())
        options: Any = {**hub.device_options(), "protocol": "mqtt3", "outbox_in_memory": True}
        async with whimbrel.DeviceClient.open(connection_string, **options) as device:
            await service.send("inbox-3", b"x")
            command = await device.inbox().next()
            assert command is not None and (command.sequence, command.enqueued_at, command.delivery_count) == (None,) * 3
            with pytest.raises(whimbrel.Unsupported) as raised:
                await command.abandon()
            assert isinstance(raised.value, NotImplementedError)
            await command.complete()
        await service.close()

    asyncio.run(main())
