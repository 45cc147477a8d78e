//! Closed lists of words: each value is written as its word of the output contract, and read by it.

/// Implements `Display` and serde's traits by `as_str` and `ALL`.
macro_rules! words {
    ($($name:ty),*) => {$(
        impl std::fmt::Display for $name {
            /// The word of the output contract.
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::ALL.into_iter().find(|one| one.as_str() == word).ok_or_else(|| {
                    serde::de::Error::custom(format_args!("{word:?} is no {}", stringify!($name)))
                })
            }
        }
    )*};
}
pub(crate) use words;
