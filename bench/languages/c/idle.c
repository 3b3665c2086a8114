/* What a device costs that is connected and has nothing to do: KiB resident, threads. With --messages it sends so many first. */
#include "whimbrel_common.h"
#include <unistd.h>

static long status(const char *name)
{
    char line[256];
    long value = -1;
    FILE *file = fopen("/proc/self/status", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, name, strlen(name)) == 0)
            value = atol(line + strlen(name));
    }
    if (file != NULL)
        fclose(file);
    return value;
}

int main(int count, char **words)
{
    struct given given = arguments(count, words);
    whimbrel_device *device = opened(&given);
    whimbrel_message message = message_of(&given);
    for (long i = 0; i < given.messages; i++)
        must(whimbrel_device_send(device, &message, WHIMBREL_FOREVER, NULL, NULL));
    flush(device);
    /* Threads that were needed for opening end by themselves after a while. */
    sleep(13);
    printf("{\"messages\": %ld, \"rss_kib\": %ld, \"anonymous_kib\": %ld, \"file_kib\": %ld, \"threads\": %ld}\n", given.messages,
           status("VmRSS:"), status("RssAnon:"), status("RssFile:"), status("Threads:"));
    settled(device, given.messages);
    return 0;
}
