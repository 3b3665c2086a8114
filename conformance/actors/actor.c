/* The C actor: does with whimbrel.h what the driver says; with --callbacks by the calls that end in _async, where there are such.
 * See ../README.md. Each call has a thread of its own, which waits. JSON is read and written by cJSON. */
#define _POSIX_C_SOURCE 200809L
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <whimbrel.h>

/* Only in builds for tests. */
whimbrel_status whimbrel_test_panic(const whimbrel_device *device);

static bool callbacks;

static void *must(void *memory)
{
    if (memory == NULL) {
        fputs("out of memory\n", stderr);
        abort();
    }
    return memory;
}

/* ---- What the driver has named, and what is running ---- */

enum kind { DEVICE, RECEIPT, INBOX, COMMAND, STATES };

struct object {
    struct object *next;
    char *name;
    enum kind kind;
    void *thing;
};

/* An object whose name is given again stays, for a call may still use it: an actor does not live long. */
static struct object *objects;
static pthread_mutex_t objects_lock = PTHREAD_MUTEX_INITIALIZER;

static void keep(const char *name, enum kind kind, void *thing)
{
    struct object *object = must(malloc(sizeof *object));
    *object = (struct object){.name = must(strdup(name)), .kind = kind, .thing = thing};
    pthread_mutex_lock(&objects_lock);
    object->next = objects;
    objects = object;
    pthread_mutex_unlock(&objects_lock);
}

static void *find(const char *name, enum kind kind)
{
    void *thing = NULL;
    pthread_mutex_lock(&objects_lock);
    for (struct object *object = objects; object != NULL; object = object->next) {
        if (strcmp(object->name, name) == 0) {
            thing = object->kind == kind ? object->thing : NULL;
            break;
        }
    }
    pthread_mutex_unlock(&objects_lock);
    return thing;
}

struct request {
    struct request *next;
    double id;
    cJSON *line;
    const char *call, *on, *as;
    const cJSON *args;
    whimbrel_cancel_token *token;
    cJSON *answer;
    /* For what is told to a callback. */
    sem_t told;
    whimbrel_status status;
    cJSON *error;
    void *thing;
    uint64_t count;
};

static struct request *running;
static pthread_mutex_t running_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t output_lock = PTHREAD_MUTEX_INITIALIZER;

static void say(double id, const char *what, cJSON *answer)
{
    cJSON *line = cJSON_CreateObject();
    cJSON_AddNumberToObject(line, "id", id);
    cJSON_AddItemToObject(line, what, answer);
    char *text = must(cJSON_PrintUnformatted(line));
    pthread_mutex_lock(&output_lock);
    printf("%s\n", text);
    fflush(stdout);
    pthread_mutex_unlock(&output_lock);
    cJSON_free(text);
    cJSON_Delete(line);
}

/* ---- Values ---- */

static char *decoded(const char *text, size_t *length)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *bytes = must(malloc(strlen(text) + 1));
    uint32_t bits = 0;
    int held = 0;
    *length = 0;
    for (; *text != '\0' && *text != '='; text++) {
        bits = bits << 6 | (uint32_t)(strchr(digits, *text) - digits);
        held += 6;
        if (held >= 8) {
            held -= 8;
            bytes[(*length)++] = (char)(bits >> held & 0xff);
        }
    }
    return bytes;
}

static char *encoded(const uint8_t *bytes, size_t length)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = must(malloc(length / 3 * 4 + 5)), *at = text;
    for (size_t i = 0; i < length; i += 3) {
        uint32_t three = (uint32_t)bytes[i] << 16;
        if (i + 1 < length)
            three |= (uint32_t)bytes[i + 1] << 8;
        if (i + 2 < length)
            three |= bytes[i + 2];
        *at++ = digits[three >> 18];
        *at++ = digits[three >> 12 & 63];
        *at++ = i + 1 < length ? digits[three >> 6 & 63] : '=';
        *at++ = i + 2 < length ? digits[three & 63] : '=';
    }
    *at = '\0';
    return text;
}

/* A text; units of UTF-16 become what a program that encodes each by itself would hand over. Texts live as long as the request, or
 * the process. */
