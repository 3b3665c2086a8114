/* A device deals with one command and rejects another; the back end sees how they ended. */
#include "example.h"

int main(void)
{
    whimbrel_device_options options = example_options();
    whimbrel_device *device;
    must("opening", whimbrel_device_open(&options, &device));
    whimbrel_inbox *inbox;
    must("the inbox", whimbrel_device_inbox(device, &inbox));

    for (int settled = 0; settled < 2; settled++) {
        whimbrel_command *command;
        must("waiting for a command", whimbrel_inbox_next(inbox, 60000, NULL, &command));
        size_t length;
        const uint8_t *body = whimbrel_command_body(command, &length);
        printf("the device is asked to %.*s\n", (int)length, (const char *)body);
        /* Nothing is acknowledged before the program says so, and what is completed never comes again. */
        if (length == 4 && memcmp(body, "open", 4) == 0)
            must("completing", whimbrel_command_complete(command, 60000, NULL));
        else
            must("rejecting", whimbrel_command_reject(command, 60000, NULL));
        whimbrel_command_free(&command);
    }

    whimbrel_inbox_free(&inbox);
    must("closing", whimbrel_device_close(device, WHIMBREL_FOREVER, NULL));
    whimbrel_device_free(&device);
    return 0;
}
