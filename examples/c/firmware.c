/* Firmware: a loop that samples at a fixed rate and must never wait, with a watchdog and a bounded heap.
 *
 *   firmware LIFE SECONDS     samples at 1,000 Hz for so long, then shows what each call took
 *   firmware drain            samples nothing; waits until the outbox is empty
 *
 * The loop hands each sample over with whimbrel_device_accept(), which waits for neither the network nor the disk. Every 50th is an alarm
 * that has to be on the disk: its callback says so, in a line "stored LIFE NUMBER". Power may be cut at any moment: what was said to be
 * stored comes to the hub (run.py cuts it again and again, and holds the hub's events against these lines).
 *
 * Linked with -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=free,--wrap=posix_memalign, all memory that the program and the
 * static library ask for is counted here and refused beyond HEAP_LIMIT. Linux. */
#define _GNU_SOURCE
#include "example.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define RATE 1000
#define ALARM_EVERY 50
#define HEAP_LIMIT (24u << 20)
/* The loop has to come by this often, or the board is reset. */
#define WATCHDOG_MS 2000

/* ---- The heap ---- */

static atomic_size_t heap_used, heap_peak;
static atomic_ulong heap_requests;
static _Thread_local unsigned long own_requests;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
int __real_posix_memalign(void **out, size_t alignment, size_t size);
void __real_free(void *memory);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);
int __wrap_posix_memalign(void **out, size_t alignment, size_t size);
void __wrap_free(void *memory);

static bool has_room(size_t size)
{
    atomic_fetch_add_explicit(&heap_requests, 1, memory_order_relaxed);
    own_requests++;
    return atomic_load_explicit(&heap_used, memory_order_relaxed) + size <= HEAP_LIMIT;
}

static void *counted(void *memory)
{
    if (memory != NULL) {
        size_t size = malloc_usable_size(memory);
        size_t used = atomic_fetch_add_explicit(&heap_used, size, memory_order_relaxed) + size;
        size_t peak = atomic_load_explicit(&heap_peak, memory_order_relaxed);
        while (used > peak && !atomic_compare_exchange_weak(&heap_peak, &peak, used)) {
        }
    }
    return memory;
}

void *__wrap_malloc(size_t size)
{
    return has_room(size) ? counted(__real_malloc(size)) : NULL;
}

void *__wrap_calloc(size_t count, size_t size)
{
    return has_room(count * size) ? counted(__real_calloc(count, size)) : NULL;
}

void *__wrap_realloc(void *memory, size_t size)
{
    size_t before = memory != NULL ? malloc_usable_size(memory) : 0;
    if (!has_room(size > before ? size - before : 0))
        return NULL;
    void *moved = __real_realloc(memory, size);
    if (moved == NULL)
        return NULL;
    atomic_fetch_sub_explicit(&heap_used, before, memory_order_relaxed);
    return counted(moved);
}

int __wrap_posix_memalign(void **out, size_t alignment, size_t size)
{
    int failed = has_room(size) ? __real_posix_memalign(out, alignment, size) : ENOMEM;
    if (failed == 0)
        counted(*out);
    return failed;
}

void __wrap_free(void *memory)
{
    if (memory != NULL)
        atomic_fetch_sub_explicit(&heap_used, malloc_usable_size(memory), memory_order_relaxed);
    __real_free(memory);
}

/* ---- The watchdog ---- */

static atomic_uint fed;

static void *watchdog(void *unused)
{
    (void)unused;
    for (unsigned seen = atomic_load(&fed);;) {
        usleep(WATCHDOG_MS * 1000);
        unsigned now = atomic_load(&fed);
        if (now == seen) {
            /* A board would be reset here. The outbox takes that as it takes any power cut. */
            static const char text[] = "watchdog: the sampling loop hangs\n";
            if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
                _exit(71);
            _exit(70);
        }
        seen = now;
    }
}

/* ---- What calls take ---- */

struct times {
    long count, over_200_us, longest_ns, total_ns;
    /* Why a call took long: the machine had something else to do, or the call itself waited for somebody. */
    long preempted, waited, longest_own_ns;
    /* Of microseconds: below 1, 2, 4, 8, ... */
    long buckets[24];
};

static int64_t now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

struct moment {
    int64_t clock, own;
    struct rusage switches;
};

static struct moment look(void)
{
    struct moment moment;
    getrusage(RUSAGE_THREAD, &moment.switches);
    moment.own = now_ns(CLOCK_THREAD_CPUTIME_ID);
    moment.clock = now_ns(CLOCK_MONOTONIC);
    return moment;
}

static void note(struct times *times, const struct moment *before)
{
    int64_t ns = now_ns(CLOCK_MONOTONIC) - before->clock, own = now_ns(CLOCK_THREAD_CPUTIME_ID) - before->own;
    struct rusage after;
    getrusage(RUSAGE_THREAD, &after);
    times->count++;
    times->total_ns += (long)ns;
    if (ns > times->longest_ns)
        times->longest_ns = (long)ns;
    if (own > times->longest_own_ns)
        times->longest_own_ns = (long)own;
    if (ns > 200000) {
        times->over_200_us++;
        times->preempted += after.ru_nivcsw != before->switches.ru_nivcsw;
        times->waited += after.ru_nvcsw != before->switches.ru_nvcsw;
    }
    int bucket = 0;
    for (int64_t us = ns / 1000; us > 0 && bucket < 23; us >>= 1)
        bucket++;
    times->buckets[bucket]++;
}

