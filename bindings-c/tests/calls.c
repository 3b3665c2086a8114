/* Calls every function of the header as it is meant to be called. Arguments: connection string, server, a folder for outboxes. The
 * hub holds the commands c-0 to c-5 for the device. Compiled as C11 and as C++17, linked to both forms of the library. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *connection_string, *server;
static char folder[512];

static whimbrel_device_options options_for(const char *outbox)
{
    whimbrel_device_options options = WHIMBREL_DEVICE_OPTIONS_INIT;
    options.connection_string = connection_string;
    options.server = server;
    options.outbox_dir = outbox;
    options.backoff_min_ms = 10;
    options.backoff_max_ms = 100;
    return options;
}

static whimbrel_message message_of(const char *body)
{
    whimbrel_message message = WHIMBREL_MESSAGE_INIT;
    message.body = body;
    message.body_length = strlen(body);
    return message;
}

/* What a callback was told; the thread of the test waits for it. */
struct told {
    sem_t done;
    int calls, drops;
    int32_t status;
    void *thing;
    uint64_t count;
};

static struct told nothing_told(void)
{
    struct told told;
    memset(&told, 0, sizeof told);
    sem_init(&told.done, 0, 0);
    return told;
}

static void tell(void *context, const whimbrel_error *error, void *thing, uint64_t count)
{
    struct told *told = (struct told *)context;
    told->calls++;
    told->status = whimbrel_error_status(error);
    told->thing = thing;
    told->count = count;
}

static void on_done(void *context, const whimbrel_error *error)
{
    tell(context, error, NULL, 0);
}

static void on_count(void *context, const whimbrel_error *error, uint64_t count)
{
    tell(context, error, NULL, count);
}

static void on_receipt(void *context, const whimbrel_error *error, whimbrel_receipt *receipt)
{
    if (error == NULL) {
        /* A callback may call what does not wait, and nothing that waits. */
        whimbrel_outcome *outcome;
        FAILS(WHIMBREL_STATUS_UNSUPPORTED, "_async", whimbrel_receipt_outcome(receipt, WHIMBREL_FOREVER, NULL, &outcome));
        CHECK(outcome == NULL && whimbrel_receipt_message_id(receipt) != NULL);
    }
    tell(context, error, receipt, 0);
}

static void on_receipts(void *context, const whimbrel_error *error, whimbrel_receipt **receipts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        whimbrel_receipt_free(&receipts[i]);
    tell(context, error, NULL, count);
}

static void on_outcome(void *context, const whimbrel_error *error, whimbrel_outcome *outcome)
{
    tell(context, error, outcome, 0);
}

static void on_command(void *context, const whimbrel_error *error, whimbrel_command *command)
{
    tell(context, error, command, 0);
}

/* Called last, so this is where the test's thread goes on. */
static void on_drop(void *context)
{
    struct told *told = (struct told *)context;
    told->drops++;
    sem_post(&told->done);
}

static void wait_for(struct told *told, int32_t status)
{
    while (sem_wait(&told->done) != 0) {
    }
    CHECK(told->calls == 1 && told->drops == 1 && told->status == status);
    sem_destroy(&told->done);
}

static void versions(void)
{
    char version[64];
    snprintf(version, sizeof version, "%d.%d.%d", WHIMBREL_VERSION_MAJOR, WHIMBREL_VERSION_MINOR, WHIMBREL_VERSION_PATCH);
    CHECK(strcmp(version, WHIMBREL_VERSION) == 0);
    CHECK(strcmp(version, whimbrel_version()) == 0);
}

static int lines_logged = 0;
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

static void on_log(void *context, const whimbrel_log_record *record)
{
    CHECK(record->level >= WHIMBREL_LOG_ERROR && record->level <= WHIMBREL_LOG_DEBUG);
    CHECK(strncmp(record->target, "whimbrel", 8) == 0 && strlen(record->message) > 0 && record->lost == 0);
    CHECK(whimbrel_log_set(WHIMBREL_LOG_OFF, NULL, NULL, NULL) == WHIMBREL_STATUS_UNSUPPORTED);
    pthread_mutex_lock(&log_lock);
    (*(int *)context)++;
    pthread_mutex_unlock(&log_lock);
}

