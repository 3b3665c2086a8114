"""Cancelling at every await: nothing that was accepted, and nothing that came, is lost."""

from __future__ import annotations

import asyncio
import gc
from datetime import timedelta
from typing import Any, Dict, List, Optional

import pytest
from conftest import CONNECTION_STRING
from whimbrel.testing import LocalHub

import whimbrel

Options = Dict[str, Any]


async def steps(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def cancelled(task: "asyncio.Task[Any]") -> bool:
    """Cancels a task; whether it ended so."""
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


def test_a_cancelled_send_leaves_the_message_in(offline: Options) -> None:
    async def main() -> None:
        async with whimbrel.DeviceClient.open(CONNECTION_STRING, **offline) as device:
            for number in range(50):
                sending = asyncio.create_task(device.send(b"x", message_id=f"m{number}"))
                await asyncio.sleep(0)  # it was taken in at its first step
                await cancelled(sending)
            never = asyncio.create_task(device.send(b"x"))
            assert await cancelled(never)
            assert device.account().accepted == 50
            for number in range(50):
                assert await device.receipt(f"m{number}") is not None

    asyncio.run(main())


def test_many_are_in_or_out_when_cancelled(offline: Options) -> None:
    async def main() -> None:
        whole = 0
        async with whimbrel.DeviceClient.open(CONNECTION_STRING, **offline) as device:
            for number in range(12):
                sending = asyncio.create_task(device.send_many([b"x"] * 300))
                await steps(number)
                whole += not await cancelled(sending)
            await device.send_many([b"x"] * 300)
        # A call that was on its way when it was cancelled may have been made: behind closing that is decided.
        async with whimbrel.DeviceClient.open(CONNECTION_STRING, **offline) as device:
            accepted = device.account().accepted
            assert accepted % 300 == 0 and accepted // 300 >= whole + 1

    asyncio.run(main())


def test_waits_can_be_cancelled_and_begun_again(offline: Options) -> None:
    async def main() -> None:
        async with whimbrel.DeviceClient.open(CONNECTION_STRING, **offline) as device:
            receipt = await device.send(b"x")
            inbox = device.inbox()
            changes = device.connection_changes()
            await changes.__anext__()
            waits = [
                receipt.outcome,
                lambda: device.flush(timedelta(hours=1)),
                inbox.next,
                lambda: device.receipt("m"),
            ]
            for wait in waits:
                for number in range(4):
                    task = asyncio.create_task(wait())
                    await steps(number)
                    await cancelled(task)
                with pytest.raises(asyncio.TimeoutError):
                    if wait is not waits[3]:
                        await asyncio.wait_for(wait(), 0.01)
                    else:
                        raise asyncio.TimeoutError
            assert receipt.state().state == "queued"
            assert await device.flush(timedelta(0)) == 1

    asyncio.run(main())


def test_a_cancelled_opening_frees_the_folder(offline: Options) -> None:
    async def main() -> None:
        for number in range(4):
            task = asyncio.create_task(whimbrel.DeviceClient.open(CONNECTION_STRING, **offline))
            await steps(number)
            await cancelled(task)
            if not task.cancelled():
                await task.result().close()
            del task
            gc.collect()
            for attempt in range(500):
                try:
                    device = await whimbrel.DeviceClient.open(CONNECTION_STRING, **offline)
                    break
                except whimbrel.InUse:
                    # What was opened and given up closes in the background.
                    await asyncio.sleep(0.01)
            await device.close()

    asyncio.run(main())


def test_a_cancelled_close_goes_on(offline: Options) -> None:
    async def main() -> None:
        device = await whimbrel.DeviceClient.open(CONNECTION_STRING, **offline)
        closing = asyncio.create_task(device.close())
        await asyncio.sleep(0)
        await cancelled(closing)
        await device.close()
        with pytest.raises(whimbrel.Closed):
            await device.send(b"x")

    asyncio.run(main())


class Takers:
    """Tasks that take from a stream, of which some are cancelled in the very step in which they would have got something."""

    def __init__(self, take: Any) -> None:
        self.take = take
        self.taken: List[Any] = []

    async def one(self) -> None:
        item = await self.take()
        if item is not None:
            self.taken.append(item)
            await item.complete()


def test_no_command_is_lost_by_cancelling(hub: LocalHub) -> None:
    """Half of those who wait are cancelled at arbitrary moments, among them right after they were told."""
    connection_string = hub.create_device("cancels")

    async def main() -> None:
        service = await whimbrel.ServiceClient.connect(hub.service_connection_string, **hub.service_options())
        device = await whimbrel.DeviceClient.open(connection_string, outbox_in_memory=True, **hub.device_options())
        inbox = device.inbox()
        count = 40
        sent = {(await service.send("cancels", b"%d" % number)).message_id for number in range(count)}
        takers = Takers(inbox.next)
        cancellations = 0
        while len(takers.taken) < count:
            tasks = [asyncio.create_task(takers.one()) for _ in range(4)]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=30)
            for task in tasks:
                if not task.done():
                    cancellations += 1
                    await cancelled(task)
        assert cancellations > 0
        assert {command.message_id for command in takers.taken} == sent
        assert len(takers.taken) == count
        await device.close()
        await service.close()

    asyncio.run(main())


class Fake:
    """A stream that is told to be ready by the test, as the native ones are by their threads."""

    def __init__(self) -> None:
        self.items: List[str] = []
        self.passed_on = 0
        self.waiting: "List[asyncio.Future[None]]" = []

    def take(self) -> Optional[tuple]:  # type: ignore[type-arg]
        return (self.items.pop(0),) if self.items else None

    def ready(self) -> "Fake":
        return self

    def start(self, port: Any, future: "asyncio.Future[None]") -> "Fake":
        self.waiting.append(future)
        return self

    def cancel(self) -> None:
        pass

    def pass_on(self) -> None:
        self.passed_on += 1
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


def test_a_task_cancelled_in_the_step_in_which_it_was_told_passes_on() -> None:
    from whimbrel._loop import next_of

    async def main() -> None:
        stream: Any = Fake()
        first = asyncio.create_task(next_of(stream))
        second = asyncio.create_task(next_of(stream))
        await asyncio.sleep(0)
        stream.items.append("item")
        stream.waiting.pop(0).set_result(None)
        first.cancel()  # its future is resolved, and the task has not run since
        with pytest.raises(asyncio.CancelledError):
            await first
        assert stream.passed_on == 1
        assert await second == "item"

    asyncio.run(main())


def test_a_cancelled_settlement_is_made(hub: LocalHub) -> None:
    connection_string = hub.create_device("settles")

    async def main() -> None:
        service = await whimbrel.ServiceClient.connect(hub.service_connection_string, **hub.service_options())
        device = await whimbrel.DeviceClient.open(connection_string, outbox_in_memory=True, **hub.device_options())
        tracked = await service.send("settles", b"x")
        command = await device.inbox().next()
        settling = asyncio.create_task(command.complete())
        await asyncio.sleep(0)
        await cancelled(settling)
        assert await tracked.outcome() is whimbrel.CommandOutcome.COMPLETED
        with pytest.raises(whimbrel.Conflict):
            await command.complete()
        await device.close()
        await service.close()

    asyncio.run(main())
