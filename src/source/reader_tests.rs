//! What a reader promises, for any text, window, limit and committed spans: every record once,
//! in order, in batches that keep the window.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proptest::prelude::*;
use tokio::io::AsyncRead;

use super::checksum::checksum;
use super::{Downstream, Input, InputError, ReadOptions, Reader, Records};
use crate::batch::Batch;
use crate::span::{Known, Span};
use crate::window::Window;

/// Stands in for all that is behind a reader: keeps what comes.
#[derive(Default)]
struct Kept {
    batches: Mutex<Vec<Batch>>,
    known: Mutex<Vec<Span>>,
    /// Hand-overs until everything is to stop; 0: never.
    stop_after: AtomicUsize,
    stopped: AtomicBool,
}

impl Downstream for Kept {
    fn empty(&self) -> Option<Batch> {
        Some(Batch::with_capacity(0))
    }

    fn hand_over(&self, batch: Batch) -> bool {
        let mut batches = self.batches.lock().unwrap();
        batches.push(batch);
        if batches.len() == self.stop_after.load(Ordering::SeqCst) {
            self.stopped.store(true, Ordering::SeqCst);
        }
        true
    }

    fn known(&self, span: &Span) {
        self.known.lock().unwrap().push(span.clone());
    }

    fn cut(&self, _: u64) {}

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    fn is_closing(&self) -> bool {
        false
    }
}

impl Kept {
    /// The spans that came, handed over or known, in the order of their bytes: from, to,
    /// records, first line of the batches.
    fn spans(&self) -> Vec<(u64, u64, u64)> {
        let batches = self.batches.lock().unwrap();
        let known = self.known.lock().unwrap();
        let read = batches.iter().map(|batch| {
            let span = batch.span();
            (span.start, span.end, batch.len() as u64)
        });
        let known = known
            .iter()
            .map(|span| (span.start, span.end, span.records));
        let mut all: Vec<_> = read.chain(known).collect();
        all.sort_unstable();
        all
    }
}

/// Brings a few bytes at a time, as a pipe may.
struct Trickle(Vec<u8>, usize);

impl AsyncRead for Trickle {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        into: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let count = self.1.min(self.0.len()).min(into.remaining());
        into.put_slice(&self.0[..count]);
        self.0.drain(..count);
        std::task::Poll::Ready(Ok(()))
    }
}

/// Brings a record and then panics.
struct Panics(usize);

impl AsyncRead for Panics {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        into: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        into.put_slice(&[*b"a,b\n".get(self.0).expect("panics on purpose")]);
        self.0 += 1;
        std::task::Poll::Ready(Ok(()))
    }
}

#[test]
fn a_source_that_panics_has_not_come_to_its_end() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _context = runtime.enter();
    let input = Input::reader("broken", Panics(0));
    let opened = Records::open(&input, &ReadOptions::default(), Default::default());
    let kept = Kept::default();
    let window = Window {
        rows: 10,
        bytes: 1000,
        wait: None,
    };
    let result =
        opened.and_then(|records| Reader::new(0, records, window, None, Vec::new()).run(&kept));
    assert!(matches!(result, Err(InputError::Read { .. })), "{result:?}");
}

/// A source as a file, or as a pipe that trickles.
#[derive(Debug, Clone, Copy)]
enum Way {
    File,
    Pipe(usize),
}

fn read(
    text: &[u8],
    way: Way,
    window: Window,
    limit: Option<u64>,
    known: Known,
    kept: &Kept,
) -> Result<u64, InputError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap();
    let _context = runtime.enter();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let input = match way {
        Way::File => {
            file.write_all(text).unwrap();
            Input::File(file.path().to_path_buf())
        }
        Way::Pipe(step) => Input::reader("pipe", Trickle(text.to_vec(), step)),
    };
    let mut records = Records::open(&input, &ReadOptions::default(), Default::default())?;
    records.expect_fields(2);
    let result = Reader::new(0, records, window, limit, known).run(kept);
    runtime.shutdown_background();
    result
}

fn field() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{0,6}",
        // Quoted: delimiters, doubled quotes, line breaks of either kind, blank lines.
        "(,|\"\"|\n|\r\n|x|\n\n){0,5}".prop_map(|text| format!("\"{text}\"")),
    ]
}

/// A record with the blank lines before it.
fn record() -> impl Strategy<Value = String> {
    let blank = prop_oneof![9 => Just(""), 1 => Just("\n"), 1 => Just("\r\n\n")];
    let end = prop_oneof![Just("\n"), Just("\r\n")];
    (blank, field(), field(), end).prop_map(|(blank, a, b, end)| format!("{blank}{a},{b}{end}"))
}

/// Records of a source. Only where the first line ends in `\n` may others end in `\r\n`.
fn records(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(record(), count).prop_map(|mut records| {
        let first = records[0].trim_start_matches(['\r', '\n']);
        let first = first.strip_suffix('\n').unwrap_or(first);
        records[0] = format!("{}\n", first.strip_suffix('\r').unwrap_or(first));
        records
    })
}

fn window() -> impl Strategy<Value = Window> {
    (1usize..6, 1usize..60).prop_map(|(rows, bytes)| Window {
        rows,
        bytes,
        wait: None,
    })
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![Just(Way::File), (1usize..9).prop_map(Way::Pipe)]
}

