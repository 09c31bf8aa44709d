//! JSON as Go reads and writes it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Number, Value};

/// An object whose keys are looked for as Go's `encoding/json` does for the fields of a struct: in any case, and of
/// several the last.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<(String, Value)>);

impl Fields {
    /// The value of `key`, unless it is null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let of_key = |(name, value): &&(String, Value)| name.eq_ignore_ascii_case(key) && !value.is_null();
        self.0.iter().rev().find(of_key).map(|(_, value)| value)
    }

    /// The text of `key`.
    ///
    /// # Errors
    /// It is something else.
    pub fn text(&self, key: &str) -> Result<Option<&str>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| format!("'{key}' must be a string, not {}", kind(value)))
    }

    /// The object of `key`.
    ///
    /// # Errors
    /// It is something else.
    pub fn object(&self, key: &str) -> Result<Option<&Map<String, Value>>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_object().map(Some).ok_or_else(|| format!("'{key}' must be an object, not {}", kind(value)))
    }
}

impl From<&Map<String, Value>> for Fields {
    fn from(object: &Map<String, Value>) -> Self {
        Self(object.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// What a value is, for messages.
pub const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Writes whole numbers without a fraction, however they were written: `1500.0` is no whole number to a plugin in Go,
/// and Go writes `1500`.
pub fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(whole) = number.as_f64().filter(|_| number.is_f64()).and_then(whole) {
                *number = Number::from(whole);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(whole_numbers),
        Value::Object(values) => values.values_mut().for_each(whole_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// The whole number that `number` is, if it is one that a float can tell from its neighbours.
fn whole(number: f64) -> Option<i64> {
    const LIMIT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && number.abs() <= LIMIT).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Fields, whole_numbers};

    #[test]
    fn keys_in_any_case_and_the_last_of_several() {
        let fields: Fields =
            serde_json::from_str(r#"{"Name":"a","NAME":"b","name":null,"ipam":7,"x":"c"}"#).unwrap();
        assert_eq!(fields.text("name"), Ok(Some("b")));
        assert_eq!(fields.text("delegate"), Ok(None));
        assert_eq!(fields.object("ipam"), Err("'ipam' must be an object, not a number".to_owned()));
        assert_eq!(fields.text("ipam"), Err("'ipam' must be a string, not a number".to_owned()));
    }

    #[test]
    fn whole_numbers_have_no_fraction() {
        let mut value = json!({"mtu": 1500.0, "list": [1e3, 0.5, -2.0], "big": 1e300, "whole": 7});
        whole_numbers(&mut value);
        assert_eq!(value.to_string(), r#"{"big":1e+300,"list":[1000,0.5,-2],"mtu":1500,"whole":7}"#);
    }
}
