//! The value of a lease key: JSON, written byte for byte as stock flannel writes it and read as Go reads it.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::config::json::{JsonError, excerpt};
use crate::family::{Addresses, PerFamily};

/// What the holder of a lease says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Attributes {
    /// The addresses at which other hosts reach the holder.
    pub public: Addresses,
    /// The backend's type; absent with `udp` and `alloc`.
    pub backend_type: Option<String>,
    /// What the backend of a peer must know.
    pub backend_data: PerFamily<Data>,
}

/// The fields as they are written, in stock flannel's order.
#[derive(Serialize)]
struct Written<'a> {
    /// `0.0.0.0` where there is none.
    #[serde(rename = "PublicIP")]
    public_ip: Ipv4Addr,
    /// `null` where there is none.
    #[serde(rename = "PublicIPv6")]
    public_ipv6: Option<Ipv6Addr>,
    #[serde(rename = "BackendType", skip_serializing_if = "Option::is_none")]
    backend_type: Option<&'a str>,
    #[serde(rename = "BackendData", skip_serializing_if = "Option::is_none")]
    backend_data: Option<&'a Data>,
    #[serde(rename = "BackendV6Data", skip_serializing_if = "Option::is_none")]
    backend_v6_data: Option<&'a Data>,
}

/// What one backend publishes to another. Kept as text: leases come by the ten thousand, and a parsed value is ten
/// times as large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data(Box<str>);

impl Data {
    /// The text parsed.
    #[must_use]
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

impl From<&Value> for Data {
    fn from(value: &Value) -> Self {
        Self(value.to_string().into())
    }
}

impl fmt::Display for Data {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

/// The value of a lease key says nothing that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ValueError {
    /// Far longer than any lease.
    #[error("the value has {0} bytes, a lease at most {max}", max = Attributes::MAX_LEN)]
    TooLong(usize),
    /// No JSON object.
    #[error("the value is not a JSON object")]
    NotAnObject(#[source] JsonError),
    /// A field holds something else than it should.
    #[error("{field} must be {expected}, not {found}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What it should hold.
        expected: &'static str,
        /// What it holds, abbreviated.
        found: String,
    },
}

impl Attributes {
    /// Longest value that is read, in bytes. Stock flannel's have less than 500.
    pub const MAX_LEN: usize = 64 * 1024;

    /// What a host without backend data says of itself.
    #[must_use]
    pub const fn new(public: Addresses) -> Self {
        Self { public, backend_type: None, backend_data: PerFamily::NONE }
    }

    /// Reads the value of a lease key. As in Go, names of fields match in either case, `null` is as good as
    /// absent, unknown fields are ignored and the last of several equal fields counts.
    ///
    /// # Errors
    /// The value is no JSON object of moderate size, or a field has the wrong type, or `PublicIP` is missing.
    pub fn from_json(value: &[u8]) -> Result<Self, ValueError> {
        if value.len() > Self::MAX_LEN {
            return Err(ValueError::TooLong(value.len()));
        }
        let object: Map<String, Value> =
            serde_json::from_slice(value).map_err(|error| ValueError::NotAnObject(error.into()))?;
        let public_ip: Ipv4Addr = text(&object, "PublicIP", "an IPv4 address")?
            .ok_or_else(|| wrong("PublicIP", "an IPv4 address", &Value::Null))?;
        Ok(Self {
            public: Addresses {
                v4: Some(public_ip).filter(|address| !address.is_unspecified()),
                v6: text(&object, "PublicIPv6", "an IPv6 address or null")?,
            },
            backend_type: text::<String>(&object, "BackendType", "a text")?.filter(|text| !text.is_empty()),
            backend_data: PerFamily {
                v4: field(&object, "BackendData").map(Data::from),
                v6: field(&object, "BackendV6Data").map(Data::from),
            },
        })
    }

    /// The value of a lease key.
    ///
    /// # Errors
    /// The backend data cannot be written as JSON.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&Written {
            public_ip: self.public.v4.unwrap_or(Ipv4Addr::UNSPECIFIED),
            public_ipv6: self.public.v6,
            backend_type: self.backend_type.as_deref(),
            backend_data: self.backend_data.v4.as_ref(),
            backend_v6_data: self.backend_data.v6.as_ref(),
        })
    }
}

/// The field of that name in either case, unless it is `null`.
pub fn field<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let in_either_case =
        || object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    object.get(name).or_else(in_either_case).filter(|value| !value.is_null())
}

/// The field as a text that parses.
fn text<T: std::str::FromStr>(
    object: &Map<String, Value>,
    name: &'static str,
    expected: &'static str,
) -> Result<Option<T>, ValueError> {
    let parse = |value: &Value| {
        value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| wrong(name, expected, value))
    };
    field(object, name).map(parse).transpose()
}