static const char *text_of(const cJSON *value)
{
    if (cJSON_IsString(value))
        return value->valuestring;
    const cJSON *units = cJSON_GetObjectItem(value, "$utf16");
    if (units == NULL)
        return NULL;
    char *text = must(malloc(3 * (size_t)cJSON_GetArraySize(units) + 1)), *at = text;
    const cJSON *unit;
    cJSON_ArrayForEach(unit, units)
    {
        unsigned code = (unsigned)unit->valuedouble;
        if (code < 0x80) {
            *at++ = (char)code;
        } else if (code < 0x800) {
            *at++ = (char)(0xc0 | code >> 6);
            *at++ = (char)(0x80 | (code & 63));
        } else {
            *at++ = (char)(0xe0 | code >> 12);
            *at++ = (char)(0x80 | (code >> 6 & 63));
            *at++ = (char)(0x80 | (code & 63));
        }
    }
    *at = '\0';
    return text;
}

static int64_t number_of(const cJSON *value)
{
    const cJSON *text = cJSON_GetObjectItem(value, "$int");
    return text != NULL ? strtoll(text->valuestring, NULL, 10) : (int64_t)value->valuedouble;
}

static void add_number(cJSON *object, const char *name, int64_t number, int64_t none)
{
    if (number == none) {
        cJSON_AddNullToObject(object, name);
    } else if (number > (INT64_C(1) << 53)) {
        char text[32];
        snprintf(text, sizeof text, "%" PRId64, number);
        cJSON_AddStringToObject(cJSON_AddObjectToObject(object, name), "$int", text);
    } else {
        cJSON_AddNumberToObject(object, name, (double)number);
    }
}

static void add_text(cJSON *object, const char *name, const char *text)
{
    if (text == NULL)
        cJSON_AddNullToObject(object, name);
    else
        cJSON_AddStringToObject(object, name, text);
}

/* The number for a word; one that there is not for a word that there is not. */
static int32_t word(const cJSON *value, const char *const *words)
{
    for (int32_t number = 0; words[number] != NULL; number++) {
        if (cJSON_IsString(value) && strcmp(value->valuestring, words[number]) == 0)
            return number;
    }
    return 99;
}

static const char *const lanes[] = {"telemetry", "alert", NULL};
static const char *const durabilities[] = {"on-disk", "interval", "memory", NULL};
static const char *const overflows[] = {"reject", "drop-oldest", "drop-newest", NULL};
static const char *const protocols[] = {"auto", "mqtt3", "mqtt5", "amqp", "http", NULL};

struct field {
    const char *name;
    enum { TEXT, WHOLE, SMALL, FLAG, WORD } type;
    size_t offset;
    const char *const *words;
};

/* Sets the members that `args` names; those it does not name stay unsaid. */
static const char *set(void *structure, const struct field *fields, const cJSON *args)
{
    const cJSON *value;
    cJSON_ArrayForEach(value, args)
    {
        const struct field *field = fields;
        while (field->name != NULL && strcmp(field->name, value->string) != 0)
            field++;
        if (field->name == NULL)
            return value->string;
        if (cJSON_IsNull(value))
            continue;
        char *member = (char *)structure + field->offset;
        const char *text = field->type == TEXT ? text_of(value) : NULL;
        int64_t whole = field->type == WHOLE || field->type == SMALL ? number_of(value) : 0;
        int32_t small = field->type == WORD ? word(value, field->words) : field->type == FLAG ? cJSON_IsTrue(value) : (int32_t)whole;
        if (field->type == TEXT)
            memcpy(member, &text, sizeof text);
        else if (field->type == WHOLE)
            memcpy(member, &whole, sizeof whole);
        else
            memcpy(member, &small, sizeof small);
    }
    return NULL;
}

