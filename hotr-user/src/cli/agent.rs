//! `hotr agent`: options, and the run itself.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use hotr_user::agent::{AgentOptions, SOCKET, serve};

use super::trace::Tier;
use super::{Status, say, signals};

const EXAMPLES: &str = "\
Examples:
  hotr agent                                   serve subscribers at /run/hotr/agent.sock
  hotr agent --socket /srv/share/agent.sock    at another socket, in a directory of root's

Everybody may subscribe, and learns only of changes in directories that he may read. Subscribers: hotr subscribe.
Exit status: 0 ended by SIGINT, SIGTERM or SIGHUP; 1 error; 2 usage error.";

/// Report file changes to other users' processes, to each what it may read
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct AgentArgs {
    /// Where to listen
    #[arg(long, value_name = "PATH", default_value = SOCKET, value_hint = ValueHint::FilePath)]
    socket: PathBuf,
    /// Kind of eBPF programs to attach; auto takes the best for each hook
    #[arg(long, value_enum, default_value_t = Tier::Auto)]
    tier: Tier,
}

pub(super) fn run(args: AgentArgs) -> anyhow::Result<Status> {
    let mut options = AgentOptions::new();
    options.socket = args.socket;
    options.tier = args.tier.into();
    let runtime = super::runtime()?;
    runtime.block_on(async {
        let end = signals::End::new()?;
        serve(options, &mut say, end.wait()).await?;
        Ok(Status::Done)
    })
}
