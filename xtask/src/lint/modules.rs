//! The modules of a crate, and what each uses of the others.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use syn::visit::Visit;
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree, visit};

/// A module: what it names of this crate by a path, and what its imports stand for. Paths are absolute, without `crate`.
#[derive(Debug, Default)]
pub struct Module {
    /// Every path that leads to an item of this crate.
    pub paths: Vec<Vec<String>>,
    /// The imports by the name they have here.
    pub imports: BTreeMap<String, Vec<String>>,
    /// The modules declared here that have a file.
    children: Vec<String>,
}

/// The modules of the crate whose root is that file, by name. Tests are left out.
pub fn modules(root: &Path) -> Result<BTreeMap<Vec<String>, Module>> {
    let mut modules = BTreeMap::new();
    let folder = root.parent().unwrap_or(root);
    read(root, folder, &[], &mut modules)?;
    Ok(modules)
}

/// Reads a module and its children, whose files are below `folder`.
fn read(
    file: &Path,
    folder: &Path,
    name: &[String],
    modules: &mut BTreeMap<Vec<String>, Module>,
) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let module = Module::parse(name, &text).with_context(|| format!("cannot parse {}", file.display()))?;
    let children = module.children.clone();
    modules.insert(name.to_vec(), module);
    for child in children {
        let folder_of_child = folder.join(&child);
        let candidates: [PathBuf; 2] = [folder.join(format!("{child}.rs")), folder_of_child.join("mod.rs")];
        if let Some(file) = candidates.iter().find(|candidate| candidate.exists()) {
            read(file, &folder_of_child, &[name, &[child]].concat(), modules)?;
        }
    }
    Ok(())
}

impl Module {
    /// Reads the text of the module called `name`.
    pub fn parse(name: &[String], text: &str) -> Result<Self> {
        let file = syn::parse_file(text)?;
        let children = file.items.iter().filter_map(declared).collect();
        let mut reader = Reader { name, module: Self { children, ..Self::default() } };
        reader.visit_file(&file);
        Ok(reader.module)
    }
}

fn declared(item: &Item) -> Option<String> {
    match item {
        Item::Mod(item) if item.content.is_none() && !is_test(&item.attrs) => Some(item.ident.to_string()),
        _ => None,
    }
}

/// `#[cfg(test)]`, alone or as one of several conditions.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let condition = attribute.meta.require_list().map(|list| list.tokens.to_string());
        attribute.path().is_ident("cfg")
            && condition.is_ok_and(|condition| condition == "test" || condition.contains("(test"))
    })
}

struct Reader<'a> {
    name: &'a [String],
    module: Module,
}

impl Reader<'_> {
    /// The path from the root of the crate; nothing where it leads into another crate, or to something local.
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([self.name, rest].concat()),
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                let base = self.name.len().checked_sub(ups)?;
                Some([&self.name[..base], &path[ups..]].concat())
            }
            _ if self.module.children.contains(first) => Some([self.name, path].concat()),
            _ => None,
        }
    }

    fn import(&mut self, tree: &UseTree, before: &[String]) {
        match tree {
            UseTree::Path(path) => self.import(&path.tree, &[before, &[path.ident.to_string()]].concat()),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(tree, before)),
            UseTree::Name(name) if name.ident == "self" => self.note(before, before.last().cloned()),
            UseTree::Name(name) => {
                let name = name.ident.to_string();
                self.note(&[before, std::slice::from_ref(&name)].concat(), Some(name));
            }
            UseTree::Rename(rename) => {
                let path = [before, &[rename.ident.to_string()]].concat();
                self.note(&path, Some(rename.rename.to_string()));
            }
            UseTree::Glob(_) => self.note(before, None),
        }
    }

    fn note(&mut self, path: &[String], name: Option<String>) {
        let Some(path) = self.absolute(path) else { return };
        if let Some(name) = name {
            self.module.imports.insert(name, path.clone());
        }
        self.module.paths.push(path);
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.import(&item.tree, &[]);
    }

    /// What is in an inline module counts as its parent's, but for its paths: `super` is this module there.
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if item.content.is_none() {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        self.note(&parts, None);
        visit::visit_path(self, path);
    }
}
