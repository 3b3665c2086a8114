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
    let lines = text.lines().map(|line| hidden(line.trim_end()));
    let text = lines.collect::<Vec<_>>().join("\n") + "\n";
    fs::write(&file, text).map_err(|error| format!("{file}: {error}"))
}

/// A line of Kotlin with its declaration, if it is one of the file's own, made internal.
fn hidden(line: &str) -> String {
    const DECLARATIONS: &[&str] = &[
        "abstract class ", "class ", "const val ", "data class ", "enum class ", "fun ", "inline fun ", "interface ", "object ",
        "open class ", "sealed class ", "suspend fun ", "typealias ", "val ", "var ",
    ];
    let declaration = line.strip_prefix("public ").unwrap_or(line);
    match DECLARATIONS.iter().any(|word| declaration.starts_with(word)) {
        true => format!("internal {declaration}"),
        false => line.to_owned(),
    }
}
