"""whimbrel.sync: threads that send one message after the other."""

import threading

import whimbrel.sync

from common import Measurement, arguments, version
from whimbrel_common import CONNECTION_STRING, LONG, options, settled


def main():
    given = arguments()
    measurement = Measurement()
    with whimbrel.sync.DeviceClient.open(CONNECTION_STRING, **options(given)) as device:
        for state in device.connection_changes():
            if state.state == "connected":
                break

        def sender(count):
            for _ in range(count):
                device.send(given.body)

        count = min(given.concurrency, given.messages)
        shares = [given.messages // count + (index < given.messages % count) for index in range(count)]
        threads = [threading.Thread(target=sender, args=(share,)) for share in shares]
        measurement.begin()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        device.flush(LONG)
        measurement.end()
        settled(device, given.messages)
    measurement.tell(given.messages, version("whimbrel"))


main()
