"""Event loops: several, of several kinds, in several threads, and gone."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import threading
import weakref
from datetime import timedelta
from typing import Any, Callable, Dict, List

import pytest
import uvloop
from conftest import CONNECTION_STRING
from whimbrel.testing import LocalHub

import whimbrel
from whimbrel import _loop, _native

Options = Dict[str, Any]


def run_in(make_loop: Callable[[], asyncio.AbstractEventLoop], coroutine: Any) -> Any:
    loop = make_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


class Blind(asyncio.SelectorEventLoop):
    """A loop that cannot watch sockets, as the Proactor loop of Windows."""

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:
        raise NotImplementedError

    # Its own pipe is watched all the same.
    def _add_reader(self, fd: Any, callback: Any, *args: Any) -> Any:
        return super()._add_reader(fd, callback, *args)  # type: ignore[misc]


LOOPS: Dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
    "blind": Blind,
}


async def whole(hub: LocalHub, connection_string: str, device_id: str) -> int:
    """A bit of everything; how many messages were sent."""
    service = await whimbrel.ServiceClient.connect(hub.service_connection_string, **hub.service_options())
    device = await whimbrel.DeviceClient.open(connection_string, outbox_in_memory=True, **hub.device_options())
    receipts = await asyncio.gather(*(device.send(b"%d" % number) for number in range(200)))
    outcomes = await asyncio.gather(*(receipt.outcome() for receipt in receipts))
    assert {outcome.kind for outcome in outcomes} == {"delivered"}
    tracked = await service.send(device_id, b"x")
    command = await device.inbox().next()
    assert command is not None
    await command.complete()
    assert await tracked.outcome() == "completed"
    await device.close()
    await service.close()
    return len(receipts)


@pytest.mark.parametrize("kind", LOOPS)
def test_every_kind_of_loop(hub: LocalHub, kind: str) -> None:
    name = f"loop-{kind}"
    connection_string = hub.create_device(name)
    assert run_in(LOOPS[kind], whole(hub, connection_string, name)) == 200


def test_the_fallback_can_be_forced(offline: Options) -> None:
    async def main() -> None:
        port = _loop.open_port(asyncio.get_running_loop(), watched=False)
        assert port.fileno() == -1 and _loop.port_of(asyncio.get_running_loop()) is port
        async with whimbrel.DeviceClient.open(CONNECTION_STRING, **offline) as device:
            await asyncio.gather(*(device.send(b"x") for _ in range(500)))
            assert device.account().accepted == 500

    asyncio.run(main())


def test_loops_come_and_go(offline: Options) -> None:
    """One client, many loops: each gets its own results, and leaves nothing behind."""

    async def opened() -> whimbrel.DeviceClient:
        return await whimbrel.DeviceClient.open(CONNECTION_STRING, **offline)

    device = asyncio.run(opened())
    loops: List[Any] = []

    async def sends() -> None:
        loop = asyncio.get_running_loop()
        loops.append(weakref.ref(loop))
        assert (await device.send(b"x")).state().state == "queued"
        # Given up when the loop ends, with its result still to come.
        asyncio.ensure_future(device.send(b"y"))
        await asyncio.sleep(0)

    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        asyncio.run(sends())
    asyncio.run(device.send_many([b"z"]))  # behind this nothing is on its way any more
    gc.collect()
    assert [loop for loop in loops if loop() is not None] == []
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    asyncio.run(device.close())
    assert device.account().accepted == 41


def test_a_future_that_cannot_be_told_holds_up_no_other(offline: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def set_result(self, value: object) -> None:
            raise RuntimeError("the loop of this one is closed")

        def done(self) -> bool:
            return False

    complaints: List[Any] = []
    monkeypatch.setattr("sys.unraisablehook", complaints.append)

    async def main() -> None:
        async with whimbrel.DeviceClient.open(CONNECTION_STRING, **offline) as device:
            port = _loop.port_of(asyncio.get_running_loop())
            send: Any = device._native.send
            send(port, Broken(), b"1", None)
            await device.send(b"2")
            assert device.account().queued == 2

    asyncio.run(main())
    assert [str(complaint.exc_value) for complaint in complaints] == ["the loop of this one is closed"]


def test_loops_in_several_threads_share_a_client(offline: Options) -> None:
    device = asyncio.run(_open(offline))
    failures: List[BaseException] = []

    async def sends(number: int) -> None:
        for turn in range(50):
            made = await asyncio.gather(*(device.send(b"x", message_id=f"{number}-{turn}-{one}") for one in range(10)))
            assert [receipt.message_id for receipt in made] == [f"{number}-{turn}-{one}" for one in range(10)]

    def thread(number: int) -> None:
        try:
            run_in(uvloop.new_event_loop if number % 2 else asyncio.SelectorEventLoop, sends(number))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=thread, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert failures == []
    assert device.account().accepted == 2000
    asyncio.run(device.close())


async def _open(offline: Options) -> whimbrel.DeviceClient:
    return await whimbrel.DeviceClient.open(CONNECTION_STRING, **offline)


def test_a_loop_goes_on_while_much_is_sent(offline: Options) -> None:
    """Results come a few at a time, and the loop turns in between."""

    async def main() -> None:
        async with whimbrel.DeviceClient.open(CONNECTION_STRING, **offline) as device:
            port = _loop.port_of(asyncio.get_running_loop())
            loop = asyncio.get_running_loop()
            loop.remove_reader(port.fileno())
            sending = [asyncio.ensure_future(device.send(b"x")) for _ in range(2_000)]
            await device_is_idle(device, 2_000)
            loop.add_reader(port.fileno(), lambda: None)
            turns = 0
            while not all(task.done() for task in sending):
                port.drain()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                turns += 1
            # How many come in a turn is a matter of time; that not all of these do is certain.
            assert turns > 1
            loop.remove_reader(port.fileno())
            loop.add_reader(port.fileno(), port.drain)

    asyncio.run(main())


async def device_is_idle(device: whimbrel.DeviceClient, accepted: int) -> None:
    """Until all messages were taken in and are safe: then their results are at the port."""
    while device.account().accepted < accepted:
        await asyncio.sleep(0)
    receipts = device._native.send_all(_filled(b"last"))
    await asyncio.get_running_loop().run_in_executor(None, receipts.wait, None)


def _filled(*bodies: bytes) -> _native.Batch:
    batch = _native.Batch()
    assert not batch.fill(iter(bodies))
    return batch


def test_a_batch_is_filled_in_slices() -> None:
    # How much fits into a slice is a matter of time; that all of this does not is certain.
    for count, body in ((100_000, b"x"), (1_000, bytes(100 << 10))):
        batch = _native.Batch()
        assert batch.fill(itertools.repeat(body, count))
        assert 0 < len(batch) < count
    batch = _native.Batch()
    many = itertools.repeat(b"x", 1_000)
    while batch.fill(many):
        pass
    assert len(batch) == 1_000


def test_there_is_no_client_without_a_loop(offline: Options) -> None:
    opening = whimbrel.DeviceClient.open(CONNECTION_STRING, **offline)
    with pytest.raises(RuntimeError):
        opening.send(None)


def test_flushing_has_a_limit(hub: LocalHub) -> None:
    connection_string = hub.create_device("flushes")

    async def main() -> None:
        options: Any = {**hub.device_options(), "outbox_in_memory": True}
        async with whimbrel.DeviceClient.open(connection_string, **options) as device:
            await device.send_many([b"x"] * 100)
            assert await device.flush(timedelta(minutes=1)) == 0

    asyncio.run(main())
