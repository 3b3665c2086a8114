/* What a call costs that does no I/O: nanoseconds, the median of some series. */
#include "whimbrel_common.h"

static whimbrel_device *device;
static whimbrel_receipt *receipt;
static whimbrel_message message, refused;

static void version(void)
{
    whimbrel_version();
}

static void message_id(void)
{
    whimbrel_receipt_message_id(receipt);
}

static void receipt_state(void)
{
    whimbrel_receipt_get_state(receipt);
}

static void account(void)
{
    whimbrel_account found;
    whimbrel_device_account(device, &found);
}

static void refused_send(void)
{
    whimbrel_device_accept(device, &refused, NULL);
}

static void accept_in_memory(void)
{
    whimbrel_device_accept(device, &message, NULL);
}

static int by_size(const void *one, const void *other)
{
    double left = *(const double *)one, right = *(const double *)other;
    return left < right ? -1 : left > right;
}

int main(int count, char **words)
{
    struct given given = arguments(count, words);
    whimbrel_device_options options = WHIMBREL_DEVICE_OPTIONS_INIT;
    options.connection_string = "HostName=bench.example;DeviceId=bench;SharedAccessKey=c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0";
    options.outbox_in_memory = 1;
    options.server = "mqtt://127.0.0.1:9";
    options.close_deadline_ms = 0;
    must(whimbrel_device_open(&options, &device));
    message = message_of(&given);
    refused = message;
    refused.lane = 99;
    must(whimbrel_device_accept(device, &message, &receipt));
    struct {
        const char *name;
        void (*call)(void);
        int count;
    } calls[] = {{"version", version, 100000},     {"message_id", message_id, 100000},     {"receipt_state", receipt_state, 50000},
                 {"account", account, 50000},      {"refused_send", refused_send, 20000}, {"accept_in_memory", accept_in_memory, 2000}};
    printf("{");
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        double series[9];
        for (int at = 0; at < 9; at++) {
            double start = seconds_of(CLOCK_MONOTONIC);
            for (int n = 0; n < calls[i].count; n++)
                calls[i].call();
            series[at] = (seconds_of(CLOCK_MONOTONIC) - start) * 1e9 / calls[i].count;
        }
        qsort(series, 9, sizeof series[0], by_size);
        printf("%s\"%s\": %.0f", i > 0 ? ", " : "", calls[i].name, series[4]);
    }
    printf("}\n");
    whimbrel_receipt_free(&receipt);
    must(whimbrel_device_close(device, WHIMBREL_FOREVER, NULL));
    whimbrel_device_free(&device);
    return 0;
}
