//! Where the writer of a change belongs: its user by name, its login, its parent, its container and its unit.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::exact;

/// Where a writer belongs. What is not known is absent; nothing is concluded from a process that took over its id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Origin {
    /// Name of its user, as the machine's `/etc/passwd` has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Arc<str>>,
    /// User id that it logged in with, whatever user it has become since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_uid: Option<u32>,
    /// Name of that user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_user: Option<Arc<str>>,
    /// Its parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// Id of the container it runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Arc<str>>,
    /// The systemd unit it belongs to, the innermost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Arc<str>>,
}

/// The parent of a writer, when it was looked at first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Command name, at most 15 bytes.
    #[serde(flatten, with = "exact::comm")]
    pub comm: Vec<u8>,
}

/// The fields beside those of an actor; none where nothing is known.
pub(crate) mod flat {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        origin: &Option<Arc<Origin>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match origin {
            Some(origin) => origin.serialize(serializer),
            None => Option::<Origin>::None.serialize(serializer),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Arc<Origin>>, D::Error> {
        let origin = Origin::deserialize(deserializer)?;
        Ok((origin != Origin::default()).then(|| Arc::new(origin)))
    }
}
