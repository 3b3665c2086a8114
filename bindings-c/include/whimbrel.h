/**
 * @file whimbrel.h
 * Whimbrel for C: durable messages between a device and its hub, at least once, through bad networks and power cuts.
 *
 * What holds for all of it:
 *
 * - Objects are opaque. What a function gives through a pointer named out is yours, and freed by the function named for it. What a
 *   getter gives is lent. Structures are yours; those that begin with a size begin with the ..._INIT of their type.
 * - Functions return a whimbrel_status. What more there is to an error tells whimbrel_last_error(), per thread, until the next call of
 *   that thread. On failure out parameters are NULL, 0 or -1.
 * - ..._free() takes the address of your variable and sets it to NULL, so that freeing through it again does nothing. It never
 *   waits, and never fails. Nobody may use the object meanwhile, or a copy of the pointer afterwards.
 * - A device is closed, then freed: whimbrel_device_close() does the work and tells of errors, whimbrel_device_free() frees memory. Objects
 *   made from a device may be freed before or after it.
 * - Texts are UTF-8 and end with a NUL. Times are in milliseconds. Enumerations are taken as int32_t, and other numbers refused.
 * - NULL, a text that is not UTF-8, or a number that is none of an enumeration is WHIMBREL_STATUS_INVALID_ARGUMENT naming the parameter.
 *   A defect of the library itself is WHIMBREL_STATUS_INTERNAL. What cannot be checked is that a pointer which is not NULL points to a
 *   living object of its type: that is your part.
 * - Every function may be called on any thread, and on one object by several threads at once, but for ..._free().
 * - Calls that wait have a timeout and may have a cancel token. Cancelling a wait loses nothing. Calls that end in _async return at once
 *   and call back on the device's own thread: a callback must be short, must not throw or jump out, and must not wait; waiting calls
 *   refuse it with WHIMBREL_STATUS_UNSUPPORTED. Calls that do not wait are fine there.
 * - There is no global state but the log (whimbrel_log_set()). What was opened before a fork says WHIMBREL_STATUS_CLOSED in the child;
 *   open it again there. The parent does not notice.
 *
 * This file is generated from the library's source: cargo xtask gen.
 */

#ifndef WHIMBREL_H
#define WHIMBREL_H

#include <stddef.h>
#include <stdint.h>

/** The version of this header. */
#define WHIMBREL_VERSION "0.1.0"

/** Given for "nothing is said about this": the default of the library, or that of the device, holds. */
#define WHIMBREL_NOT_GIVEN INT32_MIN

/** The time that is none. */
#define WHIMBREL_NO_TIME INT64_MIN

/** A whimbrel_message that says nothing. */
#define WHIMBREL_MESSAGE_INIT                                                                                          \
    {                                                                                                                  \
        sizeof(whimbrel_message), NULL, 0, WHIMBREL_NOT_GIVEN, WHIMBREL_NOT_GIVEN, NULL, 0, NULL, NULL, NULL, NULL,    \
            NULL, WHIMBREL_NO_TIME, NULL, NULL, NULL, NULL, WHIMBREL_NOT_GIVEN                                         \
    }

/** whimbrel_device_options with everything at its default. */
#define WHIMBREL_DEVICE_OPTIONS_INIT                                                                                   \
    {                                                                                                                  \
        sizeof(whimbrel_device_options), NULL, NULL, 0, WHIMBREL_NOT_GIVEN, WHIMBREL_NOT_GIVEN, WHIMBREL_NOT_GIVEN,    \
            WHIMBREL_NOT_GIVEN, WHIMBREL_NOT_GIVEN, WHIMBREL_NOT_GIVEN, WHIMBREL_NOT_GIVEN, NULL, 0, NULL, NULL, NULL, \
            NULL, NULL, NULL, NULL, 0, WHIMBREL_NOT_GIVEN, WHIMBREL_NOT_GIVEN, WHIMBREL_NOT_GIVEN, WHIMBREL_NOT_GIVEN, \
            WHIMBREL_NOT_GIVEN, WHIMBREL_NOT_GIVEN, WHIMBREL_NOT_GIVEN, WHIMBREL_NOT_GIVEN, WHIMBREL_NOT_GIVEN,        \
            WHIMBREL_NOT_GIVEN                                                                                         \
    }

/** whimbrel_counters to be filled. */
#define WHIMBREL_COUNTERS_INIT {sizeof(whimbrel_counters), {0, 0, 0, 0, 0, 0}, 0, 0, 0, 0, 0, 0, 0, 0, 0}


/**
 * Waits for as long as it takes.
 */
#define WHIMBREL_FOREVER -1

/**
 * The first number of the version this header is of; WHIMBREL_VERSION is all of it as text.
 */
#define WHIMBREL_VERSION_MAJOR 0

/**
 * The second number.
 */
#define WHIMBREL_VERSION_MINOR 1

/**
 * The third number.
 */
#define WHIMBREL_VERSION_PATCH 0

/**
 * What a call gives: WHIMBREL_STATUS_OK, or the number of what went wrong. The numbers are the same in every language, are never
 * used for anything else, and are explained in docs/errors.md. New ones may come with a new version: treat one that you do not
 * know by its whimbrel_error_retry().
 */
enum whimbrel_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It went well.
     */
    WHIMBREL_STATUS_OK = 0,
    /**
     * An option or argument cannot be used; the text says which and why.
     */
    WHIMBREL_STATUS_INVALID_ARGUMENT = 101,
    /**
     * The message is over the size limit of its direction.
     */
    WHIMBREL_STATUS_PAYLOAD_TOO_LARGE = 102,
    /**
     * The protocol or build in use cannot do this.
     */
    WHIMBREL_STATUS_UNSUPPORTED = 103,
    /**
     * The client was closed before the call.
     */
    WHIMBREL_STATUS_CLOSED = 201,
    /**
     * Another process, or another client of this one, has this directory open.
     */
    WHIMBREL_STATUS_IN_USE = 202,
    /**
     * The caller stopped waiting.
     */
    WHIMBREL_STATUS_CANCELLED = 203,
    /**
     * The outbox is at its bound and its overflow policy is to refuse.
     */
    WHIMBREL_STATUS_OUTBOX_FULL = 301,
    /**
     * The time to live ended first.
     */
    WHIMBREL_STATUS_EXPIRED = 302,
    /**
     * The other side refused this for good.
     */
    WHIMBREL_STATUS_REJECTED = 303,
    /**
     * It exists already, was settled already, or changed meanwhile.
     */
    WHIMBREL_STATUS_CONFLICT = 304,
    /**
     * The deadline passed; the message is still kept and delivery goes on.
     */
    WHIMBREL_STATUS_TIMEOUT = 305,
    /**
     * There is no such device, message or partition.
     */
    WHIMBREL_STATUS_NOT_FOUND = 306,
    /**
     * The device's queue of commands is at its bound; wait until some are settled, or purge it.
     */
    WHIMBREL_STATUS_QUEUE_FULL = 307,
    /**
     * The lock on the command has ended; the hub delivers it again, or has ended it.
     */
    WHIMBREL_STATUS_LOCK_LOST = 308,
    /**
     * The credentials are wrong, expired, or do not allow this.
     */
    WHIMBREL_STATUS_UNAUTHORIZED = 401,
    /**
     * The other side could not be reached, or the connection was lost.
     */
    WHIMBREL_STATUS_UNREACHABLE = 402,
    /**
     * The other side broke the protocol; the text names the rule.
     */
    WHIMBREL_STATUS_PROTOCOL = 403,
    /**
     * The other side asked to slow down.
     */
    WHIMBREL_STATUS_THROTTLED = 404,
    /**
     * The disk refused a write or a sync; nothing more is accepted until the journal is opened again.
     */
    WHIMBREL_STATUS_JOURNAL_IO = 501,
    /**
     * The journal cannot be read at all; single damaged records never cause this.
     */
    WHIMBREL_STATUS_JOURNAL_CORRUPT = 502,
    /**
     * The journal was written by a newer version.
     */
    WHIMBREL_STATUS_JOURNAL_VERSION = 503,
    /**
     * There is no space left on the disk; nothing was stored, and it works again when space returns.
     */
    WHIMBREL_STATUS_DISK_FULL = 504,
    /**
     * A defect in Whimbrel; please report it with the text.
     */
    WHIMBREL_STATUS_INTERNAL = 901,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum whimbrel_status whimbrel_status;
