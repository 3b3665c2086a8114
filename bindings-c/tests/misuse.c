/* Calls every entry point as it must not be called: NULL, twice, after closing, with texts that are not UTF-8, numbers that are none,
 * structures of another size, pointers that are not aligned, panics. Argument: a folder for outboxes. Needs no hub. */
#include "check.h"

#include <stdint.h>

#define INVALID(text, call) FAILS(WHIMBREL_STATUS_INVALID_ARGUMENT, text, call)
#define NOT_UTF8 "a\xff"

/* Only in builds for tests. */
#ifdef __cplusplus
extern "C"
#endif
    whimbrel_status
    whimbrel_test_panic(const whimbrel_device *device);

static int drops = 0, calls = 0;

static void on_drop(void *context)
{
    CHECK(context == &drops);
    drops++;
}

static void on_done(void *context, const whimbrel_error *error)
{
    (void)context, (void)error;
    calls++;
}

static void on_count(void *context, const whimbrel_error *error, uint64_t count)
{
    (void)context, (void)error, (void)count;
    calls++;
}

static void on_receipt(void *context, const whimbrel_error *error, whimbrel_receipt *receipt)
{
    (void)context, (void)error, (void)receipt;
    calls++;
}

static void on_receipts(void *context, const whimbrel_error *error, whimbrel_receipt **receipts, size_t count)
{
    (void)context, (void)error, (void)receipts, (void)count;
    calls++;
}

static void on_outcome(void *context, const whimbrel_error *error, whimbrel_outcome *outcome)
{
    (void)context, (void)error, (void)outcome;
    calls++;
}

static void on_command(void *context, const whimbrel_error *error, whimbrel_command *command)
{
    (void)context, (void)error, (void)command;
    calls++;
}

static void on_log(void *context, const whimbrel_log_record *record)
{
    (void)context, (void)record;
}

static whimbrel_device_options usable(void)
{
    whimbrel_device_options options = WHIMBREL_DEVICE_OPTIONS_INIT;
    options.connection_string = "HostName=hub.example;DeviceId=d;SharedAccessKey=c2VjcmV0";
    options.server = "mqtt://127.0.0.1:9";
    options.outbox_in_memory = 1;
    options.close_deadline_ms = 0;
    return options;
}

static whimbrel_message message_of(const char *body)
{
    whimbrel_message message = WHIMBREL_MESSAGE_INIT;
    message.body = body;
    message.body_length = strlen(body);
    return message;
}