static void show(const char *what, const struct times *times)
{
    if (times->count == 0)
        return;
    printf("%s: %ld calls, mean %.1f us, longest %.1f us; longest processor time of one %.1f us\n", what, times->count,
           (double)times->total_ns / (double)times->count / 1000.0, (double)times->longest_ns / 1000.0,
           (double)times->longest_own_ns / 1000.0);
    printf("  over 200 us: %ld, of which %ld were interrupted by the machine, and %ld waited for another thread\n", times->over_200_us,
           times->preempted, times->waited);
    for (int bucket = 0; bucket < 24; bucket++) {
        if (times->buckets[bucket] > 0)
            printf("  under %7ld us: %ld\n", 1L << bucket, times->buckets[bucket]);
    }
}

/* ---- The program ---- */

static long life;

/* On the device's thread: the alarm is on the disk. One write, so that no line is cut in two. */
static void on_stored(void *context, const whimbrel_error *error, whimbrel_receipt *receipt)
{
    char line[64];
    if (error == NULL) {
        int length = snprintf(line, sizeof line, "stored %ld %ld\n", life, (long)(intptr_t)context);
        if (write(STDOUT_FILENO, line, (size_t)length) != length)
            _exit(1);
    }
    whimbrel_receipt_free(&receipt);
}

static whimbrel_device *start(void)
{
    whimbrel_device_options options = example_options();
    options.durability = WHIMBREL_DURABILITY_INTERVAL;
    options.sync_interval_ms = 200;
    /* A device that is offline for long keeps what is new. */
    options.overflow = WHIMBREL_OVERFLOW_DROP_OLDEST;
    options.outbox_max_bytes = 32 << 20;
    options.window = 200;
    whimbrel_device *device;
    must("opening", whimbrel_device_open(&options, &device));
    return device;
}

static void sample(whimbrel_device *device, long number, struct times *readings, struct times *alarms)
{
    bool is_alarm = number % ALARM_EVERY == 0;
    char body[64];
    /* What a sensor would be asked for. */
    snprintf(body, sizeof body, "{\"life\":%ld,\"n\":%ld,\"t\":%ld}", life, number, 200 + number % 17);
    whimbrel_message message = text_message(body);
    whimbrel_status status;
    struct moment before = look();
    if (is_alarm) {
        message.lane = WHIMBREL_LANE_ALERT;
        message.durability = WHIMBREL_DURABILITY_ON_DISK;
        status = whimbrel_device_send_async(device, &message, on_stored, (void *)(intptr_t)number, NULL);
    } else {
        status = whimbrel_device_accept(device, &message, NULL);
    }
    note(is_alarm ? alarms : readings, &before);
    /* A full disk or outbox is no reason to stop sampling; anything else is. */
    if (status != WHIMBREL_STATUS_OK && status != WHIMBREL_STATUS_DISK_FULL && status != WHIMBREL_STATUS_OUTBOX_FULL)
        example_fail("a sample");
}

/* The loop comes before everything else where the system allows it; threads that it starts do not. */
static void go_first(void)
{
    struct sched_param priority = {.sched_priority = 10};
    bool is_first = sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &priority) == 0;
    printf("sampling, %s\n", is_first ? "with real-time priority" : "without real-time priority (it may not be had here)");
    fflush(stdout);
}

static void run(long seconds)
{
    static struct times readings, alarms;
    whimbrel_device *device = start();
    pthread_t dog;
    if (pthread_create(&dog, NULL, watchdog, NULL) != 0)
        example_fail("the watchdog");
    go_first();
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    unsigned long requests_before = own_requests;
    for (long number = 0; number < seconds * RATE; number++) {
        sample(device, number, &readings, &alarms);
        atomic_fetch_add(&fed, 1);
        next.tv_nsec += 1000000000 / RATE;
        if (next.tv_nsec >= 1000000000) {
            next.tv_nsec -= 1000000000;
            next.tv_sec++;
        }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    }
    unsigned long own = own_requests - requests_before;
    atomic_fetch_add(&fed, 1);
    show("readings", &readings);
    show("alarms", &alarms);
    printf("heap: peak %zu KiB of %u, %.2f requests by the loop for each sample, %lu in all\n", atomic_load(&heap_peak) / 1024,
           HEAP_LIMIT / 1024, (double)own / (double)(seconds * RATE), atomic_load(&heap_requests));
    whimbrel_account account;
    must("the account", whimbrel_device_account(device, &account));
    printf("account: accepted %llu, delivered %llu, dropped %llu, queued %llu\n", (unsigned long long)account.accepted,
           (unsigned long long)account.delivered, (unsigned long long)account.dropped, (unsigned long long)account.queued);
    fflush(stdout);
    /* The loop is over, and so is the watchdog's part: closing may wait for the network. */
    pthread_cancel(dog);
    pthread_join(dog, NULL);
    must("closing", whimbrel_device_close(device, WHIMBREL_FOREVER, NULL));
    whimbrel_device_free(&device);
}

static void drain(void)
{
    whimbrel_device *device = start();
    uint64_t left;
    must("flushing", whimbrel_device_flush(device, 120000, NULL, &left));
    whimbrel_account account;
    must("the account", whimbrel_device_account(device, &account));
    printf("accepted %llu delivered %llu expired %llu dropped %llu rejected %llu queued %llu\n", (unsigned long long)account.accepted,
           (unsigned long long)account.delivered, (unsigned long long)account.expired, (unsigned long long)account.dropped,
           (unsigned long long)account.rejected, (unsigned long long)account.queued);
    must("closing", whimbrel_device_close(device, WHIMBREL_FOREVER, NULL));
    whimbrel_device_free(&device);
    if (left != 0)
        example_fail("messages are left");
}

int main(int count, char **arguments)
{
    if (count == 2 && strcmp(arguments[1], "drain") == 0) {
        drain();
    } else if (count == 3) {
        life = atol(arguments[1]);
        run(atol(arguments[2]));
    } else {
        fprintf(stderr, "firmware LIFE SECONDS, or firmware drain\n");
        return 2;
    }
    return 0;
}
