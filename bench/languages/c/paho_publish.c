/* Paho C (MQTTAsync): one thread that sends as far as the window goes. With PERSISTENCE it keeps messages in files, which it does not
 * sync; without it in memory. */
#include "common.h"
#include <MQTTAsync.h>
#include <semaphore.h>
#include <unistd.h>

static sem_t window, connected;

static void on_connect(void *context, MQTTAsync_successData *data)
{
    (void)context, (void)data;
    sem_post(&connected);
}

static void on_failure(void *context, MQTTAsync_failureData *data)
{
    (void)context;
    fprintf(stderr, "failed: %d\n", data != NULL ? data->code : 0);
    exit(1);
}

static void on_sent(void *context, MQTTAsync_successData *data)
{
    (void)context, (void)data;
    sem_post(&window);
}

int main(int count, char **words)
{
    struct given given = arguments(count, words);
    char address[256];
    snprintf(address, sizeof address, "tcp://%s:%s", given.host, given.port);
    MQTTAsync client;
#ifdef PERSISTENCE
    int created = MQTTAsync_create(&client, address, "bench", MQTTCLIENT_PERSISTENCE_DEFAULT, (void *)(uintptr_t)given.outbox);
#else
    int created = MQTTAsync_create(&client, address, "bench", MQTTCLIENT_PERSISTENCE_NONE, NULL);
#endif
    if (created != MQTTASYNC_SUCCESS)
        return 1;
    sem_init(&window, 0, (unsigned)given.concurrency);
    sem_init(&connected, 0, 0);
    MQTTAsync_setCallbacks(client, NULL, NULL, (MQTTAsync_messageArrived *)NULL, NULL);
    MQTTAsync_connectOptions options = MQTTAsync_connectOptions_initializer;
    options.cleansession = 1;
    options.maxInflight = (int)given.concurrency;
    options.onSuccess = on_connect;
    options.onFailure = on_failure;
    if (MQTTAsync_connect(client, &options) != MQTTASYNC_SUCCESS)
        return 1;
    sem_wait(&connected);
    MQTTAsync_responseOptions response = MQTTAsync_responseOptions_initializer;
    response.onSuccess = on_sent;
    response.onFailure = on_failure;
    struct measurement begun = begin();
    for (long i = 0; i < given.messages; i++) {
        sem_wait(&window);
        int code;
        while ((code = MQTTAsync_send(client, "devices/bench/messages/events/", (int)given.bytes, given.body, 1, 0, &response)) ==
               MQTTASYNC_MAX_MESSAGES_INFLIGHT)
            usleep(50);
        if (code != MQTTASYNC_SUCCESS) {
            fprintf(stderr, "MQTTAsync_send: %d\n", code);
            return 1;
        }
    }
    for (long i = 0; i < given.concurrency; i++)
        sem_wait(&window);
    const char *version = "unknown";
    for (MQTTAsync_nameValue *info = MQTTAsync_getVersionInfo(); info->name != NULL; info++) {
        if (strcmp(info->name, "Version") == 0)
            version = info->value;
    }
    tell(begun, given.messages, version);
    MQTTAsync_destroy(&client);
    return 0;
}