#else
typedef int32_t whimbrel_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What the link to the hub is doing.
 */
enum whimbrel_connection_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * A state that this version does not know.
     */
    WHIMBREL_CONNECTION_UNKNOWN = 0,
    /**
     * Not connected; the next try is scheduled.
     */
    WHIMBREL_CONNECTION_DISCONNECTED = 1,
    /**
     * Trying.
     */
    WHIMBREL_CONNECTION_CONNECTING = 2,
    /**
     * Connected.
     */
    WHIMBREL_CONNECTION_CONNECTED = 3,
    /**
     * The hub refused the credentials; tries go on slowly.
     */
    WHIMBREL_CONNECTION_UNAUTHORIZED = 4,
    /**
     * Closed by the program.
     */
    WHIMBREL_CONNECTION_CLOSED = 5,
    /**
     * Suspended by the program.
     */
    WHIMBREL_CONNECTION_SUSPENDED = 6,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum whimbrel_connection_state whimbrel_connection_state;
#else
typedef int32_t whimbrel_connection_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Whether repeating the same call can help.
 */
enum whimbrel_retry
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The same call fails again.
     */
    WHIMBREL_RETRY_NEVER = 0,
    /**
     * The same call may succeed later.
     */
    WHIMBREL_RETRY_LATER = 1,
    /**
     * Wait again: the operation itself is still going on.
     */
    WHIMBREL_RETRY_WAIT_AGAIN = 2,
    /**
     * After closing and opening the device again.
     */
    WHIMBREL_RETRY_AFTER_REOPEN = 3,
    /**
     * The caller decided to stop; the caller decides whether to start again.
     */
    WHIMBREL_RETRY_CALLERS_CHOICE = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum whimbrel_retry whimbrel_retry;
#else
typedef int32_t whimbrel_retry;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Where a message is.
 */
enum whimbrel_receipt_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It ended so long ago that its outcome is no longer kept, or the outbox is gone.
     */
    WHIMBREL_RECEIPT_UNKNOWN = 0,
    /**
     * In the outbox.
     */
    WHIMBREL_RECEIPT_QUEUED = 1,
    /**
     * On its way, not acknowledged.
     */
    WHIMBREL_RECEIPT_SENT = 2,
    /**
     * Ended: whimbrel_receipt_outcome() says how, without waiting.
     */
    WHIMBREL_RECEIPT_SETTLED = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum whimbrel_receipt_state whimbrel_receipt_state;
#else
typedef int32_t whimbrel_receipt_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How a message ended.
 */
enum whimbrel_outcome_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * An outcome that this version does not know; its reason names it.
     */
    WHIMBREL_OUTCOME_UNKNOWN = 0,
    /**
     * Durable at the hub.
     */
    WHIMBREL_OUTCOME_DELIVERED = 1,
    /**
     * Its time to live ended first.
     */
    WHIMBREL_OUTCOME_EXPIRED = 2,
    /**
     * Given up by this side; the reason is "made-room", "no-room" or "damaged".
     */
    WHIMBREL_OUTCOME_DROPPED = 3,
    /**
     * Refused by the hub for good; the reason is what it said.
     */
    WHIMBREL_OUTCOME_REJECTED = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum whimbrel_outcome_kind whimbrel_outcome_kind;
#else
typedef int32_t whimbrel_outcome_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Which queue of the outbox a message waits in.
 */
enum whimbrel_lane
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Ordinary measurements. The default.
     */
    WHIMBREL_LANE_TELEMETRY = 0,
    /**
     * Overtakes all waiting telemetry, and is never dropped to make room for it.
     */
    WHIMBREL_LANE_ALERT = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum whimbrel_lane whimbrel_lane;
#else
typedef int32_t whimbrel_lane;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What sending waits for.
 */
enum whimbrel_durability
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The message is on stable storage. The default.
     */
    WHIMBREL_DURABILITY_ON_DISK = 0,
    /**
     * Nothing: it is written at the sync interval, so a power cut can lose what one interval took in.
     */
    WHIMBREL_DURABILITY_INTERVAL = 1,
    /**
     * Nothing: it reaches the disk by chance only, and a power cut loses it.
     */
    WHIMBREL_DURABILITY_MEMORY = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum whimbrel_durability whimbrel_durability;
#else
typedef int32_t whimbrel_durability;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What happens to a message that finds the outbox at its bounds. Alerts never make room for telemetry.
 */
enum whimbrel_overflow
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Sending fails with WHIMBREL_STATUS_OUTBOX_FULL. The default.
     */
    WHIMBREL_OVERFLOW_REJECT = 0,
    /**
     * The oldest waiting telemetry makes room, and ends as dropped.
     */
    WHIMBREL_OVERFLOW_DROP_OLDEST = 1,
    /**
     * The new message is taken in, and ends as dropped at once.
     */
    WHIMBREL_OVERFLOW_DROP_NEWEST = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum whimbrel_overflow whimbrel_overflow;
#else
typedef int32_t whimbrel_overflow;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What is spoken with the hub.
 */
enum whimbrel_protocol
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * That of the server's address; of MQTT the newest version the hub has. The default.
     */
    WHIMBREL_PROTOCOL_AUTO = 0,
    /**
     * MQTT 3.1.1.
     */
    WHIMBREL_PROTOCOL_MQTT3 = 1,
    /**
     * MQTT 5.
     */
    WHIMBREL_PROTOCOL_MQTT5 = 2,
    /**
     * AMQP 1.0; needs the feature amqp.
     */
    WHIMBREL_PROTOCOL_AMQP = 3,
    /**
     * HTTPS; needs the feature http.
     */
    WHIMBREL_PROTOCOL_HTTP = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum whimbrel_protocol whimbrel_protocol;
#else
typedef int32_t whimbrel_protocol;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How much is told. Each level includes those before it.
 */
enum whimbrel_log_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Nothing.
     */
    WHIMBREL_LOG_OFF = 0,
    /**
     * What went wrong.
     */
    WHIMBREL_LOG_ERROR = 1,
    /**
     * What may go wrong.
     */
    WHIMBREL_LOG_WARN = 2,
    /**
     * What happens seldom, such as connections.
     */
    WHIMBREL_LOG_INFO = 3,
    /**
     * What happens often.
     */
    WHIMBREL_LOG_DEBUG = 4,
    /**
     * What happens with each message.
     */
    WHIMBREL_LOG_TRACE = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum whimbrel_log_level whimbrel_log_level;
#else
typedef int32_t whimbrel_log_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Stops calls that wait: give it to as many as are to stop together, and cancel it from any thread. Once cancelled it stays so.
 */
typedef struct whimbrel_cancel_token whimbrel_cancel_token;

/**
 * A command, locked for this device until it is settled; by any thread, in any order. Freed unsettled it stays locked until the hub
 * takes the lock back, and is delivered again then.
 */
typedef struct whimbrel_command whimbrel_command;

/**
 * A state of the link, and why; as it was when it was asked for.
 */
typedef struct whimbrel_connection whimbrel_connection;

/**
 * The changes of the link, the present state first. Each holder sees all that are there when it asks; what came and went between is
 * left out.
 */
typedef struct whimbrel_connection_changes whimbrel_connection_changes;

/**
 * A device's connection to its hub, with a durable outbox. Any thread may use it, also several at once.
 *
 * Each open device has one thread of its own, "whimbrel", which ends when the device and everything made from it is freed; its outbox
 * has a few more for the disk. They cost nothing while nothing happens.
 */
typedef struct whimbrel_device whimbrel_device;

/**
 * What went wrong. Never made or freed by a program: whimbrel_last_error() and callbacks lend it.
 */
typedef struct whimbrel_error whimbrel_error;

