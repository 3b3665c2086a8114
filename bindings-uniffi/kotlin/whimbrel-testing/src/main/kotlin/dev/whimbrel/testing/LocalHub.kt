package dev.whimbrel.testing

import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.boolean
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import kotlinx.serialization.json.put
import java.io.File
import java.io.IOException
import java.net.URI
import java.net.URLEncoder
import java.net.http.HttpClient
import java.net.http.HttpRequest
import java.net.http.HttpRequest.BodyPublishers
import java.net.http.HttpResponse
import java.nio.file.Files
import java.util.concurrent.TimeUnit

/**
 * A hub on free ports of this machine, for tests: the command `whimbrel` as a process of its own, which ends with this one. Its
 * data is in a temporary folder, which [close] deletes. Functions block; they may be called from any thread, one at a time.
 *
 * The command is found by the variable `WHIMBREL_BINARY`, or in `PATH`.
 *
 * @param settings those of a hub, by their names in `hub.toml`, such as `"command-lock" to "1s"`.
 */
public class LocalHub(private val settings: Map<String, String> = emptyMap()) : AutoCloseable {
    private val folder = Files.createTempDirectory("whimbrel-hub-").toFile()
    private val data = File(folder, "data")
    private val log = File(folder, "log")
    private val ports = mutableMapOf<String, String>()
    private var service = JsonObject(emptyMap())
    private var process: Process? = null

    init {
        start()
    }

    /** Starts it again after [stop], with the same ports and data; returns when it listens. */
    public fun start() {
        if (process?.isAlive == true) return
        val command = mutableListOf(program(), "hub", "--while-stdin", "--data", data.path)
        LISTENERS.forEach { command += "--$it=${ports[it] ?: "127.0.0.1:0"}" }
        settings.forEach { (name, value) -> command += "--$name=$value" }
        val builder = ProcessBuilder(command).redirectErrorStream(true).redirectOutput(ProcessBuilder.Redirect.appendTo(log))
        builder.environment().keys.removeIf { it.startsWith("WHIMBREL_HUB_") || it == "WHIMBREL_DATA" }
        val started = builder.start()
        process = started
        service = heard(started)
        LISTENERS.forEach { name -> ports[name] = service[name]?.jsonPrimitive?.content?.substringAfterLast('/') ?: "off" }
    }

    /** Stops it as an operator would, and returns when it has ended. */
    public fun stop() {
        val running = process ?: return
        running.destroy()
        check(running.waitFor(60, TimeUnit.SECONDS)) { "the hub does not stop\n${log.readText()}" }
        process = null
    }

    /** Connection string of the policy that may do everything. */
    public val serviceConnectionString: String get() = known("connection_string")

    /** The certificate to trust, for the listeners with TLS. */
    public val caFile: File get() = File(known("ca"))

    /** Its address by MQTT without TLS, or by another listener: what goes into the option `server` of a device client. */
    public fun server(listener: String = "mqtt"): String = "$listener://${known(listener).substringAfterLast('/')}"

    /** Creates a device with keys made by the hub; its connection string. */
    public fun createDevice(id: String): String {
        val answer = request("PUT", "devices/${escaped(id)}", "{}")
        return answer.jsonObject.getValue("connection_string").jsonPrimitive.content
    }

    /** Whether the hub takes the device for connected. */
    public fun isConnected(device: String): Boolean {
        val about = request("GET", "devices/${escaped(device)}", null).jsonObject
        return about.getValue("connection").jsonObject.getValue("connected").jsonPrimitive.boolean
    }

    /** Sends a command to a device, which need not be connected; its message id. */
    public fun sendCommand(device: String, body: String, messageId: String? = null, properties: Map<String, String> = emptyMap()): String {
        val envelope =
            buildJsonObject {
                put("body", buildJsonObject { put("text", body) })
                messageId?.let { put("message_id", it) }
                put("properties", JsonObject(properties.mapValues { JsonPrimitive(it.value) }))
            }
        val type = "application/vnd.whimbrel.command+json"
        val sent = request("POST", "devices/${escaped(device)}/commands", envelope.toString(), type)
        return sent.jsonObject.getValue("message_id").jsonPrimitive.content
    }

    /** How a command ended, such as `completed` or `rejected`; waits for that, for a minute at most. */
    public fun commandOutcome(device: String, messageId: String): String {
        val deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(60)
        while (true) {
            val status = request("GET", "devices/${escaped(device)}/commands/${escaped(messageId)}?wait=5s", null).jsonObject
            if (status.getValue("state").jsonPrimitive.content == "ended") {
                return outcome(status.getValue("outcome").jsonPrimitive.content)
            }
            check(System.nanoTime() < deadline) { "$messageId has not ended within a minute: $status" }
        }
    }

