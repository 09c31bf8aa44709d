//! Where dependencies come from and under what terms, by the rules in deny.toml.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use spdx::{Expression, Licensee};

use super::dependencies::{Dependencies, RULES};

/// Checks every dependency of the workspace.
pub fn check(dependencies: &Dependencies) -> Result<()> {
    let rules = Rules::parse(&dependencies.rules).with_context(|| format!("{RULES} holds no rules"))?;
    let faults: Vec<String> =
        dependencies.packages.iter().filter_map(|package| rules.fault(package)).collect();
    if !faults.is_empty() {
        bail!("these dependencies break the rules of {RULES}:\n    {}", faults.join("\n    "));
    }
    eprintln!("Licences and origins of {} packages are as {RULES} allows.", dependencies.packages.len());
    Ok(())
}

struct Rules {
    licences: Vec<Licensee>,
    registries: Vec<String>,
}

impl Rules {
    fn parse(table: &toml::Table) -> Result<Self> {
        let list = |section: &str, key: &str| -> Result<Vec<String>> {
            let list = table.get(section).and_then(|section| section.get(key)?.as_array());
            let list = list.with_context(|| format!("[{section}] has no list {key}"))?;
            list.iter()
                .map(|item| item.as_str().map(str::to_owned).context("a list holds more than text"))
                .collect()
        };
        let licences = list("licenses", "allow")?;
        let licences = licences.iter().map(|licence| {
            Licensee::parse(licence).with_context(|| format!("{licence} is no licence of the SPDX list"))
        });
        Ok(Self {
            licences: licences.collect::<Result<_>>()?,
            registries: list("sources", "allow-registry")?,
        })
    }

    /// What is wrong with a package, if anything is.
    fn fault(&self, package: &Value) -> Option<String> {
        let field = |name: &str| package[name].as_str().unwrap_or_default();
        let fault = match package["source"].as_str() {
            Some(source) if !self.registries.iter().any(|known| source == format!("registry+{known}")) => {
                format!("comes from {source}")
            }
            _ => self.fault_of_terms(field("license"))?,
        };
        Some(format!("{} {} {fault}", field("name"), field("version")))
    }

    fn fault_of_terms(&self, terms: &str) -> Option<String> {
        if terms.is_empty() {
            return Some("names no licence".to_owned());
        }
        // Old manifests write "MIT/Apache-2.0" for a choice.
        let Ok(expression) = Expression::parse_mode(terms, spdx::ParseMode::LAX) else {
            return Some(format!("names its licence {terms:?}, which is no SPDX expression"));
        };
        let allowed = expression
            .evaluate(|requirement| self.licences.iter().any(|licence| licence.satisfies(requirement)));
        (!allowed).then(|| format!("has the licence {terms}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Rules;

    const REGISTRY: &str = "https://github.com/rust-lang/crates.io-index";

    fn fault(source: Option<&str>, licence: Option<&str>) -> Option<String> {
        let rules = format!(
            "[licenses]\nallow = [\"MIT\", \"Apache-2.0\", \"Apache-2.0 WITH LLVM-exception\", \"Unicode-3.0\"]\n\
             [sources]\nallow-registry = [\"{REGISTRY}\"]\n"
        );
        let package = json!({"name": "a", "version": "1.0.0", "source": source, "license": licence});
        Rules::parse(&rules.parse().unwrap()).unwrap().fault(&package)
    }

    fn terms(licence: &str) -> Option<String> {
        fault(Some(&format!("registry+{REGISTRY}")), Some(licence))
    }

    #[test]
    fn one_allowed_choice_is_enough() {
        for licence in ["MIT", "GPL-3.0-only OR MIT", "MIT/Apache-2.0", "MPL-2.0 OR (Apache-2.0 OR ISC)"] {
            assert_eq!(terms(licence), None, "{licence}");
        }
    }

    #[test]
    fn every_part_has_to_be_allowed() {
        assert_eq!(terms("(MIT OR Apache-2.0) AND Unicode-3.0"), None);
        assert_eq!(terms("MIT AND ISC").as_deref(), Some("a 1.0.0 has the licence MIT AND ISC"));
    }

    #[test]
    fn an_exception_counts_only_as_listed() {
        assert_eq!(terms("Apache-2.0 WITH LLVM-exception"), None);
        assert!(terms("MIT WITH LLVM-exception").is_some());
    }

    #[test]
    fn unknown_and_missing_licences_are_faults() {
        assert_eq!(terms("").as_deref(), Some("a 1.0.0 names no licence"));
        let odd = terms("Do What You Like");
        assert!(odd.is_some_and(|fault| fault.contains("no SPDX expression")));
    }

    #[test]
    fn only_listed_registries_are_allowed() {
        let fault = |source| fault(Some(source), Some("MIT"));
        assert_eq!(
            fault("git+https://example.com/a").as_deref(),
            Some("a 1.0.0 comes from git+https://example.com/a")
        );
        assert!(fault(&format!("registry+{REGISTRY}-of-others")).is_some());
    }

    #[test]
    fn a_package_of_the_workspace_has_a_licence_too() {
        assert_eq!(fault(None, Some("MIT")), None);
        assert_eq!(fault(None, None).as_deref(), Some("a 1.0.0 names no licence"));
    }

    #[test]
    fn rules_with_a_mistake_are_refused() {
        for rules in ["", "[licenses]\nallow = [\"MIT\"]\n", "[licenses]\nallow = [\"Mitt\"]\n[sources]\n"] {
            assert!(Rules::parse(&rules.parse().unwrap()).is_err(), "{rules}");
        }
    }
}
