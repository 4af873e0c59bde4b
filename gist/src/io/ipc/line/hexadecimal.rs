//! Octets as hexadecimal digits.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

pub(super) fn serialize<S: Serializer>(octets: &(impl AsRef<[u8]> + ?Sized), serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(octets))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<Vec<u8>>>(deserializer: D) -> Result<T, D::Error> {
    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
    let octets = hex::decode(text.as_ref()).map_err(|error| D::Error::custom(format!("not hexadecimal: {error}")))?;
    T::try_from(octets).map_err(|_| D::Error::custom("of another length than it has to be"))
}