static void sends(whimbrel_device *device)
{
    whimbrel_property properties[] = {{"room", "attic"}, {"gr\xc3\xb6\xc3\x9f" "e", "\xc3\xb6"}};
    whimbrel_message message = message_of("21.5");
    message.lane = WHIMBREL_LANE_ALERT;
    message.durability = WHIMBREL_DURABILITY_ON_DISK;
    message.properties = properties;
    message.property_count = 2;
    message.message_id = "all-of-it";
    message.correlation_id = "c";
    message.user_id = "u";
    message.content_type = "text/plain";
    message.content_encoding = "utf-8";
    message.creation_time_ms = 1700000000123;
    message.expires_in_ms = 3600000;

    whimbrel_receipt *receipt;
    OK(whimbrel_device_send(device, &message, WHIMBREL_FOREVER, NULL, &receipt));
    CHECK(strcmp(whimbrel_receipt_message_id(receipt), "all-of-it") == 0);
    whimbrel_outcome *outcome;
    OK(whimbrel_receipt_outcome(receipt, WHIMBREL_FOREVER, NULL, &outcome));
    CHECK(whimbrel_receipt_get_state(receipt) == WHIMBREL_RECEIPT_SETTLED);
    CHECK(whimbrel_outcome_get_kind(outcome) == WHIMBREL_OUTCOME_DELIVERED);
    CHECK(whimbrel_outcome_partition(outcome) >= 0 && whimbrel_outcome_sequence(outcome) >= 0);
    CHECK(whimbrel_outcome_reason(outcome) == NULL);
    whimbrel_outcome_free(&outcome);
    whimbrel_receipt_free(&receipt);
    CHECK(outcome == NULL && receipt == NULL);

    /* With a limit, a token, and without a receipt. */
    whimbrel_cancel_token *token;
    OK(whimbrel_cancel_token_new(&token));
    message = message_of("with patience");
    OK(whimbrel_device_send(device, &message, 60000, token, NULL));
    OK(whimbrel_device_accept(device, &message, NULL));
    OK(whimbrel_device_accept(device, &message, &receipt));
    whimbrel_receipt_free(&receipt);
    struct told told = nothing_told();
    OK(whimbrel_device_send_async(device, &message, on_receipt, &told, on_drop));
    wait_for(&told, WHIMBREL_STATUS_OK);
    receipt = (whimbrel_receipt *)told.thing;
    told = nothing_told();
    OK(whimbrel_receipt_outcome_async(receipt, 60000, token, on_outcome, &told, on_drop));
    whimbrel_receipt_free(&receipt);
    wait_for(&told, WHIMBREL_STATUS_OK);
    outcome = (whimbrel_outcome *)told.thing;
    CHECK(whimbrel_outcome_get_kind(outcome) == WHIMBREL_OUTCOME_DELIVERED);
    whimbrel_outcome_free(&outcome);

    whimbrel_message many[] = {message_of("one"), message_of("two"), message_of("")};
    many[0].message_id = "one";
    whimbrel_receipt *receipts[3];
    OK(whimbrel_device_send_many(device, many, 3, 60000, token, receipts));
    OK(whimbrel_device_send_many(device, NULL, 0, WHIMBREL_FOREVER, NULL, NULL));
    for (int i = 0; i < 3; i++)
        whimbrel_receipt_free(&receipts[i]);
    told = nothing_told();
    many[0].message_id = NULL;
    OK(whimbrel_device_send_many_async(device, many, 3, on_receipts, &told, on_drop));
    wait_for(&told, WHIMBREL_STATUS_OK);
    CHECK(told.count == 3);

    OK(whimbrel_device_receipt(device, "one", 60000, token, &receipt));
    whimbrel_receipt_free(&receipt);
    FAILS(WHIMBREL_STATUS_NOT_FOUND, "no message of this id", whimbrel_device_receipt(device, "none", WHIMBREL_FOREVER, NULL, &receipt));
    CHECK(receipt == NULL);
    told = nothing_told();
    OK(whimbrel_device_receipt_async(device, "none", on_receipt, &told, on_drop));
    wait_for(&told, WHIMBREL_STATUS_NOT_FOUND);
    told = nothing_told();
    OK(whimbrel_device_receipt_async(device, "one", on_receipt, &told, on_drop));
    wait_for(&told, WHIMBREL_STATUS_OK);
    receipt = (whimbrel_receipt *)told.thing;
    whimbrel_receipt_free(&receipt);

    uint64_t left = 9;
    OK(whimbrel_device_flush(device, 60000, token, &left));
    CHECK(left == 0);
    told = nothing_told();
    OK(whimbrel_device_flush_async(device, 60000, NULL, on_count, &told, on_drop));
    wait_for(&told, WHIMBREL_STATUS_OK);
    whimbrel_cancel_token_free(&token);

    whimbrel_account account;
    OK(whimbrel_device_account(device, &account));
    CHECK(account.accepted == 11 && account.delivered == 11 && account.queued == 0);
    whimbrel_counters counters = WHIMBREL_COUNTERS_INIT;
    OK(whimbrel_device_counters(device, &counters));
    CHECK(memcmp(&counters.account, &account, sizeof account) == 0 && counters.size == sizeof counters);
    CHECK(counters.sent >= 11 && counters.oldest_age_ms == -1 && counters.written_bytes > 0 && counters.refused == 0);
}