/* Each handle NULL, in every function that takes one. */
static void nulls(whimbrel_device *device)
{
    whimbrel_message message = message_of("x");
    whimbrel_receipt *receipt = (whimbrel_receipt *)&drops;
    whimbrel_outcome *outcome = (whimbrel_outcome *)&drops;
    whimbrel_command *command = (whimbrel_command *)&drops;
    whimbrel_connection *state = (whimbrel_connection *)&drops;
    whimbrel_inbox *inbox = (whimbrel_inbox *)&drops;
    whimbrel_connection_changes *changes = (whimbrel_connection_changes *)&drops;
    whimbrel_device *opened = (whimbrel_device *)&drops;
    whimbrel_account account;
    memset(&account, 1, sizeof account);
    whimbrel_counters counters = WHIMBREL_COUNTERS_INIT;
    uint64_t left = 7;
    int32_t fd = 7;

    INVALID("options is NULL", whimbrel_device_open(NULL, &opened));
    CHECK(opened == NULL);
    whimbrel_device_options options = usable();
    INVALID("out is NULL", whimbrel_device_open(&options, NULL));
    INVALID("device is NULL", whimbrel_device_send(NULL, &message, WHIMBREL_FOREVER, NULL, &receipt));
    CHECK(receipt == NULL);
    INVALID("message is NULL", whimbrel_device_send(device, NULL, WHIMBREL_FOREVER, NULL, NULL));
    INVALID("device is NULL", whimbrel_device_accept(NULL, &message, NULL));
    INVALID("message is NULL", whimbrel_device_accept(device, NULL, &receipt));
    receipt = (whimbrel_receipt *)&drops;
    INVALID("device is NULL", whimbrel_device_send_many(NULL, &message, 1, WHIMBREL_FOREVER, NULL, &receipt));
    CHECK(receipt == NULL);
    INVALID("messages is NULL", whimbrel_device_send_many(device, NULL, 1, WHIMBREL_FOREVER, NULL, NULL));
    INVALID("longer", whimbrel_device_send_many(device, &message, SIZE_MAX, WHIMBREL_FOREVER, NULL, NULL));
    INVALID("longer", whimbrel_device_send_many(device, &message, SIZE_MAX, WHIMBREL_FOREVER, NULL, &receipt));
    INVALID("device is NULL", whimbrel_device_receipt(NULL, "m", WHIMBREL_FOREVER, NULL, &receipt));
    INVALID("message_id is NULL", whimbrel_device_receipt(device, NULL, WHIMBREL_FOREVER, NULL, &receipt));
    INVALID("out is NULL", whimbrel_device_receipt(device, "m", WHIMBREL_FOREVER, NULL, NULL));
    INVALID("device is NULL", whimbrel_device_inbox(NULL, &inbox));
    CHECK(inbox == NULL);
    INVALID("out is NULL", whimbrel_device_inbox(device, NULL));
    INVALID("device is NULL", whimbrel_device_connection(NULL, &state));
    CHECK(state == NULL);
    INVALID("out is NULL", whimbrel_device_connection(device, NULL));
    INVALID("device is NULL", whimbrel_device_connection_changes(NULL, &changes));
    CHECK(changes == NULL);
    INVALID("out is NULL", whimbrel_device_connection_changes(device, NULL));
    INVALID("device is NULL", whimbrel_device_account(NULL, &account));
    CHECK(account.accepted == 0 && account.queued == 0);
    INVALID("out is NULL", whimbrel_device_account(device, NULL));
    INVALID("device is NULL", whimbrel_device_counters(NULL, &counters));
    INVALID("out is NULL", whimbrel_device_counters(device, NULL));
    INVALID("device is NULL", whimbrel_device_flush(NULL, 0, NULL, &left));
    CHECK(left == 0);
    INVALID("out is NULL", whimbrel_device_flush(device, 0, NULL, NULL));
    INVALID("negative", whimbrel_device_flush(device, -1, NULL, &left));
    INVALID("device is NULL", whimbrel_device_suspend(NULL, 0, NULL, &left));
    INVALID("out is NULL", whimbrel_device_suspend(device, 0, NULL, NULL));
    INVALID("budget_ms is negative", whimbrel_device_suspend(device, -1, NULL, &left));
    INVALID("device is NULL", whimbrel_device_resume(NULL, WHIMBREL_FOREVER, NULL));
    INVALID("device is NULL", whimbrel_device_close(NULL, WHIMBREL_FOREVER, NULL));
    INVALID("receipt is NULL", whimbrel_receipt_outcome(NULL, 0, NULL, &outcome));
    CHECK(outcome == NULL);
    INVALID("inbox is NULL", whimbrel_inbox_next(NULL, 0, NULL, &command));
    CHECK(command == NULL);
    INVALID("inbox is NULL", whimbrel_inbox_try_next(NULL, &command));
    INVALID("inbox is NULL", whimbrel_inbox_fd(NULL, &fd));
    CHECK(fd == -1);
    INVALID("command is NULL", whimbrel_command_complete(NULL, 0, NULL));
    INVALID("command is NULL", whimbrel_command_abandon(NULL, 0, NULL));
    INVALID("command is NULL", whimbrel_command_reject(NULL, 0, NULL));
    INVALID("changes is NULL", whimbrel_connection_changes_next(NULL, 0, NULL, &state));
    INVALID("changes is NULL", whimbrel_connection_changes_try_next(NULL, &state));
    INVALID("changes is NULL", whimbrel_connection_changes_fd(NULL, &fd));
    INVALID("out is NULL", whimbrel_cancel_token_new(NULL));
    INVALID("token is NULL", whimbrel_cancel_token_cancel(NULL));

    /* The functions of a stream, with nowhere to put what they give. */
    OK(whimbrel_device_inbox(device, &inbox));
    INVALID("out is NULL", whimbrel_inbox_next(inbox, 0, NULL, NULL));
    INVALID("out is NULL", whimbrel_inbox_try_next(inbox, NULL));
    INVALID("out is NULL", whimbrel_inbox_fd(inbox, NULL));
    OK(whimbrel_device_connection_changes(device, &changes));
    INVALID("out is NULL", whimbrel_connection_changes_next(changes, 0, NULL, NULL));
    INVALID("out is NULL", whimbrel_connection_changes_try_next(changes, NULL));
    INVALID("out is NULL", whimbrel_connection_changes_fd(changes, NULL));
    whimbrel_connection_changes_free(&changes);
    whimbrel_inbox_free(&inbox);
}

