//! Writes a snapshot in the Prometheus text exposition format 0.0.4.

use std::fmt::{Display, Write};

use super::{Snapshot, Timing};

/// Content type of the format, for HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Name and value of each label.
type Labels<'a> = &'a [(&'a str, &'a str)];

/// What a family of samples says.
enum Figure<'a> {
    /// 1; what matters are the labels.
    Info(Labels<'a>),
    Count(u64),
    Ratio(f64),
    /// One count for each value of a label.
    By(&'a str, &'a [(&'static str, u64)]),
    Times(&'a Timing),
}

/// The snapshot as text; the last line ends with a line feed, as the format demands.
pub fn render(snapshot: &Snapshot) -> String {
    use Figure::{By, Count, Info, Ratio, Times};
    let Snapshot {
        info,
        rows,
        batches,
        ..
    } = snapshot;
    let load = [
        ("version", info.version.as_str()),
        ("import_id", info.import_id.as_deref().unwrap_or_default()),
        ("table", &info.table),
        ("strategy", &info.strategy),
    ];
    #[rustfmt::skip] // a table: one family a line
    let families = [
        ("pgrung_load_info", "What the load is; always 1.", Info(&load)),
        ("pgrung_rows_read_total", "Rows read from the sources.", Count(snapshot.rows_read)),
        ("pgrung_rows_total", "Rows by what became of them; at the end they add up to the rows read.", By("outcome", rows)),
        ("pgrung_batches_total", "Batches committed, by why they were closed.", By("flush", batches)),
        ("pgrung_read_bytes_total", "Bytes taken from the sources, as stored.", Count(snapshot.bytes_read)),
        ("pgrung_committed_bytes_total", "Uncompressed bytes of committed batches.", Count(snapshot.bytes_committed)),
        ("pgrung_dropped_bytes_total", "Uncompressed bytes thrown away because the server was too slow.", Count(snapshot.bytes_dropped)),
        ("pgrung_spilled_bytes_total", "Compressed bytes ever written to the spill.", Count(snapshot.bytes_spilled)),
        ("pgrung_retries_total", "Transactions repeated.", Count(snapshot.retries)),
        ("pgrung_queue_batches", "Batches that wait for a worker.", Count(snapshot.queue_depth)),
        ("pgrung_queue_capacity_batches", "Batches that may wait for a worker.", Count(snapshot.queue_capacity)),
        ("pgrung_spill_batches", "Batches that wait in the spill.", Count(snapshot.spill_batches)),
        ("pgrung_spill_bytes", "Bytes that the files of the spill take.", Count(snapshot.spill_bytes)),
        ("pgrung_batch_fill_ratio", "Mean fill of the committed batches, 0 to 1 of the nearest limit.", Ratio(snapshot.fill_mean)),
        ("pgrung_commit_duration_seconds", "From BEGIN to the answer to COMMIT.", Times(&snapshot.commit)),
        ("pgrung_wait_duration_seconds", "From the first row of a batch to its commit.", Times(&snapshot.wait)),
    ];
    let mut text = String::new();
    for (name, help, figure) in families {
        let kind = match figure {
            Times(_) => "summary",
            _ if name.ends_with("_total") => "counter",
            _ => "gauge",
        };
        // The format wants a family together, HELP and TYPE first. Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        match figure {
            Info(labels) => sample(&mut text, name, labels, 1),
            Count(value) => sample(&mut text, name, &[], value),
            Ratio(value) => sample(&mut text, name, &[], number(value)),
            By(label, counts) => {
                for (which, value) in counts {
                    sample(&mut text, name, &[(label, which)], value);
                }
            }
            Times(timing) => summary(&mut text, name, timing),
        }
    }
    text
}

fn summary(text: &mut String, name: &str, timing: &Timing) {
    for (quantile, seconds) in [("0.5", timing.p50_seconds), ("0.99", timing.p99_seconds)] {
        // A quantile of nothing is not a number, in the format as in truth.
        let seconds = if timing.count == 0 { f64::NAN } else { seconds };
        sample(text, name, &[("quantile", quantile)], number(seconds));
    }
    sample(
        text,
        &format!("{name}_sum"),
        &[],
        number(timing.sum_seconds),
    );
    sample(text, &format!("{name}_count"), &[], timing.count);
}

fn sample(text: &mut String, name: &str, labels: Labels<'_>, value: impl Display) {
    text.push_str(name);
    for (index, (label, value)) in labels.iter().enumerate() {
        let value = value
            .replace('\\', r"\\")
            .replace('"', r#"\""#)
            .replace('\n', r"\n");
        let _ = write!(
            text,
            "{}{label}=\"{value}\"",
            if index == 0 { '{' } else { ',' }
        );
    }
    if !labels.is_empty() {
        text.push('}');
    }
    let _ = writeln!(text, " {value}");
}

/// A number as the format writes it.
fn number(value: f64) -> String {
    if value == f64::INFINITY {
        "+Inf".to_string()
    } else if value == f64::NEG_INFINITY {
        "-Inf".to_string()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::metrics::Info;

    fn snapshot() -> Snapshot {
        Snapshot {
            info: Info {
                version: "0.1.0".to_string(),
                import_id: Some("nightly".to_string()),
                table: "\"public\".\"a\\b\nc\"".to_string(),
                strategy: "copy".to_string(),
            },
            rows_read: 115,
            rows: vec![
                ("inserted", 100),
                ("rejected", 1),
                ("already_loaded", 10),
                ("dropped", 4),
                ("suppressed", 0),
            ],
            batches: vec![("rows", 3), ("bytes", 0), ("wait", 7), ("end", 1)],
            bytes_read: 4096,
            bytes_committed: 4000,
            bytes_dropped: 160,
            bytes_spilled: 512,
            retries: 2,
            queue_depth: 1,
            queue_capacity: 2,
            spill_batches: 5,
            spill_bytes: 2048,
            fill_mean: 0.25,
            commit: Timing {
                count: 11,
                sum_seconds: 0.5,
                p50_seconds: 0.0125,
                p99_seconds: 0.2,
            },
            wait: Timing::default(),
        }
    }

    #[test]
    fn the_exposition_says_all_there_is() {
        insta::assert_snapshot!(render(&snapshot()), @r##"
        # HELP pgrung_load_info What the load is; always 1.
        # TYPE pgrung_load_info gauge
        pgrung_load_info{version="0.1.0",import_id="nightly",table="\"public\".\"a\\b\nc\"",strategy="copy"} 1
        # HELP pgrung_rows_read_total Rows read from the sources.
        # TYPE pgrung_rows_read_total counter
        pgrung_rows_read_total 115
        # HELP pgrung_rows_total Rows by what became of them; at the end they add up to the rows read.
        # TYPE pgrung_rows_total counter
        pgrung_rows_total{outcome="inserted"} 100
        pgrung_rows_total{outcome="rejected"} 1
        pgrung_rows_total{outcome="already_loaded"} 10
        pgrung_rows_total{outcome="dropped"} 4
        pgrung_rows_total{outcome="suppressed"} 0
        # HELP pgrung_batches_total Batches committed, by why they were closed.
        # TYPE pgrung_batches_total counter
        pgrung_batches_total{flush="rows"} 3
        pgrung_batches_total{flush="bytes"} 0
        pgrung_batches_total{flush="wait"} 7
        pgrung_batches_total{flush="end"} 1
        # HELP pgrung_read_bytes_total Bytes taken from the sources, as stored.
        # TYPE pgrung_read_bytes_total counter
        pgrung_read_bytes_total 4096
        # HELP pgrung_committed_bytes_total Uncompressed bytes of committed batches.
        # TYPE pgrung_committed_bytes_total counter
        pgrung_committed_bytes_total 4000
        # HELP pgrung_dropped_bytes_total Uncompressed bytes thrown away because the server was too slow.
        # TYPE pgrung_dropped_bytes_total counter
        pgrung_dropped_bytes_total 160
        # HELP pgrung_spilled_bytes_total Compressed bytes ever written to the spill.
        # TYPE pgrung_spilled_bytes_total counter
        pgrung_spilled_bytes_total 512
        # HELP pgrung_retries_total Transactions repeated.
        # TYPE pgrung_retries_total counter
        pgrung_retries_total 2
        # HELP pgrung_queue_batches Batches that wait for a worker.
        # TYPE pgrung_queue_batches gauge
        pgrung_queue_batches 1
        # HELP pgrung_queue_capacity_batches Batches that may wait for a worker.
        # TYPE pgrung_queue_capacity_batches gauge
        pgrung_queue_capacity_batches 2
        # HELP pgrung_spill_batches Batches that wait in the spill.
        # TYPE pgrung_spill_batches gauge
        pgrung_spill_batches 5
        # HELP pgrung_spill_bytes Bytes that the files of the spill take.
        # TYPE pgrung_spill_bytes gauge
        pgrung_spill_bytes 2048
        # HELP pgrung_batch_fill_ratio Mean fill of the committed batches, 0 to 1 of the nearest limit.
        # TYPE pgrung_batch_fill_ratio gauge
        pgrung_batch_fill_ratio 0.25
        # HELP pgrung_commit_duration_seconds From BEGIN to the answer to COMMIT.
        # TYPE pgrung_commit_duration_seconds summary
        pgrung_commit_duration_seconds{quantile="0.5"} 0.0125
        pgrung_commit_duration_seconds{quantile="0.99"} 0.2
        pgrung_commit_duration_seconds_sum 0.5
        pgrung_commit_duration_seconds_count 11
        # HELP pgrung_wait_duration_seconds From the first row of a batch to its commit.
        # TYPE pgrung_wait_duration_seconds summary
        pgrung_wait_duration_seconds{quantile="0.5"} NaN
        pgrung_wait_duration_seconds{quantile="0.99"} NaN
        pgrung_wait_duration_seconds_sum 0
        pgrung_wait_duration_seconds_count 0
        "##);
    }

    /// What of `line` is the name of the metric.
    fn name(line: &str) -> &str {
        let end = line.find(['{', ' ']).unwrap_or(line.len());
        &line[..end]
    }

    #[test]
    fn names_and_order_follow_the_conventions() {
        let text = render(&snapshot());
        assert!(text.ends_with('\n') && !text.contains("\n\n") && !text.contains('\r'));
        let mut families = BTreeSet::new();
        let mut samples = BTreeSet::new();
        let mut lines = text.lines();
        let mut family: (&str, &str) = ("", "");
        while let Some(line) = lines.next() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (help_name, help) = rest.split_once(' ').unwrap();
                let kind = lines.next().unwrap().strip_prefix("# TYPE ").unwrap();
                family = kind.split_once(' ').unwrap();
                assert_eq!(family.0, help_name);
                assert!(help.ends_with('.') && !help.contains('\\'), "{help}");
                assert!(families.insert(help_name), "{help_name} twice");
                continue;
            }
            let found = name(line);
            let plain = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(found.starts_with("pgrung_") && found.chars().all(plain));
            assert!(
                samples.insert(line.rsplit_once(' ').unwrap().0),
                "{line} twice"
            );
            let (base, kind) = family;
            match kind {
                "summary" => assert!(["", "_sum", "_count"].contains(&&found[base.len()..])),
                _ => assert_eq!(found, base),
            }
            assert_eq!(kind == "counter", base.ends_with("_total"), "{base}");
            // Base units, and the unit last.
            for other in ["_ms", "milli", "micro", "_kb", "_mb", "percent"] {
                assert!(!base.contains(other), "{base}");
            }
            let bare = base.trim_end_matches("_total");
            let last = bare.rsplit('_').next().unwrap();
            for unit in ["seconds", "bytes", "ratio", "info"] {
                let has = bare.split('_').any(|word| word == unit);
                assert!(!has || last == unit, "{base}");
            }
            let value = line.rsplit_once(' ').unwrap().1;
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
        assert!(families.len() > 10);
    }

    #[test]
    fn infinities_are_written_as_the_format_says() {
        assert_eq!(number(f64::INFINITY), "+Inf");
        assert_eq!(number(f64::NEG_INFINITY), "-Inf");
        assert_eq!(number(f64::NAN), "NaN");
        assert_eq!(number(1.0), "1");
        assert_eq!(number(0.00001), "0.00001");
    }
}
