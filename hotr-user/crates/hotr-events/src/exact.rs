//! Names, which are bytes, in JSON, which is text: a name that is not UTF-8 is written for reading, with U+FFFD for what
//! is not, and beside that exactly, in base64.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::BASE64;
use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serializer};

/// A value that is a name, or may be one.
pub(crate) trait Name: Sized {
    /// Its bytes; `None` when there is none.
    fn bytes(&self) -> Option<&[u8]>;
    /// From bytes; `None` when a name must be there and is not.
    fn from_bytes(bytes: Option<Vec<u8>>) -> Option<Self>;
}

fn path(bytes: Vec<u8>) -> PathBuf {
    OsString::from_vec(bytes).into()
}

impl Name for PathBuf {
    fn bytes(&self) -> Option<&[u8]> {
        Some(self.as_os_str().as_bytes())
    }

    fn from_bytes(bytes: Option<Vec<u8>>) -> Option<Self> {
        bytes.map(path)
    }
}

impl Name for Option<PathBuf> {
    fn bytes(&self) -> Option<&[u8]> {
        self.as_deref().map(|path| path.as_os_str().as_bytes())
    }

    fn from_bytes(bytes: Option<Vec<u8>>) -> Option<Self> {
        Some(bytes.map(path))
    }
}

impl Name for Option<Arc<Path>> {
    fn bytes(&self) -> Option<&[u8]> {
        self.as_deref().map(|path| path.as_os_str().as_bytes())
    }

    fn from_bytes(bytes: Option<Vec<u8>>) -> Option<Self> {
        Some(bytes.map(|bytes| path(bytes).into()))
    }
}

impl Name for Vec<u8> {
    fn bytes(&self) -> Option<&[u8]> {
        Some(self)
    }

    fn from_bytes(bytes: Option<Vec<u8>>) -> Option<Self> {
        bytes
    }
}

impl Name for Option<Vec<u8>> {
    fn bytes(&self) -> Option<&[u8]> {
        self.as_deref()
    }

    fn from_bytes(bytes: Option<Vec<u8>>) -> Option<Self> {
        Some(bytes)
    }
}

/// Writes the one field, or both.
pub(crate) fn write<S: Serializer>(
    name: &impl Name,
    [key, exact_key]: [&'static str; 2],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut fields = serializer.serialize_map(None)?;
    if let Some(bytes) = name.bytes() {
        let text = String::from_utf8_lossy(bytes);
        fields.serialize_entry(key, &text)?;
        if matches!(text, std::borrow::Cow::Owned(_)) {
            fields.serialize_entry(exact_key, &BASE64.encode(bytes))?;
        }
    }
    fields.end()
}

/// The name of what the fields were.
pub(crate) fn read<'de, D: Deserializer<'de>, T: Name>(
    text: Option<String>,
    exact: Option<String>,
    key: &'static str,
) -> Result<T, D::Error> {
    let bytes = match (text, exact) {
        (_, Some(exact)) => Some(BASE64.decode(exact.as_bytes()).map_err(D::Error::custom)?),
        (Some(text), None) => Some(text.into_bytes()),
        (None, None) => None,
    };
    T::from_bytes(bytes).ok_or_else(|| D::Error::missing_field(key))
}

/// A module for `#[serde(flatten, with = "…")]`, by the names of the two fields.
macro_rules! names {
    ($($module:ident $exact:literal),*) => {$(
        pub(crate) mod $module {
            use super::*;

            #[derive(Deserialize)]
            struct Fields {
                #[serde(rename = $exact)]
                exact: Option<String>,
                $module: Option<String>,
            }

            pub(crate) fn serialize<S: Serializer>(name: &impl Name, serializer: S) -> Result<S::Ok, S::Error> {
                write(name, [stringify!($module), $exact], serializer)
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: Name>(deserializer: D) -> Result<T, D::Error> {
                let Fields { $module: text, exact } = Fields::deserialize(deserializer)?;
                read::<D, T>(text, exact, stringify!($module))
            }
        }
    )*};
}
names!(path "path_b64", old_path "old_path_b64", comm "comm_b64", exe "exe_b64", name "name_b64");