/**
 * The commands for a device. Those who share one, and those made by several whimbrel_device_inbox(), get each command once among
 * them. Freeing it does not close the device.
 */
typedef struct whimbrel_inbox whimbrel_inbox;

/**
 * How a message ended.
 */
typedef struct whimbrel_outcome whimbrel_outcome;

/**
 * What sending gives: the way to follow a message. Freeing it changes nothing about the message.
 */
typedef struct whimbrel_receipt whimbrel_receipt;

/**
 * Is told that a call has ended.
 *
 * context: as it was given. error: what went wrong, lent until this returns; NULL when it went well.
 */
typedef void (*whimbrel_done_fn)(void *context, const whimbrel_error *error);

/**
 * Frees the context of a callback. Called exactly once for each call that was given it: after the callback, or when there will be
 * none because the call failed at once. NULL when there is nothing to free.
 */
typedef void (*whimbrel_drop_fn)(void *context);

/**
 * How to open a device. Begin with WHIMBREL_DEVICE_OPTIONS_INIT, which leaves everything at its default, and set connection_string
 * and either outbox_dir or outbox_in_memory. Everything is copied by whimbrel_device_open(). Texts are UTF-8, end with a NUL, and
 * are NULL for "not given"; numbers are WHIMBREL_NOT_GIVEN for it; times are in milliseconds.
 */
typedef struct {
    /**
     * Set by WHIMBREL_DEVICE_OPTIONS_INIT.
     */
    size_t size;
    /**
     * Hub, device and credential: "HostName=...;DeviceId=...;SharedAccessKey=...", with SharedAccessSignature=... for a token, or
     * with x509=true for a client certificate.
     */
    const char *connection_string;
    /**
     * The folder that keeps the outbox. One open device owns it. Made where it is missing.
     */
    const char *outbox_dir;
    /**
     * Not 0: the outbox is kept in memory only, and a restart loses what was not delivered.
     */
    int32_t outbox_in_memory;
    /**
     * A whimbrel_overflow: what happens at the bounds.
     */
    int32_t overflow;
    /**
     * A whimbrel_durability: what sending waits for.
     */
    int32_t durability;
    /**
     * Most bytes waiting in the outbox. Default 256 MiB.
     */
    int64_t outbox_max_bytes;
    /**
     * Most messages waiting in the outbox. Default 1,000,000.
     */
    int64_t outbox_max_messages;
    /**
     * Time to live of messages that bring none. Default: they never expire.
     */
    int64_t outbox_max_age_ms;
    /**
     * How often WHIMBREL_DURABILITY_INTERVAL writes. Default 1,000.
     */
    int64_t sync_interval_ms;
    /**
     * Outcomes of past messages that are kept for each lane. Default 1,024.
     */
    int64_t kept_outcomes;
    /**
     * Connects to this address instead of the host in the connection string: "mqtts://host[:port]", "amqps://...", "https://..."
     * or "wss://...". Without the s they are not encrypted, and go to this machine only unless allow_unencrypted is set.
     */
    const char *server;
    /**
     * Not 0: speaks MQTT or AMQP in a WebSocket at port 443.
     */
    int32_t websocket;
    /**
     * Goes through an HTTP proxy: "http://[user:password@]host[:port]".
     */
    const char *proxy;
    /**
     * Trusts the certificates in this PEM file instead of the system's roots.
     */
    const char *ca_file;
    /**
     * As ca_file, with the PEM text itself.
     */
    const char *ca_pem;
    /**
     * PEM file of the client's certificate chain; with client_key.
     */
    const char *client_certificate;
    /**
     * PEM file of the client's private key.
     */
    const char *client_key;
    /**
     * As client_certificate, with the PEM text itself; with client_key_pem.
     */
    const char *client_certificate_pem;
    /**
     * As client_key, with the PEM text itself.
     */
    const char *client_key_pem;
    /**
     * Not 0: allows an unencrypted connection to another machine. Everybody on the way can read and change what is sent.
     */
    int32_t allow_unencrypted;
    /**
     * A whimbrel_protocol.
     */
    int32_t protocol;
    /**
     * Longest silence on the connection before it counts as lost. Default 60,000, at least 100.
     */
    int64_t keep_alive_ms;
    /**
     * Longest wait for a connection, name resolution and handshakes included. Default 30,000.
     */
    int64_t connect_timeout_ms;
    /**
     * How often commands are asked for over HTTP. Default 1,500,000 (25 minutes), at least 1,000.
     */
    int64_t poll_interval_ms;
    /**
     * Most messages sent and not acknowledged, 1 to 65,535. Default 1,000.
     */
    int32_t window;
    /**
     * Most commands delivered and not settled, 1 to 1,000. Default 16.
     */
    int32_t inbox_window;
    /**
     * Longest wait after the first failed attempt to connect; doubled with each further one. With backoff_max_ms. Default 100.
     */
    int64_t backoff_min_ms;
    /**
     * Bound of that wait. Default 60,000.
     */
    int64_t backoff_max_ms;
    /**
     * How long closing may flush. Default 5,000.
     */
    int64_t close_deadline_ms;
    /**
     * How long a token is valid that is made from a key. Default 3,600,000 (1 hour), at least 1,000.
     */
    int64_t token_lifetime_ms;
} whimbrel_device_options;

/**
 * A named text that goes with a message.
 */
typedef struct {
    /**
     * Its name; not empty, and not beginning with "$.". UTF-8.
     */
    const char *name;
    /**
     * Its value. UTF-8.
     */
    const char *value;
} whimbrel_property;

/**
 * A message to be sent. Begin with WHIMBREL_MESSAGE_INIT, which says nothing about it, and set what is to be said. Everything is
 * copied by the call that gets it. Texts are UTF-8, end with a NUL, and are NULL for "not said".
 */
typedef struct {
    /**
     * Set by WHIMBREL_MESSAGE_INIT.
     */
    size_t size;
    /**
     * The body: any bytes. May be NULL when body_length is 0.
     */
    const void *body;
    /**
     * Its length in bytes. Body and properties together: at most 262,144.
     */
    size_t body_length;
    /**
     * A whimbrel_lane, or WHIMBREL_NOT_GIVEN.
     */
    int32_t lane;
    /**
     * A whimbrel_durability instead of the device's own, or WHIMBREL_NOT_GIVEN.
     */
    int32_t durability;
    /**
     * Application properties, in order. Of two with one name the later one counts.
     */
    const whimbrel_property *properties;
    /**
     * How many.
     */
    size_t property_count;
    /**
     * The id that outcome and receipt are found by, also after a restart: at most 128 ASCII letters, digits and
     * -:.+%_#*?!(),=@;$'. Without one the outbox makes one.
     */
    const char *message_id;
    /**
     * Joins this message to another one.
     */
    const char *correlation_id;
    /**
     * Who caused it.
     */
    const char *user_id;
    /**
     * Content type of the body, such as "application/json".
     */
    const char *content_type;
    /**
     * Character set of the body, such as "utf-8".
     */
    const char *content_encoding;
    /**
     * When the content was made, in milliseconds since 1970-01-01 UTC, or WHIMBREL_NO_TIME.
     */
    int64_t creation_time_ms;
    /**
     * Schema of the content.
     */
    const char *message_schema;
    /**
     * Output of a module.
     */
    const char *output_name;
    /**
     * Interface id of a security message.
     */
    const char *interface_id;
    /**
     * Component the message belongs to.
     */
    const char *component;
    /**
     * Time to live in milliseconds, counted from sending, also while offline; WHIMBREL_NOT_GIVEN for that of the device. 0 is
     * refused.
     */
    int64_t expires_in_ms;
} whimbrel_message;

/**
 * Gets a receipt, to be freed with whimbrel_receipt_free(). As whimbrel_done_fn; receipt is NULL when something went wrong.
 */
typedef void (*whimbrel_receipt_fn)(void *context, const whimbrel_error *error, whimbrel_receipt *receipt);

/**
 * Gets the receipts of many messages, in their order, each to be freed with whimbrel_receipt_free(). As whimbrel_done_fn; receipts is
 * NULL and count 0 when something went wrong. The array itself is lent until this returns.
 */