#define OPTION(name, type, words) {#name, type, offsetof(whimbrel_device_options, name), words}
static const struct field option_fields[] = {
    {"outbox", TEXT, offsetof(whimbrel_device_options, outbox_dir), NULL},
    OPTION(outbox_in_memory, FLAG, NULL),
    OPTION(overflow, WORD, overflows),
    OPTION(durability, WORD, durabilities),
    OPTION(outbox_max_bytes, WHOLE, NULL),
    OPTION(outbox_max_messages, WHOLE, NULL),
    OPTION(outbox_max_age_ms, WHOLE, NULL),
    OPTION(sync_interval_ms, WHOLE, NULL),
    OPTION(kept_outcomes, WHOLE, NULL),
    OPTION(server, TEXT, NULL),
    OPTION(websocket, FLAG, NULL),
    OPTION(proxy, TEXT, NULL),
    OPTION(ca_file, TEXT, NULL),
    OPTION(ca_pem, TEXT, NULL),
    OPTION(client_certificate, TEXT, NULL),
    OPTION(client_key, TEXT, NULL),
    OPTION(client_certificate_pem, TEXT, NULL),
    OPTION(client_key_pem, TEXT, NULL),
    OPTION(allow_unencrypted, FLAG, NULL),
    OPTION(protocol, WORD, protocols),
    OPTION(keep_alive_ms, WHOLE, NULL),
    OPTION(connect_timeout_ms, WHOLE, NULL),
    OPTION(poll_interval_ms, WHOLE, NULL),
    OPTION(window, SMALL, NULL),
    OPTION(inbox_window, SMALL, NULL),
    OPTION(backoff_min_ms, WHOLE, NULL),
    OPTION(backoff_max_ms, WHOLE, NULL),
    OPTION(close_deadline_ms, WHOLE, NULL),
    OPTION(token_lifetime_ms, WHOLE, NULL),
    {NULL, TEXT, 0, NULL},
};

#define SAID(name, type, words) {#name, type, offsetof(whimbrel_message, name), words}
static const struct field message_fields[] = {
    SAID(lane, WORD, lanes),
    SAID(durability, WORD, durabilities),
    SAID(message_id, TEXT, NULL),
    SAID(correlation_id, TEXT, NULL),
    SAID(user_id, TEXT, NULL),
    SAID(content_type, TEXT, NULL),
    SAID(content_encoding, TEXT, NULL),
    SAID(creation_time_ms, WHOLE, NULL),
    SAID(message_schema, TEXT, NULL),
    SAID(output_name, TEXT, NULL),
    SAID(interface_id, TEXT, NULL),
    SAID(component, TEXT, NULL),
    SAID(expires_in_ms, WHOLE, NULL),
    {NULL, TEXT, 0, NULL},
};

/* The message `args` describe; with whether it was understood. Its body and properties are to be freed. */
static bool message_of(const cJSON *args, whimbrel_message *message)
{
    *message = (whimbrel_message)WHIMBREL_MESSAGE_INIT;
    cJSON *rest = cJSON_Duplicate(args, true);
    cJSON_DeleteItemFromObject(rest, "body");
    cJSON_DeleteItemFromObject(rest, "properties");
    /* Its texts are in `args`, which live longer. */
    cJSON *described = cJSON_CreateObject();
    const cJSON *value;
    cJSON_ArrayForEach(value, args)
    {
        if (cJSON_HasObjectItem(rest, value->string))
            cJSON_AddItemReferenceToObject(described, value->string, (cJSON *)(uintptr_t)value);
    }
    const char *unknown = set(message, message_fields, described);
    cJSON_Delete(described);
    cJSON_Delete(rest);
    const cJSON *body = cJSON_GetObjectItem(args, "body");
    if (unknown != NULL || !cJSON_IsString(body))
        return false;
    message->body = decoded(body->valuestring, &message->body_length);
    const cJSON *properties = cJSON_GetObjectItem(args, "properties");
    if (properties != NULL) {
        whimbrel_property *all = must(calloc((size_t)cJSON_GetArraySize(properties) + 1, sizeof *all));
        cJSON_ArrayForEach(value, properties)
        {
            all[message->property_count++] = (whimbrel_property){value->string, text_of(value)};
        }
        message->properties = all;
    }
    return true;
}

static void free_message(whimbrel_message *message)
{
    free((void *)(uintptr_t)message->body);
    free((void *)(uintptr_t)message->properties);
}

/* ---- Answers ---- */

