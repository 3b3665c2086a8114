package dev.whimbrel

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test
import java.io.File

class ReadmeTest {
    @Test
    fun `what the README opens with is a program that is run`() {
        val here = File(System.getProperty("basedir") ?: ".")
        val readme = File(here, "../README.md").readText()
        val example = File(here, "../../../examples/kotlin/src/main/kotlin/Readme.kt").readText()
        // The part `kotlin` of the tests runs all examples, this one among them.
        assertEquals(example, Regex("^```kotlin\n(.*?)^```$", setOf(RegexOption.MULTILINE, RegexOption.DOT_MATCHES_ALL)).find(readme)?.groupValues?.get(1))
    }
}