/* Callbacks that are not there, and calls that fail at once: no callback, but the context is freed. */
static void callbacks(whimbrel_device *device)
{
    whimbrel_message message = message_of("x");
    whimbrel_inbox *inbox;
    OK(whimbrel_device_inbox(device, &inbox));
    whimbrel_receipt *receipt;
    OK(whimbrel_device_accept(device, &message, &receipt));
    int before = drops;
    INVALID("callback is NULL", whimbrel_device_send_async(device, &message, NULL, &drops, on_drop));
    INVALID("callback is NULL", whimbrel_device_send_many_async(device, &message, 1, NULL, &drops, on_drop));
    INVALID("callback is NULL", whimbrel_device_receipt_async(device, "m", NULL, &drops, on_drop));
    INVALID("callback is NULL", whimbrel_device_flush_async(device, 0, NULL, NULL, &drops, on_drop));
    INVALID("callback is NULL", whimbrel_device_close_async(device, NULL, &drops, on_drop));
    INVALID("callback is NULL", whimbrel_receipt_outcome_async(receipt, 0, NULL, NULL, &drops, on_drop));
    INVALID("callback is NULL", whimbrel_inbox_next_async(inbox, 0, NULL, NULL, &drops, on_drop));
    INVALID("callback is NULL", whimbrel_command_complete_async(NULL, NULL, &drops, on_drop));
    INVALID("callback is NULL", whimbrel_command_abandon_async(NULL, NULL, &drops, on_drop));
    INVALID("callback is NULL", whimbrel_command_reject_async(NULL, NULL, &drops, on_drop));
    INVALID("callback is NULL", whimbrel_log_set(WHIMBREL_LOG_INFO, NULL, &drops, on_drop));
    INVALID("device is NULL", whimbrel_device_send_async(NULL, &message, on_receipt, &drops, on_drop));
    INVALID("message is NULL", whimbrel_device_send_async(device, NULL, on_receipt, &drops, on_drop));
    INVALID("device is NULL", whimbrel_device_send_many_async(NULL, &message, 1, on_receipts, &drops, on_drop));
    INVALID("messages is NULL", whimbrel_device_send_many_async(device, NULL, 1, on_receipts, &drops, on_drop));
    INVALID("device is NULL", whimbrel_device_receipt_async(NULL, "m", on_receipt, &drops, on_drop));
    INVALID("message_id is NULL", whimbrel_device_receipt_async(device, NULL, on_receipt, &drops, on_drop));
    INVALID("device is NULL", whimbrel_device_flush_async(NULL, 0, NULL, on_count, &drops, on_drop));
    INVALID("negative", whimbrel_device_flush_async(device, -1, NULL, on_count, &drops, on_drop));
    INVALID("device is NULL", whimbrel_device_close_async(NULL, on_done, &drops, on_drop));
    INVALID("callback is NULL", whimbrel_device_suspend_async(device, 0, NULL, &drops, on_drop));
    INVALID("device is NULL", whimbrel_device_suspend_async(NULL, 0, on_count, &drops, on_drop));
    INVALID("budget_ms is negative", whimbrel_device_suspend_async(device, -1, on_count, &drops, on_drop));
    INVALID("callback is NULL", whimbrel_device_resume_async(device, NULL, &drops, on_drop));
    INVALID("device is NULL", whimbrel_device_resume_async(NULL, on_done, &drops, on_drop));
    INVALID("receipt is NULL", whimbrel_receipt_outcome_async(NULL, 0, NULL, on_outcome, &drops, on_drop));
    INVALID("inbox is NULL", whimbrel_inbox_next_async(NULL, 0, NULL, on_command, &drops, on_drop));
    INVALID("command is NULL", whimbrel_command_complete_async(NULL, on_done, &drops, on_drop));
    INVALID("command is NULL", whimbrel_command_abandon_async(NULL, on_done, &drops, on_drop));
    INVALID("command is NULL", whimbrel_command_reject_async(NULL, on_done, &drops, on_drop));
    INVALID("no whimbrel_log_level", whimbrel_log_set(6, on_log, &drops, on_drop));
    INVALID("no whimbrel_log_level", whimbrel_log_set(-1, on_log, &drops, on_drop));
    CHECK(drops == before + 32 && calls == 0);
    whimbrel_receipt_free(&receipt);
    whimbrel_inbox_free(&inbox);
}

