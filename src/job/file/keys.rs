//! The keys of a table: the long flags of a command line, with underscores. What clap knows of a
//! flag says what its key takes, so there is no second list.

use std::any::TypeId;
use std::path::PathBuf;

use clap::{Arg, ArgAction, Args, Command};

use crate::job::units::{Number, Size, Time};
use crate::job::values::Names;
use crate::merge::Share;

/// What the value of a key may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// A boolean.
    Switch,
    /// A boolean, or a string that says more.
    SwitchOrText,
    Text,
    /// A string with a unit.
    Quantity,
    /// An integer, or a string with a unit.
    Number,
    /// Strings, or one.
    Texts,
    /// Names of columns, or a string with a CSV list of them.
    Names,
}

/// What a string of a key stands for beside itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    None,
    /// A file or directory.
    Path,
    /// Files, globs, or `-` for stdin.
    Input,
    /// SQL, or `@` and a file of it.
    Sql,
}

/// The flags of `T` as a command without a name.
pub fn command<T: Args>() -> Command {
    T::augment_args(
        Command::new("")
            .no_binary_name(true)
            .disable_help_flag(true),
    )
}

/// The key that stands for a flag.
pub fn name(flag: &Arg) -> String {
    match flag.get_long() {
        Some(long) => long.replace('-', "_"),
        // An argument without a flag is called as its value is.
        None => flag
            .get_value_names()
            .unwrap_or_default()
            .concat()
            .to_lowercase(),
    }
}

/// The keys that stand for the flags of `T`.
pub fn names<T: Args>() -> Vec<String> {
    command::<T>().get_arguments().map(name).collect()
}

/// What the value of the key may be.
pub fn takes(flag: &Arg) -> Takes {
    let is = |id: TypeId| flag.get_value_parser().type_id() == id;
    let numbers = [
        TypeId::of::<u32>(),
        TypeId::of::<u64>(),
        TypeId::of::<Number>(),
        TypeId::of::<Share>(),
    ];
    match flag.get_action() {
        ArgAction::SetTrue => Takes::Switch,
        ArgAction::Append => Takes::Texts,
        _ if is(TypeId::of::<Names>()) => Takes::Names,
        _ if numbers.into_iter().any(is) => Takes::Number,
        _ if is(TypeId::of::<Size>()) || is(TypeId::of::<Time>()) => Takes::Quantity,
        _ if flag
            .get_num_args()
            .is_some_and(|count| count.min_values() == 0) =>
        {
            Takes::SwitchOrText
        }
        _ => Takes::Text,
    }
}

/// What its strings stand for.
pub fn refers(flag: &Arg) -> Reference {
    let is_sql = flag
        .get_value_names()
        .is_some_and(|names| names.concat() == "SQL");
    if flag.get_value_parser().type_id() == TypeId::of::<PathBuf>() {
        Reference::Path
    } else if flag.is_positional() {
        Reference::Input
    } else if is_sql {
        Reference::Sql
    } else {
        Reference::None
    }
}

impl Takes {
    /// In words, for who gave something else.
    pub fn words(self) -> &'static str {
        match self {
            Takes::Switch => "true or false",
            Takes::SwitchOrText => "true, false or a string",
            Takes::Text | Takes::Quantity => "a string",
            Takes::Number => "an integer or a string",
            Takes::Texts | Takes::Names => "a string or a list of strings",
        }
    }
}
