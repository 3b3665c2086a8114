"""whimbrel.sync: one thread that sends batches."""

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
        measurement.begin()
        left = given.messages
        while left:
            count = min(given.batch, left)
            device.send_many([given.body] * count)
            left -= count
        device.flush(LONG)
        measurement.end()
        settled(device, given.messages)
    measurement.tell(given.messages, version("whimbrel"))


main()