static cJSON *error_of(const whimbrel_error *error)
{
    static const char *const retries[] = {"never", "later", "wait again", "after reopen", "caller's choice"};
    cJSON *object = cJSON_CreateObject();
    add_text(object, "kind", whimbrel_error_kind(error));
    cJSON_AddNumberToObject(object, "code", whimbrel_error_status(error));
    add_text(object, "retry", retries[whimbrel_error_retry(error)]);
    add_text(object, "operation", whimbrel_error_operation(error));
    add_text(object, "message", whimbrel_error_message(error));
    cJSON *details = cJSON_AddObjectToObject(object, "details");
    for (size_t i = 0; i < whimbrel_error_detail_count(error); i++)
        add_text(details, whimbrel_error_detail_name(error, i), whimbrel_error_detail_value(error, i));
    return object;
}

static void add_connection(cJSON *answer, whimbrel_connection *connection)
{
    static const char *const words[] = {"unknown", "disconnected", "connecting", "connected", "unauthorized", "closed", "suspended"};
    add_text(answer, "state", words[whimbrel_connection_get_state(connection)]);
    add_text(answer, "reason", whimbrel_connection_reason(connection));
    whimbrel_connection_free(&connection);
}

static void add_outcome(cJSON *answer, whimbrel_outcome *outcome)
{
    static const char *const words[] = {"unknown", "delivered", "expired", "dropped", "rejected"};
    add_text(answer, "outcome", words[whimbrel_outcome_get_kind(outcome)]);
    add_number(answer, "partition", whimbrel_outcome_partition(outcome), -1);
    add_number(answer, "sequence", whimbrel_outcome_sequence(outcome), -1);
    add_text(answer, "reason", whimbrel_outcome_reason(outcome));
    whimbrel_outcome_free(&outcome);
}

static void add_command(cJSON *answer, const whimbrel_command *command)
{
    size_t length;
    const uint8_t *body = whimbrel_command_body(command, &length);
    char *text = encoded(body, length);
    add_text(answer, "body", text);
    free(text);
    cJSON *properties = cJSON_AddObjectToObject(answer, "properties");
    for (size_t i = 0; i < whimbrel_command_property_count(command); i++)
        add_text(properties, whimbrel_command_property_name(command, i), whimbrel_command_property_value(command, i));
    add_text(answer, "message_id", whimbrel_command_message_id(command));
    add_text(answer, "correlation_id", whimbrel_command_correlation_id(command));
    add_text(answer, "user_id", whimbrel_command_user_id(command));
    add_text(answer, "content_type", whimbrel_command_content_type(command));
    add_text(answer, "content_encoding", whimbrel_command_content_encoding(command));
    add_number(answer, "creation_time_ms", whimbrel_command_creation_time_ms(command), WHIMBREL_NO_TIME);
    add_number(answer, "enqueued_at_ms", whimbrel_command_enqueued_at_ms(command), WHIMBREL_NO_TIME);
    add_number(answer, "sequence", whimbrel_command_sequence(command), -1);
    add_number(answer, "delivery_count", whimbrel_command_delivery_count(command), -1);
}

static void add_account(cJSON *answer, const whimbrel_account *account)
{
    add_number(answer, "accepted", (int64_t)account->accepted, -1);
    add_number(answer, "delivered", (int64_t)account->delivered, -1);
    add_number(answer, "expired", (int64_t)account->expired, -1);
    add_number(answer, "dropped", (int64_t)account->dropped, -1);
    add_number(answer, "rejected", (int64_t)account->rejected, -1);
    add_number(answer, "queued", (int64_t)account->queued, -1);
}

/* ---- Callbacks: each wakes the request's thread ---- */

static void told(struct request *request, const whimbrel_error *error)
{
    request->status = whimbrel_error_status(error);
    request->error = error != NULL ? error_of(error) : NULL;
    sem_post(&request->told);
}

static void on_done(void *context, const whimbrel_error *error)
{
    told(context, error);
}

static void on_count(void *context, const whimbrel_error *error, uint64_t count)
{
    ((struct request *)context)->count = count;
    told(context, error);
}