static whimbrel_command *next_when_readable(whimbrel_inbox *inbox, int fd)
{
    for (;;) {
        struct pollfd watched = {fd, POLLIN, 0};
        CHECK(poll(&watched, 1, 60000) == 1);
        whimbrel_command *command;
        int32_t status = whimbrel_inbox_try_next(inbox, &command);
        if (status == WHIMBREL_STATUS_OK)
            return command;
        /* The fd was right to call, and somebody was faster, or it was not told yet. */
        CHECK(status == WHIMBREL_STATUS_TIMEOUT && command == NULL);
    }
}

static void commands(whimbrel_device *device)
{
    whimbrel_inbox *inbox;
    OK(whimbrel_device_inbox(device, &inbox));
    whimbrel_command *command;
    OK(whimbrel_inbox_next(inbox, 60000, NULL, &command));
    size_t length = 0;
    CHECK(memcmp(whimbrel_command_body(command, &length), "do 0", 4) == 0 && length == 4);
    CHECK(strcmp(whimbrel_command_message_id(command), "c-0") == 0);
    CHECK(strcmp(whimbrel_command_correlation_id(command), "of-0") == 0);
    CHECK(whimbrel_command_user_id(command) == NULL);
    CHECK(strcmp(whimbrel_command_content_type(command), "text/plain") == 0);
    CHECK(strcmp(whimbrel_command_content_encoding(command), "utf-8") == 0);
    CHECK(whimbrel_command_creation_time_ms(command) == WHIMBREL_NO_TIME || whimbrel_command_creation_time_ms(command) > 0);
    CHECK(whimbrel_command_enqueued_at_ms(command) > 1700000000000);
    CHECK(whimbrel_command_sequence(command) >= 0 && whimbrel_command_delivery_count(command) == 0);
    /* Those of the sender; the hub may add its own. */
    size_t properties = whimbrel_command_property_count(command), found = 0;
    for (size_t i = 0; i < properties; i++) {
        const char *name = whimbrel_command_property_name(command, i), *value = whimbrel_command_property_value(command, i);
        found += (strcmp(name, "room") == 0 && strcmp(value, "attic") == 0) || (strcmp(name, "floor") == 0 && strcmp(value, "2") == 0);
    }
    CHECK(found == 2);
    CHECK(whimbrel_command_property_name(command, properties) == NULL);
    CHECK(whimbrel_command_property_value(command, properties) == NULL);
    CHECK(strcmp(whimbrel_command_property(command, "floor"), "2") == 0);
    CHECK(whimbrel_command_property(command, "Floor") == NULL);
    OK(whimbrel_command_complete(command, 60000, NULL));
    FAILS(WHIMBREL_STATUS_CONFLICT, "complete", whimbrel_command_reject(command, WHIMBREL_FOREVER, NULL));
    whimbrel_command_free(&command);

    struct told told = nothing_told();
    OK(whimbrel_inbox_next_async(inbox, 60000, NULL, on_command, &told, on_drop));
    wait_for(&told, WHIMBREL_STATUS_OK);
    command = (whimbrel_command *)told.thing;
    CHECK(strcmp(whimbrel_command_message_id(command), "c-1") == 0);
    told = nothing_told();
    OK(whimbrel_command_complete_async(command, on_done, &told, on_drop));
    whimbrel_command_free(&command);
    wait_for(&told, WHIMBREL_STATUS_OK);

    int fd = -1, again = -1;
    OK(whimbrel_inbox_fd(inbox, &fd));
    OK(whimbrel_inbox_fd(inbox, &again));
    CHECK(fd >= 0 && fd == again);
    command = next_when_readable(inbox, fd);
    CHECK(strcmp(whimbrel_command_message_id(command), "c-2") == 0);
    OK(whimbrel_command_reject(command, WHIMBREL_FOREVER, NULL));
    whimbrel_command_free(&command);
    command = next_when_readable(inbox, fd);
    CHECK(strcmp(whimbrel_command_message_id(command), "c-3") == 0);
    told = nothing_told();
    OK(whimbrel_command_reject_async(command, on_done, &told, on_drop));
    wait_for(&told, WHIMBREL_STATUS_OK);
    whimbrel_command_free(&command);

    /* What is abandoned comes again, and then counts. */
    for (int i = 0; i < 2; i++) {
        command = next_when_readable(inbox, fd);
        if (i == 0) {
            OK(whimbrel_command_abandon(command, 60000, NULL));
        } else {
            told = nothing_told();
            OK(whimbrel_command_abandon_async(command, on_done, &told, on_drop));
            wait_for(&told, WHIMBREL_STATUS_OK);
        }
        whimbrel_command_free(&command);
    }
    int completed = 0;
    while (completed < 2) {
        command = next_when_readable(inbox, fd);
        OK(whimbrel_command_complete(command, 60000, NULL));
        completed++;
        whimbrel_command_free(&command);
    }
    /* Nothing is left: the fd says so, and so does the inbox. */
    struct pollfd watched = {fd, POLLIN, 0};
    while (poll(&watched, 1, 0) == 1)
        CHECK(whimbrel_inbox_try_next(inbox, &command) == WHIMBREL_STATUS_TIMEOUT);
    FAILS(WHIMBREL_STATUS_TIMEOUT, "nothing now", whimbrel_inbox_try_next(inbox, &command));
    FAILS(WHIMBREL_STATUS_TIMEOUT, "time given", whimbrel_inbox_next(inbox, 1, NULL, &command));
    CHECK(whimbrel_error_retry(whimbrel_last_error()) == WHIMBREL_RETRY_WAIT_AGAIN);

    /* A token that is cancelled meanwhile, and one that was before. */
    whimbrel_cancel_token *token;
    OK(whimbrel_cancel_token_new(&token));
    told = nothing_told();
    OK(whimbrel_inbox_next_async(inbox, WHIMBREL_FOREVER, token, on_command, &told, on_drop));
    OK(whimbrel_cancel_token_cancel(token));
    OK(whimbrel_cancel_token_cancel(token));
    wait_for(&told, WHIMBREL_STATUS_CANCELLED);
    FAILS(WHIMBREL_STATUS_CANCELLED, "stopped waiting", whimbrel_inbox_next(inbox, WHIMBREL_FOREVER, token, &command));
    whimbrel_cancel_token_free(&token);
    whimbrel_inbox_free(&inbox);
}

