/* What the programs of this folder share: the command line, the figures, the line that tells them. */
#ifndef COMMON_H
#define COMMON_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct given {
    const char *host, *port, *outbox;
    long messages, bytes, concurrency, batch;
    char *body;
};

/* The command line, the same for every subject; a subject ignores what it has no use for. */
static inline struct given arguments(int count, char **words)
{
    struct given given = {"127.0.0.1", NULL, NULL, 100000, 256, 1000, 512, NULL};
    for (int i = 1; i + 1 < count; i += 2) {
        const char *name = words[i], *value = words[i + 1];
        if (strcmp(name, "--host") == 0)
            given.host = value;
        else if (strcmp(name, "--port") == 0)
            given.port = value;
        else if (strcmp(name, "--outbox") == 0)
            given.outbox = value;
        else if (strcmp(name, "--messages") == 0)
            given.messages = atol(value);
        else if (strcmp(name, "--bytes") == 0)
            given.bytes = atol(value);
        else if (strcmp(name, "--concurrency") == 0)
            given.concurrency = atol(value);
        else if (strcmp(name, "--batch") == 0)
            given.batch = atol(value);
    }
    if (given.port == NULL) {
        fprintf(stderr, "--port is missing\n");
        exit(2);
    }
    given.body = malloc((size_t)given.bytes + 1);
    memset(given.body, 'x', (size_t)given.bytes);
    return given;
}

static inline double seconds_of(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

struct measurement {
    double start, cpu, own;
};

static inline struct measurement begin(void)
{
    struct measurement begun = {0, seconds_of(CLOCK_PROCESS_CPUTIME_ID), seconds_of(CLOCK_THREAD_CPUTIME_ID)};
    begun.start = seconds_of(CLOCK_MONOTONIC);
    return begun;
}

/* Ends the measurement and prints the line. */
static inline void tell(struct measurement begun, long messages, const char *version)
{
    double seconds = seconds_of(CLOCK_MONOTONIC) - begun.start;
    long peak = 0;
    /* What getrusage tells is that of the program that started this one, if it was larger. */
    char line[256];
    FILE *status = fopen("/proc/self/status", "r");
    while (status != NULL && fgets(line, sizeof line, status) != NULL)
        sscanf(line, "VmHWM: %ld", &peak);
    if (status != NULL)
        fclose(status);
    printf("{\"messages\": %ld, \"seconds\": %.9f, \"cpu_seconds\": %.9f, \"own_cpu_seconds\": %.9f, \"peak_rss_kib\": %ld, "
           "\"lag_us\": null, \"version\": \"%s\", \"runtime\": \"C11, gcc %s\"}\n",
           messages, seconds, seconds_of(CLOCK_PROCESS_CPUTIME_ID) - begun.cpu, seconds_of(CLOCK_THREAD_CPUTIME_ID) - begun.own,
           peak, version, __VERSION__);
}

#endif
