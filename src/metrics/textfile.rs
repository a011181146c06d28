//! Writes a snapshot to a file for the textfile collector of the node exporter.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{MetricsError, Snapshot, render};

/// Puts the snapshot in place of `path`: written aside in the same directory, then renamed, so
/// that a reader sees the old file or the new one and never half of one. Mode 0644, as the
/// collector runs as another user. The collector reads names that end in `.prom` only; that of the
/// file aside does not. Not synced: after a crash these figures are of no use.
///
/// # Errors
/// What the operating system says; the old file stays.
pub fn write_textfile(path: &Path, snapshot: &Snapshot) -> Result<(), MetricsError> {
    let refused = |source| MetricsError::Write {
        path: path.to_path_buf(),
        source,
    };
    // A link stays one: what it points to is replaced.
    let target = path.canonicalize();
    let path = target.as_deref().unwrap_or(path);
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".pgrung-metrics-")
        .suffix(".tmp")
        .tempfile_in(dir)
        .map_err(refused)?;
    file.write_all(render(snapshot).as_bytes())
        .map_err(refused)?;
    // Set on the file, so that no umask takes the right to read away.
    file.as_file()
        .set_permissions(Permissions::from_mode(0o644))
        .map_err(refused)?;
    file.persist(path).map_err(|error| refused(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_file_is_replaced_whole_and_readable_by_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pgrung.prom");
        fs::write(&path, "old").unwrap();
        // Whoever has the old file open goes on reading the old file.
        let mut open = fs::File::open(&path).unwrap();
        let snapshot = Snapshot::default();
        write_textfile(&path, &snapshot).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), render(&snapshot));
        assert_eq!(std::io::read_to_string(&mut open).unwrap(), "old");
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o644);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_directory_is_named() {
        let path = Path::new("/nonexistent/pgrung.prom");
        let error = write_textfile(path, &Snapshot::default()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("--metrics-file /nonexistent/pgrung.prom: "),
            "{text}"
        );
    }
}
