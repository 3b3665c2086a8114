/* The hub is away and the device program is restarted; nothing is lost, nothing comes twice, the order is kept. */
#include "example.h"

#define MESSAGES 500

/* One life of the device program: it sends its half and ends, with no hub in sight. */
static void send_half(int first)
{
    whimbrel_device_options options = example_options();
    options.close_deadline_ms = 0;
    whimbrel_device *device;
    must("opening", whimbrel_device_open(&options, &device));
    static char texts[MESSAGES / 2][12];
    static whimbrel_message messages[MESSAGES / 2];
    for (int i = 0; i < MESSAGES / 2; i++) {
        snprintf(texts[i], sizeof texts[i], "%d", first + i);
        messages[i] = text_message(texts[i]);
    }
    must("sending", whimbrel_device_send_many(device, messages, MESSAGES / 2, WHIMBREL_FOREVER, NULL, NULL));
    whimbrel_account account;
    must("the account", whimbrel_device_account(device, &account));
    printf("the device has %llu messages in its outbox and is restarted\n", (unsigned long long)account.queued);
    fflush(stdout);
    must("closing", whimbrel_device_close(device, WHIMBREL_FOREVER, NULL));
    whimbrel_device_free(&device);
}

int main(void)
{
    send_half(0);
    send_half(MESSAGES / 2);

    whimbrel_device_options options = example_options();
    whimbrel_device *device;
    must("opening", whimbrel_device_open(&options, &device));
    puts("waiting for the hub");
    fflush(stdout);
    uint64_t left;
    must("flushing", whimbrel_device_flush(device, 60000, NULL, &left));
    whimbrel_account account;
    must("the account", whimbrel_device_account(device, &account));
    printf("accepted %llu = delivered %llu + queued %llu\n", (unsigned long long)account.accepted,
           (unsigned long long)account.delivered, (unsigned long long)left);
    if (left != 0 || account.delivered != MESSAGES)
        example_fail("not everything was delivered");
    must("closing", whimbrel_device_close(device, WHIMBREL_FOREVER, NULL));
    whimbrel_device_free(&device);
    return 0;
}
