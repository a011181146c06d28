//! What a spill promises: the same batches in the same order, and never a wrong one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;

use super::leftover::Loss;
use super::*;
use crate::source::{Encoding, Reading};
use crate::span::Position;
use crate::window::FlushReason;

fn identity(import_id: &str) -> Identity {
    Identity {
        import_id: import_id.to_string(),
        table: "\"public\".\"events\"".to_string(),
        sources: ["stdin", "b.csv", "c.csv"]
            .map(|name| SpilledSource {
                name: name.to_string(),
                import_id: import_id.to_string(),
                number: 4,
            })
            .to_vec(),
        reading: Reading::Ndjson {
            skip: Vec::new(),
            encoding: Encoding::UTF_8,
        },
    }
}

fn spill(dir: &Path) -> Spill {
    Spill::create(dir, 1 << 30, identity("nightly")).unwrap()
}

/// Whatever a batch can hold, with the times left out.
fn any_batch() -> impl Strategy<Value = Batch> {
    let records = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..30);
    let place = (0usize..3, any::<u64>(), any::<u64>(), any::<u64>());
    let rest = (any::<u64>(), any::<u8>(), 0usize..4);
    (records, place, rest).prop_map(|(records, place, rest)| {
        let mut batch = Batch::with_capacity(0);
        let position = Position {
            byte: place.1,
            record: place.2,
            line: place.3,
        };
        batch.restart(place.0, &position, rest.1, 0);
        for record in records {
            batch.push_run(&record, &[record.len() as u32]);
        }
        batch.lines = rest.0;
        batch.reason = FlushReason::ALL[rest.2];
        batch
    })
}

/// A batch of `bytes` bytes that do not compress, at `start`.
fn noise(start: u64, bytes: usize) -> Batch {
    let mut random = fastrand::Rng::with_seed(start);
    let record: Vec<u8> = (0..bytes).map(|_| random.u8(..)).collect();
    let mut batch = Batch::with_capacity(0);
    let position = Position {
        byte: start,
        record: 1,
        line: 1,
    };
    batch.restart(0, &position, b'\n', 0);
    batch.push_run(&record, &[bytes as u32]);
    batch
}

/// All that a batch says, for comparing.
fn content(batch: &Batch) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        (batch.source, batch.start_byte, batch.first_record),
        (batch.first_line, batch.lines, batch.line_end()),
        (batch.reason, batch.bytes().to_vec(), batch.ends().to_vec()),
    )
}

fn drain(leftover: &mut Leftover) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut batch = Batch::with_capacity(0);
    while leftover.pop(&mut batch).unwrap() {
        batches.push(batch.clone());
    }
    batches
}