static void connection(whimbrel_device *device)
{
    whimbrel_connection_changes *changes;
    OK(whimbrel_device_connection_changes(device, &changes));
    int fd = -1;
    OK(whimbrel_connection_changes_fd(changes, &fd));
    whimbrel_connection *state;
    OK(whimbrel_connection_changes_next(changes, 60000, NULL, &state));
    CHECK(whimbrel_connection_get_state(state) == WHIMBREL_CONNECTION_CONNECTED);
    CHECK(whimbrel_connection_reason(state) == NULL);
    whimbrel_connection_free(&state);
    CHECK(whimbrel_connection_changes_try_next(changes, &state) == WHIMBREL_STATUS_TIMEOUT && state == NULL);
    OK(whimbrel_device_connection(device, &state));
    CHECK(whimbrel_connection_get_state(state) == WHIMBREL_CONNECTION_CONNECTED);
    whimbrel_connection_free(&state);
    whimbrel_connection_changes_free(&changes);
}

/* Signals are the program's: the device's thread blocks them, SIGPIPE above all, which nobody ignores here. */
static void signals(void)
{
    DIR *tasks = opendir("/proc/self/task");
    int seen = 0;
    for (struct dirent *task; tasks != NULL && (task = readdir(tasks)) != NULL;) {
        char path[400], line[256];
        unsigned long long blocked = 0;
        int is_ours = 0;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", task->d_name);
        FILE *status = fopen(path, "r");
        while (status != NULL && fgets(line, sizeof line, status) != NULL) {
            is_ours |= strcmp(line, "Name:\twhimbrel\n") == 0;
            sscanf(line, "SigBlk: %llx", &blocked);
        }
        if (status != NULL)
            fclose(status);
        if (is_ours) {
            CHECK((blocked >> (SIGPIPE - 1) & 1) == 1 && (blocked >> (SIGTERM - 1) & 1) == 1 && (blocked >> (SIGSEGV - 1) & 1) == 0);
            seen++;
        }
    }
    if (tasks != NULL)
        closedir(tasks);
    CHECK(seen >= 1);
}