static void on_receipt(void *context, const whimbrel_error *error, whimbrel_receipt *receipt)
{
    ((struct request *)context)->thing = receipt;
    told(context, error);
}

static void on_receipts(void *context, const whimbrel_error *error, whimbrel_receipt **receipts, size_t count)
{
    struct request *request = context;
    request->count = count;
    request->thing = must(calloc(count + 1, sizeof *receipts));
    if (count > 0)
        memcpy(request->thing, receipts, count * sizeof *receipts);
    told(context, error);
}

static void on_outcome(void *context, const whimbrel_error *error, whimbrel_outcome *outcome)
{
    ((struct request *)context)->thing = outcome;
    told(context, error);
}

static void on_command(void *context, const whimbrel_error *error, whimbrel_command *command)
{
    ((struct request *)context)->thing = command;
    told(context, error);
}

/* What became of a call that was started. */
static whimbrel_status wait_for(struct request *request, whimbrel_status started)
{
    if (started != WHIMBREL_STATUS_OK)
        return started;
    while (sem_wait(&request->told) != 0) {
    }
    return request->status;
}

/* ---- Calls ---- */

static whimbrel_status settle(struct request *request, const char *how)
{
    whimbrel_command *command = find(request->on, COMMAND);
    if (callbacks) {
        whimbrel_status started = strcmp(how, "complete") == 0  ? whimbrel_command_complete_async(command, on_done, request, NULL)
                                  : strcmp(how, "abandon") == 0 ? whimbrel_command_abandon_async(command, on_done, request, NULL)
                                                                : whimbrel_command_reject_async(command, on_done, request, NULL);
        return wait_for(request, started);
    }
    if (strcmp(how, "complete") == 0)
        return whimbrel_command_complete(command, WHIMBREL_FOREVER, request->token);
    if (strcmp(how, "abandon") == 0)
        return whimbrel_command_abandon(command, WHIMBREL_FOREVER, request->token);
    return whimbrel_command_reject(command, WHIMBREL_FOREVER, request->token);
}

static whimbrel_status send(struct request *request, whimbrel_device *device)
{
    whimbrel_message message;
    whimbrel_receipt *receipt = NULL;
    if (!message_of(request->args, &message))
        return -1;
    whimbrel_status status;
    if (callbacks) {
        status = wait_for(request, whimbrel_device_send_async(device, &message, on_receipt, request, NULL));
        receipt = request->thing;
    } else {
        status = whimbrel_device_send(device, &message, WHIMBREL_FOREVER, request->token, &receipt);
    }
    free_message(&message);
    if (status == WHIMBREL_STATUS_OK) {
        add_text(request->answer, "message_id", whimbrel_receipt_message_id(receipt));
        keep(request->as, RECEIPT, receipt);
    }
    return status;
}

static whimbrel_status send_many(struct request *request, whimbrel_device *device)
{
    const cJSON *drafts = cJSON_GetObjectItem(request->args, "messages"), *draft;
    size_t count = 0, size = (size_t)cJSON_GetArraySize(drafts) + 1;
    whimbrel_message *messages = must(calloc(size, sizeof *messages));
    whimbrel_receipt **receipts = must(calloc(size, sizeof(whimbrel_receipt *)));
    bool understood = true;
    cJSON_ArrayForEach(draft, drafts)
    {
        understood &= message_of(draft, &messages[count++]);
    }
    whimbrel_status status = -1;
    if (understood && callbacks) {
        status = wait_for(request, whimbrel_device_send_many_async(device, messages, count, on_receipts, request, NULL));
        if (request->thing != NULL && status == WHIMBREL_STATUS_OK)
            memcpy(receipts, request->thing, count * sizeof *receipts);
        free(request->thing);
    } else if (understood) {
        status = whimbrel_device_send_many(device, messages, count, WHIMBREL_FOREVER, request->token, receipts);
    }
    cJSON *ids = cJSON_AddArrayToObject(request->answer, "message_ids");
    for (size_t i = 0; i < count; i++) {
        free_message(&messages[i]);
        if (status == WHIMBREL_STATUS_OK) {
            char name[256];
            snprintf(name, sizeof name, "%s.%zu", request->as, i);
            cJSON_AddItemToArray(ids, cJSON_CreateString(whimbrel_receipt_message_id(receipts[i])));
            keep(name, RECEIPT, receipts[i]);
        }
    }
    free(messages);
    free(receipts);
    return status;
}

