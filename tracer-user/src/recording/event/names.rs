//! Kinds and regions by their names.

use std::borrow::Cow;

/// A name, not copied where it need not be.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

macro_rules! by_name {
    ($module:ident, $type:ty) => {
        pub mod $module {
            use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

            pub fn serialize<S: Serializer>(value: &$type, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(value.as_str())
            }

            pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                let super::Name(name) = super::Name::deserialize(deserializer)?;
                <$type>::from_name(&name).ok_or_else(|| D::Error::custom(format!("unknown name '{name}'")))
            }
        }
    };
}
by_name!(kind, tracer_common::Kind);
by_name!(region, tracer_common::Region);

/// Totals of kinds and regions of a later version are left out: nothing is lost by it but a check.
pub fn known_totals<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<super::Total>, D::Error> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Known {
        Total(super::Total),
        Other(serde::de::IgnoredAny),
    }
    let totals = <Vec<Known> as serde::Deserialize>::deserialize(deserializer)?;
    let known = totals.into_iter().filter_map(|total| match total {
        Known::Total(total) => Some(total),
        Known::Other(_) => None,
    });
    Ok(known.collect())
}

pub mod kind_map {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};
    use tracer_common::Kind;

    pub fn serialize<S: Serializer>(map: &BTreeMap<Kind, u64>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(map.iter().map(|(kind, bytes)| (kind.as_str(), bytes)))
    }

    /// Kinds of a later version are skipped.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Kind, u64>, D::Error> {
        let map = BTreeMap::<String, u64>::deserialize(deserializer)?;
        Ok(map
            .into_iter()
            .filter_map(|(name, bytes)| Some((Kind::from_name(&name)?, bytes)))
            .collect())
    }
}
