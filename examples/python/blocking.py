"""Without asyncio: the same names in whimbrel.sync, which block instead."""

from __future__ import annotations

import tempfile
from datetime import timedelta

from whimbrel import CommandOutcome, OutcomeKind
from whimbrel.sync import DeviceClient, ServiceClient
from whimbrel.testing import LocalHub

PATIENCE = timedelta(seconds=30)


def main() -> None:
    with LocalHub() as hub, tempfile.TemporaryDirectory() as outbox:
        connection_string = hub.create_device("thermostat-1")
        with DeviceClient.open(connection_string, outbox=outbox, **hub.device_options()) as device:
            receipt = device.send(b"21.5", content_type="text/plain")
            # What waits takes a timeout; the message is safe all the same.
            outcome = receipt.outcome(timeout=PATIENCE)
            print(f"stored in partition {outcome.partition} as number {outcome.sequence}")
            if outcome.kind != OutcomeKind.DELIVERED:
                raise SystemExit(f"it ended as {outcome}")

            with ServiceClient.connect(hub.service_connection_string, **hub.service_options()) as service:
                tracked = service.send("thermostat-1", b"reboot")
                for command in device.inbox():
                    print(f"the device is asked to {command.body.decode()}")
                    command.complete()
                    break
                if tracked.outcome(timeout=PATIENCE) != CommandOutcome.COMPLETED:
                    raise SystemExit("the command was not completed")
                print("and has done so")


if __name__ == "__main__":
    main()
