//! Writes the Kotlin and Swift sources that go with a library of this crate: `uniffi-bindgen kotlin|swift LIBRARY FOLDER`.
//!
//! The sources are private to the packages, so the Kotlin ones are made `internal`: what the package shows by mistake does not
//! compile then.

use std::{env, fs, process::ExitCode};

use camino::Utf8PathBuf;
use uniffi::{GenerateOptions, TargetLanguage};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [language, library, folder] = arguments.as_slice() else {
        eprintln!("usage: uniffi-bindgen kotlin|swift LIBRARY FOLDER");
        return ExitCode::FAILURE;
    };
    let written = match language.as_str() {
        "kotlin" => kotlin(library.into(), folder.into()),
        "swift" => generate(TargetLanguage::Swift, library.into(), folder.into()),
        other => Err(format!("there is no language {other}")),
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("uniffi-bindgen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn generate(language: TargetLanguage, source: Utf8PathBuf, out_dir: Utf8PathBuf) -> Result<(), String> {
    uniffi::generate(GenerateOptions {
        languages: vec![language],
        source,
        out_dir,
        config_override: None,
        format: false,
        crate_filter: Some("whimbrel_uniffi".to_owned()),
        metadata_no_deps: true,
    })
    .map_err(|error| format!("{error:#}"))
}

fn kotlin(library: Utf8PathBuf, folder: Utf8PathBuf) -> Result<(), String> {
    generate(TargetLanguage::Kotlin, library, folder.clone())?;
    let file = folder.join("dev/whimbrel/internal/whimbrel.kt");
    let text = fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
    let mut depth = 0_usize;
    let mut hidden_text = String::with_capacity(text.len());
    for line in text.lines().map(str::trim_end) {
        hidden_text.push_str(&if depth == 0 { hidden(line) } else { line.to_owned() });
        hidden_text.push('\n');
        depth = line.chars().fold(depth, |depth, sign| match sign {
            '{' => depth + 1,
            '}' => depth.saturating_sub(1),
            _ => depth,
        });
    }
    fs::write(&file, hidden_text).map_err(|error| format!("{file}: {error}"))
}

/// A line of Kotlin outside all braces, with what it declares made internal.
fn hidden(line: &str) -> String {
    const DECLARATIONS: &[&str] = &[
        "abstract class ",
        "class ",
        "const val ",
        "data class ",
        "enum class ",
        "fun ",
        "inline fun ",
        "interface ",
        "object ",
        "open class ",
        "sealed class ",
        "suspend fun ",
        "typealias ",
        "val ",
        "var ",
    ];
    let declaration = line.strip_prefix("public ").unwrap_or(line);
    if DECLARATIONS.iter().any(|word| declaration.starts_with(word)) {
        return format!("internal {declaration}");
    }
    // Functions of the crate come behind the end of their comment, or their annotations, or some blanks.
    for word in [" suspend fun `", " fun `"] {
        if let Some((before, function)) = line.split_once(word) {
            return format!("{before} internal{word}{function}");
        }
    }
    line.to_owned()
}
