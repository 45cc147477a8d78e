//! Which files matter, by their names: options that several commands have.

use std::ffi::OsString;

use clap::Args;
use globset::GlobSet;

use super::values;

/// Which files are chosen.
#[derive(Args, Debug)]
pub(super) struct ChosenArgs {
    /// Only files with these extensions; comma-separated
    #[arg(short, long, value_name = "EXT", value_delimiter = ',', value_parser = values::extension())]
    pub(super) exts: Vec<OsString>,
    /// Only paths that match, as in .gitignore; repeatable
    #[arg(short, long, value_name = "GLOB", value_parser = values::glob)]
    pub(super) filter: Vec<String>,
}

impl ChosenArgs {
    /// The patterns, where there are any.
    pub(super) fn only(&self) -> anyhow::Result<Option<GlobSet>> {
        let globs = (!self.filter.is_empty()).then(|| self.filter.iter().map(String::as_str));
        globs.map(values::exclude_set).transpose().map_err(anyhow::Error::msg)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.exts.is_empty() && self.filter.is_empty()
    }
}

/// Which files are chosen, and which are left out.
#[derive(Args, Debug)]
pub(super) struct NameArgs {
    #[command(flatten)]
    pub(super) chosen: ChosenArgs,
    /// Leave out paths that match, as in .gitignore; repeatable
    #[arg(short, long, value_name = "GLOB", value_parser = values::glob)]
    pub(super) ignore: Vec<String>,
}