typedef void (*whimbrel_receipts_fn)(void *context,
                                     const whimbrel_error *error,
                                     whimbrel_receipt **receipts,
                                     size_t count);

/**
 * The account of an outbox over the whole life of its folder: accepted == delivered + expired + dropped + rejected + queued,
 * always.
 */
typedef struct {
    /**
     * Messages taken in.
     */
    uint64_t accepted;
    /**
     * Durable at the hub.
     */
    uint64_t delivered;
    /**
     * Ended by their time to live.
     */
    uint64_t expired;
    /**
     * Given up by this side.
     */
    uint64_t dropped;
    /**
     * Refused by the hub.
     */
    uint64_t rejected;
    /**
     * Still here.
     */
    uint64_t queued;
} whimbrel_account;

/**
 * Figures of an outbox. Begin with WHIMBREL_COUNTERS_INIT.
 */
typedef struct {
    /**
     * Set by WHIMBREL_COUNTERS_INIT.
     */
    size_t size;
    /**
     * The account.
     */
    whimbrel_account account;
    /**
     * Messages in the alert lane, part of account.queued.
     */
    uint64_t queued_alerts;
    /**
     * Bytes waiting on disk.
     */
    uint64_t queued_bytes;
    /**
     * Age of the oldest waiting message in milliseconds; -1 when none waits.
     */
    int64_t oldest_age_ms;
    /**
     * Publishes handed to the network since opening, resends included.
     */
    uint64_t sent;
    /**
     * Dropped as the oldest when room was needed, over the whole life of the folder.
     */
    uint64_t dropped_made_room;
    /**
     * Dropped as the newest when there was no room, over the whole life of the folder.
     */
    uint64_t dropped_no_room;
    /**
     * Dropped because the record on the disk was damaged, over the whole life of the folder.
     */
    uint64_t dropped_damaged;
    /**
     * Refused because the outbox was full, since opening; they were never taken in.
     */
    uint64_t refused;
    /**
     * Bytes written to the disk since opening.
     */
    uint64_t written_bytes;
} whimbrel_counters;

/**
 * Is told a number. As whimbrel_done_fn; count is 0 when something went wrong.
 */
typedef void (*whimbrel_count_fn)(void *context, const whimbrel_error *error, uint64_t count);

/**
 * Gets a command, to be freed with whimbrel_command_free(). As whimbrel_done_fn; command is NULL when something went wrong.
 */
typedef void (*whimbrel_command_fn)(void *context, const whimbrel_error *error, whimbrel_command *command);

/**
 * One line of the log; lent to the callback.
 */
typedef struct {
    /**
     * A whimbrel_log_level.
     */
    int32_t level;
    /**
     * Where in the code, such as "whimbrel::device". UTF-8.
     */
    const char *target;
    /**
     * What happened. Never holds a payload, a key or a token. UTF-8.
     */
    const char *message;
    /**
     * How many lines were lost before this one, because the callback was too slow.
     */
    uint64_t lost;
} whimbrel_log_record;

/**
 * Is told a line of the log, on a thread that does nothing else. It may wait, and may call this library, but for
 * whimbrel_log_set().
 *
 * context: as it was given. record: the line, lent until this returns. New members may come at its end.
 */
typedef void (*whimbrel_log_fn)(void *context, const whimbrel_log_record *record);

/**
 * Gets an outcome, to be freed with whimbrel_outcome_free(). As whimbrel_done_fn; outcome is NULL when something went wrong.
 */
typedef void (*whimbrel_outcome_fn)(void *context, const whimbrel_error *error, whimbrel_outcome *outcome);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Makes a token.
 *
 * @param[out] out The token; free it with whimbrel_cancel_token_free(). NULL on failure.
 * @return WHIMBREL_STATUS_OK, WHIMBREL_STATUS_INVALID_ARGUMENT.
 */
whimbrel_status whimbrel_cancel_token_new(whimbrel_cancel_token **out);

/**
 * Stops all calls that have this token, now and later: they fail with WHIMBREL_STATUS_CANCELLED unless they are just done. What
 * they waited for goes on. Never blocks. Cancelling twice is fine.
 *
 * @param token The token.
 * @return WHIMBREL_STATUS_OK, WHIMBREL_STATUS_INVALID_ARGUMENT.
 */
whimbrel_status whimbrel_cancel_token_cancel(const whimbrel_cancel_token *token);

/**
 * Frees a token and sets the variable to NULL. Calls that have it go on; they cannot be cancelled any more.
 *
 * @param token Address of the variable that holds it. NULL, or the address of a NULL, is fine.
 */
void whimbrel_cancel_token_free(whimbrel_cancel_token **token);

/**
 * The body of a command: lent, and valid as long as the command. Not NULL, even where it is empty; NULL for NULL.
 *
 * @param command The command.
 * @param[out] out_length Its length in bytes.
 */
const uint8_t *whimbrel_command_body(const whimbrel_command *command, size_t *out_length);

/**
 * The id that the service finds the outcome by: lent, and valid as long as the command. NULL where there is none.
 */
const char *whimbrel_command_message_id(const whimbrel_command *command);

/**
 * The correlation id: lent, and valid as long as the command. NULL where there is none.
 */
const char *whimbrel_command_correlation_id(const whimbrel_command *command);

/**
 * The user id: lent, and valid as long as the command. NULL where there is none.
 */
const char *whimbrel_command_user_id(const whimbrel_command *command);

/**
 * The content type: lent, and valid as long as the command. NULL where there is none.
 */
const char *whimbrel_command_content_type(const whimbrel_command *command);

/**
 * The content encoding: lent, and valid as long as the command. NULL where there is none.
 */
const char *whimbrel_command_content_encoding(const whimbrel_command *command);

/**
 * When the content was made, in milliseconds since 1970-01-01 UTC. WHIMBREL_NO_TIME where that is not told.
 */
int64_t whimbrel_command_creation_time_ms(const whimbrel_command *command);

/**
 * When the hub took the command in, in milliseconds since 1970-01-01 UTC. WHIMBREL_NO_TIME where that is not told (MQTT 3.1.1).
 */
int64_t whimbrel_command_enqueued_at_ms(const whimbrel_command *command);

/**
 * The number of the command in the device's queue. -1 where that is not told (MQTT 3.1.1).
 */
int64_t whimbrel_command_sequence(const whimbrel_command *command);

/**
 * How many deliveries counted before this one. -1 where that is not told (MQTT 3.1.1).
 */
int64_t whimbrel_command_delivery_count(const whimbrel_command *command);

/**
 * How many application properties there are. 0 for NULL.
 */
size_t whimbrel_command_property_count(const whimbrel_command *command);

/**
 * The name of an application property: lent, and valid as long as the command. NULL when there are not so many.
 *
 * @param command The command.
 * @param index Which, from 0 on.
 */
const char *whimbrel_command_property_name(const whimbrel_command *command, size_t index);

/**
 * The value of an application property: lent, and valid as long as the command. NULL when there are not so many.
 *
 * @param command The command.
 * @param index Which, from 0 on.
 */
const char *whimbrel_command_property_value(const whimbrel_command *command, size_t index);

/**
 * The value of an application property by its name: lent, and valid as long as the command. NULL when there is none of this name.
 *
 * @param command The command.
 * @param name The name; case-sensitive.
 */
const char *whimbrel_command_property(const whimbrel_command *command,
                                      const char *name);

/**
 * It was dealt with: the hub removes it, and it is never handed out again.
 *
 * Returns when that is recorded on this device, and handed to the connection or answered by the hub, whichever the protocol has.
 * Without a connection it returns when it is recorded. Giving up stops the waiting, not the settling.
 *
 * @param command The command. It stays to be freed.
 * @param timeout_ms How long to wait at most, or WHIMBREL_FOREVER.
 * @param cancel Stops the waiting; may be NULL.
 * @return WHIMBREL_STATUS_OK; WHIMBREL_STATUS_CONFLICT when it was settled before; WHIMBREL_STATUS_LOCK_LOST when the hub did not hold
 *         it any more; WHIMBREL_STATUS_DISK_FULL, WHIMBREL_STATUS_JOURNAL_IO when it could not be recorded; WHIMBREL_STATUS_CLOSED;
 *         WHIMBREL_STATUS_TIMEOUT; WHIMBREL_STATUS_CANCELLED.
 */