fn assert_same(got: &[Batch], expected: &[Batch]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert_eq!(content(got), content(expected));
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// One segment with `batches`, its run gone; the file, and where its header and each of its
/// frames end.
fn one_segment(dir: &Path, batches: &[Batch]) -> (PathBuf, u64, Vec<u64>) {
    let mut spill = spill(dir);
    let mut ends = Vec::new();
    for batch in batches {
        spill.push(batch).unwrap();
        ends.push(spill.bytes_on_disk());
    }
    let header = spill.segments[0].segment.at;
    (segment_path(dir, spill.run(), 0), header, ends)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn batches_come_back_the_same_and_in_order(
        batches in prop::collection::vec(any_batch(), 0..40),
        pops in prop::collection::vec(0usize..4, 40),
        segment_bytes in 200u64..4000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut spill = spill(dir.path());
        spill.segment_bytes = segment_bytes;
        let mut got = Vec::new();
        let mut batch = Batch::with_capacity(0);
        for (pushed, pops) in batches.iter().zip(pops) {
            spill.push(pushed).unwrap();
            for _ in 0..pops {
                if spill.pop(&mut batch).unwrap() {
                    got.push(batch.clone());
                }
                // Settled later than popped, and not in order.
                if got.len() % 3 == 2 {
                    spill.settle(batch.source, batch.start_byte).unwrap();
                }
            }
        }
        prop_assert_eq!(spill.len_batches(), (batches.len() - got.len()) as u64);
        while spill.pop(&mut batch).unwrap() {
            got.push(batch.clone());
        }
        assert_same(&got, &batches);
        prop_assert_eq!(spill.waiting(), Amount::default());
        prop_assert_eq!(spill.total().rows, batches.iter().map(|batch| batch.len() as u64).sum::<u64>());
        for batch in &got {
            spill.settle(batch.source, batch.start_byte).unwrap();
        }
        prop_assert_eq!((spill.bytes_on_disk(), spill.unsettled()), (0, 0));
        drop(spill);
        prop_assert_eq!(names(dir.path()), [] as [&str; 0]);
    }

    #[test]
    fn a_crashed_run_leaves_every_batch_that_is_not_settled(
        batches in prop::collection::vec(any_batch(), 1..30),
        popped in 0usize..30,
        segment_bytes in 200u64..4000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut spill = spill(dir.path());
        spill.segment_bytes = segment_bytes;
        for batch in &batches {
            spill.push(batch).unwrap();
        }
        let mut batch = Batch::with_capacity(0);
        for _ in 0..popped {
            spill.pop(&mut batch).unwrap();
        }
        drop(spill);
        let mut found = leftovers(dir.path()).unwrap();
        prop_assert_eq!(found.len(), 1);
        assert_same(&drain(&mut found[0]), &batches);
        prop_assert_eq!(found[0].loss(), Loss::default());
        prop_assert_eq!(found[0].identity(), Some(&identity("nightly")));
    }

    #[test]
    fn a_tail_torn_at_any_byte_leaves_exactly_the_whole_frames(
        batches in prop::collection::vec(any_batch(), 1..8),
        cut: prop::sample::Index,
        garbage in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (path, header, ends) = one_segment(dir.path(), &batches);
        let mut bytes = fs::read(&path).unwrap();
        let cut = cut.index(bytes.len() + 1);
        let original = bytes.split_off(cut);
        bytes.extend_from_slice(&garbage);
        // Garbage may happen to begin like what was there.
        let same = original.iter().zip(&garbage).take_while(|(a, b)| a == b).count();
        fs::write(&path, &bytes).unwrap();
        let whole = ends.iter().filter(|end| **end <= (cut + same) as u64).count();
        let mut found = leftovers(dir.path()).unwrap();
        assert_same(&drain(&mut found[0]), &batches[..whole]);
        let good = match whole {
            0 if (cut + same) as u64 >= header => header,
            0 => 0,
            whole => ends[whole - 1],
        };
        prop_assert_eq!(found[0].loss().bytes, bytes.len() as u64 - good);
    }

    #[test]
    fn a_flipped_bit_anywhere_never_makes_a_wrong_batch(
        batches in prop::collection::vec(any_batch(), 1..8),
        at: prop::sample::Index,
        bit in 0u32..8,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (path, header, ends) = one_segment(dir.path(), &batches);
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        fs::write(&path, &bytes).unwrap();
        let whole = match (at as u64) < header {
            true => 0,
            false => ends.iter().filter(|end| **end <= at as u64).count(),
        };
        let mut found = leftovers(dir.path()).unwrap();
        assert_same(&drain(&mut found[0]), &batches[..whole]);
        prop_assert!(found[0].loss().bytes > 0);
    }
}

#[test]
fn a_tail_of_one_batch_is_torn_at_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let batches = [noise(0, 50), noise(50, 60)];
    let (path, _, ends) = one_segment(dir.path(), &batches);
    let bytes = fs::read(&path).unwrap();
    for cut in ends[0]..ends[1] {
        fs::write(&path, &bytes[..cut as usize]).unwrap();
        let mut found = leftovers(dir.path()).unwrap();
        assert_same(&drain(&mut found[0]), &batches[..1]);
        let torn = cut - ends[0];
        let segments = u64::from(torn > 0);
        let loss = Loss {
            segments,
            bytes: torn,
        };
        assert_eq!(found[0].loss(), loss);
        assert!(!found[0].is_damaged(), "{cut}");
    }
}

