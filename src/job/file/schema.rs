//! The JSON schema of a job file, of what clap knows of the flags that its keys stand for.

use clap::{Arg, Args};
use serde_json::{Map, Value, json};

use super::keys::{self, Takes};
use super::tables::{
    CONNECTION, DEFAULTS, HookKeys, LOAD, LoadKeys, ON_FAILURE, ON_SUCCESS, TopKeys, name_of,
};
use crate::job::{ConnectionArgs, PartialSettings, with_default};

/// The schema, of draft 2020-12.
pub fn schema() -> Value {
    let mut schema = table::<TopKeys>("pgrung job file", &[]);
    let settings = keys::names::<PartialSettings>();
    let hook = |told: &str| table::<HookKeys>(told, &[]);
    let loads = json!({
        "type": "array",
        "minItems": 1,
        // What [defaults] has need not be there.
        "items": table::<LoadKeys>("A load; they run in their order", &settings),
    });
    let tables = [
        (
            CONNECTION,
            table::<ConnectionArgs>("Where the server is", &[]),
        ),
        (
            DEFAULTS,
            table::<PartialSettings>(
                "What holds for every load that says nothing else",
                &settings,
            ),
        ),
        (LOAD, loads),
        (ON_FAILURE, hook("What is run when a load has failed")),
        (ON_SUCCESS, hook("What is run when no load has failed")),
    ];
    for (header, table) in tables {
        schema["properties"][name_of(header)] = table;
    }
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["required"] = json!([name_of(LOAD)]);
    schema
}

/// A table whose keys stand for the flags of `T`; those that it must have, but for `elsewhere`.
fn table<T: Args>(title: &str, elsewhere: &[String]) -> Value {
    let command = keys::command::<T>();
    let flags = || command.get_arguments();
    let properties: Map<String, Value> = flags()
        .map(|flag| (keys::name(flag), value(flag)))
        .collect();
    let required = flags()
        .filter(|flag| flag.is_required_set())
        .map(keys::name);
    let required: Vec<String> = required.filter(|key| !elsewhere.contains(key)).collect();
    json!({
        "title": title,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// What the value of a key may be.
fn value(flag: &Arg) -> Value {
    let string = json!({ "type": "string" });
    let list = json!([string, { "type": "array", "items": string }]);
    let choices: Vec<String> = flag
        .get_possible_values()
        .iter()
        .map(|choice| choice.get_name().to_string())
        .collect();
    let mut value = match keys::takes(flag) {
        Takes::Switch => json!({ "type": "boolean" }),
        Takes::SwitchOrText => json!({ "type": ["boolean", "string"] }),
        Takes::Number => json!({ "type": ["integer", "string"] }),
        Takes::Texts | Takes::Names => json!({ "anyOf": list }),
        // A variable of the environment may say it.
        Takes::Text if !choices.is_empty() => {
            json!({ "anyOf": [{ "enum": choices }, { "type": "string", "pattern": "\\$\\{" }] })
        }
        Takes::Text | Takes::Quantity => string,
    };
    let help = with_default(flag.clone(), &crate::job::defaults());
    let help = help.get_help().map(ToString::to_string).unwrap_or_default();
    value["description"] = json!(help);
    value
}
