//! What must not leave this host: passwords, keys, credentials in URLs.

use regex::Regex;

/// The replacement of a secret.
const HIDDEN: &str = "(removed)";
/// A literal secret that is shorter is not looked for in texts: it would be found in every word.
const SHORTEST: usize = 4;

/// Takes secrets out of texts.
#[derive(Clone)]
pub(super) struct Secrets {
    patterns: Vec<(Regex, String)>,
    /// The name of what has a secret for a value.
    name: Regex,
    /// Secrets that are known, as they stand and as JSON writes them.
    literals: Vec<String>,
}

impl Secrets {
    pub(super) fn new() -> Result<Self, regex::Error> {
        let patterns = [
            // Blocks of PEM files, whole or cut.
            (r"(?s)-----BEGIN [A-Z0-9 ]*-----.*?(?:-----END [A-Z0-9 ]*-----|\z)", HIDDEN.to_owned()),
            // Values of JSON members with these names.
            (
                r#"(?i)("[a-z0-9_-]*(?:password|passwd|secret|token|private_?key)"\s*:\s*)"(?:[^"\\]|\\.)*""#,
                format!("${{1}}\"{HIDDEN}\""),
            ),
            // Flags and variables with these names; the name of a file is no secret.
            (
                r#"(?i)((?:^|[\s"'])-{0,2}[a-z0-9_-]*(?:password|passwd|secret|token)[= ]\s*)(?:"[^"]*"|'[^']*'|[^\s"]+)"#,
                format!("${{1}}{HIDDEN}"),
            ),
        ];
        let compile = |(pattern, by): (&str, String)| Ok((Regex::new(pattern)?, by));
        Ok(Self {
            patterns: patterns.into_iter().map(compile).collect::<Result<_, regex::Error>>()?,
            name: Regex::new("(?i)(?:password|passwd|secret|token)$")?,
            literals: Vec::new(),
        })
    }

    /// The same, which also takes `secret` out wherever it stands.
    pub(super) fn knowing(mut self, secret: &str) -> Self {
        if secret.chars().count() >= SHORTEST {
            let json = serde_json::Value::from(secret).to_string();
            let escaped = json.trim_start_matches('"').strip_suffix('"').unwrap_or(secret).to_owned();
            self.literals.extend([secret.to_owned(), escaped]);
            self.literals.sort_by_key(|literal| std::cmp::Reverse(literal.len()));
            self.literals.dedup();
        }
        self
    }

    /// The text without them.
    pub(super) fn remove(&self, text: &str) -> String {
        let known = self.literals.iter().fold(text.to_owned(), |text, secret| text.replace(secret, HIDDEN));
        let removed = |text: String, (pattern, by): &(Regex, String)| {
            pattern.replace_all(&text, by.as_str()).into_owned()
        };
        self.patterns.iter().fold(without_users(&known, |c| c.is_whitespace() || c == '"'), removed)
    }

    /// The words of a command line without them: what follows the name of a secret is one, whatever is in it.
    pub(super) fn remove_from_words(&self, words: &[String]) -> Vec<String> {
        let mut is_secret = false;
        let mut clean = Vec::new();
        for word in words {
            let hide = std::mem::take(&mut is_secret);
            clean.push(match word.split_once('=') {
                _ if hide => HIDDEN.to_owned(),
                Some((name, _)) if self.is_name(name) => format!("{name}={HIDDEN}"),
                _ => {
                    is_secret = word.starts_with('-') && self.is_name(word);
                    self.remove(&without_users(word, |_| false))
                }
            });
        }
        clean
    }

    /// The value of a variable without them.
    pub(super) fn remove_from_variable(&self, name: &str, value: &str) -> String {
        if self.is_name(name) { HIDDEN.to_owned() } else { self.remove(&without_users(value, |_| false)) }
    }

    /// Whether the value of what has this name is a secret.
    pub(super) fn is_name(&self, name: &str) -> bool {
        self.name.is_match(name)
    }
}

/// The text without what stands before an `@` in URLs: user and password, which may hold any character. A URL goes up to
/// the next one, or to where `ends` says.
fn without_users(text: &str, ends: impl Fn(char) -> bool) -> String {
    let mut clean = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        clean.push_str(before);
        clean.push_str("://");
        let end = after.find(&ends).unwrap_or(after.len());
        let end = after.find("://").map_or(end, |next| end.min(next));
        let (url, _) = after.split_at(end);
        let user = url.rfind('@').unwrap_or_default();
        if user > 0 {
            clean.push_str(HIDDEN);
        }
        rest = after.get(user..).unwrap_or_default();
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::Secrets;

    #[rstest]
    #[case::url("http://root:canary@etcd:2379,https://b:2", "http://(removed)@etcd:2379,https://b:2")]
    #[case::at_in_password("http://root:can@ary@etcd:2379/", "http://(removed)@etcd:2379/")]
    #[case::anything_in_password("x http://root:can,a'r/y@etcd:2379 y", "x http://(removed)@etcd:2379 y")]
    #[case::second_url("http://a:1,http://root:canary@b:2", "http://a:1,http://(removed)@b:2")]
    #[case::plain_url("http://192.168.77.1:2379", "http://192.168.77.1:2379")]
    #[case::flag("flanneld --etcd-password=canary --v=1", "flanneld --etcd-password=(removed) --v=1")]
    #[case::go_flag("-etcd-password=canary", "-etcd-password=(removed)")]
    #[case::comma("flanneld --etcd-password=can,ary --v=1", "flanneld --etcd-password=(removed) --v=1")]
    #[case::quotes("sh --etcd-password='can ary' --v=1", "sh --etcd-password=(removed) --v=1")]
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
        let words = [
            "flanneld",
            "--etcd-password",
            "canary",
            "-etcd-password=can,ary x\"y",
            "--etcd-endpoints=http://root:can\"a ry,z@a:1,http://b:2",
            "-v",
            "1",
        ];
        let clean = Secrets::new().unwrap().remove_from_words(&words.map(str::to_owned));
        let expected = [
            "flanneld",
            "--etcd-password",
            "(removed)",
            "-etcd-password=(removed)",
            "--etcd-endpoints=http://(removed)@a:1,http://b:2",
            "-v",
            "1",
        ];
        assert_eq!(clean, expected);
    }

    #[test]
    fn of_variables() {
        let secrets = Secrets::new().unwrap();
        assert_eq!(secrets.remove_from_variable("FLANNELD_ETCD_PASSWORD", "can,ary \"x"), "(removed)");
        let urls = secrets.remove_from_variable("FLANNELD_ETCD_ENDPOINTS", "http://root:can\"ary@a:1");
        assert_eq!(urls, "http://(removed)@a:1");
        assert_eq!(secrets.remove_from_variable("FLANNELD_V", "1"), "1");
    }

    #[test]
    fn of_whatever_tells_a_known_one() {
        let secrets = Secrets::new().unwrap().knowing("can\"ary, x").knowing("abc");
        assert_eq!(secrets.remove("it is can\"ary, x."), "it is (removed).");
        assert_eq!(secrets.remove(r#"{"a": "can\"ary, x"}"#), r#"{"a": "(removed)"}"#);
        assert_eq!(secrets.remove("abc"), "abc", "that short it is in every word");
    }
}