#[test]
fn a_byte_changed_in_an_accepted_batch_is_damage_and_no_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let batches = [noise(0, 50), noise(50, 60)];
    let (path, start, ends) = one_segment(dir.path(), &batches);
    let bytes = fs::read(&path).unwrap();
    for at in start..ends[0] {
        let mut changed = bytes.clone();
        changed[at as usize] ^= 1;
        fs::write(&path, &changed).unwrap();
        let mut found = leftovers(dir.path()).unwrap();
        assert_same(&drain(&mut found[0]), &[]);
        assert!(found[0].is_damaged(), "byte {at} of {start}..{}", ends[0]);
    }
}

#[test]
fn the_directory_is_0700_and_the_files_0600() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a/spill");
    let mut spill = spill(&dir);
    spill.push(&noise(0, 10)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(names(&dir).len(), 2);
    for name in names(&dir) {
        assert_eq!(mode(&dir.join(&name)), 0o600, "{name}");
    }
}

#[test]
fn a_file_that_is_there_already_is_never_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut spill = spill(dir.path());
    let elsewhere = dir.path().join("elsewhere");
    fs::write(&elsewhere, "mine").unwrap();
    std::os::unix::fs::symlink(&elsewhere, segment_path(dir.path(), spill.run(), 0)).unwrap();
    assert!(matches!(
        spill.push(&noise(0, 10)),
        Err(SpillError::Io { .. })
    ));
    assert_eq!(fs::read(&elsewhere).unwrap(), b"mine");
    assert_eq!(spill.len_batches(), 0);
}

#[test]
fn the_limit_counts_all_files_and_a_refused_batch_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut spill = Spill::create(dir.path(), 100_000, identity("nightly")).unwrap();
    let mut pushed = 0;
    let error = loop {
        match spill.push(&noise(pushed * 10_000, 10_000)) {
            Ok(()) => pushed += 1,
            Err(error) => break error,
        }
    };
    assert!(error.is_full());
    assert_eq!(
        error.to_string(),
        "the spill is full: 100000 bytes; raise --spill-limit or wait for the server"
    );
    assert_eq!(pushed, 9);
    let on_disk: u64 = names(dir.path())
        .iter()
        .map(|name| fs::metadata(dir.path().join(name)).unwrap().len())
        .sum();
    assert_eq!(spill.bytes_on_disk(), on_disk);
    assert!(on_disk <= 100_000);
    // The first segment, of 6 batches, makes room once all of it is settled.
    let mut batch = Batch::with_capacity(0);
    for start in (0..60_000).step_by(10_000) {
        assert!(spill.push(&noise(90_000, 10_000)).is_err());
        assert!(spill.pop(&mut batch).unwrap());
        assert!(spill.settle(0, start).unwrap());
    }
    spill.push(&noise(90_000, 10_000)).unwrap();
    assert_eq!(spill.len_batches(), 4);
}

#[test]
fn a_batch_larger_than_a_segment_gets_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut spill = spill(dir.path());
    spill.segment_bytes = 100;
    for start in 0..3 {
        spill.push(&noise(start, 1_000)).unwrap();
    }
    assert_eq!(names(dir.path()).len(), 4);
}

#[test]
fn bytes_that_compress_well_come_back_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut spill = spill(dir.path());
    let mut pushed = Batch::with_capacity(0);
    for _ in 0..1_000 {
        pushed.push_run(&[0; 5_000], &[5_000]);
    }
    spill.push(&pushed).unwrap();
    assert!(spill.bytes_on_disk() < 50_000);
    let mut popped = Batch::with_capacity(0);
    assert!(spill.pop(&mut popped).unwrap());
    assert_same(&[popped], &[pushed]);
}

