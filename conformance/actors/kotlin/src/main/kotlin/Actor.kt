// The Kotlin actor: does with dev.whimbrel what the driver says; see ../../README.md.
import dev.whimbrel.Account
import dev.whimbrel.Command
import dev.whimbrel.ConnectionState
import dev.whimbrel.DeviceClient
import dev.whimbrel.DeviceOptions
import dev.whimbrel.Durability
import dev.whimbrel.Inbox
import dev.whimbrel.Lane
import dev.whimbrel.Message
import dev.whimbrel.Outcome
import dev.whimbrel.Overflow
import dev.whimbrel.Protocol
import dev.whimbrel.Receipt
import dev.whimbrel.ReceiptState
import dev.whimbrel.WhimbrelException
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.FlowPreview
import kotlinx.coroutines.Job
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.channels.ReceiveChannel
import kotlinx.coroutines.flow.buffer
import kotlinx.coroutines.flow.produceIn
import kotlinx.coroutines.launch
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.boolean
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import kotlinx.serialization.json.long
import java.io.File
import java.time.Instant
import java.util.Base64
import java.util.concurrent.ConcurrentHashMap
import kotlin.coroutines.Continuation
import kotlin.coroutines.intrinsics.suspendCoroutineUninterceptedOrReturn
import kotlin.system.exitProcess
import kotlin.time.Duration
import kotlin.time.Duration.Companion.milliseconds

private val objects = ConcurrentHashMap<String, Any>()
private val running = ConcurrentHashMap<Long, Job>()
private val scope = CoroutineScope(SupervisorJob() + Dispatchers.Default)

fun main() {
    for (line in generateSequence(::readLine)) {
        val request = Json.parseToJsonElement(line).jsonObject
        val id = request.getValue("id").jsonPrimitive.long
        val args = request["args"]?.jsonObject ?: JsonObject(emptyMap())
        if (request.text("call") == "cancel") {
            running[args.getValue("of").jsonPrimitive.long]?.cancel()
            say(id, "ok", JsonObject(emptyMap()))
            continue
        }
        // Calls begin in the order in which they are asked for, and go on beside each other.
        val job = scope.launch(start = CoroutineStart.UNDISPATCHED) { answer(id, request, args) }
        running[id] = job
        if (job.isCompleted) running.remove(id)
    }
    // Clients that are still open are nobody's any more: the driver is gone.
    exitProcess(0)
}

private suspend fun answer(id: Long, request: JsonObject, args: JsonObject) {
    try {
        val ok = perform(request.getValue("call").jsonPrimitive.content, request.text("on"), request.text("as"), args)
        say(id, "ok", JsonObject(ok.mapValues { (_, value) -> plain(value) }))
    } catch (_: CancellationException) {
        say(id, "cancelled", JsonPrimitive(true))
    } catch (error: WhimbrelException) {
        val parts =
            mapOf(
                "kind" to error.kind,
                "code" to error.code,
                "retry" to RETRY.getValue(error.retry.name),
                "operation" to error.operation,
                "message" to error.message,
                "details" to error.details,
            )
        say(id, "error", plain(parts))
    } catch (error: Throwable) {
        say(id, "error", plain(mapOf("kind" to "ACTOR", "message" to error.stackTraceToString())))
    } finally {
        running.remove(id)
    }
}

