/* whimbrel: one thread that sends as far as the window goes; each message is on the disk and synced when its callback comes. */
#include "whimbrel_common.h"
#include <semaphore.h>

static void on_stored(void *window, const whimbrel_error *error, whimbrel_receipt *receipt)
{
    if (error != NULL)
        abort();
    whimbrel_receipt_free(&receipt);
    sem_post(window);
}

int main(int count, char **words)
{
    struct given given = arguments(count, words);
    whimbrel_device *device = opened(&given);
    whimbrel_message message = message_of(&given);
    sem_t window;
    sem_init(&window, 0, (unsigned)given.concurrency);
    struct measurement begun = begin();
    for (long i = 0; i < given.messages; i++) {
        sem_wait(&window);
        must(whimbrel_device_send_async(device, &message, on_stored, &window, NULL));
    }
    for (long i = 0; i < given.concurrency; i++)
        sem_wait(&window);
    flush(device);
    tell(begun, given.messages, whimbrel_version());
    settled(device, given.messages);
    return 0;
}
