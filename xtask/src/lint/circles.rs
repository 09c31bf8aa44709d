//! Modules of one crate that need each other.
//!
//! A module may use what its parent declares, and the parent what its children do. Between the children of one parent
//! there is an order, as between crates: where two need each other, neither can be understood or tested by itself. Crates
//! are in order already, or cargo would not build them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::modules::{Module, modules};
use crate::workspace;

/// Fails if children of one module need each other, in any crate of the workspace, and prints each circle.
pub fn check() -> Result<()> {
    let metadata = workspace::metadata(&["--no-deps"])?;
    let packages = metadata["packages"].as_array().context("cargo names no packages")?;
    let mut found = Vec::new();
    let mut count = 0;
    for package in packages {
        for target in package["targets"].as_array().context("a package has no targets")? {
            let (Some(name), Some(root)) = (target["name"].as_str(), target["src_path"].as_str()) else {
                bail!("cargo names a target without its source");
            };
            let modules = modules(Path::new(root))?;
            count += modules.len();
            found.extend(circles(&modules).into_iter().map(|circle| format!("{name}: {circle}")));
        }
    }
    if !found.is_empty() {
        bail!("these modules need each other:\n    {}", found.join("\n    "));
    }
    eprintln!("No two of {count} modules need each other.");
    Ok(())
}

type Name = Vec<String>;

/// One circle of each set of siblings that have any.
fn circles(modules: &BTreeMap<Name, Module>) -> Vec<String> {
    let mut needs: BTreeMap<Name, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (user, module) in modules {
        for path in &module.paths {
            let used = resolve(modules, path, user, 0);
            let common = user.iter().zip(&used).take_while(|(one, other)| one == other).count();
            if let (Some(from), Some(to)) = (user.get(common), used.get(common)) {
                let siblings = needs.entry(user[..common].to_vec()).or_default();
                siblings.entry(from.clone()).or_default().insert(to.clone());
            }
        }
    }
    needs
        .iter()
        .filter_map(|(parent, siblings)| {
            let circle = siblings.keys().find_map(|start| circle(siblings, start))?;
            let parent = parent.iter().map(|name| format!("{name}::")).collect::<String>();
            let names: Vec<String> = circle.iter().map(|name| format!("{parent}{name}")).collect();
            Some(names.join(" → "))
        })
        .collect()
}

/// The shortest path from `start` back to it.
fn circle(needs: &BTreeMap<String, BTreeSet<String>>, start: &String) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.clone()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in way.last().and_then(|last| needs.get(last)).into_iter().flatten() {
                let way = [way.clone(), vec![next.clone()]].concat();
                if next == start {
                    return Some(way);
                }
                if seen.insert(next.clone()) {
                    longer.push(way);
                }
            }
        }
        ways = longer;
    }
    None
}

/// More names than this lead from one to the next only in a circle of imports.
const DEEPEST: usize = 16;

/// The module in which the item of that absolute path stands, whatever it is re-exported by.
fn resolve(modules: &BTreeMap<Name, Module>, path: &[String], user: &Name, depth: usize) -> Name {
    let mut at = Name::new();
    for (place, name) in path.iter().enumerate() {
        let child = [at.clone(), vec![name.clone()]].concat();
        if modules.contains_key(&child) {
            at = child;
            continue;
        }
        let alias = modules.get(&at).and_then(|module| module.imports.get(name));
        return match alias {
            // What a module imports for itself is no detour of its own.
            Some(target) if depth < DEEPEST && &at != user => {
                let target = [target.clone(), path[place + 1..].to_vec()].concat();
                resolve(modules, &target, user, depth + 1)
            }
            _ => at,
        };
    }
    at
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Name, circles};
    use crate::lint::modules::Module;

    fn module(name: &str, text: &str) -> (Name, Module) {
        let name: Name = name.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let module = Module::parse(&name, text).unwrap();
        (name, module)
    }

    fn found(modules: &[(&str, &str)]) -> Vec<String> {
        circles(&modules.iter().map(|(name, text)| module(name, text)).collect::<BTreeMap<_, _>>())
    }

    #[test]
    fn one_way_is_no_circle() {
        let tree = [
            ("", "mod a; mod b; pub struct E;"),
            ("a", "use crate::b::B; use super::E;"),
            ("b", "pub struct B;"),
        ];
        assert_eq!(found(&tree), Vec::<String>::new());
    }

    #[test]
    fn two_that_need_each_other_are_one() {
        let tree = [("", "mod a; mod b;"), ("a", "use crate::b::B;"), ("b", "fn f() { super::a::g() }")];
        assert_eq!(found(&tree), ["a → b → a"]);
    }

    #[test]
    fn a_re_export_is_seen_through() {
        let tree = [
            ("", "mod a; mod b; pub use b::B;"),
            ("a", "use crate::B;"),
            ("b", "mod c; pub struct B;"),
            ("b::c", "use crate::a::A;"),
        ];
        assert_eq!(found(&tree), ["a → b → a"]);
    }

    #[test]
    fn tests_do_not_count() {
        let tree = [
            ("", "mod a; mod b;"),
            ("a", "use crate::b::B;"),
            ("b", "#[cfg(test)] mod tests { use crate::a::A; }"),
        ];
        assert_eq!(found(&tree), Vec::<String>::new());
    }
}
