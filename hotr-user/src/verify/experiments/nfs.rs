//! A file that changes on an NFS server, while its mount is watched on the client: both are this kernel.

use std::fs;

use rustix::fs::{Mode, chmod};

use crate::verify::bench::{Bench, During, Stop, holds, old_file, overwrite};
use crate::verify::evidence::Listener;
use crate::verify::experiment::{Experiment, Group};
use crate::verify::rulings::receives_nothing;

pub(super) const ALL: &[Experiment] = &[Experiment {
    name: "nfs-server-write",
    group: Group::Mounts,
    claim: "A change that is made on an NFS server is not received by a watch on a client's mount.",
    source: "inotify(7): limitations and caveats, network filesystems",
    method: "Serve backing/ by the kernel's NFS server over loopback, watch a mount m of it, and write to backing/f.",
    rests_on: &[Listener::Inotify],
    run: written_on_the_server,
    decide: |evidence| receives_nothing(evidence, "m"),
}];

fn written_on_the_server(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let (backing, mount) = (bench.dir("backing")?, bench.dir("m")?);
    let (behind, shown) = (backing.join("f"), mount.join("f"));
    old_file(&behind, b"1\n")?;
    bench.mount_nfs(&backing, &mount)?;
    bench.watch("m", &mount)?;
    bench.compare("m/f", &shown);
    bench.compare("backing/f", &behind);
    bench.operate(|_| overwrite(&behind, b"22\n"))?;
    // Without opening it on the client: the server lets nobody open a file before its grace period is over.
    let size = fs::metadata(&shown).during("look at a file")?.len();
    bench.done(holds(&behind, b"22\n") && size == 3);
    bench.control("m", || chmod(&shown, Mode::RUSR).during("change the mode"))
}
