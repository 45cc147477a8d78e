//! The public interface of the libraries, as a text that a commit shows the changes of.
//!
//! In: the sources of a crate. Out: a line for each public item, with its signature, where it is defined. The compiler's lint
//! `unreachable_pub` makes sure that an item which says `pub` can be reached from outside.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use quote::ToTokens;
use syn::{Attribute, Fields, ImplItem, Item, Signature, TraitItem, Visibility};

use crate::paths;

/// Folders of the crates; the text is `api.txt` in each.
const CRATES: [&str; 2] = ["hotr-user", "hotr-user/crates/hotr-events"];
/// Lines of a difference that are printed.
const SHOWN: usize = 10;

/// Compares the texts, or updates them.
pub(super) fn check(update: bool) -> Result<()> {
    for folder in CRATES {
        let folder = paths::root().join(folder);
        let mut lines = BTreeSet::new();
        file(&folder.join("src/lib.rs"), &folder.join("src"), "", &mut lines)?;
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let kept = folder.join("api.txt");
        if update {
            fs::write(&kept, &text).with_context(|| format!("write {}", kept.display()))?;
            continue;
        }
        let before = fs::read_to_string(&kept).with_context(|| format!("read {}", kept.display()))?;
        let before: BTreeSet<String> = before.lines().map(str::to_owned).collect();
        let removed = before.difference(&lines).map(|line| format!("- {line}"));
        let added = lines.difference(&before).map(|line| format!("+ {line}"));
        let all: Vec<String> = removed.chain(added).collect();
        ensure!(
            all.is_empty(),
            "{} lines of the public interface differ from {}; if that is meant, run `cargo xtask check --update-api` and say so in \
             CHANGELOG.md:\n{}",
            all.len(),
            kept.display(),
            all.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("\n")
        );
    }
    Ok(())
}

/// Adds the items of a file, and of the files of its modules, which lie in `below`.
fn file(path: &Path, below: &Path, module: &str, lines: &mut BTreeSet<String>) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let parsed = syn::parse_file(&text).with_context(|| format!("parse {}", path.display()))?;
    for item in &parsed.items {
        if let Item::Mod(part) = item
            && part.content.is_none()
            && !is_test(&part.attrs)
        {
            let name = part.ident.to_string();
            let child: PathBuf = below.join(format!("{name}.rs"));
            file(&child, &below.join(&name), &join(module, &name), lines)?;
        }
    }
    items(&parsed.items, module, lines);
    Ok(())
}