static whimbrel_status find_receipt(struct request *request, whimbrel_device *device)
{
    const char *id = text_of(cJSON_GetObjectItem(request->args, "message_id"));
    whimbrel_receipt *receipt = NULL;
    whimbrel_status status;
    if (callbacks) {
        status = wait_for(request, whimbrel_device_receipt_async(device, id, on_receipt, request, NULL));
        receipt = request->thing;
    } else {
        status = whimbrel_device_receipt(device, id, WHIMBREL_FOREVER, request->token, &receipt);
    }
    bool absent = status == WHIMBREL_STATUS_NOT_FOUND;
    if (status == WHIMBREL_STATUS_OK)
        keep(request->as, RECEIPT, receipt);
    else if (!absent)
        return status;
    cJSON_AddBoolToObject(request->answer, "found", !absent);
    return WHIMBREL_STATUS_OK;
}

static whimbrel_status outcome(struct request *request)
{
    whimbrel_receipt *receipt = find(request->on, RECEIPT);
    whimbrel_outcome *outcome = NULL;
    whimbrel_status status;
    if (callbacks) {
        status = wait_for(
            request, whimbrel_receipt_outcome_async(receipt, WHIMBREL_FOREVER, request->token, on_outcome, request, NULL));
        outcome = request->thing;
    } else {
        status = whimbrel_receipt_outcome(receipt, WHIMBREL_FOREVER, request->token, &outcome);
    }
    if (status == WHIMBREL_STATUS_OK)
        add_outcome(request->answer, outcome);
    return status;
}

static whimbrel_status state(struct request *request)
{
    static const char *const words[] = {"unknown", "queued", "sent", "settled"};
    whimbrel_receipt *receipt = find(request->on, RECEIPT);
    whimbrel_receipt_state state = whimbrel_receipt_get_state(receipt);
    add_text(request->answer, "state", words[state]);
    if (state != WHIMBREL_RECEIPT_SETTLED)
        return WHIMBREL_STATUS_OK;
    whimbrel_outcome *outcome;
    whimbrel_status status = whimbrel_receipt_outcome(receipt, 0, NULL, &outcome);
    if (status == WHIMBREL_STATUS_OK)
        add_outcome(request->answer, outcome);
    return status;
}

static whimbrel_status next_command(struct request *request)
{
    whimbrel_inbox *inbox = find(request->on, INBOX);
    whimbrel_command *command = NULL;
    whimbrel_status status;
    if (callbacks) {
        status = wait_for(request, whimbrel_inbox_next_async(inbox, WHIMBREL_FOREVER, request->token, on_command, request, NULL));
        command = request->thing;
    } else {
        status = whimbrel_inbox_next(inbox, WHIMBREL_FOREVER, request->token, &command);
    }
    if (status == WHIMBREL_STATUS_CLOSED) {
        cJSON_AddTrueToObject(request->answer, "end");
        return WHIMBREL_STATUS_OK;
    }
    if (status == WHIMBREL_STATUS_OK) {
        add_command(request->answer, command);
        keep(request->as, COMMAND, command);
    }
    return status;
}

static whimbrel_status next_state(struct request *request)
{
    whimbrel_connection *connection;
    whimbrel_connection_changes *changes = find(request->on, STATES);
    whimbrel_status status = whimbrel_connection_changes_next(changes, WHIMBREL_FOREVER, request->token, &connection);
    if (status == WHIMBREL_STATUS_CLOSED) {
        cJSON_AddTrueToObject(request->answer, "end");
        return WHIMBREL_STATUS_OK;
    }
    if (status == WHIMBREL_STATUS_OK)
        add_connection(request->answer, connection);
    return status;
}

