//! The script of the nights, as `fixtures/nights/nights.toml` explains it.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    pub night: Vec<Night>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Night {
    pub story: String,
    pub drop: BTreeMap<String, String>,
    pub same: BTreeMap<String, String>,
    pub half: Vec<String>,
    pub gone: Vec<String>,
    pub sql: Option<String>,
    pub env: BTreeMap<String, String>,
    pub away: Option<u64>,
    pub first: Option<First>,
    pub exit: i32,
    pub ends: BTreeMap<String, String>,
    pub not_run: Vec<String>,
    pub says: Vec<String>,
    pub aside: Vec<String>,
    pub replay: BTreeMap<String, Vec<String>>,
    pub unfinished: Vec<String>,
    pub in_table: Option<BTreeMap<String, usize>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct First {
    pub dies_at: Option<String>,
    pub locked: String,
    pub then: String,
    pub exit: i32,
    pub says: Vec<String>,
}

/// The nights, in their order.
pub fn nights() -> Vec<Night> {
    let script: Script =
        toml::from_str(include_str!("../../../fixtures/nights/nights.toml")).unwrap();
    script.night
}