private suspend fun perform(call: String, on: String?, keep: String?, args: JsonObject): Map<String, Any?> {
    fun kept(thing: Any, answer: Map<String, Any?> = emptyMap()) = answer.also { objects[keep!!] = thing }
    val device by lazy { objects.getValue(on!!) as DeviceClient }
    val receipt by lazy { objects.getValue(on!!) as Receipt }
    val command by lazy { objects.getValue(on!!) as Command }
    return when (call) {
        "hello" -> mapOf("language" to "Kotlin")
        "device.open" -> kept(DeviceClient.open(args.text("connection_string")!!, options(args.getValue("options").jsonObject)))
        "device.send" -> device.send(message(args)).let { kept(it, mapOf("message_id" to it.messageId)) }
        "device.send_json" -> {
            val json = Message.json(args.getValue("value").toString())
            device.send(said(json, args)).let { kept(it, mapOf("message_id" to it.messageId)) }
        }
        "device.send_many" -> {
            val receipts = device.sendMany(args.getValue("messages").jsonArray.map { message(it.jsonObject) })
            receipts.forEachIndexed { at, each -> objects["$keep.$at"] = each }
            mapOf("message_ids" to receipts.map(Receipt::messageId))
        }
        "device.receipt" ->
            device.receipt(args.text("message_id")!!)?.let { kept(it, mapOf("found" to true)) } ?: mapOf("found" to false)
        "device.inbox" -> kept(device.inbox())
        "device.account" -> account(device.account())
        "device.counters" -> {
            val counters = device.counters()
            mapOf(
                "account" to account(counters.account),
                "queued_alerts" to counters.queuedAlerts,
                "refused" to counters.refused,
                "dropped_by_reason" to counters.droppedByReason,
                "sent" to counters.sent,
            )
        }
        "device.connection" -> state(device.connection)
        "device.states" -> kept(states(device))
        "states.next" -> {
            val next = (objects.getValue(on!!) as ReceiveChannel<*>).receiveCatching()
            next.exceptionOrNull()?.let { throw it }
            next.getOrNull()?.let { state(it as ConnectionState) } ?: mapOf("end" to true)
        }
        "device.flush" -> mapOf("left" to device.flush(args.time("deadline_ms")!!))
        "device.suspend" -> mapOf("left" to device.suspend(args.time("budget_ms")!!))
        "device.resume" -> mapOf<String, Any?>().also { device.resume() }
        "device.close" -> mapOf<String, Any?>().also { device.shutdown() }
        "receipt.state" ->
            when (val state = receipt.state()) {
                is ReceiptState.Settled -> mapOf("state" to "settled") + outcome(state.outcome)
                else -> mapOf("state" to state.toString().lowercase())
            }
        "receipt.outcome" -> outcome(receipt.outcome())
        "inbox.next" ->
            (objects.getValue(on!!) as Inbox).next()?.let { kept(it, received(it)) } ?: mapOf("end" to true)
        "command.complete" -> mapOf<String, Any?>().also { command.complete() }
        "command.abandon" -> mapOf<String, Any?>().also { command.abandon() }
        "command.reject" -> mapOf<String, Any?>().also { command.reject() }
        "panic" -> mapOf<String, Any?>().also { panic() }
        else -> error("there is no call $call")
    }
}

private fun options(args: JsonObject) =
    DeviceOptions(
        outboxDir = args.text("outbox")?.let(::File),
        outboxInMemory = args.flag("outbox_in_memory"),
        overflow = args.text("overflow")?.let { Overflow.valueOf(constant(it)) },
        durability = args.text("durability")?.let { Durability.valueOf(constant(it)) },
        outboxMaxBytes = args.whole("outbox_max_bytes"),
        outboxMaxMessages = args.whole("outbox_max_messages"),
        outboxMaxAge = args.time("outbox_max_age_ms"),
        syncInterval = args.time("sync_interval_ms"),
        keptOutcomes = args.whole("kept_outcomes"),
        server = args.text("server"),
        websocket = args.flag("websocket"),
        proxy = args.text("proxy"),
        caFile = args.text("ca_file")?.let(::File),
        caPem = args.text("ca_pem"),
        clientCertificate = args.text("client_certificate")?.let(::File),
        clientKey = args.text("client_key")?.let(::File),
        clientCertificatePem = args.text("client_certificate_pem"),
        clientKeyPem = args.text("client_key_pem"),
        allowUnencrypted = args.flag("allow_unencrypted"),
        protocol = args.text("protocol")?.let { Protocol.valueOf(constant(it)) },
        keepAlive = args.time("keep_alive_ms"),
        connectTimeout = args.time("connect_timeout_ms"),
        pollInterval = args.time("poll_interval_ms"),
        window = args.whole("window")?.let(Math::toIntExact),
        inboxWindow = args.whole("inbox_window")?.let(Math::toIntExact),
        backoff = args.time("backoff_min_ms")?.let { Range(it, args.time("backoff_max_ms")!!) },
        closeDeadline = args.time("close_deadline_ms"),
        tokenLifetime = args.time("token_lifetime_ms"),
    )

/** As it is said, also when it is empty. */
private class Range(override val start: Duration, override val endInclusive: Duration) : ClosedRange<Duration>

private fun message(args: JsonObject): Message {
    val lane = args.text("lane")?.let { Lane.valueOf(constant(it)) } ?: Lane.TELEMETRY
    return said(Message.inLane(lane, Base64.getDecoder().decode(args.text("body"))), args)
}

private fun said(message: Message, args: JsonObject): Message {
    var told = message
    args["properties"]?.jsonObject?.let { given -> told = told.properties(given.mapValues { (name, _) -> given.text(name)!! }) }
    args.text("message_id")?.let { told = told.messageId(it) }
    args.text("correlation_id")?.let { told = told.correlationId(it) }
    args.text("user_id")?.let { told = told.userId(it) }
    args.text("content_type")?.let { told = told.contentType(it) }
    args.text("content_encoding")?.let { told = told.contentEncoding(it) }
    args.whole("creation_time_ms")?.let { told = told.creationTime(Instant.ofEpochMilli(it)) }
    args.text("message_schema")?.let { told = told.messageSchema(it) }
    args.text("output_name")?.let { told = told.outputName(it) }
    args.text("interface_id")?.let { told = told.interfaceId(it) }
    args.text("component")?.let { told = told.component(it) }
    args.time("expires_in_ms")?.let { told = told.expiresIn(it) }
    args.text("durability")?.let { told = told.durability(Durability.valueOf(constant(it))) }
    return told
}

