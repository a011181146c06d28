//! The arguments of `pgrung run`.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `pgrung run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The job file; paths in it are meant from its directory
    #[arg(value_name = "JOB", required_unless_present = "schema")]
    pub file: Option<PathBuf>,
    /// Only the load of this name; may be given more than once [default: all]
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
    /// Do each load and roll it back, as pgrung check does; hooks do not run [default: off]
    #[arg(long)]
    pub check: bool,
    /// Print the JSON schema of a job file, for editors and checkers [default: off]
    #[arg(long)]
    pub schema: bool,
}
