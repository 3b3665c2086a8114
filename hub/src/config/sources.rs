//! Where settings come from: flags, then environment variables, then the file, then the defaults.

use std::path::Path;

use toml::de::{DeTable, DeValue};
use whimbrel::{Error, ErrorKind, Result};

use super::{Config, invalid};

impl Config {
    /// Puts settings together. `file` is the name (for messages) and the text of a configuration file; `variables` may
    /// be the whole environment, of which those that start with [`Config::VARIABLE_PREFIX`] count (empty ones do not,
    /// and `…CONFIG` names the file, which the caller has read); `flags` are names and values.
    ///
    /// # Errors
    /// `InvalidArgument` naming the line, variable or flag, and for an unknown name the nearest known one.
    pub fn load(
        file: Option<(&str, &str)>,
        variables: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self> {
        let mut config = Self::default();
        if let Some((name, text)) = file {
            config.read_file(name, text)?;
        }
        for (variable, value) in variables {
            let Some(name) = variable.strip_prefix(Self::VARIABLE_PREFIX) else { continue };
            if name != "CONFIG" && !value.is_empty() {
                config.set(&name.to_lowercase(), &value).map_err(|error| at(&variable, &error))?;
            }
        }
        for (name, value) in flags {
            config.set(&name, &value).map_err(|error| at(&format!("--{name}"), &error))?;
        }
        Ok(config)
    }

    /// As [`Config::load`], with the file read from `path` and the variables of this process.
    ///
    /// # Errors
    /// As there; `NotFound` when the file cannot be read.
    pub fn load_here(path: Option<&Path>, flags: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let from_environment = std::env::var_os(format!("{}CONFIG", Self::VARIABLE_PREFIX)).map(Into::into);
        let path = path.map(Path::to_path_buf).or(from_environment);
        let text = path.as_deref().map(read).transpose()?;
        let name = path.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::load(text.as_deref().map(|text| (name.as_str(), text)), variables, flags)
    }

    fn read_file(&mut self, file: &str, text: &str) -> Result<()> {
        let line_of = |offset: usize| text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
        let table = DeTable::parse(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(span.start));
            invalid(format!("{file}, line {line}: {}", error.message()))
        })?;
        // The table is sorted by name: sort by place, so that the first mistake in the file is the one reported.
        let mut entries: Vec<_> = table.get_ref().iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let place = format!("{file}, line {}", line_of(key.span().start));
            let value = match value.get_ref() {
                DeValue::String(text) => text.to_string(),
                DeValue::Integer(number) => number.to_string(),
                DeValue::Boolean(flag) => flag.to_string(),
                // An unknown name is the more useful thing to say about a whole section.
                _ => String::from("a value that is not text, a whole number, true or false"),
            };
            self.set(key.get_ref(), &value).map_err(|error| at(&place, &error))?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| {
        Error::new(ErrorKind::NotFound, "hub.config", "cannot read the configuration file")
            .with("path", path.display())
            .caused_by(error)
    })
}

fn at(place: &str, error: &Error) -> Error {
    invalid(format!("{place}: {}", error.message()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Size;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn flags_win_over_variables_over_the_file_over_defaults() {
        let file = "retention = \"2d\"\npartitions = 8\nmax-message = 1024\n";
        let variables =
            [pair("WHIMBREL_HUB_RETENTION", "3d"), pair("WHIMBREL_HUB_PARTITIONS", "16"), pair("PATH", "x")];
        let config = Config::load(Some(("f", file)), variables, [pair("retention", "4d")]).unwrap();
        assert_eq!(config.retention, Duration::from_secs(4 * 86_400));
        assert_eq!(config.partitions, 16);
        assert_eq!(config.max_message, Size(1_024));
        assert_eq!(config.host_name, "localhost");
    }

    #[test]
    fn every_setting_can_be_set_from_each_source() {
        let defaults = Config::default();
        for setting in Config::SETTINGS {
            let value = match setting.kind() {
                "BOOL" => "true",
                "NUMBER" => "7",
                "SIZE" => "3MB",
                "DURATION" => "77s",
                "ADDRESS" => "127.0.0.1:7",
                _ => "changed",
            };
            let literal =
                if matches!(value, "true" | "7") { value.to_owned() } else { format!("\"{value}\"") };
            let file = format!("{} = {literal}", setting.name());
            let from_file = Config::load(Some(("f", &file)), [], []).unwrap();
            let from_variable = Config::load(None, [pair(&setting.variable(), value)], []).unwrap();
            let from_flag = Config::load(None, [], [pair(&setting.name(), value)]).unwrap();
            assert_ne!(from_file, defaults, "{}", setting.name());
            assert_eq!(from_file, from_variable, "{}", setting.name());
            assert_eq!(from_file, from_flag, "{}", setting.name());
        }
    }

    #[test]
    fn unknown_names_are_refused_with_the_nearest_one_and_the_line() {
        let error = Config::load(Some(("hub.toml", "# hello\n\nretension = \"1d\"\n")), [], []).unwrap_err();
        assert_eq!(
            error.message(),
            "hub.toml, line 3: there is no setting \"retension\"; the nearest is \"retention\""
        );
        let error = Config::load(None, [pair("WHIMBREL_HUB_PARTITION", "4")], []).unwrap_err();
        assert!(error.message().starts_with("WHIMBREL_HUB_PARTITION: "), "{error}");
        assert!(error.message().contains("\"partitions\""), "{error}");
        let error = Config::load(Some(("f", "[listen]\nmqtt = \"off\"\n")), [], []).unwrap_err();
        assert!(error.message().contains("line 1"), "{error}");
    }

    #[test]
    fn bad_values_are_refused_with_what_they_should_be() {
        for (file, expected) in [
            ("retention = \"1 fortnight\"", "such as 30s"),
            ("partitions = \"many\"", "whole number"),
            ("partitions = [4]", "whole number"),
            ("allow-plain = 1", "true nor false"),
            ("mqtt = 1883", "IP:PORT"),
            ("mqtt = ", "line 1"),
        ] {
            let error = Config::load(Some(("hub.toml", file)), [], []).unwrap_err();
            assert!(error.message().contains(expected), "{error}");
            assert!(error.message().contains("hub.toml, line 1"), "{error}");
        }
    }

    #[test]
    fn an_empty_variable_is_as_good_as_none() {
        let config = Config::load(None, [pair("WHIMBREL_HUB_DATA", "")], []).unwrap();
        assert_eq!(config, Config::default());
    }
}