fn join(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

fn items(all: &[Item], module: &str, lines: &mut BTreeSet<String>) {
    let mut add = |line: String| {
        lines.insert(if module.is_empty() { line } else { format!("{module}: {line}") });
    };
    for item in all {
        match item {
            Item::Struct(it) if is_public(&it.vis) => {
                let marks = marks(&it.attrs);
                let generics = text(&it.generics);
                add(format!("{marks}struct {}{generics}{}", it.ident, fields(&it.fields)));
            }
            Item::Enum(it) if is_public(&it.vis) => {
                let name = format!("{}{}", it.ident, text(&it.generics));
                add(format!("{}enum {name}", marks(&it.attrs)));
                for variant in &it.variants {
                    let fields = match &variant.fields {
                        Fields::Unit => String::new(),
                        fields => without_attributes(fields),
                    };
                    add(format!("{}{}::{}{fields}", marks(&variant.attrs), it.ident, variant.ident));
                }
            }
            Item::Fn(it) if is_public(&it.vis) => add(signature(&it.sig)),
            Item::Const(it) if is_public(&it.vis) => add(format!("const {}: {}", it.ident, text(&it.ty))),
            Item::Static(it) if is_public(&it.vis) => add(format!("static {}: {}", it.ident, text(&it.ty))),
            Item::Type(it) if is_public(&it.vis) => {
                add(format!("type {}{} = {}", it.ident, text(&it.generics), text(&it.ty)));
            }
            Item::Use(it) if is_public(&it.vis) => add(format!("use {}", text(&it.tree))),
            Item::Trait(it) if is_public(&it.vis) => {
                add(format!("trait {}{}", it.ident, text(&it.generics)));
                for part in &it.items {
                    if let TraitItem::Fn(function) = part {
                        let given = if function.default.is_some() { " { … }" } else { "" };
                        add(format!("{}::{}{given}", it.ident, signature(&function.sig)));
                    }
                }
            }
            Item::Impl(it) if !is_test(&it.attrs) => {
                let of = text(&it.self_ty);
                if let Some((_, name, _)) = &it.trait_ {
                    add(format!("impl{} {} for {of}", text(&it.generics), text(name)));
                    continue;
                }
                for part in &it.items {
                    match part {
                        ImplItem::Fn(function) if is_public(&function.vis) => {
                            add(format!("{of}::{}", signature(&function.sig)));
                        }
                        ImplItem::Const(it) if is_public(&it.vis) => {
                            add(format!("{of}::const {}: {}", it.ident, text(&it.ty)));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

const fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|one| one.path().is_ident("cfg") && text(&one.meta).contains("test"))
}

/// What users notice of the attributes: derived traits, and what may grow.
fn marks(attributes: &[Attribute]) -> String {
    let is_seen = |one: &&Attribute| one.path().is_ident("derive") || one.path().is_ident("non_exhaustive");
    attributes.iter().filter(is_seen).map(|one| format!("#[{}] ", text(&one.meta))).collect()
}

/// Public fields; `..` for others.
fn fields(fields: &Fields) -> String {
    let mut all: Vec<String> = fields
        .iter()
        .filter(|field| is_public(&field.vis))
        .map(|field| match &field.ident {
            Some(name) => format!("{name}: {}", text(&field.ty)),
            None => text(&field.ty),
        })
        .collect();
    if all.len() < fields.len() {
        all.push("..".to_owned());
    }
    match fields {
        Fields::Unit => String::new(),
        Fields::Unnamed(_) => format!("({})", all.join(", ")),
        Fields::Named(_) => format!(" {{ {} }}", all.join(", ")),
    }
}

/// The fields of a variant, all of which are public.
fn without_attributes(fields: &Fields) -> String {
    let all: Vec<String> = fields
        .iter()
        .map(|field| match &field.ident {
            Some(name) => format!("{name}: {}", text(&field.ty)),
            None => text(&field.ty),
        })
        .collect();
    if matches!(fields, Fields::Named(_)) {
        format!(" {{ {} }}", all.join(", "))
    } else {
        format!("({})", all.join(", "))
    }
}

fn signature(signature: &Signature) -> String {
    text(signature)
}

/// Tokens without the spaces that nobody writes.
fn text(tokens: &impl ToTokens) -> String {
    let mut text = tokens.to_token_stream().to_string();
    for (spaced, close) in [
        (" :: ", "::"),
        (":: ", "::"),
        (" ::", "::"),
        (" < ", "<"),
        ("< ", "<"),
        (" >", ">"),
        ("& ", "&"),
        (" ,", ","),
        (" (", "("),
        ("( ", "("),
        (" )", ")"),
        (" :", ":"),
        (" ;", ";"),
        ("' ", "'"),
        ("[ ", "["),
        (" ]", "]"),
        (" !", "!"),
        ("# [", "#["),
        (" .", "."),
        (" ?", "?"),
    ] {
        text = text.replace(spaced, close);
    }
    text.replace("->", " ->").replace("  ->", " ->")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_users_can_name_is_in_it() {
        let source = "
            #[derive(Clone)] #[non_exhaustive] pub struct S<T> { pub a: Vec<T>, b: u8 }
            pub enum E { A, B(u8), C { x: &'static str } }
            impl<T> S<T> { pub const fn f(&self, x: &str) -> Option<T> { None } fn g() {} pub(crate) fn h() {} }
            impl Clone for E { fn clone(&self) -> Self { Self::A } }
            pub trait Sink { fn take(&mut self); fn given(&self) {} }
            pub(crate) fn hidden() {}
            #[cfg(test)] mod tests { pub fn t() {} }
        ";
        let mut lines = BTreeSet::new();
        items(&syn::parse_file(source).unwrap().items, "m", &mut lines);
        let wanted = [
            "m: #[derive(Clone)] #[non_exhaustive] struct S<T> { a: Vec<T>, .. }",
            "m: E::A",
            "m: E::B(u8)",
            "m: E::C { x: &'static str }",
            "m: S<T>::const fn f(&self, x: &str) -> Option<T>",
            "m: Sink::fn given(&self) { … }",
            "m: Sink::fn take(&mut self)",
            "m: enum E",
            "m: impl Clone for E",
            "m: trait Sink",
        ];
        assert_eq!(lines.iter().map(String::as_str).collect::<Vec<_>>(), wanted);
    }
}
