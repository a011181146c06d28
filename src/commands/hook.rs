//! Runs a program of the user's that is told how a run was.

use std::future::pending;
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::error::Error;
use crate::job::Hook;

/// Runs the hook in `dir`, with the account on its stdin; what it writes goes to stderr.
///
/// # Errors
/// It cannot be started, takes too long and is killed, or says by its exit that it failed.
pub async fn tell(hook: &Hook, dir: &Path, account: &Value) -> Result<(), Error> {
    let failed = |what: String| Error::Hook(format!("{}: {what}", hook.name));
    let [program, arguments @ ..] = &hook.run[..] else {
        return Ok(());
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        // stdout may be closed, or read by somebody who waits for the account.
        .stdout(std::io::stderr())
        .kill_on_drop(true)
        // A signal from the keyboard is not meant for it, and what it starts ends with it.
        .process_group(0);
    if !dir.as_os_str().is_empty() {
        command.current_dir(dir);
    }
    let mut child = command
        .spawn()
        .map_err(|error| failed(format!("the program cannot be started: {error}")))?;
    let text = format!("{account:#}\n");
    match timeout(hook.timeout, ended(&mut child, &text)).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(failed(format!("the program ended with {status}"))),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => {
            let group = child.id().and_then(|id| i32::try_from(id).ok());
            if let Some(group) = group {
                let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            }
            let _ = child.wait().await;
            let limit = hook.timeout;
            Err(failed(format!(
                "the program took longer than {limit:?} (timeout) and was killed"
            )))
        }
    }
}

/// Writes `text` to the program, as far as it wants it, and waits for its end.
async fn ended(child: &mut Child, text: &str) -> std::io::Result<std::process::ExitStatus> {
    let stdin = child.stdin.take();
    let write = async {
        if let Some(mut stdin) = stdin {
            // Who does not read it has ended, or does not want it.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
        pending().await
    };
    tokio::select! {
        status = child.wait() => status,
        () = write => pending().await,
    }
}
