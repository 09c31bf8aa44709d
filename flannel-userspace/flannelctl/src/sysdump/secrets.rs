//! What must not leave this host: passwords, keys, credentials in URLs.

use regex::Regex;

/// The replacement of a secret.
const HIDDEN: &str = "(removed)";

/// Takes secrets out of texts.
pub(super) struct Secrets {
    patterns: Vec<(Regex, String)>,
}

impl Secrets {
    pub(super) fn new() -> Result<Self, regex::Error> {
        let patterns = [
            // Blocks of PEM files, whole or cut.
            (r"(?s)-----BEGIN [A-Z0-9 ]*-----.*?(?:-----END [A-Z0-9 ]*-----|\z)", HIDDEN.to_owned()),
            // Credentials in URLs. A password may hold any character but those that end the authority.
            (r#"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s"',@]*(?:@[^/\s"',@]*)*@"#, format!("${{1}}{HIDDEN}@")),
            // Values of JSON members with these names.
            (
                r#"(?i)("[a-z0-9_-]*(?:password|passwd|secret|token|private_?key)"\s*:\s*)"(?:[^"\\]|\\.)*""#,
                format!("${{1}}\"{HIDDEN}\""),
            ),
            // Flags and variables with these names; the name of a file is no secret.
            (
                r#"(?i)((?:^|[\s"'])-{0,2}[a-z0-9_-]*(?:password|passwd|secret|token)[= ]\s*)(?:"[^"]*"|[^\s",]+)"#,
                format!("${{1}}{HIDDEN}"),
            ),
        ];
        let compile = |(pattern, by): (&str, String)| Ok((Regex::new(pattern)?, by));
        Ok(Self { patterns: patterns.into_iter().map(compile).collect::<Result<_, regex::Error>>()? })
    }

    /// The text without them.
    pub(super) fn remove(&self, text: &str) -> String {
        let removed = |text: String, (pattern, by): &(Regex, String)| {
            pattern.replace_all(&text, by.as_str()).into_owned()
        };
        self.patterns.iter().fold(text.to_owned(), removed)
    }

    /// The words of a command line without them: the value of a flag may be a word of its own.
    pub(super) fn remove_from_words(&self, words: &[String]) -> Vec<String> {
        let mut is_secret = false;
        let mut clean = Vec::new();
        for word in words {
            let name = word.trim_start_matches('-').to_ascii_lowercase();
            let hide = std::mem::replace(&mut is_secret, word.starts_with('-') && name.ends_with("password"));
            clean.push(if hide { HIDDEN.to_owned() } else { self.remove(word) });
        }
        clean
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::Secrets;

    #[rstest]
    #[case::url("http://root:canary@etcd:2379,https://b:2", "http://(removed)@etcd:2379,https://b:2")]
    #[case::at_in_password("http://root:can@ary@etcd:2379/", "http://(removed)@etcd:2379/")]
    #[case::plain_url("http://192.168.77.1:2379", "http://192.168.77.1:2379")]
    #[case::flag("flanneld --etcd-password=canary --v=1", "flanneld --etcd-password=(removed) --v=1")]
    #[case::go_flag("-etcd-password=canary", "-etcd-password=(removed)")]
    #[case::variable("FLANNELD_ETCD_PASSWORD=canary\n", "FLANNELD_ETCD_PASSWORD=(removed)\n")]
    #[case::json(r#"{"etcd_password": "can\"ary", "a": 1}"#, r#"{"etcd_password": "(removed)", "a": 1}"#)]
    #[case::json_word(r#"["--etcd-password=canary","x"]"#, r#"["--etcd-password=(removed)","x"]"#)]
    #[case::pem(
        "a\n-----BEGIN EC PRIVATE KEY-----\ncanary\n-----END EC PRIVATE KEY-----\nb",
        "a\n(removed)\nb"
    )]
    #[case::cut_pem("-----BEGIN PRIVATE KEY-----\ncanary", "(removed)")]
    #[case::file("--etcd-password-file=/etc/secret", "--etcd-password-file=/etc/secret")]
    fn of_a_text(#[case] text: &str, #[case] clean: &str) {
        assert_eq!(Secrets::new().unwrap().remove(text), clean);
    }

    #[test]
    fn of_words() {
        let words = ["flanneld", "--etcd-password", "canary", "-v", "1"].map(str::to_owned);
        let clean = Secrets::new().unwrap().remove_from_words(&words);
        assert_eq!(clean, ["flanneld", "--etcd-password", "(removed)", "-v", "1"]);
    }
}