#[test]
fn a_damaged_batch_of_a_living_run_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut spill = spill(dir.path());
    spill.push(&noise(0, 100)).unwrap();
    let path = segment_path(dir.path(), spill.run(), 0);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let mut batch = Batch::with_capacity(0);
    for _ in 0..2 {
        assert!(matches!(
            spill.pop(&mut batch),
            Err(SpillError::Corrupt { .. })
        ));
    }
}

#[test]
fn the_spill_of_a_living_run_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut living = spill(dir.path());
    living.push(&noise(0, 10)).unwrap();
    assert!(leftovers(dir.path()).unwrap().is_empty());
    let run = living.run().to_string();
    drop(living);
    let found = leftovers(dir.path()).unwrap();
    assert_eq!(found[0].run(), run);
    // And so is one that another run is taking over.
    assert!(leftovers(dir.path()).unwrap().is_empty());
    for leftover in found {
        leftover.remove().unwrap();
    }
    assert_eq!(names(dir.path()), [] as [&str; 0]);
}

#[test]
fn leftovers_are_grouped_by_import_and_the_oldest_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    for (import_id, begun) in [("b", 5), ("a", 3), ("b", 1), ("a", 9)] {
        let mut spill = Spill::create(dir.path(), 1 << 20, identity(import_id)).unwrap();
        spill.begun_micros = begun;
        spill.push(&noise(begun, 10)).unwrap();
    }
    let mut starts = Vec::new();
    for mut leftover in leftovers(dir.path()).unwrap() {
        starts.push(drain(&mut leftover)[0].start_byte);
    }
    assert_eq!(starts, [1, 5, 3, 9]);
}

#[test]
fn a_directory_that_is_missing_has_no_leftovers() {
    assert!(
        leftovers(Path::new("/nonexistent/spill"))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_lock_without_segments_is_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(lock_path(dir.path(), "0123456789abcdef"), "").unwrap();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    assert!(leftovers(dir.path()).unwrap().is_empty());
    assert_eq!(names(dir.path()), ["notes.txt"]);
}

#[test]
fn a_segment_of_another_version_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (path, ..) = one_segment(dir.path(), &[noise(0, 10)]);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 99;
    let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let seed = twox_hash::XxHash3_64::oneshot(&bytes[..16 + length]);
    bytes[16 + length..24 + length].copy_from_slice(&seed.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    assert!(matches!(
        leftovers(dir.path()),
        Err(SpillError::Version { version: 99, .. })
    ));
    assert!(path.exists());
}

#[test]
fn a_full_disk_refuses_the_batch_and_keeps_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut spill = spill(dir.path());
    spill.push(&noise(0, 100)).unwrap();
    // Every write to this device fails as on a full disk, and it cannot be cut.
    spill.writer = Some(fs::File::options().write(true).open("/dev/full").unwrap());
    let error = spill.push(&noise(100, 100)).unwrap_err();
    assert!(matches!(error, SpillError::DiskFull { .. }) && error.is_full());
    assert_eq!(spill.len_batches(), 1);
    // What was not cut off is never written behind.
    spill.push(&noise(100, 100)).unwrap();
    assert_eq!(spill.segments.len(), 2);
    drop(spill);
    let mut found = leftovers(dir.path()).unwrap();
    assert_same(&drain(&mut found[0]), &[noise(0, 100), noise(100, 100)]);
}

#[test]
fn a_full_quota_is_a_full_disk() {
    let quota = io::Error::from_raw_os_error(nix::libc::EDQUOT);
    assert!(SpillError::at(Path::new("x.seg"), quota).is_full());
}

#[test]
fn synced_segments_hold_the_same_batches() {
    let dir = tempfile::tempdir().unwrap();
    let mut spill = spill(dir.path()).sync_segments(true);
    spill.segment_bytes = 300;
    let batches: Vec<Batch> = (0..5).map(|start| noise(start, 200)).collect();
    for batch in &batches {
        spill.push(batch).unwrap();
    }
    spill.close().unwrap();
    let mut found = leftovers(dir.path()).unwrap();
    assert_same(&drain(&mut found[0]), &batches);
}
