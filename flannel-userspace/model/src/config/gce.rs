//! Options of the gce backend. Stock flannel has none.

use super::json::{Object, TypeError};

/// How pods of a host are reached in Google's cloud.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GceConfig {
    /// Whether each host's subnet is an alias range of its interface, instead of a route's destination.
    pub alias_ranges: bool,
    /// The subnetwork's secondary range that alias ranges are taken from; the primary one if absent.
    pub secondary_range: Option<String>,
}

/// An option that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GceError {
    /// A value is of the wrong type.
    #[error(transparent)]
    Type(#[from] TypeError),
    /// There is nothing to be taken from it.
    #[error(
        "SecondaryRangeName is given and AliasRanges is not true: set AliasRanges to true, or leave both out"
    )]
    RangeOfRoutes,
}

impl GceConfig {
    /// Reads the options.
    pub(super) fn parse(options: &Object) -> Result<Self, GceError> {
        let (mut alias_ranges, mut secondary_range) = (false, String::new());
        for option in options.members() {
            match option.name().as_str() {
                "aliasranges" => option.set(&mut alias_ranges)?,
                "secondaryrangename" => option.set(&mut secondary_range)?,
                _ => {}
            }
        }
        let secondary_range = Some(secondary_range).filter(|name| !name.is_empty());
        if secondary_range.is_some() && !alias_ranges {
            return Err(GceError::RangeOfRoutes);
        }
        Ok(Self { alias_ranges, secondary_range })
    }

    /// The options and their values, as people write them.
    pub(super) fn keys(&self) -> Vec<(&'static str, String)> {
        let range = self.secondary_range.as_deref().unwrap_or("the primary one");
        vec![
            ("Backend.AliasRanges", self.alias_ranges.to_string()),
            ("Backend.SecondaryRangeName", range.to_owned()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::GceConfig;
    use crate::config::json::Object;

    fn parse(options: &str) -> Result<GceConfig, String> {
        GceConfig::parse(&Object::parse(options).unwrap()).map_err(|error| error.to_string())
    }

    #[rstest]
    #[case::none(r#"{"Type":"gce"}"#, false, None)]
    #[case::primary(r#"{"aliasranges":true}"#, true, None)]
    #[case::secondary(r#"{"AliasRanges":true,"SecondaryRangeName":"pods"}"#, true, Some("pods"))]
    #[case::empty(r#"{"SecondaryRangeName":""}"#, false, None)]
    fn what_is_read(#[case] options: &str, #[case] alias_ranges: bool, #[case] range: Option<&str>) {
        let expected = GceConfig { alias_ranges, secondary_range: range.map(str::to_owned) };
        assert_eq!(parse(options), Ok(expected));
    }

    #[rstest]
    #[case(r#"{"SecondaryRangeName":"pods"}"#, "AliasRanges is not true")]
    #[case(r#"{"AliasRanges":"yes"}"#, "AliasRanges is ")]
    fn what_is_refused(#[case] options: &str, #[case] reason: &str) {
        let error = parse(options).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
}