static void lifecycle(whimbrel_device *device)
{
    whimbrel_message message = message_of("x");
    whimbrel_receipt *receipt;
    OK(whimbrel_device_send(device, &message, WHIMBREL_FOREVER, NULL, &receipt));
    uint64_t left = 9;
    OK(whimbrel_device_suspend(device, 60000, NULL, &left));
    CHECK(left == 0);
    FAILS(WHIMBREL_STATUS_CLOSED, "resume", whimbrel_device_send(device, &message, WHIMBREL_FOREVER, NULL, NULL));
    whimbrel_connection *state;
    OK(whimbrel_device_connection(device, &state));
    CHECK(whimbrel_connection_get_state(state) == WHIMBREL_CONNECTION_SUSPENDED);
    whimbrel_connection_free(&state);
    OK(whimbrel_device_resume(device, 60000, NULL));
    whimbrel_outcome *outcome;
    OK(whimbrel_receipt_outcome(receipt, 60000, NULL, &outcome));
    CHECK(whimbrel_outcome_get_kind(outcome) == WHIMBREL_OUTCOME_DELIVERED);
    whimbrel_outcome_free(&outcome);
    whimbrel_receipt_free(&receipt);
    struct told told = nothing_told();
    OK(whimbrel_device_suspend_async(device, 0, on_count, &told, on_drop));
    wait_for(&told, WHIMBREL_STATUS_OK);
    CHECK(told.count == 0);
    told = nothing_told();
    OK(whimbrel_device_resume_async(device, on_done, &told, on_drop));
    wait_for(&told, WHIMBREL_STATUS_OK);
    OK(whimbrel_device_send(device, &message, WHIMBREL_FOREVER, NULL, NULL));
}

