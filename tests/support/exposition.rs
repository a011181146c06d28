//! Reads the Prometheus text exposition format 0.0.4, and nothing that is not exactly that.

use std::collections::{BTreeMap, BTreeSet};

/// All samples of one scrape.
#[derive(Debug, Default)]
pub struct Exposition {
    /// By name and labels, as written: `name{label="value"}`.
    samples: BTreeMap<String, f64>,
    /// The kind of each family.
    kinds: BTreeMap<String, String>,
}

impl Exposition {
    /// # Panics
    /// When a line breaks the format. No text has no samples.
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let mut parsed = Exposition::default();
        if text.is_empty() {
            return parsed;
        }
        assert!(text.ends_with('\n'), "the last line does not end: {text}");
        let mut described = BTreeSet::new();
        let mut family = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect(line);
                assert!(is_name(name) && !help.is_empty(), "{line}");
                assert!(described.insert(name.to_owned()), "described twice: {line}");
                name.clone_into(&mut family);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect(line);
                assert_eq!(name, family, "HELP comes first: {line}");
                assert!(["counter", "gauge", "summary"].contains(&kind), "{line}");
                let known = parsed.kinds.insert(name.to_owned(), kind.to_owned());
                assert_eq!(known, None, "{line}");
            } else {
                parsed.sample(line, &family);
            }
        }
        parsed
    }

    #[track_caller]
    fn sample(&mut self, line: &str, family: &str) {
        let end = line.find(['{', ' ']).expect(line);
        let name = &line[..end];
        assert!(is_name(name), "{line}");
        let kind = self.kinds.get(family).map(String::as_str);
        match kind {
            Some("summary") => assert!(
                ["", "_sum", "_count"].contains(&name.strip_prefix(family).expect(line)),
                "{line}"
            ),
            Some(_) => assert_eq!(name, family, "a sample outside its family: {line}"),
            None => panic!("a sample without a type: {line}"),
        }
        let rest = match line[end..].strip_prefix('{') {
            Some(labels) => after_labels(labels),
            None => &line[end..],
        };
        let value = rest.strip_prefix(' ').expect(line);
        assert!(!value.contains(' '), "{line}");
        let value: f64 = value.parse().expect(line);
        if kind == Some("counter") {
            assert!(value.is_finite() && value >= 0.0, "{line}");
            assert!(name.ends_with("_total"), "{line}");
        }
        let series = line[..line.len() - rest.len()].to_owned();
        assert!(
            self.samples.insert(series, value).is_none(),
            "twice: {line}"
        );
    }

    /// The value of a series, by name and labels as written.
    pub fn get(&self, series: &str) -> Option<f64> {
        self.samples.get(series).copied()
    }

    /// The value of a series that must be there.
    #[track_caller]
    pub fn of(&self, series: &str) -> f64 {
        self.get(series)
            .unwrap_or_else(|| panic!("no {series} in {:?}", self.samples))
    }

    /// Every series that only grows, with its value.
    pub fn growing(&self) -> impl Iterator<Item = (&str, f64)> {
        self.samples.iter().filter_map(|(series, value)| {
            let name = series.split('{').next().unwrap_or(series);
            let grows = self.kinds.get(name).is_some_and(|kind| kind == "counter")
                || name.ends_with("_count")
                || name.ends_with("_sum");
            grows.then_some((series.as_str(), *value))
        })
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// What follows `name="value",...}`.
#[track_caller]
fn after_labels(mut text: &str) -> &str {
    loop {
        let (name, rest) = text.split_once("=\"").expect(text);
        assert!(is_name(name), "{text}");
        let mut escaped = false;
        let mut end = None;
        for (index, character) in rest.char_indices() {
            match character {
                _ if escaped => {
                    assert!(['\\', '"', 'n'].contains(&character), "{text}");
                    escaped = false;
                }
                '\\' => escaped = true,
                '"' => {
                    end = Some(index + 1);
                    break;
                }
                _ => {}
            }
        }
        text = &rest[end.expect(text)..];
        match text.split_at(1) {
            ("}", rest) => return rest,
            (",", rest) => text = rest,
            _ => panic!("neither another label nor the end: {text}"),
        }
    }
}