static whimbrel_status counters(struct request *request, whimbrel_device *device)
{
    whimbrel_counters counters = WHIMBREL_COUNTERS_INIT;
    whimbrel_status status = whimbrel_device_counters(device, &counters);
    add_account(cJSON_AddObjectToObject(request->answer, "account"), &counters.account);
    add_number(request->answer, "queued_alerts", (int64_t)counters.queued_alerts, -1);
    add_number(request->answer, "refused", (int64_t)counters.refused, -1);
    add_number(request->answer, "sent", (int64_t)counters.sent, -1);
    cJSON *reasons = cJSON_AddObjectToObject(request->answer, "dropped_by_reason");
    if (counters.dropped_made_room > 0)
        add_number(reasons, "made-room", (int64_t)counters.dropped_made_room, -1);
    if (counters.dropped_no_room > 0)
        add_number(reasons, "no-room", (int64_t)counters.dropped_no_room, -1);
    if (counters.dropped_damaged > 0)
        add_number(reasons, "damaged", (int64_t)counters.dropped_damaged, -1);
    return status;
}

/* Does the call; -1 when the actor does not understand it. */
static whimbrel_status perform(struct request *request)
{
    const char *call = request->call;
    whimbrel_device *device = find(request->on, DEVICE);
    if (strcmp(call, "hello") == 0) {
        add_text(request->answer, "language", "C");
        return WHIMBREL_STATUS_OK;
    }
    if (strcmp(call, "device.open") == 0) {
        whimbrel_device_options options = WHIMBREL_DEVICE_OPTIONS_INIT;
        if (set(&options, option_fields, cJSON_GetObjectItem(request->args, "options")) != NULL)
            return -1;
        options.connection_string = text_of(cJSON_GetObjectItem(request->args, "connection_string"));
        whimbrel_status status = whimbrel_device_open(&options, &device);
        if (status == WHIMBREL_STATUS_OK)
            keep(request->as, DEVICE, device);
        return status;
    }
    if (strcmp(call, "device.send") == 0)
        return send(request, device);
    if (strcmp(call, "device.send_many") == 0)
        return send_many(request, device);
    if (strcmp(call, "device.receipt") == 0)
        return find_receipt(request, device);
    if (strcmp(call, "device.inbox") == 0) {
        whimbrel_inbox *inbox;
        whimbrel_status status = whimbrel_device_inbox(device, &inbox);
        if (status == WHIMBREL_STATUS_OK)
            keep(request->as, INBOX, inbox);
        return status;
    }
    if (strcmp(call, "device.account") == 0) {
        whimbrel_account account;
        whimbrel_status status = whimbrel_device_account(device, &account);
        add_account(request->answer, &account);
        return status;
    }
    if (strcmp(call, "device.counters") == 0)
        return counters(request, device);
    if (strcmp(call, "device.connection") == 0) {
        whimbrel_connection *connection;
        whimbrel_status status = whimbrel_device_connection(device, &connection);
        if (status == WHIMBREL_STATUS_OK)
            add_connection(request->answer, connection);
        return status;
    }
    if (strcmp(call, "device.states") == 0) {
        whimbrel_connection_changes *changes;
        whimbrel_status status = whimbrel_device_connection_changes(device, &changes);
        if (status == WHIMBREL_STATUS_OK)
            keep(request->as, STATES, changes);
        return status;
    }
    if (strcmp(call, "device.flush") == 0) {
        int64_t deadline = number_of(cJSON_GetObjectItem(request->args, "deadline_ms"));
        whimbrel_status status =
            callbacks ? wait_for(request, whimbrel_device_flush_async(device, deadline, request->token, on_count, request, NULL))
                      : whimbrel_device_flush(device, deadline, request->token, &request->count);
        add_number(request->answer, "left", (int64_t)request->count, -1);
        return status;
    }
    if (strcmp(call, "device.suspend") == 0) {
        int64_t budget = number_of(cJSON_GetObjectItem(request->args, "budget_ms"));
        whimbrel_status status = callbacks
                                     ? wait_for(request, whimbrel_device_suspend_async(device, budget, on_count, request, NULL))
                                     : whimbrel_device_suspend(device, budget, request->token, &request->count);
        add_number(request->answer, "left", (int64_t)request->count, -1);
        return status;
    }
    if (strcmp(call, "device.resume") == 0)
        return callbacks ? wait_for(request, whimbrel_device_resume_async(device, on_done, request, NULL))
                         : whimbrel_device_resume(device, WHIMBREL_FOREVER, request->token);
    if (strcmp(call, "device.close") == 0)
        return callbacks ? wait_for(request, whimbrel_device_close_async(device, on_done, request, NULL))
                         : whimbrel_device_close(device, WHIMBREL_FOREVER, request->token);
    if (strcmp(call, "receipt.state") == 0)
        return state(request);
    if (strcmp(call, "receipt.outcome") == 0)
        return outcome(request);
    if (strcmp(call, "inbox.next") == 0)
        return next_command(request);
    if (strcmp(call, "states.next") == 0)
        return next_state(request);
    if (strncmp(call, "command.", 8) == 0)
        return settle(request, call + 8);
    if (strcmp(call, "panic") == 0)
        return whimbrel_test_panic(NULL);
    return -1;
}

