//! Which files matter, by their names: options that several commands have.

use std::ffi::OsString;

use clap::Args;

use super::values;

/// See the module.
#[derive(Args, Debug)]
pub(super) struct NameArgs {
    /// Only files with these extensions; comma-separated
    #[arg(short, long, value_name = "EXT", value_delimiter = ',', value_parser = values::extension())]
    pub(super) exts: Vec<OsString>,
    /// Only paths that match, as in .gitignore; repeatable
    #[arg(short, long, value_name = "GLOB", value_parser = values::glob)]
    pub(super) filter: Vec<String>,
    /// Leave out paths that match, as in .gitignore; repeatable
    #[arg(short, long, value_name = "GLOB", value_parser = values::glob)]
    pub(super) ignore: Vec<String>,
}