fn wrong(field: &'static str, expected: &'static str, value: &Value) -> ValueError {
    ValueError::Field { field, expected, found: excerpt(&value.to_string()) }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;
    use rstest::rstest;

    use super::Attributes;

    #[rstest]
    #[case::vxlan(
        r#"{"PublicIP":"192.168.77.11","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"fa:36:2c:5b:b0:c7"}}"#
    )]
    #[case::dual_stack(
        r#"{"PublicIP":"192.168.77.11","PublicIPv6":"fd77::11","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"fa:36:2c:5b:b0:c7"},"BackendV6Data":{"VNI":1,"VtepMAC":"fa:36:2c:5b:b0:c8"}}"#
    )]
    #[case::ipv6_only(
        r#"{"PublicIP":"0.0.0.0","PublicIPv6":"fd77::11","BackendType":"vxlan","BackendV6Data":{"VNI":1,"VtepMAC":"fa:36:2c:5b:b0:c8"}}"#
    )]
    #[case::host_gw(r#"{"PublicIP":"192.168.77.11","PublicIPv6":null,"BackendType":"host-gw"}"#)]
    #[case::udp(r#"{"PublicIP":"192.168.77.11","PublicIPv6":null}"#)]
    fn bytes_of_stock_flannel_round_trip(#[case] value: &str) {
        let attributes = Attributes::from_json(value.as_bytes()).unwrap();
        assert_eq!(attributes.to_json().unwrap(), value);
    }

    #[test]
    fn value_of_v0_7_is_read() {
        let value =
            br#"{"PublicIP":"192.168.77.11","BackendType":"vxlan","BackendData":{"VtepMAC":"12:28:70:b0:d5:7f"}}"#;
        let attributes = Attributes::from_json(value).unwrap();
        assert_eq!(attributes.backend_type.as_deref(), Some("vxlan"));
        assert_eq!(attributes.public.v6, None);
    }

    #[rstest]
    #[case::case_of_names(r#"{"publicip":"1.2.3.4","BACKENDTYPE":"vxlan"}"#, Some("vxlan"))]
    #[case::unknown_field(r#"{"PublicIP":"1.2.3.4","Colour":[{}]}"#, None)]
    #[case::last_duplicate(r#"{"PublicIP":"9.9.9.9","PublicIP":"1.2.3.4"}"#, None)]
    #[case::empty_type(r#"{"PublicIP":"1.2.3.4","BackendType":""}"#, None)]
    #[case::null_type(r#"{"PublicIP":"1.2.3.4","BackendType":null,"BackendData":null}"#, None)]
    #[case::white_space(" {\n\"PublicIP\" : \"1.2.3.4\" } ", None)]
    fn read_as_go_reads_it(#[case] value: &str, #[case] backend_type: Option<&str>) {
        let attributes = Attributes::from_json(value.as_bytes()).unwrap();
        assert_eq!(attributes.public, Ipv4Addr::new(1, 2, 3, 4).into());
        assert_eq!(attributes.backend_type.as_deref(), backend_type);
        assert!(attributes.backend_data.is_empty());
    }

    #[rstest]
    #[case::empty(b"", "not a JSON object")]
    #[case::text(b"x", "not a JSON object")]
    #[case::open_brace(b"{", "not a JSON object")]
    #[case::null(b"null", "not a JSON object")]
    #[case::array(b"[]", "not a JSON object")]
    #[case::not_utf8(b"{\"PublicIP\":\"\xff\"}", "not a JSON object")]
    #[case::no_public_ip(b"{}", "PublicIP must be an IPv4 address, not null")]
    #[case::number(b"{\"PublicIP\":7}", "PublicIP must be an IPv4 address, not 7")]
    #[case::ipv6_as_ipv4(b"{\"PublicIP\":\"fd00::1\"}", "PublicIP must be an IPv4 address")]
    #[case::ipv4_as_ipv6(b"{\"PublicIP\":\"1.2.3.4\",\"PublicIPv6\":\"1.2.3.4\"}", "PublicIPv6 must be")]
    #[case::type_is_a_list(
        b"{\"PublicIP\":\"1.2.3.4\",\"BackendType\":[\"udp\"]}",
        "BackendType must be a text"
    )]
    fn unusable_values_are_refused(#[case] value: &[u8], #[case] message: &str) {
        let error = Attributes::from_json(value).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }

    #[rstest]
    #[case::megabyte(format!(r#"{{"PublicIP":"1.2.3.4","Pad":"{}"}}"#, "x".repeat(1 << 20)))]
    #[case::deep_nesting(format!(r#"{{"PublicIP":"1.2.3.4","BackendData":{}{}}}"#, "[".repeat(9000), "]".repeat(9000)))]
    fn oversized_values_are_refused(#[case] value: String) {
        assert!(Attributes::from_json(value.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(value: Vec<u8>) {
            let _ = Attributes::from_json(&value);
        }

        #[test]
        fn any_json_like_text_is_read_or_refused(value in r#"\{("(PublicIP|publicip|BackendType|BackendData)":("[0-9.]{0,12}"|null|[0-9]{1,20}|\{\}),?){0,4}\}"#) {
            let _ = Attributes::from_json(value.as_bytes());
        }
    }
}