    /** All events there are, as the back end sees them, in the order of their partitions. */
    public fun events(): List<Event> = whimbrel("monitor", "--json").lines().filter(String::isNotBlank).map(::event)

    /** Runs the command `whimbrel` against this hub, such as `whimbrel("monitor", "--json")`; what it printed. */
    public fun whimbrel(vararg arguments: String): String {
        val builder = ProcessBuilder(listOf(program(), *arguments))
        builder.environment()["WHIMBREL_DATA"] = data.path
        val errors = File.createTempFile("errors", null, folder)
        val running = builder.redirectError(errors).start()
        running.outputStream.close()
        val text = running.inputStream.readAllBytes().decodeToString()
        check(running.waitFor() == 0) { "whimbrel ${arguments.joinToString(" ")}: ${errors.readText()}" }
        return text
    }

    /** Ends it and deletes its data. */
    override fun close() {
        process?.destroyForcibly()?.waitFor()
        process = null
        folder.deleteRecursively()
    }

    private fun known(name: String): String =
        checkNotNull(service[name]?.jsonPrimitive?.content) { "this hub has no $name: it is off by a setting" }

    private fun request(method: String, path: String, body: String?, type: String = "application/json"): JsonElement {
        val policy = serviceConnectionString.split(';').associate { it.substringBefore('=') to it.substringAfter('=') }
        // The key itself, as the hub allows on its own machine.
        val bearer = "Bearer ${policy["SharedAccessKeyName"]}:${policy["SharedAccessKey"]}"
        val request =
            HttpRequest.newBuilder(URI("${server("http")}/v1/$path"))
                .header("Authorization", bearer)
                .header("Content-Type", type)
                .method(method, body?.let(BodyPublishers::ofString) ?: BodyPublishers.noBody())
        val answer = HttpClient.newHttpClient().send(request.build(), HttpResponse.BodyHandlers.ofString())
        check(answer.statusCode() in 200..299) { "the hub says ${answer.statusCode()}: ${answer.body()}" }
        return Json.parseToJsonElement(answer.body())
    }

    /** The hub writes the file when it listens; one with another process id is of an earlier life. */
    private fun heard(started: Process): JsonObject {
        val deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(60)
        while (true) {
            val ended = !started.isAlive
            val found = read(File(data, "service.json"))
            if (found?.get("pid")?.jsonPrimitive?.content == started.pid().toString()) return found
            check(!ended) { "the hub ended instead of starting\n${log.readText()}" }
            check(System.nanoTime() < deadline) { "the hub did not start within a minute\n${log.readText()}" }
            Thread.sleep(5)
        }
    }

    private fun read(file: File): JsonObject? =
        try {
            Json.parseToJsonElement(file.readText()).jsonObject
        } catch (_: IOException) {
            null
        } catch (_: SerializationException) {
            // Half written.
            null
        }

    /** The word that every language has for it, of the word of the contract. */
    private fun outcome(word: String) =
        when (word) {
            "Success" -> "completed"
            else -> word.replace(Regex("(?<=[a-z])(?=[A-Z])"), "-").lowercase()
        }

    private fun event(line: String): Event {
        val event = Json.parseToJsonElement(line).jsonObject
        val body = event["body"]?.jsonObject.orEmpty()
        // Exactly one of them is there.
        val text = body["text"]?.jsonPrimitive?.content ?: body["json"]?.toString() ?: body["base64"]?.jsonPrimitive?.content
        val properties = event["properties"]?.jsonObject.orEmpty().mapValues { it.value.jsonPrimitive.content }
        return Event(event.getValue("device").jsonPrimitive.content, text.orEmpty(), properties)
    }

    private companion object {
        val LISTENERS = listOf("mqtt", "mqtts", "amqp", "amqps", "http", "https")

        fun escaped(part: String) = URLEncoder.encode(part, Charsets.UTF_8).replace("+", "%20")

        fun program(): String {
            System.getenv("WHIMBREL_BINARY")?.takeIf(String::isNotEmpty)?.let { return it }
            val places = System.getenv("PATH").orEmpty().split(File.pathSeparatorChar)
            val found = places.map { File(it, "whimbrel") }.find(File::canExecute)
            return checkNotNull(found?.path) { "the command whimbrel is not here; say where it is in WHIMBREL_BINARY" }
        }
    }
}

/**
 * An event as a back end sees it.
 *
 * @property device the id of the device.
 * @property body the body: as text, as the JSON that it is, or in base64 where it is neither.
 * @property properties the application properties.
 */
public data class Event(val device: String, val body: String, val properties: Map<String, String>)