static void *run(void *given)
{
    struct request *request = given;
    request->answer = cJSON_CreateObject();
    whimbrel_status status = perform(request);
    cJSON *error = request->error != NULL ? request->error : error_of(whimbrel_last_error());
    pthread_mutex_lock(&running_lock);
    for (struct request **at = &running; *at != NULL; at = &(*at)->next) {
        if (*at == request) {
            *at = request->next;
            break;
        }
    }
    pthread_mutex_unlock(&running_lock);
    if (status == WHIMBREL_STATUS_OK) {
        say(request->id, "ok", cJSON_Duplicate(request->answer, true));
        cJSON_Delete(error);
    } else if (status == WHIMBREL_STATUS_CANCELLED) {
        say(request->id, "cancelled", cJSON_CreateTrue());
        cJSON_Delete(error);
    } else {
        if ((int)status == -1) {
            cJSON_Delete(error);
            error = cJSON_CreateObject();
            add_text(error, "kind", "ACTOR");
            add_text(error, "message", "the C actor does not know this call, or what is in it");
        }
        say(request->id, "error", error);
    }
    cJSON_Delete(request->answer);
    cJSON_Delete(request->line);
    whimbrel_cancel_token_free(&request->token);
    sem_destroy(&request->told);
    free(request);
    return NULL;
}

static void cancel(double id)
{
    pthread_mutex_lock(&running_lock);
    for (struct request *request = running; request != NULL; request = request->next) {
        if (request->id == id)
            whimbrel_cancel_token_cancel(request->token);
    }
    pthread_mutex_unlock(&running_lock);
}

static void take(cJSON *line)
{
    struct request *request = must(calloc(1, sizeof *request));
    request->line = line;
    request->id = cJSON_GetObjectItem(line, "id")->valuedouble;
    request->call = cJSON_GetObjectItem(line, "call")->valuestring;
    const cJSON *on = cJSON_GetObjectItem(line, "on"), *as = cJSON_GetObjectItem(line, "as");
    request->on = cJSON_IsString(on) ? on->valuestring : "";
    request->as = cJSON_IsString(as) ? as->valuestring : "";
    request->args = cJSON_GetObjectItem(line, "args");
    sem_init(&request->told, 0, 0);
    if (strcmp(request->call, "cancel") == 0) {
        cancel(cJSON_GetObjectItem(request->args, "of")->valuedouble);
        say(request->id, "ok", cJSON_CreateObject());
        cJSON_Delete(line);
        free(request);
        return;
    }
    whimbrel_cancel_token_new(&request->token);
    pthread_mutex_lock(&running_lock);
    request->next = running;
    running = request;
    pthread_mutex_unlock(&running_lock);
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, request) != 0)
        abort();
    pthread_detach(thread);
}

int main(int count, char **arguments)
{
    callbacks = count > 1 && strcmp(arguments[1], "--callbacks") == 0;
    char *text = NULL;
    size_t size = 0;
    while (getline(&text, &size, stdin) > 0) {
        cJSON *line = cJSON_Parse(text);
        if (line == NULL)
            return 1;
        take(line);
    }
    fflush(NULL);
    _Exit(0);
}
