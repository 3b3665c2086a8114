//! Values of scenarios as the actor gets them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::Player;

impl Player<'_> {
    /// The value with what was saved in its place, bodies as base64, and numbers that are not exact everywhere marked.
    pub(super) fn value(&self, value: &toml::Value, number: Option<u32>) -> Result<Value, String> {
        Ok(match value {
            toml::Value::String(text) => match text.strip_prefix('$') {
                None => match number {
                    Some(number) => text.replace("{n}", &number.to_string()).into(),
                    None => text.as_str().into(),
                },
                Some(name) => match name.strip_prefix("folder") {
                    Some(rest) => format!("{}{rest}", self.stage.folder().display()).into(),
                    None => {
                        let (name, third) =
                            name.strip_suffix("/3").map_or((name, false), |name| (name, true));
                        let saved = self.saved.get(name).cloned();
                        let saved = saved.ok_or_else(|| format!("nothing was saved as {name}"))?;
                        match saved.as_u64().filter(|_| third) {
                            None => saved,
                            Some(number) if number % 3 == 0 => (number / 3).into(),
                            Some(number) => return Err(format!("{number} has no third")),
                        }
                    }
                },
            },
            toml::Value::Integer(number) if number.unsigned_abs() > EXACT => {
                json!({"$int": number.to_string()})
            }
            toml::Value::Integer(number) => (*number).into(),
            toml::Value::Float(number) => (*number).into(),
            toml::Value::Boolean(truth) => (*truth).into(),
            toml::Value::Datetime(time) => time.to_string().into(),
            toml::Value::Array(all) => {
                Value::Array(all.iter().map(|value| self.value(value, number)).collect::<Result<_, _>>()?)
            }
            toml::Value::Table(table) => {
                if let (Some(units), 1) = (table.get("utf16"), table.len()) {
                    return Ok(json!({"$utf16": self.value(units, None)?}));
                }
                let mut fields = Map::new();
                for (name, value) in table {
                    let value = match (name.as_str(), value) {
                        // What is looked at in an answer says so itself.
                        ("body", toml::Value::Table(looked)) if looked.contains_key("any") => {
                            self.value(value, number)?
                        }
                        ("body", toml::Value::String(text)) if !text.starts_with('$') => {
                            let text = self.value(value, number)?;
                            STANDARD.encode(text.as_str().unwrap_or_default()).into()
                        }
                        ("body", toml::Value::Table(_)) => STANDARD.encode(body(value)?).into(),
                        _ => self.value(value, number)?,
                    };
                    fields.insert(name.clone(), value);
                }
                Value::Object(fields)
            }
        })
    }
}

/// The bytes of a body: a text, `{ base64 = "…" }` or `{ size = n }`.
pub(super) fn body(value: &toml::Value) -> Result<Vec<u8>, String> {
    if let Some(text) = value.as_str() {
        return Ok(text.as_bytes().to_vec());
    }
    let size =
        value.get("size").and_then(toml::Value::as_integer).and_then(|size| usize::try_from(size).ok());
    match (value.get("base64").and_then(toml::Value::as_str), size) {
        (Some(text), None) => STANDARD.decode(text).map_err(|error| error.to_string()),
        (None, Some(size)) => Ok(vec![b'x'; size]),
        _ => Err(format!("{value} is no body")),
    }
}

/// The largest whole number that every language has exactly.
const EXACT: u64 = (1 << 53) - 1;