/* Getters and free functions take NULL, and leave the last error alone. */
static void getters(void)
{
    INVALID("token is NULL", whimbrel_cancel_token_cancel(NULL));
    CHECK(whimbrel_error_status(NULL) == WHIMBREL_STATUS_OK && whimbrel_error_kind(NULL) == NULL);
    CHECK(whimbrel_error_message(NULL) == NULL && whimbrel_error_operation(NULL) == NULL);
    CHECK(whimbrel_error_retry(NULL) == WHIMBREL_RETRY_NEVER && whimbrel_error_retry_after_ms(NULL) == -1);
    CHECK(whimbrel_error_detail_count(NULL) == 0 && whimbrel_error_detail_name(NULL, 0) == NULL);
    CHECK(whimbrel_error_detail_value(NULL, 0) == NULL);
    CHECK(whimbrel_receipt_message_id(NULL) == NULL && whimbrel_receipt_get_state(NULL) == WHIMBREL_RECEIPT_UNKNOWN);
    CHECK(whimbrel_outcome_get_kind(NULL) == WHIMBREL_OUTCOME_UNKNOWN && whimbrel_outcome_reason(NULL) == NULL);
    CHECK(whimbrel_outcome_partition(NULL) == -1 && whimbrel_outcome_sequence(NULL) == -1);
    CHECK(whimbrel_connection_get_state(NULL) == WHIMBREL_CONNECTION_UNKNOWN && whimbrel_connection_reason(NULL) == NULL);
    size_t length = 7;
    CHECK(whimbrel_command_body(NULL, &length) == NULL && length == 0 && whimbrel_command_body(NULL, NULL) == NULL);
    CHECK(whimbrel_command_message_id(NULL) == NULL && whimbrel_command_correlation_id(NULL) == NULL);
    CHECK(whimbrel_command_user_id(NULL) == NULL && whimbrel_command_content_type(NULL) == NULL);
    CHECK(whimbrel_command_content_encoding(NULL) == NULL && whimbrel_command_creation_time_ms(NULL) == WHIMBREL_NO_TIME);
    CHECK(whimbrel_command_enqueued_at_ms(NULL) == WHIMBREL_NO_TIME && whimbrel_command_sequence(NULL) == -1);
    CHECK(whimbrel_command_delivery_count(NULL) == -1 && whimbrel_command_property_count(NULL) == 0);
    CHECK(whimbrel_command_property_name(NULL, 0) == NULL && whimbrel_command_property_value(NULL, 0) == NULL);
    CHECK(whimbrel_command_property(NULL, "a") == NULL && whimbrel_command_property(NULL, NULL) == NULL);
    whimbrel_device_free(NULL);
    whimbrel_receipt_free(NULL);
    whimbrel_outcome_free(NULL);
    whimbrel_inbox_free(NULL);
    whimbrel_command_free(NULL);
    whimbrel_connection_free(NULL);
    whimbrel_connection_changes_free(NULL);
    whimbrel_cancel_token_free(NULL);
    whimbrel_device *device = NULL;
    whimbrel_receipt *receipt = NULL;
    whimbrel_outcome *outcome = NULL;
    whimbrel_inbox *inbox = NULL;
    whimbrel_command *command = NULL;
    whimbrel_connection *state = NULL;
    whimbrel_connection_changes *changes = NULL;
    whimbrel_cancel_token *token = NULL;
    whimbrel_device_free(&device);
    whimbrel_receipt_free(&receipt);
    whimbrel_outcome_free(&outcome);
    whimbrel_inbox_free(&inbox);
    whimbrel_command_free(&command);
    whimbrel_connection_free(&state);
    whimbrel_connection_changes_free(&changes);
    whimbrel_cancel_token_free(&token);
    /* Twice, through the variable that held it. */
    OK(whimbrel_cancel_token_new(&token));
    whimbrel_cancel_token_free(&token);
    whimbrel_cancel_token_free(&token);
    INVALID("token is NULL", whimbrel_cancel_token_cancel(token));
    whimbrel_cancel_token_free(&token);
    CHECK(whimbrel_error_status(whimbrel_last_error()) == WHIMBREL_STATUS_INVALID_ARGUMENT);
}

