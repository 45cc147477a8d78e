//! Options that choose writers by what they belong to: a systemd unit, a cgroup, a container.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use hotr_user::diagnose::select::{Choice, lack};
use hotr_user::options::Group;
use hotr_user::procinfo::CgroupPaths;

use crate::cli::{say, values};

/// See the module.
#[derive(Args, Debug)]
pub(super) struct GroupArgs {
    /// Print only changes by processes of this systemd unit; repeatable
    #[arg(long, value_name = "UNIT", value_parser = NonEmptyStringValueParser::new())]
    unit: Vec<String>,
    /// Print only changes by processes of this cgroup and those below it, as /system.slice; repeatable
    #[arg(long, value_name = "PATH", value_parser = values::cgroup)]
    cgroup: Vec<String>,
    /// Print only changes by processes of this container, by its id or the beginning of it; repeatable
    #[arg(long, value_name = "ID", value_parser = values::container_id)]
    container: Vec<String>,
}

impl GroupArgs {
    pub(super) const fn is_empty(&self) -> bool {
        self.unit.is_empty() && self.cgroup.is_empty() && self.container.is_empty()
    }

    /// What they name. A unit or a container without a process is worth a note: its name may be wrong, or it is started later.
    pub(super) fn groups(self) -> anyhow::Result<Vec<Group>> {
        if !self.is_empty() && !CgroupPaths::new().is_mounted() {
            return Err(anyhow::anyhow!(
                "find the processes of a unit, cgroup or container: the unified hierarchy (cgroup2) is not mounted; mount it, or \
                 use --pid, --comm or --uid"
            ));
        }
        let units = self.unit.iter().cloned().map(Choice::Unit);
        let containers = self.container.iter().cloned().map(Choice::Container);
        for why in units.chain(containers).filter_map(|choice| lack(&choice)) {
            let why = why.strip_prefix("diagnose ").unwrap_or(&why);
            say(&format!("note: {why}; what it starts later is traced"));
        }
        let units = self.unit.into_iter().map(Group::Unit);
        let cgroups = self.cgroup.into_iter().map(Group::Cgroup);
        Ok(units.chain(cgroups).chain(self.container.into_iter().map(Group::Container)).collect())
    }
}
