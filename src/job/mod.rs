//! The settings of a load: partial ones, from flags or the keys of a job file and from the profile
//! they name, and settings as meant, checked once with every limit.

mod connection;
mod durability;
mod file;
mod inputs;
mod outputs;
mod partial;
mod profile;
mod settings;
mod units;
mod values;

pub use connection::ConnectionArgs;
pub use durability::Durability;
pub use file::{Hook, JobFile, JobLoad, schema};
pub use inputs::inputs;
pub use outputs::check_output;
pub use partial::{PartialReading, PartialSettings, defaults, with_default};
pub use profile::Profile;
pub use settings::{LedgerUse, LoadSettings, Overlap, SettingsError};
pub use units::{Number, Size, Time};