private fun received(command: Command) =
    mapOf(
        "body" to command.body,
        "properties" to command.properties,
        "message_id" to command.messageId,
        "correlation_id" to command.correlationId,
        "user_id" to command.userId,
        "content_type" to command.contentType,
        "content_encoding" to command.contentEncoding,
        "creation_time_ms" to command.creationTime?.toEpochMilli(),
        "sequence" to command.sequence,
        "enqueued_at_ms" to command.enqueuedAt?.toEpochMilli(),
        "delivery_count" to command.deliveryCount,
    )

private fun outcome(outcome: Outcome): Map<String, Any?> =
    when (outcome) {
        is Outcome.Delivered ->
            mapOf("outcome" to "delivered", "partition" to outcome.partition?.toLong(), "sequence" to outcome.sequence)
        is Outcome.Expired -> mapOf("outcome" to "expired")
        is Outcome.Dropped -> mapOf("outcome" to "dropped", "reason" to outcome.reason)
        is Outcome.Rejected -> mapOf("outcome" to "rejected", "reason" to outcome.reason)
    }

private fun state(state: ConnectionState): Map<String, Any?> =
    when (state) {
        is ConnectionState.Disconnected -> mapOf("state" to "disconnected", "reason" to state.reason)
        is ConnectionState.Unauthorized -> mapOf("state" to "unauthorized", "reason" to state.reason)
        else -> mapOf("state" to state.toString().lowercase(), "reason" to null)
    }

private fun account(account: Account) =
    mapOf(
        "accepted" to account.accepted,
        "delivered" to account.delivered,
        "expired" to account.expired,
        "dropped" to account.dropped,
        "rejected" to account.rejected,
        "queued" to account.queued,
    )

/** The flow of states, to be taken from one by one. */
@OptIn(FlowPreview::class)
private fun states(device: DeviceClient): Any = device.connectionChanges().buffer(0).produceIn(scope)

/** The private hook. */
private suspend fun panic() {
    val names = Class.forName("dev.whimbrel.internal.WhimbrelKt")
    val token = Class.forName("dev.whimbrel.internal.CancelToken")
    val hook = names.getMethod("panicLater", String::class.java, token, Continuation::class.java)
    try {
        suspendCoroutineUninterceptedOrReturn<Any?> { hook.invoke(null, "a panic of a test", null, it) }
    } catch (failure: Exception) {
        throw translated(failure)
    }
}

/** As the package translates what its native half throws. */
private fun translated(failure: Exception): Throwable {
    val package_ = Class.forName("dev.whimbrel.WhimbrelExceptionKt")
    val of = Class.forName("dev.whimbrel.internal.Failure")
    return package_.getMethod("exceptionOf", of).invoke(null, failure) as Throwable
}

private fun constant(word: String) = word.uppercase().replace('-', '_')

private fun JsonObject.text(name: String): String? =
    when (val value = this[name]) {
        null, JsonNull -> null
        is JsonObject -> String(CharArray(value.getValue("\$utf16").jsonArray.size) { unit(value, it) })
        else -> value.jsonPrimitive.content
    }

private fun unit(text: JsonObject, at: Int) = text.getValue("\$utf16").jsonArray[at].jsonPrimitive.long.toInt().toChar()

private fun JsonObject.whole(name: String): Long? =
    when (val value = this[name]) {
        null, JsonNull -> null
        is JsonObject -> value.getValue("\$int").jsonPrimitive.content.toLong()
        else -> value.jsonPrimitive.long
    }

private fun JsonObject.time(name: String): Duration? = whole(name)?.milliseconds

private fun JsonObject.flag(name: String) = this[name]?.jsonPrimitive?.boolean ?: false

private fun plain(value: Any?): JsonElement =
    when (value) {
        null -> JsonNull
        is ByteArray -> JsonPrimitive(Base64.getEncoder().encodeToString(value))
        is Long -> if (value in -EXACT..EXACT) JsonPrimitive(value) else JsonObject(mapOf("\$int" to JsonPrimitive("$value")))
        is Number -> JsonPrimitive(value)
        is Boolean -> JsonPrimitive(value)
        is Map<*, *> -> JsonObject(value.entries.associate { (name, item) -> "$name" to plain(item) })
        is List<*> -> JsonArray(value.map(::plain))
        else -> JsonPrimitive("$value")
    }

private fun say(id: Long, word: String, said: JsonElement) {
    val line = buildJsonObject {
        put("id", JsonPrimitive(id))
        put(word, said)
    }
    synchronized(System.out) {
        println(line)
        System.out.flush()
    }
}

private val RETRY =
    mapOf(
        "NEVER" to "never",
        "LATER" to "later",
        "WAIT_AGAIN" to "wait again",
        "AFTER_REOPEN" to "after reopen",
        "CALLERS_CHOICE" to "caller's choice",
    )
private const val EXACT = (1L shl 53) - 1
