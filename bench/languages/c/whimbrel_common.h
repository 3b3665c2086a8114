/* Opens the device, the outbox always on the disk, and waits for the connection. */
#ifndef WHIMBREL_COMMON_H
#define WHIMBREL_COMMON_H

#include "common.h"
#include <whimbrel.h>

static inline void must(whimbrel_status status)
{
    if (status != WHIMBREL_STATUS_OK) {
        fprintf(stderr, "%s\n", whimbrel_error_message(whimbrel_last_error()));
        exit(1);
    }
}

static inline whimbrel_device *opened(const struct given *given)
{
    char server[256];
    snprintf(server, sizeof server, "mqtt://%s:%s", given->host, given->port);
    whimbrel_device_options options = WHIMBREL_DEVICE_OPTIONS_INIT;
    options.connection_string = "HostName=bench.example;DeviceId=bench;SharedAccessKey=c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0";
    options.outbox_dir = given->outbox;
    options.server = server;
    whimbrel_device *device;
    must(whimbrel_device_open(&options, &device));
    whimbrel_connection_changes *changes;
    must(whimbrel_device_connection_changes(device, &changes));
    for (;;) {
        whimbrel_connection *state;
        must(whimbrel_connection_changes_next(changes, 30000, NULL, &state));
        int is_connected = whimbrel_connection_get_state(state) == WHIMBREL_CONNECTION_CONNECTED;
        whimbrel_connection_free(&state);
        if (is_connected)
            break;
    }
    whimbrel_connection_changes_free(&changes);
    return device;
}

static inline whimbrel_message message_of(const struct given *given)
{
    whimbrel_message message = WHIMBREL_MESSAGE_INIT;
    message.body = given->body;
    message.body_length = (size_t)given->bytes;
    return message;
}

static inline void flush(whimbrel_device *device)
{
    uint64_t left;
    must(whimbrel_device_flush(device, 120000, NULL, &left));
}

/* Every message has been delivered, or the run does not count. */
static inline void settled(whimbrel_device *device, long messages)
{
    whimbrel_account account;
    must(whimbrel_device_account(device, &account));
    if (account.delivered != (uint64_t)messages) {
        fprintf(stderr, "not everything was delivered: %llu\n", (unsigned long long)account.delivered);
        exit(1);
    }
    must(whimbrel_device_close(device, WHIMBREL_FOREVER, NULL));
    whimbrel_device_free(&device);
}

#endif