whimbrel_status whimbrel_command_complete(const whimbrel_command *command,
                                          int64_t timeout_ms,
                                          const whimbrel_cancel_token *cancel);

/**
 * Not now: the hub delivers it again, a limited number of times. Otherwise as whimbrel_command_complete().
 *
 * @param command The command. It stays to be freed.
 * @param timeout_ms How long to wait at most, or WHIMBREL_FOREVER.
 * @param cancel Stops the waiting; may be NULL.
 * @return As there; WHIMBREL_STATUS_UNSUPPORTED on MQTT 3.1.1: it stays locked, and can still be completed.
 */
whimbrel_status whimbrel_command_abandon(const whimbrel_command *command,
                                         int64_t timeout_ms,
                                         const whimbrel_cancel_token *cancel);

/**
 * Never: the hub makes it a dead letter, and it is never handed out again. Otherwise as whimbrel_command_complete().
 *
 * @param command The command. It stays to be freed.
 * @param timeout_ms How long to wait at most, or WHIMBREL_FOREVER.
 * @param cancel Stops the waiting; may be NULL.
 * @return As there; WHIMBREL_STATUS_UNSUPPORTED on MQTT 3.1.1: it stays locked, and can still be completed.
 */
whimbrel_status whimbrel_command_reject(const whimbrel_command *command,
                                        int64_t timeout_ms,
                                        const whimbrel_cancel_token *cancel);

/**
 * As whimbrel_command_complete(), with a callback. The command may be freed as soon as this has returned.
 *
 * @param command The command.
 * @param callback Is told the end, on the device's thread. It must not wait.
 * @param context What it is given.
 * @param drop Frees the context; may be NULL. Called in any case.
 * @return WHIMBREL_STATUS_OK: the callback is called, once. Otherwise it is not.
 */
whimbrel_status whimbrel_command_complete_async(const whimbrel_command *command,
                                                whimbrel_done_fn callback,
                                                void *context,
                                                whimbrel_drop_fn drop);

/**
 * As whimbrel_command_abandon(), with a callback. The command may be freed as soon as this has returned.
 *
 * @param command The command.
 * @param callback Is told the end, on the device's thread. It must not wait.
 * @param context What it is given.
 * @param drop Frees the context; may be NULL. Called in any case.
 * @return WHIMBREL_STATUS_OK: the callback is called, once. Otherwise it is not.
 */
whimbrel_status whimbrel_command_abandon_async(const whimbrel_command *command,
                                               whimbrel_done_fn callback,
                                               void *context,
                                               whimbrel_drop_fn drop);

/**
 * As whimbrel_command_reject(), with a callback. The command may be freed as soon as this has returned.
 *
 * @param command The command.
 * @param callback Is told the end, on the device's thread. It must not wait.
 * @param context What it is given.
 * @param drop Frees the context; may be NULL. Called in any case.
 * @return WHIMBREL_STATUS_OK: the callback is called, once. Otherwise it is not.
 */
whimbrel_status whimbrel_command_reject_async(const whimbrel_command *command,
                                              whimbrel_done_fn callback,
                                              void *context,
                                              whimbrel_drop_fn drop);

/**
 * Frees a command and sets the variable to NULL. Does no I/O and settles nothing.
 *
 * @param command Address of the variable that holds it. NULL, or the address of a NULL, is fine.
 */
void whimbrel_command_free(whimbrel_command **command);

/**
 * The state. WHIMBREL_CONNECTION_UNKNOWN for NULL.
 */
whimbrel_connection_state whimbrel_connection_get_state(const whimbrel_connection *connection);

/**
 * Why, for people: lent, and valid as long as the object. NULL where there is nothing to say.
 */
const char *whimbrel_connection_reason(const whimbrel_connection *connection);

/**
 * Frees it and sets the variable to NULL.
 *
 * @param connection Address of the variable that holds it. NULL, or the address of a NULL, is fine.
 */
void whimbrel_connection_free(whimbrel_connection **connection);

/**
 * Waits for the next change; the first one is the present state.
 *
 * @param changes The changes.
 * @param timeout_ms How long to wait at most, or WHIMBREL_FOREVER.
 * @param cancel Stops the waiting; may be NULL.
 * @param[out] out The state; free it with whimbrel_connection_free(). NULL on failure.
 * @return WHIMBREL_STATUS_OK; WHIMBREL_STATUS_CLOSED at the end; WHIMBREL_STATUS_TIMEOUT; WHIMBREL_STATUS_CANCELLED.
 */
whimbrel_status whimbrel_connection_changes_next(const whimbrel_connection_changes *changes,
                                                 int64_t timeout_ms,
                                                 const whimbrel_cancel_token *cancel,
                                                 whimbrel_connection **out);

/**
 * Takes a change if there is one. Never waits.
 *
 * @param changes The changes.
 * @param[out] out The state; free it with whimbrel_connection_free(). NULL on failure.
 * @return As whimbrel_connection_changes_next(); WHIMBREL_STATUS_TIMEOUT when there is none now.
 */
whimbrel_status whimbrel_connection_changes_try_next(const whimbrel_connection_changes *changes,
                                                     whimbrel_connection **out);

/**
 * A file descriptor that is readable while whimbrel_connection_changes_try_next() has something to give. As whimbrel_inbox_fd().
 *
 * @param changes The changes.
 * @param[out] out The file descriptor; the same one each time. -1 on failure.
 * @return WHIMBREL_STATUS_OK, WHIMBREL_STATUS_INVALID_ARGUMENT, WHIMBREL_STATUS_INTERNAL when the system has none left.
 */
whimbrel_status whimbrel_connection_changes_fd(const whimbrel_connection_changes *changes,
                                               int32_t *out);

/**
 * Frees it and sets the variable to NULL.
 *
 * @param changes Address of the variable that holds it. NULL, or the address of a NULL, is fine.
 */
void whimbrel_connection_changes_free(whimbrel_connection_changes **changes);

/**
 * Opens a device and returns; connecting goes on in the background. Reads and writes the disk, and never waits for the network.
 *
 * @param options How; begin with WHIMBREL_DEVICE_OPTIONS_INIT.
 * @param[out] out The device; close it with whimbrel_device_close(), then free it with whimbrel_device_free(). NULL on failure.
 * @return WHIMBREL_STATUS_OK; WHIMBREL_STATUS_INVALID_ARGUMENT naming the option; WHIMBREL_STATUS_IN_USE; WHIMBREL_STATUS_JOURNAL_IO;
 *         WHIMBREL_STATUS_JOURNAL_CORRUPT; WHIMBREL_STATUS_JOURNAL_VERSION; WHIMBREL_STATUS_DISK_FULL; WHIMBREL_STATUS_UNSUPPORTED for
 *         what this build leaves out.
 */
whimbrel_status whimbrel_device_open(const whimbrel_device_options *options,
                                     whimbrel_device **out);

/**
 * Takes a message in, and returns when it is on the disk (or as safe as was chosen): from then on delivering it is not the program's
 * concern. Never waits for the network. Giving up leaves the message wholly in or wholly out; whimbrel_device_account() tells.
 *
 * @param device The device.
 * @param message The message; begin with WHIMBREL_MESSAGE_INIT.
 * @param timeout_ms How long to wait for the disk at most, or WHIMBREL_FOREVER.
 * @param cancel Stops the waiting; may be NULL.
 * @param[out] out The receipt; free it with whimbrel_receipt_free(). NULL on failure. The parameter may be NULL.
 * @return WHIMBREL_STATUS_OK; WHIMBREL_STATUS_INVALID_ARGUMENT and WHIMBREL_STATUS_PAYLOAD_TOO_LARGE for a message that could never be
 *         delivered; WHIMBREL_STATUS_OUTBOX_FULL; WHIMBREL_STATUS_DISK_FULL; WHIMBREL_STATUS_JOURNAL_IO; WHIMBREL_STATUS_CLOSED;
 *         WHIMBREL_STATUS_TIMEOUT; WHIMBREL_STATUS_CANCELLED.
 */