/// The batches as the ledger would keep them.
fn spans(batches: &[Batch]) -> Known {
    let span = |batch: &Batch| Span {
        start: batch.span().start,
        end: batch.span().end,
        records: batch.len() as u64,
        lines: batch.lines,
        first_record: batch.first_record,
        checksum: Some(checksum(batch.bytes())),
        ..Span::default()
    };
    batches.iter().map(span).collect()
}

fn ends_of(records: &[String]) -> Vec<u64> {
    let end = |at: &mut u64, record: &String| {
        *at += record.len() as u64;
        Some(*at)
    };
    records.iter().scan(0, end).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_record_comes_once_and_in_batches_that_keep_the_window(
        records in records(1..30),
        window in window(),
        limit in prop::option::of(1u64..40),
        way in way(),
    ) {
        let text = records.concat();
        let kept = Kept::default();
        let count = read(text.as_bytes(), way, window, limit, Vec::new(), &kept).unwrap();
        let expected = limit.unwrap_or(u64::MAX).min(records.len() as u64);
        prop_assert_eq!(count, expected);

        let batches = kept.batches.lock().unwrap();
        let mut seen = Vec::new();
        let (mut byte, mut line) = (0, 1);
        for batch in batches.iter() {
            prop_assert_eq!((batch.start_byte, batch.first_line), (byte, line));
            prop_assert_eq!(batch.first_record, seen.len() as u64 + 1);
            prop_assert!(batch.len() <= window.rows, "{} rows", batch.len());
            prop_assert!(batch.bytes().len() <= window.bytes || batch.len() == 1);
            for index in 0..batch.len() {
                seen.push(String::from_utf8(batch.record(index).to_vec()).unwrap());
            }
            byte = batch.span().end;
            line += batch.bytes().iter().filter(|byte| **byte == b'\n').count() as u64;
        }
        prop_assert_eq!(&seen[..], &records[..expected as usize]);
    }

    #[test]
    fn what_is_committed_is_passed_over_whatever_the_windows_were(
        records in records(1..30),
        first in window(),
        second in window(),
        chosen in prop::collection::vec(any::<bool>(), 30),
        way in way(),
    ) {
        let text = records.concat();
        let before = Kept::default();
        read(text.as_bytes(), way, first, None, Vec::new(), &before).unwrap();
        let all = spans(&before.batches.lock().unwrap());
        let known: Known = all.into_iter().zip(&chosen).filter(|(_, chosen)| **chosen).map(|(span, _)| span).collect();

        let kept = Kept::default();
        let count = read(text.as_bytes(), way, second, None, known.clone(), &kept).unwrap();
        prop_assert_eq!(count, records.len() as u64);
        prop_assert_eq!(&*kept.known.lock().unwrap(), &known);
        // Together they are the whole text, without gap or overlap, and end at records.
        let (mut at, mut seen) = (0, 0);
        let ends = ends_of(&records);
        for (start, end, count) in kept.spans() {
            prop_assert_eq!(start, at);
            seen += count;
            prop_assert_eq!(end, ends[seen as usize - 1]);
            at = end;
        }
        prop_assert_eq!(at, text.len() as u64);
    }

    #[test]
    fn a_committed_span_that_has_changed_is_refused_and_nothing_behind_it_is_read(
        records in records(2..20),
        window in window(),
        step in 1usize..9,
        at in any::<prop::sample::Index>(),
    ) {
        let text = records.concat();
        let before = Kept::default();
        read(text.as_bytes(), Way::Pipe(step), window, None, Vec::new(), &before).unwrap();
        let known = spans(&before.batches.lock().unwrap());
        let end = known.last().unwrap().end as usize;
        let mut changed = text.into_bytes();
        let at = at.index(end);
        changed[at] = if changed[at] == b'z' { b'y' } else { b'z' };

        let kept = Kept::default();
        let result = read(&changed, Way::Pipe(step), window, None, known.clone(), &kept);
        let passed = kept.known.lock().unwrap().len();
        match result {
            Err(InputError::Changed { .. }) => {
                prop_assert!(known[passed].start as usize <= at && at < known[passed].end as usize);
            }
            other => prop_assert!(false, "{other:?}"),
        }
        prop_assert!(kept.batches.lock().unwrap().is_empty());
    }

    #[test]
    fn a_stop_leaves_a_beginning_of_whole_batches(
        records in records(1..30),
        window in window(),
        way in way(),
        stop_after in 1usize..6,
    ) {
        let text = records.concat();
        let kept = Kept { stop_after: stop_after.into(), ..Kept::default() };
        read(text.as_bytes(), way, window, None, Vec::new(), &kept).unwrap();
        let batches = kept.batches.lock().unwrap();
        let read: Vec<u8> = batches.iter().flat_map(|batch| batch.bytes().to_vec()).collect();
        prop_assert!(text.as_bytes().starts_with(&read));
        let seen: usize = batches.iter().map(Batch::len).sum();
        prop_assert_eq!(read.len() as u64, seen.checked_sub(1).map_or(0, |last| ends_of(&records)[last]));
    }
}
