//! JSON objects as Go's decoder reads them into a struct, which decides what stock flannel accepts: the
//! case of a key does not matter, a key is set again by each later duplicate, `null` leaves the default.

use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON object, its members in the order in which they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object(Vec<Member>);

/// One key of an object and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    key: String,
    /// The value as JSON text, not yet looked into.
    value: String,
}

/// A text is not JSON, or no object. Only the beginning of what the library says, which may repeat the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        Self(excerpt(&error.to_string()))
    }
}

/// A value is not of the type its key asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} is {value}; give {expected}")]
pub struct TypeError {
    key: String,
    value: String,
    expected: &'static str,
}

impl JsonError {
    /// What the library says; and what it does not, of characters that JSON does not take and nobody tells from those it
    /// takes.
    fn of(error: &serde_json::Error, json: &str) -> Self {
        let odd = |character: &char| {
            matches!(character, '\u{feff}' | '\u{a0}' | '\u{200b}' | '\u{201c}'..='\u{201f}')
        };
        let remedy = json.chars().find(odd).map(|character| match character {
            '\u{201c}'..='\u{201f}' => format!("; it has typographic quotes ({character}): write \""),
            _ => format!(
                "; it has the invisible character U+{:04X}: write it again without",
                u32::from(character)
            ),
        });
        Self(excerpt(&error.to_string()) + &remedy.unwrap_or_default())
    }
}

impl Object {
    /// Reads an object, or `null` as one without members.
    ///
    /// # Errors
    /// Whatever else the text is.
    pub fn parse(json: &str) -> Result<Self, JsonError> {
        let parsed = serde_json::from_str::<Option<Self>>(json);
        Ok(parsed.map_err(|error| JsonError::of(&error, json))?.unwrap_or_default())
    }

    /// Every member, duplicates included.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.0.iter()
    }
}

impl Member {
    /// The key as Go compares it: case folded, with the two letters outside ASCII that fold into it.
    #[must_use]
    pub fn name(&self) -> String {
        let fold = |letter: char| match letter {
            'ſ' => 's',
            '\u{212a}' => 'k', // the Kelvin sign
            other => other.to_ascii_lowercase(),
        };
        self.key.chars().map(fold).collect()
    }

    /// The value as JSON text.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.value
    }

    /// What a string holds; any other value as it is written.
    #[must_use]
    pub fn text(&self) -> String {
        serde_json::from_str(&self.value).unwrap_or_else(|_| self.value.clone())
    }

    /// Sets `field` to the value, unless that is `null`.
    ///
    /// # Errors
    /// The value is of another type.
    pub fn set<T: Scalar>(&self, field: &mut T) -> Result<(), TypeError> {
        match serde_json::from_str::<Option<T>>(&self.value) {
            Ok(Some(value)) => *field = value,
            Ok(None) => {}
            Err(_) => {
                let value = excerpt(&self.value);
                return Err(TypeError { key: self.key.clone(), value, expected: T::IS });
            }
        }
        Ok(())
    }
}

/// A type a key of the configuration can have.
pub trait Scalar: DeserializeOwned {
    /// What to write for it.
    const IS: &'static str;
}

impl Scalar for bool {
    const IS: &'static str = "true or false";
}

impl Scalar for u32 {
    const IS: &'static str = "a whole number without quotes";
}

impl Scalar for Option<u32> {
    const IS: &'static str = u32::IS;
}

impl Scalar for String {
    const IS: &'static str = "a string in quotes";
}

/// As much of `text` as fits an error message, on one line: nobody can write lines of their own to the log.
#[must_use]
pub fn excerpt(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut letters = text.chars();
    let mut excerpt = String::new();
    for letter in letters.by_ref().take(LONGEST) {
        match letter {
            letter if letter.is_control() => excerpt.extend(letter.escape_default()),
            letter => excerpt.push(letter),
        }
    }
    if letters.next().is_some() {
        excerpt.push('…');
    }
    excerpt
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut members = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
            members.push(Member { key, value: value.get().to_owned() });
        }
        Ok(Object(members))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::{Object, excerpt};

    fn only_member(json: &str) -> super::Member {
        Object::parse(json).unwrap().members().next().unwrap().clone()
    }

    #[rstest]
    #[case::as_documented(r#"{"SubnetLen":1}"#)]
    #[case::lower(r#"{"subnetlen":1}"#)]
    #[case::upper(r#"{"SUBNETLEN":1}"#)]
    #[case::escaped(r#"{"\u0053ubnetLen":1}"#)]
    #[case::long_s(r#"{"ſubnetLen":1}"#)]
    fn keys_are_compared_without_case(#[case] json: &str) {
        assert_eq!(only_member(json).name(), "subnetlen");
    }

    #[test]
    fn null_leaves_the_default() {
        let mut field = 7;
        only_member(r#"{"a":null}"#).set::<u32>(&mut field).unwrap();
        assert_eq!(field, 7);
    }

    #[rstest]
    #[case::string(r#"{"MTU":"1450"}"#, "MTU is \"1450\"; give a whole number without quotes")]
    #[case::fraction(r#"{"mtu":1450.0}"#, "mtu is 1450.0; give a whole number without quotes")]
    #[case::negative(r#"{"MTU":-1}"#, "MTU is -1; give a whole number without quotes")]
    #[case::too_large(r#"{"MTU":4294967296}"#, "MTU is 4294967296; give a whole number without quotes")]
    #[case::object(r#"{"MTU":{}}"#, "MTU is {}; give a whole number without quotes")]
    fn a_wrong_type_is_named_with_key_and_value(#[case] json: &str, #[case] message: &str) {
        assert_eq!(only_member(json).set::<u32>(&mut 0).unwrap_err().to_string(), message);
    }

    #[rstest]
    #[case::empty("")]
    #[case::array("[]")]
    #[case::string("\"x\"")]
    #[case::number("1")]
    #[case::cut_off("{\"a\":")]
    #[case::two_objects("{}{}")]
    fn what_is_no_object_is_refused(#[case] json: &str) {
        assert!(Object::parse(json).is_err());
    }

    #[test]
    fn deep_nesting_is_skipped_without_recursion() {
        let json = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(only_member(&json).name(), "a");
    }

    #[test]
    fn a_huge_value_is_cut_in_messages() {
        assert_eq!(excerpt(&"ü".repeat(1_000_000)).chars().count(), 81);
    }

    #[rstest]
    #[case::line_end("a\nb", "a\\nb")]
    #[case::terminal("\x1b[31m", "\\u{1b}[31m")]
    #[case::other_languages("größer", "größer")]
    fn control_characters_are_spelled_out(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(excerpt(text), expected);
    }

    #[test]
    fn what_nobody_sees_is_told() {
        let error = |json| Object::parse(json).unwrap_err().to_string();
        assert!(error("\u{feff}{}").contains("the invisible character U+FEFF: write it again without"));
        assert!(error("{\u{a0}\"Network\": \"10.5.0.0/16\"}").contains("U+00A0"));
        let quotes = error("{\u{201c}Network\u{201d}: \"10.5.0.0/16\"}");
        assert!(quotes.contains("typographic quotes"), "{quotes}");
        assert!(Object::parse("{\r\n}\r\n").is_ok(), "ends of lines are not odd");
        assert!(!error("{").contains("invisible"));
    }

    #[test]
    fn the_text_in_place_of_an_object_is_cut() {
        let error = Object::parse(&format!("\"{}\"", "x".repeat(100_000))).unwrap_err().to_string();
        assert!(error.len() < 100 && error.starts_with("invalid type"), "{error}");
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(json in any::<String>()) {
            let _ = Object::parse(&json);
        }
    }
}
