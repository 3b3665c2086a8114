/* What the examples share: the way to the hub, and an end that says why. */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <whimbrel.h>

/* Options for the device and the folder that the environment names: WHIMBREL_CONNECTION_STRING, WHIMBREL_OUTBOX, and for a hub that is
 * not where the connection string says, WHIMBREL_SERVER. */
static inline whimbrel_device_options example_options(void)
{
    whimbrel_device_options options = WHIMBREL_DEVICE_OPTIONS_INIT;
    options.connection_string = getenv("WHIMBREL_CONNECTION_STRING");
    options.outbox_dir = getenv("WHIMBREL_OUTBOX");
    options.server = getenv("WHIMBREL_SERVER");
    /* A hub that comes back is to be found soon. */
    options.backoff_min_ms = 10;
    options.backoff_max_ms = 200;
    return options;
}

static inline void example_fail(const char *what)
{
    const whimbrel_error *error = whimbrel_last_error();
    fprintf(stderr, "%s: %s\n", what, error != NULL ? whimbrel_error_message(error) : "not as it should be");
    exit(1);
}

/* Ends the program unless a call went well. */
static inline void must(const char *what, whimbrel_status status)
{
    if (status != WHIMBREL_STATUS_OK)
        example_fail(what);
}

static inline whimbrel_message text_message(const char *text)
{
    whimbrel_message message = WHIMBREL_MESSAGE_INIT;
    message.body = text;
    message.body_length = strlen(text);
    return message;
}

#endif
