//! Forms, as clients send them.

use std::collections::BTreeMap;

/// The fields of a form.
pub(super) fn fields(body: &str) -> BTreeMap<String, String> {
    let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (decode(key), decode(value))).collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&digits, 16).unwrap_or(b'?')
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::fields;

    #[test]
    fn fields_are_decoded() {
        let fields = fields("Action=CreateRoute&DestinationCidrBlock=10.5.1.0%2F24&a=b+c");
        assert_eq!(fields["DestinationCidrBlock"], "10.5.1.0/24");
        assert_eq!((fields["Action"].as_str(), fields["a"].as_str()), ("CreateRoute", "b c"));
    }
}
