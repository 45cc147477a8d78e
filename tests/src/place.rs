//! The directories of one run on one filesystem, and the aliases mounted for it.
//!
//! In: a mounted filesystem, or the folder of an overlay with `lower/ upper/ work/ merged/`. Out: a traced
//! directory, a directory beside it that is not traced, and two more ways into the traced one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{UnmountFlags, mount_bind, unmount};

/// Where one run works. Its mounts end with it; its files stay for a look at a failure.
pub struct Place {
    fs: String,
    traced: PathBuf,
    outside: PathBuf,
    bind: PathBuf,
    other_mount: PathBuf,
    layers: Option<Layers>,
    mounts: Vec<PathBuf>,
}

/// The traced directory in the layers of an overlay.
struct Layers {
    upper: PathBuf,
    lower: PathBuf,
}

/// A directory of the lower layer, and names of files in it.
pub type LowerFiles = (&'static str, &'static [&'static str]);

impl Place {
    /// Makes directories under `base` that no former run has used, files in the lower layer of an overlay (`lower`: directories
    /// with the files in them), and the alias mounts. `name` is part of the directories' names.
    ///
    /// # Errors
    /// A directory, file or mount cannot be made.
    pub fn new(fs: &str, base: &Path, name: &str, lower: &[LowerFiles]) -> Result<Self> {
        let base = base.canonicalize().with_context(|| format!("find {} for {fs}", base.display()))?;
        let overlay = fs.starts_with("ovl");
        let top = if overlay { base.join("merged") } else { base.clone() };
        // An overlay remembers which names it did not have: nothing may look for one in `merged` before it is made.
        let name = (0_u32..)
            .map(|run| format!("{name}-{run}"))
            .find(|name| !base.join(format!("bind-{name}")).exists())
            .context("every name is taken")?;
        let (inside, outside) = (format!("in-{name}"), format!("out-{name}"));
        let layers = overlay.then(|| Layers {
            upper: base.join("upper").join(&inside),
            lower: base.join("lower").join(&inside),
        });
        let mut place = Self {
            fs: fs.to_owned(),
            traced: top.join(&inside),
            outside: top.join(&outside),
            bind: base.join(format!("bind-{name}")),
            other_mount: base.join(format!("mount-{name}")),
            layers,
            mounts: Vec::new(),
        };
        place.make_directories(lower)?;
        place.mount_aliases(&top)?;
        place.other_mount.push(inside);
        Ok(place)
    }

    fn make_directories(&self, lower: &[LowerFiles]) -> Result<()> {
        if let Some(layers) = &self.layers {
            for (dir, files) in lower {
                for file in *files {
                    let dir = layers.lower.join(dir);
                    std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
                    std::fs::write(dir.join(file), [b'.'; 64])
                        .with_context(|| format!("fill {}", dir.display()))?;
                }
            }
        }
        for path in [&self.traced, &self.outside, &self.bind, &self.other_mount] {
            std::fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
        }
        // The upper directory of the traced one exists from the start, as in a container that has run before.
        std::fs::create_dir(self.traced.join(".start")).context("make a directory in the traced one")?;
        Ok(())
    }

    fn mount_aliases(&mut self, top: &Path) -> Result<()> {
        for (source, target) in [(self.traced.as_path(), self.bind.clone()), (top, self.other_mount.clone())]
        {
            mount_bind(source, &target)
                .with_context(|| format!("mount {} on {}", source.display(), target.display()))?;
            self.mounts.push(target);
        }
        Ok(())
    }

    /// Name of the filesystem in results.
    pub fn fs(&self) -> &str {
        &self.fs
    }

    /// Whether inode numbers and sizes of the merged view may be compared with what hotr reports.
    pub fn is_overlay(&self) -> bool {
        self.layers.is_some()
    }

    /// The traced directory.
    pub fn traced(&self) -> &Path {
        &self.traced
    }

    /// A directory of the same filesystem that is not traced.
    pub fn outside(&self) -> &Path {
        &self.outside
    }

    /// The traced directory through a bind mount of it.
    pub fn bind(&self) -> &Path {
        &self.bind
    }

    /// The traced directory through another mount of its whole filesystem.
    pub fn other_mount(&self) -> &Path {
        &self.other_mount
    }

    /// The traced directory in the upper layer.
    pub fn upper(&self) -> Option<&Path> {
        self.layers.as_ref().map(|layers| layers.upper.as_path())
    }

    /// The traced directory in the lower layer.
    pub fn lower(&self) -> Option<&Path> {
        self.layers.as_ref().map(|layers| layers.lower.as_path())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for target in self.mounts.iter().rev() {
            if let Err(error) = unmount(target, UnmountFlags::DETACH) {
                eprintln!("unmount {}: {error}; unmount it by hand", target.display());
            }
        }
    }
}
