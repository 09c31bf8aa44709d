//! Which distribution this machine runs, by /etc/os-release.

use std::fs;

use anyhow::{Context as _, Result};

const OS_RELEASE: &str = "/etc/os-release";

#[derive(Debug, PartialEq, Eq)]
pub struct Distribution {
    /// As a person calls it.
    pub name: String,
    /// It is Debian, Ubuntu or says that it is like them.
    pub has_apt: bool,
}

impl Distribution {
    pub fn of_this_machine() -> Result<Self> {
        let text = fs::read_to_string(OS_RELEASE).with_context(|| format!("cannot read {OS_RELEASE}"))?;
        Ok(parse(&text))
    }
}

fn parse(os_release: &str) -> Distribution {
    let field = |name| {
        let value = os_release.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
    };
    let (id, like, pretty) = (field("ID"), field("ID_LIKE"), field("PRETTY_NAME"));
    let has_apt = like.split_whitespace().chain([&*id]).any(|id| id == "debian" || id == "ubuntu");
    let name = [pretty, id].into_iter().find(|name| !name.is_empty());
    Distribution { name: name.unwrap_or_else(|| "this distribution".to_owned()), has_apt }
}

#[cfg(test)]
mod tests {
    use super::{Distribution, parse};

    fn named(name: &str, has_apt: bool) -> Distribution {
        Distribution { name: name.to_owned(), has_apt }
    }

    #[test]
    fn debian_and_what_is_like_it_have_apt() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n";
        assert_eq!(parse(debian), named("Debian GNU/Linux 12 (bookworm)", true));
        let mint = "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\nPRETTY_NAME='Linux Mint 22'\n";
        assert_eq!(parse(mint), named("Linux Mint 22", true));
        assert_eq!(parse("ID=ubuntu\n"), named("ubuntu", true));
    }

    #[test]
    fn others_do_not() {
        let fedora = "NAME=\"Fedora Linux\"\nID=fedora\nPRETTY_NAME=\"Fedora Linux 42\"\n";
        assert_eq!(parse(fedora), named("Fedora Linux 42", false));
        assert_eq!(parse("ID=almalinux\nID_LIKE=\"rhel centos fedora\"\n"), named("almalinux", false));
        // A field whose name merely ends in ID, and a value that merely holds the word.
        assert_eq!(parse("VARIANT_ID=debian\nID=notdebian\n"), named("notdebian", false));
    }

    #[test]
    fn an_empty_file_has_a_name_too() {
        assert_eq!(parse(""), named("this distribution", false));
    }
}
