//! `hotr agent`: options, and the run itself.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use clap::{Args, ValueHint};
use hotr_user::agent::{AgentOptions, SOCKET, serve};

use super::trace::Tier;
use super::{Status, say, signals};

const EXAMPLES: &str = "\
Examples:
  hotr agent                                   serve subscribers at /run/hotr/agent.sock
  hotr agent --socket /srv/share/agent.sock    at another socket, in a directory of root's
  systemd-socket-activate -l PATH hotr agent   at a socket that systemd made (LISTEN_FDS)

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
    options.inherited = inherited()?.map(Arc::new);
    options.tier = args.tier.into();
    let runtime = super::runtime()?;
    runtime.block_on(async {
        let end = signals::End::new()?;
        serve(options, &mut say, end.wait()).await?;
        Ok(Status::Done)
    })
}

/// The first descriptor that a service manager passes (sd_listen_fds(3)).
const FIRST: RawFd = 3;

/// The socket that a service manager has passed to this very process, if it has.
fn inherited() -> anyhow::Result<Option<OwnedFd>> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(None);
    }
    match number("LISTEN_FDS") {
        None | Some(0) => Ok(None),
        Some(1) => {
            // SAFETY: nothing else here knows the number. That it is open is asked first, and it is nobody's but ours: whoever
            // started this process says so in our name.
            let socket = unsafe {
                if libc::fcntl(FIRST, libc::F_GETFD) < 0 {
                    let error = std::io::Error::last_os_error();
                    return Err(anyhow!(
                        "take descriptor {FIRST} that LISTEN_FDS names: {error}; pass a listening socket"
                    ));
                }
                OwnedFd::from_raw_fd(FIRST)
            };
            Ok(Some(socket))
        }
        Some(many) => Err(anyhow!("take the sockets that LISTEN_FDS names: there are {many}; pass one")),
    }
}