whimbrel_status whimbrel_device_send(const whimbrel_device *device,
                                     const whimbrel_message *message,
                                     int64_t timeout_ms,
                                     const whimbrel_cancel_token *cancel,
                                     whimbrel_receipt **out);

/**
 * Takes a message in without waiting for the disk: for loops that must never wait. It is as safe as the outbox makes it soon after:
 * with WHIMBREL_DURABILITY_ON_DISK a few milliseconds, with WHIMBREL_DURABILITY_INTERVAL one sync interval. Who has to know when, uses
 * whimbrel_device_send_async(). It does wait when 16 MiB are on their way to a disk that does not keep up.
 *
 * @param device The device.
 * @param message The message; begin with WHIMBREL_MESSAGE_INIT.
 * @param[out] out The receipt; free it with whimbrel_receipt_free(). NULL on failure. The parameter may be NULL.
 * @return As whimbrel_device_send().
 */
whimbrel_status whimbrel_device_accept(const whimbrel_device *device,
                                       const whimbrel_message *message,
                                       whimbrel_receipt **out);

/**
 * Takes a message in as whimbrel_device_accept(), and tells when it is on the disk (or as safe as was chosen). Of messages of one lane
 * the callbacks come in the order of the calls.
 *
 * @param device The device.
 * @param message The message; begin with WHIMBREL_MESSAGE_INIT.
 * @param callback Gets the receipt, on the device's thread. It must not wait.
 * @param context What it is given.
 * @param drop Frees the context; may be NULL. Called in any case.
 * @return As whimbrel_device_send(). WHIMBREL_STATUS_OK: the callback is called, once. Otherwise it is not.
 */
whimbrel_status whimbrel_device_send_async(const whimbrel_device *device,
                                           const whimbrel_message *message,
                                           whimbrel_receipt_fn callback,
                                           void *context,
                                           whimbrel_drop_fn drop);

/**
 * Takes many messages in, in order, with one commit: all or none, also when the waiting is given up.
 *
 * @param device The device.
 * @param messages The messages; begin each with WHIMBREL_MESSAGE_INIT.
 * @param count How many.
 * @param timeout_ms How long to wait for the disk at most, or WHIMBREL_FOREVER.
 * @param cancel Stops the waiting; may be NULL.
 * @param[out] out_receipts Array of count receipts, in the order of the messages; free each with whimbrel_receipt_free(). All are NULL on
 *        failure. May be NULL.
 * @return As whimbrel_device_send(); the detail "index" says which message was refused.
 */
whimbrel_status whimbrel_device_send_many(const whimbrel_device *device,
                                          const whimbrel_message *messages,
                                          size_t count,
                                          int64_t timeout_ms,
                                          const whimbrel_cancel_token *cancel,
                                          whimbrel_receipt **out_receipts);

/**
 * As whimbrel_device_send_many(), with a callback.
 *
 * @param device The device.
 * @param messages The messages; begin each with WHIMBREL_MESSAGE_INIT.
 * @param count How many.
 * @param callback Gets the receipts, on the device's thread. It must not wait.
 * @param context What it is given.
 * @param drop Frees the context; may be NULL. Called in any case.
 * @return WHIMBREL_STATUS_OK: the callback is called, once. Otherwise it is not.
 */
whimbrel_status whimbrel_device_send_many_async(const whimbrel_device *device,
                                                const whimbrel_message *messages,
                                                size_t count,
                                                whimbrel_receipts_fn callback,
                                                void *context,
                                                whimbrel_drop_fn drop);

/**
 * The receipt of a message by its id, also after a restart. May read the disk.
 *
 * @param device The device.
 * @param message_id The id: chosen by the program, or told by whimbrel_receipt_message_id().
 * @param timeout_ms How long to wait at most, or WHIMBREL_FOREVER.
 * @param cancel Stops the waiting; may be NULL.
 * @param[out] out The receipt; free it with whimbrel_receipt_free(). NULL on failure.
 * @return WHIMBREL_STATUS_OK; WHIMBREL_STATUS_NOT_FOUND when the message is not known (any more); WHIMBREL_STATUS_JOURNAL_IO;
 *         WHIMBREL_STATUS_CLOSED; WHIMBREL_STATUS_TIMEOUT; WHIMBREL_STATUS_CANCELLED.
 */
whimbrel_status whimbrel_device_receipt(const whimbrel_device *device,
                                        const char *message_id,
                                        int64_t timeout_ms,
                                        const whimbrel_cancel_token *cancel,
                                        whimbrel_receipt **out);

/**
 * As whimbrel_device_receipt(), with a callback.
 *
 * @param device The device.
 * @param message_id The id.
 * @param callback Gets the receipt, on the device's thread. It must not wait.
 * @param context What it is given.
 * @param drop Frees the context; may be NULL. Called in any case.
 * @return WHIMBREL_STATUS_OK: the callback is called, once. Otherwise it is not.
 */
whimbrel_status whimbrel_device_receipt_async(const whimbrel_device *device,
                                              const char *message_id,
                                              whimbrel_receipt_fn callback,
                                              void *context,
                                              whimbrel_drop_fn drop);

/**
 * The commands for this device. The first call has the hub send them, on this connection and each later one; until then they stay
 * with the hub, or unsettled in this library.
 *
 * @param device The device.
 * @param[out] out The inbox; free it with whimbrel_inbox_free(). NULL on failure.
 * @return WHIMBREL_STATUS_OK, WHIMBREL_STATUS_INVALID_ARGUMENT.
 */
whimbrel_status whimbrel_device_inbox(const whimbrel_device *device,
                                      whimbrel_inbox **out);

/**
 * What the link to the hub is doing now. Never waits.
 *
 * @param device The device.
 * @param[out] out The state; free it with whimbrel_connection_free(). NULL on failure.
 * @return WHIMBREL_STATUS_OK, WHIMBREL_STATUS_INVALID_ARGUMENT.
 */
whimbrel_status whimbrel_device_connection(const whimbrel_device *device, whimbrel_connection **out);

/**
 * The changes of the link, the present state first.
 *
 * @param device The device.
 * @param[out] out The changes; free them with whimbrel_connection_changes_free(). NULL on failure.
 * @return WHIMBREL_STATUS_OK, WHIMBREL_STATUS_INVALID_ARGUMENT.
 */
whimbrel_status whimbrel_device_connection_changes(const whimbrel_device *device, whimbrel_connection_changes **out);

/**
 * The account of the outbox. Never waits; also after closing.
 *
 * @param device The device.
 * @param[out] out The account; zeros on failure.
 * @return WHIMBREL_STATUS_OK, WHIMBREL_STATUS_INVALID_ARGUMENT.
 */
whimbrel_status whimbrel_device_account(const whimbrel_device *device, whimbrel_account *out);

/**
 * Figures of the outbox. May read the disk, for the age of the oldest message.
 *
 * @param device The device.
 * @param[in,out] out The figures; begin with WHIMBREL_COUNTERS_INIT. Unchanged on failure.
 * @return WHIMBREL_STATUS_OK, WHIMBREL_STATUS_INVALID_ARGUMENT.
 */
whimbrel_status whimbrel_device_counters(const whimbrel_device *device, whimbrel_counters *out);

/**
 * Waits until everything is settled or the time is over. Never fails for a slow network.
 *
 * @param device The device.
 * @param deadline_ms How long to wait at most; 0 only counts.
 * @param cancel Stops the waiting; may be NULL.
 * @param[out] out_left How many messages are still queued; 0 on failure.
 * @return WHIMBREL_STATUS_OK, also when messages are left; WHIMBREL_STATUS_INVALID_ARGUMENT for a negative deadline;
 *         WHIMBREL_STATUS_CLOSED; WHIMBREL_STATUS_CANCELLED.
 */