/* Many at once are looked at on the device's thread, and their callback is told. */
static void refused_by_the_core(whimbrel_device *device, const whimbrel_message *message, const char *text)
{
    whimbrel_receipt *receipt = (whimbrel_receipt *)&drops;
    INVALID(text, whimbrel_device_send(device, message, WHIMBREL_FOREVER, NULL, &receipt));
    CHECK(receipt == NULL);
    INVALID(text, whimbrel_device_accept(device, message, NULL));
    INVALID(text, whimbrel_device_send_many(device, message, 1, WHIMBREL_FOREVER, NULL, NULL));
    INVALID(text, whimbrel_device_send_async(device, message, on_receipt, &drops, on_drop));
}

static void refused_message(whimbrel_device *device, const whimbrel_message *message, const char *text)
{
    refused_by_the_core(device, message, text);
    INVALID(text, whimbrel_device_send_many_async(device, message, 1, on_receipts, &drops, on_drop));
}

static void messages(whimbrel_device *device)
{
    whimbrel_receipt *found;
    whimbrel_message message = message_of("x");
    message.size = 0;
    refused_message(device, &message, "not initialised");
    message.size = sizeof message + 8;
    refused_message(device, &message, "newer version");
    message = message_of("x");
    message.body = NULL;
    refused_message(device, &message, "body is NULL");
    message = message_of("x");
    message.body_length = SIZE_MAX;
    refused_message(device, &message, "body is longer");
    for (int32_t lane = 2; lane > -4; lane -= 3) {
        message = message_of("x");
        message.lane = lane;
        refused_message(device, &message, "telemetry or alert");
    }
    message = message_of("x");
    message.durability = 3;
    refused_message(device, &message, "on-disk, interval or memory");
    message = message_of("x");
    message.expires_in_ms = -1;
    refused_message(device, &message, "expires_in_ms is negative");
    message.expires_in_ms = 0;
    refused_by_the_core(device, &message, "time to live is zero");
    message = message_of("x");
    message.creation_time_ms = INT64_MAX;
    refused_by_the_core(device, &message, "creation time");
    const char **texts[] = {&message.message_id, &message.correlation_id, &message.user_id, &message.content_type,
                            &message.content_encoding, &message.message_schema, &message.output_name, &message.interface_id,
                            &message.component};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        message = message_of("x");
        *texts[i] = NOT_UTF8;
        refused_message(device, &message, "is not UTF-8");
    }
    message = message_of("x");
    message.property_count = 1;
    refused_message(device, &message, "properties is NULL");
    whimbrel_property property = {NOT_UTF8, "v"};
    message.properties = &property;
    refused_message(device, &message, "property name is not UTF-8");
    property.name = "n";
    property.value = NOT_UTF8;
    refused_message(device, &message, "property value is not UTF-8");
    property.value = NULL;
    refused_message(device, &message, "property value is NULL");
    property.name = NULL;
    refused_message(device, &message, "property name is NULL");
    INVALID("not UTF-8", whimbrel_device_receipt(device, NOT_UTF8, WHIMBREL_FOREVER, NULL, &found));
    char bytes[sizeof(whimbrel_message) + 1];
    memset(bytes, 0, sizeof bytes);
    refused_message(device, (const whimbrel_message *)(const void *)(bytes + ((uintptr_t)bytes % 2 == 0)), "not aligned");
    whimbrel_account account;
    OK(whimbrel_device_account(device, &account));
    CHECK(account.accepted == 1);
    whimbrel_counters counters = WHIMBREL_COUNTERS_INIT;
    counters.size = 8;
    INVALID("not initialised", whimbrel_device_counters(device, &counters));
}

static void refused_options(const whimbrel_device_options *options, const char *text)
{
    whimbrel_device *device = (whimbrel_device *)&drops;
    INVALID(text, whimbrel_device_open(options, &device));
    CHECK(device == NULL);
}

