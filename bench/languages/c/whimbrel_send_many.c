/* whimbrel: one thread that sends batches, each of which is on the disk and synced when the call returns. */
#include "whimbrel_common.h"

int main(int count, char **words)
{
    struct given given = arguments(count, words);
    whimbrel_device *device = opened(&given);
    whimbrel_message *messages = malloc((size_t)given.batch * sizeof *messages);
    for (long i = 0; i < given.batch; i++)
        messages[i] = message_of(&given);
    struct measurement begun = begin();
    for (long left = given.messages; left > 0;) {
        long now = left < given.batch ? left : given.batch;
        must(whimbrel_device_send_many(device, messages, (size_t)now, WHIMBREL_FOREVER, NULL, NULL));
        left -= now;
    }
    flush(device);
    tell(begun, given.messages, whimbrel_version());
    settled(device, given.messages);
    free(messages);
    return 0;
}