whimbrel_status whimbrel_device_flush(const whimbrel_device *device,
                                      int64_t deadline_ms,
                                      const whimbrel_cancel_token *cancel,
                                      uint64_t *out_left);

/**
 * As whimbrel_device_flush(), with a callback.
 *
 * @param device The device.
 * @param deadline_ms As there.
 * @param cancel As there.
 * @param callback Is told how many messages are left, on the device's thread. It must not wait.
 * @param context What it is given.
 * @param drop Frees the context; may be NULL. Called in any case.
 * @return WHIMBREL_STATUS_OK: the callback is called, once. Otherwise it is not.
 */
whimbrel_status whimbrel_device_flush_async(const whimbrel_device *device,
                                            int64_t deadline_ms,
                                            const whimbrel_cancel_token *cancel,
                                            whimbrel_count_fn callback,
                                            void *context,
                                            whimbrel_drop_fn drop);

/**
 * Takes no more messages and hands out no more commands, flushes for as long as the options say, disconnects, closes the outbox. What
 * is left stays there for the next time. Closing twice is fine. Giving up stops the waiting, not the closing; call again to wait on.
 *
 * @param device The device. It stays to be freed.
 * @param timeout_ms How long to wait at most, or WHIMBREL_FOREVER.
 * @param cancel Stops the waiting; may be NULL.
 * @return WHIMBREL_STATUS_OK; WHIMBREL_STATUS_JOURNAL_IO, WHIMBREL_STATUS_DISK_FULL, told once; WHIMBREL_STATUS_TIMEOUT;
 *         WHIMBREL_STATUS_CANCELLED.
 */
whimbrel_status whimbrel_device_close(const whimbrel_device *device,
                                      int64_t timeout_ms,
                                      const whimbrel_cancel_token *cancel);

/**
 * As whimbrel_device_close(), with a callback.
 *
 * @param device The device. It may be freed as soon as this has returned.
 * @param callback Is told the end, on the device's thread. It must not wait.
 * @param context What it is given.
 * @param drop Frees the context; may be NULL. Called in any case.
 * @return WHIMBREL_STATUS_OK: the callback is called, once. Otherwise it is not.
 */
whimbrel_status whimbrel_device_close_async(const whimbrel_device *device,
                                            whimbrel_done_fn callback,
                                            void *context,
                                            whimbrel_drop_fn drop);

/**
 * Frees a device and sets the variable to NULL. Returns at once. One that was not closed is closed in the background, as far as the
 * process lives; errors of that are in the log only.
 *
 * @param device Address of the variable that holds it. NULL, or the address of a NULL, is fine.
 */
void whimbrel_device_free(whimbrel_device **device);

/**
 * What went wrong in the last call of this thread; NULL when it succeeded, or there was none. Functions that return no status
 * (those that get or free something) are not calls in this sense.
 *
 * @return Lent, and valid until the next call of this thread.
 */
const whimbrel_error *whimbrel_last_error(void);

/**
 * The status code. WHIMBREL_STATUS_OK for NULL.
 */
whimbrel_status whimbrel_error_status(const whimbrel_error *error);

/**
 * The stable name of the status, such as "OUTBOX_FULL". NULL for NULL.
 *
 * @return Lent, and valid as long as the error.
 */
const char *whimbrel_error_kind(const whimbrel_error *error);

/**
 * What was wrong and, where there is one, what to do: one line for people, complete with details and causes. Never holds a
 * payload, a key or a token. NULL for NULL.
 *
 * @return Lent, and valid as long as the error. UTF-8.
 */
const char *whimbrel_error_message(const whimbrel_error *error);

/**
 * The call that failed, by its name in all languages, such as "device.send". NULL for NULL.
 *
 * @return Lent, and valid as long as the error.
 */
const char *whimbrel_error_operation(const whimbrel_error *error);

/**
 * Whether repeating the same call can help. WHIMBREL_RETRY_NEVER for NULL.
 */
whimbrel_retry whimbrel_error_retry(const whimbrel_error *error);

/**
 * How long the other side asked to wait, in milliseconds; -1 when it did not, and for NULL.
 */
int64_t whimbrel_error_retry_after_ms(const whimbrel_error *error);

/**
 * How many named details there are. 0 for NULL.
 */
size_t whimbrel_error_detail_count(const whimbrel_error *error);

/**
 * The name of a detail, such as "limit". NULL when there are not so many, and for NULL.
 *
 * @param error The error.
 * @param index Which, from 0 on.
 * @return Lent, and valid as long as the error.
 */
const char *whimbrel_error_detail_name(const whimbrel_error *error, size_t index);

/**
 * The value of a detail, as text. NULL when there are not so many, and for NULL.
 *
 * @param error The error.
 * @param index Which, from 0 on.
 * @return Lent, and valid as long as the error. UTF-8.
 */
const char *whimbrel_error_detail_value(const whimbrel_error *error, size_t index);

/**
 * Waits for the next command, in the order of their arrival. A command is locked for this device from its arrival on, which may be
 * before it is taken here. Giving up swallows nothing.
 *
 * @param inbox The inbox.
 * @param timeout_ms How long to wait at most; 0 looks only at what is there, WHIMBREL_FOREVER waits for as long as it takes.
 * @param cancel Stops the waiting; may be NULL.
 * @param[out] out The command; free it with whimbrel_command_free(). NULL on failure.
 * @return WHIMBREL_STATUS_OK; WHIMBREL_STATUS_CLOSED once the device is closed; WHIMBREL_STATUS_TIMEOUT; WHIMBREL_STATUS_CANCELLED;
 *         WHIMBREL_STATUS_UNSUPPORTED for a module, which has no commands; what the hub said when it refused to send commands;
 *         WHIMBREL_STATUS_JOURNAL_IO when the outbox failed.
 */
whimbrel_status whimbrel_inbox_next(const whimbrel_inbox *inbox,
                                    int64_t timeout_ms,
                                    const whimbrel_cancel_token *cancel,
                                    whimbrel_command **out);

/**
 * Takes a command if there is one. Never waits.
 *
 * @param inbox The inbox.
 * @param[out] out The command; free it with whimbrel_command_free(). NULL on failure.
 * @return As whimbrel_inbox_next(); WHIMBREL_STATUS_TIMEOUT when there is none now.
 */
whimbrel_status whimbrel_inbox_try_next(const whimbrel_inbox *inbox, whimbrel_command **out);

/**
 * As whimbrel_inbox_next(), with a callback.
 *
 * @param inbox The inbox.
 * @param timeout_ms As there.
 * @param cancel As there.
 * @param callback Gets the command, on the device's thread. It must not wait.
 * @param context What it is given.
 * @param drop Frees the context; may be NULL. Called in any case.
 * @return WHIMBREL_STATUS_OK: the callback is called, once. Otherwise it is not.
 */
whimbrel_status whimbrel_inbox_next_async(const whimbrel_inbox *inbox,
                                          int64_t timeout_ms,
                                          const whimbrel_cancel_token *cancel,
                                          whimbrel_command_fn callback,
                                          void *context,
                                          whimbrel_drop_fn drop);

/**
 * A file descriptor that is readable while whimbrel_inbox_try_next() has something to give, the end included: for poll(), epoll
 * and the like. It belongs to the inbox: do not read, write or close it, and stop watching it before the inbox is freed.
 *
 * @param inbox The inbox.
 * @param[out] out The file descriptor; the same one each time. -1 on failure.
 * @return WHIMBREL_STATUS_OK, WHIMBREL_STATUS_INVALID_ARGUMENT, WHIMBREL_STATUS_INTERNAL when the system has none left.
 */
whimbrel_status whimbrel_inbox_fd(const whimbrel_inbox *inbox,
                                  int32_t *out);

/**
 * Frees an inbox and sets the variable to NULL. Does no I/O.
 *
 * @param inbox Address of the variable that holds it. NULL, or the address of a NULL, is fine.
 */
void whimbrel_inbox_free(whimbrel_inbox **inbox);