/* A device that has nobody to talk to, and whose objects outlive it. */
static void alone(void)
{
    whimbrel_device_options options = options_for(NULL);
    options.outbox_in_memory = 1;
    options.server = "mqtt://127.0.0.1:9";
    options.close_deadline_ms = 0;
    whimbrel_device *device;
    OK(whimbrel_device_open(&options, &device));
    whimbrel_inbox *inbox;
    OK(whimbrel_device_inbox(device, &inbox));
    whimbrel_connection_changes *changes;
    OK(whimbrel_device_connection_changes(device, &changes));
    whimbrel_message message = message_of("x");
    whimbrel_receipt *receipt;
    OK(whimbrel_device_send(device, &message, WHIMBREL_FOREVER, NULL, &receipt));
    CHECK(whimbrel_receipt_get_state(receipt) == WHIMBREL_RECEIPT_QUEUED);
    whimbrel_outcome *outcome;
    FAILS(WHIMBREL_STATUS_TIMEOUT, "goes on", whimbrel_receipt_outcome(receipt, 0, NULL, &outcome));
    uint64_t left = 0;
    OK(whimbrel_device_flush(device, 0, NULL, &left));
    CHECK(left == 1);
    struct told waiting = nothing_told();
    OK(whimbrel_inbox_next_async(inbox, WHIMBREL_FOREVER, NULL, on_command, &waiting, on_drop));
    struct told told = nothing_told();
    OK(whimbrel_device_close_async(device, on_done, &told, on_drop));
    wait_for(&told, WHIMBREL_STATUS_OK);
    wait_for(&waiting, WHIMBREL_STATUS_CLOSED);
    whimbrel_device_free(&device);
    FAILS(WHIMBREL_STATUS_CLOSED, "closed", whimbrel_receipt_outcome(receipt, WHIMBREL_FOREVER, NULL, &outcome));
    whimbrel_command *command;
    FAILS(WHIMBREL_STATUS_CLOSED, "closed", whimbrel_inbox_next(inbox, WHIMBREL_FOREVER, NULL, &command));
    FAILS(WHIMBREL_STATUS_CLOSED, "closed", whimbrel_inbox_try_next(inbox, &command));
    whimbrel_connection *state;
    while (whimbrel_connection_changes_next(changes, WHIMBREL_FOREVER, NULL, &state) == WHIMBREL_STATUS_OK)
        whimbrel_connection_free(&state);
    whimbrel_receipt_free(&receipt);
    whimbrel_inbox_free(&inbox);
    whimbrel_connection_changes_free(&changes);

    /* Freed without being closed: it is closed all the same, and its folder is free for the next one. */
    char own[600];
    snprintf(own, sizeof own, "%s/abandoned", folder);
    options.outbox_in_memory = 0;
    options.outbox_dir = own;
    OK(whimbrel_device_open(&options, &device));
    whimbrel_device_free(&device);
    for (int tries = 0;; tries++) {
        int32_t status = whimbrel_device_open(&options, &device);
        if (status == WHIMBREL_STATUS_OK)
            break;
        CHECK(status == WHIMBREL_STATUS_IN_USE && tries < 6000);
        struct timespec moment = {0, 10000000};
        nanosleep(&moment, NULL);
    }
    OK(whimbrel_device_close(device, WHIMBREL_FOREVER, NULL));
    whimbrel_device_free(&device);
}

/* What was opened before a fork says so behind it, and what is opened there works. */
static void forks(whimbrel_device *device)
{
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        whimbrel_message message = message_of("from the child");
        FAILS(WHIMBREL_STATUS_CLOSED, "forked", whimbrel_device_send(device, &message, WHIMBREL_FOREVER, NULL, NULL));
        whimbrel_device_free(&device);
        whimbrel_device_options options = options_for(NULL);
        options.outbox_in_memory = 1;
        options.server = "mqtt://127.0.0.1:9";
        options.close_deadline_ms = 0;
        OK(whimbrel_device_open(&options, &device));
        OK(whimbrel_device_send(device, &message, WHIMBREL_FOREVER, NULL, NULL));
        OK(whimbrel_device_close(device, WHIMBREL_FOREVER, NULL));
        whimbrel_device_free(&device);
        /* A good end without the checks of an exit: what the parent's threads had here is nobody's any more, and no leak. */
        kill(getpid(), SIGKILL);
    }
    int ended = 0;
    CHECK(waitpid(child, &ended, 0) == child && WIFSIGNALED(ended) && WTERMSIG(ended) == SIGKILL);
}

int main(int count, char **arguments)
{
    if (count != 4)
        return 2;
    connection_string = arguments[1];
    server = arguments[2];
    snprintf(folder, sizeof folder, "%s", arguments[3]);
    versions();
    OK(whimbrel_log_set(WHIMBREL_LOG_DEBUG, on_log, &lines_logged, NULL));
    char outbox[600];
    snprintf(outbox, sizeof outbox, "%s/outbox", folder);
    whimbrel_device_options options = options_for(outbox);
    whimbrel_device *device;
    OK(whimbrel_device_open(&options, &device));
    sends(device);
    commands(device);
    connection(device);
    lifecycle(device);
    signals();
    forks(device);
    alone();
    OK(whimbrel_device_close(device, WHIMBREL_FOREVER, NULL));
    OK(whimbrel_device_close(device, WHIMBREL_FOREVER, NULL));
    whimbrel_device_free(&device);
    whimbrel_device_free(&device);
    OK(whimbrel_log_set(WHIMBREL_LOG_OFF, NULL, NULL, NULL));
    pthread_mutex_lock(&log_lock);
    CHECK(lines_logged > 0);
    pthread_mutex_unlock(&log_lock);
    printf("%d passed\n", checks_passed);
    return 0;
}
