"""The blocking clients: the same native objects, so what is tested here is the waiting."""

from __future__ import annotations

import inspect
import pathlib
import threading
import time
from datetime import timedelta
from typing import Any, Dict, List

import pytest
from conftest import CONNECTION_STRING
from whimbrel.testing import LocalHub

import whimbrel
import whimbrel.sync

Options = Dict[str, Any]
SOON = timedelta(milliseconds=20)


def test_everything_waits_with_a_limit(offline: Options) -> None:
    with whimbrel.sync.DeviceClient.open(CONNECTION_STRING, timeout=timedelta(minutes=1), **offline) as device:
        receipt = device.send(b"x", message_id="m")
        assert device.send_json([1], timeout=timedelta(minutes=1)).state().state == "queued"
        receipts = device.send_many([b"a", whimbrel.Message(b"b", message_id="b")])
        assert isinstance(receipts[1], whimbrel.sync.Receipt) and receipts[1].message_id == "b"
        found = device.receipt("m")
        assert found is not None and found.state().state == "queued" and device.receipt("no") is None
        inbox, changes = device.inbox(), device.connection_changes()
        assert next(changes).state in ("connecting", "disconnected")
        for wait in (receipt.outcome, inbox.next):
            with pytest.raises(whimbrel.DeliveryTimeout) as raised:
                wait(timeout=SOON)
            assert isinstance(raised.value, TimeoutError) and raised.value.retry == "wait again"
            for wrong in (timedelta(-1), 5):
                with pytest.raises(whimbrel.InvalidArgument):
                    wait(timeout=wrong)
        assert device.flush(SOON) == 4
        for body in ("text", 5):
            with pytest.raises(whimbrel.InvalidArgument):
                device.send(body)  # type: ignore[arg-type]
    with pytest.raises(whimbrel.Closed):
        device.send(b"x")
    assert list(inbox) == []
    assert [state.state for state in changes][-1:] in (["closed"], [])


def test_device_and_service_together(hub: LocalHub, tmp_path: pathlib.Path) -> None:
    connection_string = hub.create_device("sync")
    service = whimbrel.sync.ServiceClient.connect(hub.service_connection_string, **hub.service_options())
    with service, whimbrel.sync.DeviceClient.open(
        connection_string, outbox=tmp_path / "outbox", **hub.device_options()
    ) as device:
        outcome = device.send(b"21.5").outcome(timeout=timedelta(minutes=1))
        assert outcome.kind == "delivered"
        with service.feedback() as feedback:
            tracked = service.send("sync", b"reboot", feedback="full", timeout=timedelta(minutes=1))
            for command in device.inbox():
                command.complete()
                break
            assert tracked.outcome() is whimbrel.CommandOutcome.COMPLETED
            assert service.tracked("sync", tracked.message_id).outcome() == "completed"
            for batch in feedback:
                batch.complete()
                if any(record.message_id == tracked.message_id for record in batch.records):
                    break
        with service.events(checkpoints=whimbrel.FileCheckpoints(tmp_path / "checkpoints")) as events:
            for event in events:
                if event.device_id == "sync":
                    break
            assert event.body == b"21.5" and event.sequence == outcome.sequence
            event.checkpoint(timeout=timedelta(minutes=1))
        registry = service.registry
        created = registry.create("sync-2")
        created.status = "disabled"
        assert registry.update(created).status == registry.get("sync-2").status == "disabled"
        assert "sync-2" in [device.id for device in registry.list()]
        assert "sync-2" in [document["deviceId"] for document in registry.query("SELECT * FROM devices", 2)]
        module = registry.create_module(whimbrel.ModuleIdentity("sync-2", "m"))
        assert registry.update_module(module).id == registry.get_module("sync-2", "m").id == "m"
        assert len(registry.modules("sync-2")) == 1 and registry.connection_string(module)
        registry.delete_module("sync-2", "m")
        assert registry.purge_commands("sync-2") == 0
        registry.delete("sync-2")


def test_other_threads_run_while_one_waits(offline: Options) -> None:
    with whimbrel.sync.DeviceClient.open(CONNECTION_STRING, **offline) as device:
        inbox = device.inbox()
        ended: List[Any] = []
        waiting = [threading.Thread(target=lambda: ended.append(inbox.next())) for _ in range(3)]
        for thread in waiting:
            thread.start()
        # This thread would not get here if the others kept the interpreter's lock.
        for _ in range(100):
            device.send(b"x")
        assert ended == []
        device.close()
        for thread in waiting:
            thread.join(60)
        assert ended == [None, None, None]


def test_a_late_item_is_still_taken(hub: LocalHub) -> None:
    connection_string = hub.create_device("sync-late")
    service = whimbrel.sync.ServiceClient.connect(hub.service_connection_string, **hub.service_options())
    with service, whimbrel.sync.DeviceClient.open(
        connection_string, outbox_in_memory=True, **hub.device_options()
    ) as device:
        inbox = device.inbox()
        with pytest.raises(whimbrel.DeliveryTimeout):
            inbox.next(timeout=timedelta(0))
        service.send("sync-late", b"x")
        until = time.monotonic() + 60
        while True:
            try:
                command = inbox.next(timeout=timedelta(milliseconds=1))
                break
            except whimbrel.DeliveryTimeout:
                assert time.monotonic() < until
        assert command is not None and command.body == b"x"
        command.complete()


def test_the_blocking_classes_are_the_same_but_for_waiting() -> None:
    for name in whimbrel.sync.__all__:
        asynchronous, blocking = getattr(whimbrel, name), getattr(whimbrel.sync, name)
        public = {attribute for attribute in dir(asynchronous) if not attribute.startswith("_")}
        missing = public - set(dir(blocking))
        assert not missing, (name, missing)
        for attribute in public:
            ours, theirs = getattr(asynchronous, attribute), getattr(blocking, attribute)
            assert inspect.getdoc(theirs), (name, attribute)
            if not inspect.isfunction(ours):
                continue
            names = [one for one in inspect.signature(theirs).parameters if one != "timeout"]
            assert names == list(inspect.signature(ours).parameters), (name, attribute)
            if inspect.iscoroutinefunction(ours) and attribute != "flush":
                assert "timeout" in inspect.signature(theirs).parameters, (name, attribute)