/**
 * Gets ready for a time without power or network, such as deep sleep: flushes for at most a budget, says goodbye to the hub, and lets go
 * of link, files and lock. Only the device's own thread stays, asleep. It takes no longer than the budget and the closing of the files.
 *
 * Until whimbrel_device_resume(), calls that need the outbox fail with WHIMBREL_STATUS_CLOSED; the figures stay as they are; waiting for
 * commands, outcomes and changes of the connection goes on. A command that was taken and not settled can be settled after resuming.
 * Suspending twice is fine. Giving up stops the waiting, not the suspending.
 *
 * @param device The device.
 * @param budget_ms How long to flush at most.
 * @param cancel Stops the waiting; may be NULL.
 * @param[out] out_left How many messages are still queued; 0 on failure.
 * @return WHIMBREL_STATUS_OK, also when messages are left; WHIMBREL_STATUS_INVALID_ARGUMENT for a negative budget;
 *         WHIMBREL_STATUS_JOURNAL_IO, WHIMBREL_STATUS_DISK_FULL when not everything could be written: told once, and the device is
 *         suspended all the same; WHIMBREL_STATUS_CLOSED; WHIMBREL_STATUS_CANCELLED.
 */
whimbrel_status whimbrel_device_suspend(const whimbrel_device *device,
                                        int64_t budget_ms,
                                        const whimbrel_cancel_token *cancel,
                                        uint64_t *out_left);

/**
 * As whimbrel_device_suspend(), with a callback.
 *
 * @param device The device.
 * @param budget_ms As there.
 * @param callback Is told how many messages are left, on the device's thread. It must not wait.
 * @param context What it is given.
 * @param drop Frees the context; may be NULL. Called in any case.
 * @return WHIMBREL_STATUS_OK: the callback is called, once. Otherwise it is not.
 */
whimbrel_status whimbrel_device_suspend_async(const whimbrel_device *device,
                                              int64_t budget_ms,
                                              whimbrel_count_fn callback,
                                              void *context,
                                              whimbrel_drop_fn drop);

/**
 * Opens the outbox again after whimbrel_device_suspend(), as it is found on the disk, and connects in the background, with the options the
 * device was opened with. When it fails the device stays suspended: call again. Resuming twice is fine. Giving up stops the waiting,
 * not the resuming.
 *
 * @param device The device.
 * @param timeout_ms How long to wait for the disk at most, or WHIMBREL_FOREVER.
 * @param cancel Stops the waiting; may be NULL.
 * @return WHIMBREL_STATUS_OK; WHIMBREL_STATUS_JOURNAL_IO when the storage is not available; WHIMBREL_STATUS_IN_USE when somebody else has
 *         opened the outbox; WHIMBREL_STATUS_CONFLICT when another outbox is in its place; WHIMBREL_STATUS_INVALID_ARGUMENT when a
 *         certificate cannot be read any more; WHIMBREL_STATUS_DISK_FULL; WHIMBREL_STATUS_CLOSED; WHIMBREL_STATUS_TIMEOUT;
 *         WHIMBREL_STATUS_CANCELLED.
 */
whimbrel_status whimbrel_device_resume(const whimbrel_device *device,
                                       int64_t timeout_ms,
                                       const whimbrel_cancel_token *cancel);

/**
 * As whimbrel_device_resume(), with a callback.
 *
 * @param device The device.
 * @param callback Is told the end, on the device's thread. It must not wait.
 * @param context What it is given.
 * @param drop Frees the context; may be NULL. Called in any case.
 * @return WHIMBREL_STATUS_OK: the callback is called, once. Otherwise it is not.
 */
whimbrel_status whimbrel_device_resume_async(const whimbrel_device *device,
                                             whimbrel_done_fn callback,
                                             void *context,
                                             whimbrel_drop_fn drop);

/**
 * Has what the library has to say told to a callback. This is the one thing that is the same for all devices of the process; without
 * it nothing is told. Given again, the new callback takes the place of the old one, which is not called any more when this
 * returns.
 *
 * @param level A whimbrel_log_level: what is told. Lines of finer levels may be left out of the library (see its feature quiet).
 * @param callback Is told each line. NULL for WHIMBREL_LOG_OFF.
 * @param context What it is given.
 * @param drop Frees the context; may be NULL. Called in any case: when the callback is replaced, or at once when this fails.
 * @return WHIMBREL_STATUS_OK; WHIMBREL_STATUS_INVALID_ARGUMENT; WHIMBREL_STATUS_UNSUPPORTED inside the callback.
 */
whimbrel_status whimbrel_log_set(int32_t level,
                                 whimbrel_log_fn callback,
                                 void *context,
                                 whimbrel_drop_fn drop);

/**
 * The id to find the receipt again with, also after a restart: lent, and valid as long as the receipt. NULL for NULL.
 */
const char *whimbrel_receipt_message_id(const whimbrel_receipt *receipt);

/**
 * Where the message is now. WHIMBREL_RECEIPT_UNKNOWN for NULL. Never waits.
 */
whimbrel_receipt_state whimbrel_receipt_get_state(const whimbrel_receipt *receipt);

/**
 * Waits for the end of the message. Giving up changes nothing; call again.
 *
 * @param receipt The receipt.
 * @param timeout_ms How long to wait at most; 0 looks only at what is known, WHIMBREL_FOREVER waits for as long as it takes.
 * @param cancel Stops the waiting; may be NULL.
 * @param[out] out The outcome; free it with whimbrel_outcome_free(). NULL on failure.
 * @return WHIMBREL_STATUS_OK; WHIMBREL_STATUS_TIMEOUT; WHIMBREL_STATUS_CANCELLED; WHIMBREL_STATUS_CLOSED when the device is closed
 *         first; WHIMBREL_STATUS_NOT_FOUND when the outcome is no longer kept.
 */
whimbrel_status whimbrel_receipt_outcome(const whimbrel_receipt *receipt,
                                         int64_t timeout_ms,
                                         const whimbrel_cancel_token *cancel,
                                         whimbrel_outcome **out);

/**
 * As whimbrel_receipt_outcome(), with a callback. The receipt may be freed as soon as this has returned.
 *
 * @param receipt The receipt.
 * @param timeout_ms As there.
 * @param cancel As there.
 * @param callback Gets the outcome, on the device's thread. It must not wait.
 * @param context What it is given.
 * @param drop Frees the context; may be NULL. Called in any case.
 * @return WHIMBREL_STATUS_OK: the callback is called, once. Otherwise it is not.
 */
whimbrel_status whimbrel_receipt_outcome_async(const whimbrel_receipt *receipt,
                                               int64_t timeout_ms,
                                               const whimbrel_cancel_token *cancel,
                                               whimbrel_outcome_fn callback,
                                               void *context,
                                               whimbrel_drop_fn drop);

/**
 * Frees a receipt and sets the variable to NULL.
 *
 * @param receipt Address of the variable that holds it. NULL, or the address of a NULL, is fine.
 */
void whimbrel_receipt_free(whimbrel_receipt **receipt);

/**
 * How the message ended. WHIMBREL_OUTCOME_UNKNOWN for NULL.
 */
whimbrel_outcome_kind whimbrel_outcome_get_kind(const whimbrel_outcome *outcome);

/**
 * The partition of the event log that holds the message. -1 where the hub did not tell.
 */
int64_t whimbrel_outcome_partition(const whimbrel_outcome *outcome);

/**
 * The number of the message in its partition. -1 where the hub did not tell.
 */
int64_t whimbrel_outcome_sequence(const whimbrel_outcome *outcome);

/**
 * Why it was dropped or rejected: lent, and valid as long as the outcome. NULL where there is no reason.
 */
const char *whimbrel_outcome_reason(const whimbrel_outcome *outcome);

/**
 * Frees an outcome and sets the variable to NULL.
 *
 * @param outcome Address of the variable that holds it. NULL, or the address of a NULL, is fine.
 */
void whimbrel_outcome_free(whimbrel_outcome **outcome);

/**
 * The version of the library, such as "0.1.0": that of the header it was compiled with is WHIMBREL_VERSION.
 */
const char *whimbrel_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* WHIMBREL_H */