static void options(const char *folder)
{
    whimbrel_device_options given = usable();
    given.size = 0;
    refused_options(&given, "not initialised");
    given.size = sizeof given + 1;
    refused_options(&given, "newer version");
    given = usable();
    given.outbox_in_memory = 0;
    refused_options(&given, "no place for the outbox");
    given.outbox_in_memory = 1;
    given.outbox_dir = folder;
    refused_options(&given, "either in a folder or in memory");
    int32_t *words[] = {&given.overflow, &given.durability, &given.protocol};
    const char *known[] = {"drop-oldest", "interval", "mqtt5"};
    for (size_t i = 0; i < 3; i++) {
        given = usable();
        *words[i] = 77;
        refused_options(&given, known[i]);
        *words[i] = -1;
        refused_options(&given, known[i]);
    }
    const char **texts[] = {&given.connection_string, &given.outbox_dir, &given.server, &given.proxy, &given.ca_file, &given.ca_pem,
                            &given.client_certificate, &given.client_key, &given.client_certificate_pem, &given.client_key_pem};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        given = usable();
        *texts[i] = NOT_UTF8;
        refused_options(&given, "is not UTF-8");
    }
    int64_t *numbers[] = {&given.outbox_max_bytes, &given.outbox_max_messages, &given.outbox_max_age_ms, &given.sync_interval_ms,
                          &given.kept_outcomes, &given.keep_alive_ms, &given.connect_timeout_ms, &given.poll_interval_ms,
                          &given.backoff_min_ms, &given.backoff_max_ms, &given.close_deadline_ms, &given.token_lifetime_ms};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        given = usable();
        *numbers[i] = -1;
        refused_options(&given, "is negative");
    }
    given = usable();
    given.window = 65536;
    refused_options(&given, "window is over");
    given = usable();
    given.inbox_window = -1;
    refused_options(&given, "inbox_window is negative");
    given = usable();
    given.connection_string = NULL;
    refused_options(&given, "connection_string is NULL");
}

static void after_closing(whimbrel_device *device)
{
    whimbrel_message message = message_of("x");
    OK(whimbrel_device_close(device, WHIMBREL_FOREVER, NULL));
    OK(whimbrel_device_close(device, WHIMBREL_FOREVER, NULL));
    whimbrel_receipt *receipt;
    uint64_t left;
    FAILS(WHIMBREL_STATUS_CLOSED, "closed", whimbrel_device_send(device, &message, WHIMBREL_FOREVER, NULL, &receipt));
    FAILS(WHIMBREL_STATUS_CLOSED, "closed", whimbrel_device_accept(device, &message, NULL));
    FAILS(WHIMBREL_STATUS_CLOSED, "closed", whimbrel_device_send_async(device, &message, on_receipt, &drops, on_drop));
    FAILS(WHIMBREL_STATUS_CLOSED, "closed", whimbrel_device_send_many(device, &message, 1, WHIMBREL_FOREVER, NULL, &receipt));
    FAILS(WHIMBREL_STATUS_CLOSED, "closed", whimbrel_device_receipt(device, "m", WHIMBREL_FOREVER, NULL, &receipt));
    FAILS(WHIMBREL_STATUS_CLOSED, "closed", whimbrel_device_flush(device, 0, NULL, &left));
    FAILS(WHIMBREL_STATUS_CLOSED, "closed", whimbrel_device_suspend(device, 0, NULL, &left));
    FAILS(WHIMBREL_STATUS_CLOSED, "closed", whimbrel_device_resume(device, WHIMBREL_FOREVER, NULL));
    whimbrel_account account;
    OK(whimbrel_device_account(device, &account));
    CHECK(account.accepted == 1);
}

int main(int count, char **arguments)
{
    if (count != 2)
        return 2;
    CHECK(whimbrel_last_error() == NULL);
    whimbrel_device_options given = usable();
    whimbrel_device *device;
    OK(whimbrel_device_open(&given, &device));
    nulls(device);
    callbacks(device);
    getters();
    messages(device);
    options(arguments[1]);
    FAILS(WHIMBREL_STATUS_INTERNAL, "asked for", whimbrel_test_panic(NULL));
    FAILS(WHIMBREL_STATUS_INTERNAL, "on the device's thread", whimbrel_test_panic(device));
    CHECK(strcmp(whimbrel_error_detail_name(whimbrel_last_error(), 0), "panic") == 0);
    CHECK(strstr(whimbrel_error_detail_value(whimbrel_last_error(), 0), "asked for") != NULL);
    CHECK(whimbrel_error_detail_name(whimbrel_last_error(), 9) == NULL);
    after_closing(device);
    whimbrel_device_free(&device);
    whimbrel_device_free(&device);
    CHECK(device == NULL && calls == 0);
    INVALID("device is NULL", whimbrel_device_close(device, WHIMBREL_FOREVER, NULL));
    printf("%d passed\n", checks_passed);
    return 0;
}
