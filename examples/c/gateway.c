/* A gateway with an event loop of its own: commands come in and many messages go out through one epoll, in one thread. Ends after as many
 * messages as the argument says (default 20,000), or with the command "stop". Linux, for epoll and timerfd. */
#define _GNU_SOURCE
#include "example.h"

#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define BATCH 100
/* Batches under way at once: more would only fill the memory while the disk is busy. */
#define UNDER_WAY 8

static atomic_int under_way;
static atomic_long stored;

/* Each batch belongs to the callback until it is stored. This is the device's own thread: count, and go. */
static void on_stored(void *context, const whimbrel_error *error, whimbrel_receipt **receipts, size_t count)
{
    (void)context;
    for (size_t i = 0; i < count; i++)
        whimbrel_receipt_free(&receipts[i]);
    if (error != NULL)
        fprintf(stderr, "a batch was not stored: %s\n", whimbrel_error_message(error));
    else
        atomic_fetch_add(&stored, (long)count);
    atomic_fetch_sub(&under_way, 1);
}

static void on_settled(void *context, const whimbrel_error *error)
{
    (void)context;
    if (error != NULL)
        fprintf(stderr, "a command was not settled: %s\n", whimbrel_error_message(error));
}

/* Takes all commands there are. The fd stays readable as long as there are more, so nothing is missed. */
static int take_commands(whimbrel_inbox *inbox, int *is_running)
{
    int taken = 0;
    whimbrel_command *command;
    while (whimbrel_inbox_try_next(inbox, &command) == WHIMBREL_STATUS_OK) {
        size_t length;
        const uint8_t *body = whimbrel_command_body(command, &length);
        printf("command: %.*s\n", (int)length, (const char *)body);
        if (length == 4 && memcmp(body, "stop", 4) == 0)
            *is_running = 0;
        must("completing", whimbrel_command_complete_async(command, on_settled, NULL, NULL));
        whimbrel_command_free(&command);
        taken++;
    }
    return taken;
}

/* One batch of what the machines behind the gateway said. */
static long send_batch(whimbrel_device *device, long sent)
{
    char texts[BATCH][32];
    whimbrel_message messages[BATCH];
    for (int i = 0; i < BATCH; i++) {
        snprintf(texts[i], sizeof texts[i], "{\"machine\":%d,\"n\":%ld}", i % 10, sent + i);
        messages[i] = text_message(texts[i]);
    }
    atomic_fetch_add(&under_way, 1);
    if (whimbrel_device_send_many_async(device, messages, BATCH, on_stored, NULL, NULL) != WHIMBREL_STATUS_OK) {
        atomic_fetch_sub(&under_way, 1);
        /* A full outbox is nothing to end for: what is in it goes on, and this batch is tried again. */
        if (whimbrel_error_status(whimbrel_last_error()) != WHIMBREL_STATUS_OUTBOX_FULL)
            example_fail("sending");
        return 0;
    }
    return BATCH;
}

static void watch(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        perror("epoll_ctl");
        exit(1);
    }
}

int main(int count, char **arguments)
{
    long wanted = count > 1 ? atol(arguments[1]) : 20000, sent = 0, commands = 0;
    whimbrel_device_options options = example_options();
    whimbrel_device *device;
    must("opening", whimbrel_device_open(&options, &device));
    whimbrel_inbox *inbox;
    must("the inbox", whimbrel_device_inbox(device, &inbox));
    int inbox_fd;
    must("the file descriptor of the inbox", whimbrel_inbox_fd(inbox, &inbox_fd));

    int epoll = epoll_create1(EPOLL_CLOEXEC), timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    struct itimerspec every_millisecond = {{0, 1000000}, {0, 1000000}};
    if (epoll < 0 || timer < 0 || timerfd_settime(timer, 0, &every_millisecond, NULL) != 0) {
        perror("epoll");
        return 1;
    }
    watch(epoll, inbox_fd);
    watch(epoll, timer);

    int is_running = 1;
    while (is_running && (sent < wanted || atomic_load(&under_way) > 0)) {
        struct epoll_event events[4];
        int ready = epoll_wait(epoll, events, 4, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd == inbox_fd) {
                commands += take_commands(inbox, &is_running);
                continue;
            }
            uint64_t ticks;
            if (read(timer, &ticks, sizeof ticks) < 0)
                continue;
            while (sent < wanted && atomic_load(&under_way) < UNDER_WAY) {
                long more = send_batch(device, sent);
                if (more == 0)
                    break;
                sent += more;
            }
        }
    }

    uint64_t left;
    must("flushing", whimbrel_device_flush(device, 60000, NULL, &left));
    printf("%ld messages sent, %ld stored, %llu left, %ld commands\n", sent, atomic_load(&stored), (unsigned long long)left, commands);
    close(epoll);
    close(timer);
    whimbrel_inbox_free(&inbox);
    must("closing", whimbrel_device_close(device, WHIMBREL_FOREVER, NULL));
    whimbrel_device_free(&device);
    return left == 0 && (sent >= wanted || !is_running) ? 0 : 1;
}
