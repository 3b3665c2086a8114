//! The schema and the code say the same.

use std::{fs, path::Path};

use serde::{
    Deserialize,
    de::{self, Deserializer, Visitor},
    forward_to_deserialize_any,
};
use serde_json::{Value, json};

use super::{
    Scenario,
    step::{VERBS, fields},
};

/// The fields a type asks for when it is read.
pub(super) fn fields_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    let _ = T::deserialize(Asked(&mut fields));
    fields
}

struct Asked<'a>(&'a mut &'static [&'static str]);

#[derive(Debug)]
struct Enough;

impl std::fmt::Display for Enough {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("enough is known")
    }
}

impl std::error::Error for Enough {}

impl de::Error for Enough {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        Self
    }
}

impl<'de> Deserializer<'de> for Asked<'_> {
    type Error = Enough;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Enough> {
        Err(Enough)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Enough> {
        *self.0 = fields;
        Err(Enough)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map enum identifier ignored_any
    }
}

fn schema() -> Value {
    serde_json::from_str(include_str!("../../schema.json")).unwrap()
}

/// What is wrong with `value`, by as much of JSON Schema as the schema uses.
fn fault(schema: &Value, rule: &Value, value: &Value) -> Option<String> {
    if let Some(name) = rule.get("$ref").and_then(Value::as_str) {
        return fault(schema, &schema["$defs"][name.rsplit('/').next().unwrap()], value);
    }
    let no = |what: &str| Some(format!("{what}: {value}"));
    for word in rule.as_object().unwrap().keys() {
        let known = [
            "$schema",
            "$defs",
            "title",
            "description",
            "type",
            "enum",
            "oneOf",
            "required",
            "properties",
            "items",
            "additionalProperties",
            "minItems",
            "minimum",
        ];
        assert!(known.contains(&word.as_str()), "the test does not know {word}");
    }
    let is = |kind: &str| match kind {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the test does not know {other}"),
    };
    match rule.get("type") {
        Some(Value::String(kind)) if !is(kind) => return no("the wrong type"),
        Some(Value::Array(kinds)) if !kinds.iter().any(|kind| is(kind.as_str().unwrap())) => {
            return no("the wrong type");
        }
        _ => {}
    }
    if rule.get("enum").is_some_and(|words| !words.as_array().unwrap().contains(value)) {
        return no("none of the words");
    }
    if rule.get("minimum").is_some_and(|minimum| value.as_i64() < minimum.as_i64()) {
        return no("too small");
    }
    if let Some(rules) = rule.get("oneOf").and_then(Value::as_array) {
        let fitting = rules.iter().filter(|rule| fault(schema, rule, value).is_none()).count();
        if fitting != 1 {
            return no("not exactly one of the forms");
        }
    }
    if let Some(all) = value.as_object() {
        let needed = rule.get("required").and_then(Value::as_array).into_iter().flatten();
        if needed.into_iter().any(|name| !all.contains_key(name.as_str().unwrap())) {
            return no("something is missing");
        }
        for (name, value) in all {
            let found = match (
                rule.get("properties").and_then(|named| named.get(name)),
                rule.get("additionalProperties"),
            ) {
                (Some(rule), _) => fault(schema, rule, value),
                (None, Some(Value::Bool(false))) => no("something unknown"),
                (None, Some(rule)) => fault(schema, rule, value),
                (None, None) => None,
            };
            if found.is_some() {
                return found;
            }
        }
    }
    if let Some(all) = value.as_array() {
        if rule.get("minItems").is_some_and(|count| (all.len() as u64) < count.as_u64().unwrap()) {
            return no("too few");
        }
        return rule.get("items").and_then(|rule| all.iter().find_map(|value| fault(schema, rule, value)));
    }
    None
}

#[test]
fn the_schema_knows_every_verb_and_every_field_and_no_other() {
    let schema = schema();
    let forms: Vec<_> = (schema["$defs"]["step"]["oneOf"].as_array().unwrap().iter())
        .map(|form| form["$ref"].as_str().unwrap().rsplit('/').next().unwrap())
        .collect();
    assert_eq!(forms, VERBS);
    for verb in VERBS {
        let form = &schema["$defs"][verb];
        let mut said: Vec<_> = form["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let mut known = fields(verb).to_vec();
        said.sort_unstable();
        known.sort_unstable();
        assert_eq!(said, known, "{verb}");
        assert_eq!(form["additionalProperties"], json!(false), "{verb}");
    }
}

#[test]
fn every_scenario_is_one_by_the_schema_and_what_the_code_refuses_the_schema_refuses() {
    let schema = schema();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")).unwrap() {
        let path = entry.unwrap().path();
        let scenario: toml::Table = toml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let mut scenario = serde_json::to_value(scenario).unwrap();
        assert_eq!(fault(&schema, &schema, &scenario), None, "{}", path.display());
        scenario["steps"][0]["unknown"] = json!(1);
        assert!(fault(&schema, &schema, &scenario).is_some());
    }
    for step in [
        "{ open = 1 }",
        "{ opn = \"d1\" }",
        "{ hub = \"explode\" }",
        "{ link = \"mqtt\" }",
        "{ link = \"tin-can\", fault = \"cut\" }",
        "{ storm = \"x\", on = \"y\" }",
        "{ until_link = \"mqtt\", lost = -1 }",
        "{ rising = 1 }",
        "{ kill = \"hub\" }",
        "{ call = \"x\", error = { says = \"y\" } }",
        "{ events = \"d1\" }",
        "{ call = \"x\", times = \"2\" }",
    ] {
        let text = format!("title = \"t\"\nsteps = [{step}]");
        assert!(Scenario::parse("s", &text).is_err(), "{step}");
        let value = serde_json::to_value(toml::from_str::<toml::Table>(&text).unwrap()).unwrap();
        assert!(fault(&schema, &schema, &value).is_some(), "{step}");
    }
}
