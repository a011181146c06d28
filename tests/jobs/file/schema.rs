//! The JSON schema of a job file says what `run` takes.

use serde_json::Value;

use super::{fixture, run_alone};
use crate::loads::help;
use crate::support::{Files, names_in, pgrung, text};

fn schema() -> Value {
    let ran = pgrung("run --schema").run();
    ran.exits(0);
    ran.json()
}

fn keys(table: &Value) -> Vec<String> {
    table["properties"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect()
}

/// A value that the schema allows, as TOML; it need not mean anything.
fn sample(value: &Value) -> String {
    let kind = match &value["type"] {
        Value::Array(kinds) => &kinds[0],
        kind => kind,
    };
    match (kind.as_str(), value["anyOf"][0]["enum"][0].as_str()) {
        (Some("boolean"), _) => "false".to_owned(),
        (Some("integer"), _) => "1".to_owned(),
        (None, None) => "[\"a\"]".to_owned(),
        (_, word) => format!("\"{}\"", word.unwrap_or("a")),
    }
}

#[test]
fn every_flag_of_load_is_a_key_and_every_key_of_a_load_is_taken() {
    let schema = schema();
    let load = &schema["properties"]["load"]["items"];
    let mut expected: Vec<String> = help::flags("load")
        .iter()
        .map(|flag| flag[2..].replace('-', "_"))
        .filter(|key| {
            ![
                "summary",
                "verbose",
                "log_format",
                "quiet",
                "help",
                "version",
            ]
            .contains(&key.as_str())
        })
        .chain(["name", "optional", "input"].map(str::to_owned))
        .collect();
    expected.sort();
    let connection = &schema["properties"]["connection"];
    let mut found = [keys(load), keys(connection)].concat();
    found.sort();
    assert_eq!(found, expected);
    assert_eq!(load["required"], serde_json::json!(["name"]));

    let files = Files::new();
    for (header, table) in [
        ("[connection]", connection),
        ("[defaults]", &schema["properties"]["defaults"]),
        ("[[load]]", load),
        ("[on_failure]", &schema["properties"]["on_failure"]),
        ("[on_success]", &schema["properties"]["on_success"]),
    ] {
        for (key, value) in table["properties"].as_object().unwrap() {
            let ran = run_alone(&files, &format!("{header}\n{key} = {}\n", sample(value))).run();
            // Something is wrong with such a file, but not that.
            ran.exits(2);
            for words in ["unknown key", " takes "] {
                assert!(!ran.stderr.contains(words), "{header} {key}: {ran}");
            }
        }
    }
}

#[test]
fn every_key_explains_itself() {
    let schema = schema();
    let text = schema.to_string();
    assert!(text.contains("Rows that close a batch"), "{text}");
    for table in ["connection", "defaults", "on_failure", "on_success"] {
        for (key, value) in schema["properties"][table]["properties"]
            .as_object()
            .unwrap()
        {
            assert!(!value["description"].as_str().unwrap().is_empty(), "{key}");
        }
    }
    let mode = &schema["properties"]["defaults"]["properties"]["mode"];
    assert_eq!(mode["anyOf"][0]["enum"][4], "sync");
    assert!(
        mode["description"]
            .as_str()
            .unwrap()
            .ends_with("[default: append]")
    );
}

#[test]
fn a_checker_takes_a_good_job_file_and_refuses_keys_and_types_that_are_wrong() {
    let python = "import json, sys, tomllib, jsonschema
schema = json.load(open(sys.argv[1]))
jsonschema.Draft202012Validator.check_schema(schema)
for path in sys.argv[2:]:
    errors = jsonschema.Draft202012Validator(schema).iter_errors(tomllib.load(open(path, 'rb')))
    print(path.rsplit('/', 1)[-1], 'good' if not list(errors) else 'bad')";
    let there = pgrung("").instead("python3");
    let asked = there.clone().args(["-c", "import jsonschema, tomllib"]);
    if !asked
        .command()
        .status()
        .is_ok_and(|status| status.success())
    {
        eprintln!("not run: there is no python3 with jsonschema here");
        return;
    }
    let files = Files::new();
    let schema = files.write("schema.json", schema().to_string());
    let bad = names_in(&fixture("bad"));
    // What only the types and names of the keys say.
    let told = |name: &&String| {
        [
            "unknown_key",
            "unknown_mode",
            "integer_",
            "float_",
            "table_for",
            "list_for",
            "boolean_",
            "string_for",
            "key_of",
        ]
        .iter()
        .any(|start| name.starts_with(start))
    };
    let bad: Vec<String> = bad.iter().filter(told).cloned().collect();
    assert!(bad.len() > 10, "{bad:?}");
    let paths = bad.iter().map(|name| text(&fixture("bad").join(name)));
    let good = text(&fixture("nightly.toml"));
    let ran = there.args(["-c", python, &schema, &good]).args(paths).run();
    let expected: String = bad.iter().map(|name| format!("{name} bad\n")).collect();
    assert_eq!(
        ran.stdout,
        format!("nightly.toml good\n{expected}"),
        "{ran}"
    );
}
