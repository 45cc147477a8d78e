//! Who imports what: no circles between the modules of a crate, and the folders of `hotr-user/src` import only what the
//! table of ARCHITECTURE.md allows.
//!
//! In: the sources and the table. Out: an error that names each import that is not allowed. A module is a file; what it
//! takes from the files below it is its own, so that is no circle.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};

use super::source;
use crate::paths;

/// Module → modules that it imports, by their paths in the crate, as `kernel::load`.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// Crates whose modules must not import each other in circles.
const CRATES: [&str; 6] =
    ["hotr-common", "hotr-ebpf", "hotr-user", "hotr-user/crates/hotr-events", "tests", "xtask"];

/// The check.
pub(super) fn check() -> Result<()> {
    let mut faults = Vec::new();
    for folder in CRATES {
        let imports = read(&paths::root().join(folder).join("src"))?;
        faults.extend(
            circles(&imports)
                .iter()
                .map(|circle| format!("{folder}: a circle of imports: {}", names(circle))),
        );
        if folder == "hotr-user" {
            let architecture = paths::root().join("ARCHITECTURE.md");
            let text = fs::read_to_string(&architecture)
                .with_context(|| format!("read {}", architecture.display()))?;
            faults.extend(folder_faults(&imports, &allowed(&text)));
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("; "));
    Ok(())
}

/// Reads what all modules below `root` import.
fn read(root: &Path) -> Result<Imports> {
    let mut sources = BTreeMap::new();
    for file in source::rust_files(root)? {
        let module = module_of(file.strip_prefix(root)?);
        // The command line is another crate, and tests may look at everything.
        if module.ends_with("tests") || module == "main" || module.starts_with("cli") {
            continue;
        }
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        sources.insert(module, source::code_of(&text));
    }
    let modules: BTreeSet<String> = sources.keys().cloned().collect();
    Ok(sources.iter().map(|(module, code)| (module.clone(), imported(module, code, &modules))).collect())
}

/// `kernel/load/attach.rs` as `kernel::load::attach`.
fn module_of(file: &Path) -> String {
    let path = file.with_extension("").to_string_lossy().replace('/', "::");
    if path == "lib" { String::new() } else { path }
}

/// Modules that a file names, each by the longest path that is one.
fn imported(module: &str, code: &str, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in source::paths_in(code) {
        let mut words: Vec<&str> = path.split("::").collect();
        let mut from: Vec<&str> = module.split("::").filter(|word| !word.is_empty()).collect();
        match words.first().copied() {
            Some("crate") => {
                from.clear();
                words.remove(0);
            }
            Some("super" | "self") => {
                while let Some(word @ ("super" | "self")) = words.first().copied() {
                    words.remove(0);
                    if word == "super" {
                        from.pop();
                    }
                }
            }
            Some(child) if modules.contains(&below(module, child)) => {}
            _ => continue,
        }
        from.extend(words);
        let target = (0..=from.len()).rev().map(|len| from[..len].join("::")).find(|it| modules.contains(it));
        found.extend(target.filter(|target| target != module));
    }
    found
}

fn below(module: &str, child: &str) -> String {
    if module.is_empty() { child.to_owned() } else { format!("{module}::{child}") }
}

/// Sets of modules, each of which imports itself through others. What is below a module is part of it.
fn circles(imports: &Imports) -> Vec<BTreeSet<String>> {
    let is_part = |module: &str, other: &str| module.is_empty() || other.starts_with(&format!("{module}::"));
    let reachable: BTreeMap<&String, BTreeSet<&String>> = imports
        .keys()
        .map(|start| {
            let mut seen = BTreeSet::new();
            let mut next = vec![start];
            while let Some(module) = next.pop() {
                for other in imports.get(module).into_iter().flatten() {
                    if !is_part(module, other) && seen.insert(other) {
                        next.push(other);
                    }
                }
            }
            (start, seen)
        })
        .collect();
    let mut circles: Vec<BTreeSet<String>> = Vec::new();
    for (module, seen) in &reachable {
        if seen.contains(module) && !circles.iter().any(|circle| circle.contains(*module)) {
            let with = |other: &&&String| reachable[**other].contains(module);
            circles.push(seen.iter().filter(with).map(|other| (**other).clone()).collect());
        }
    }
    circles
}

fn names(circle: &BTreeSet<String>) -> String {
    circle.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn folder_faults(imports: &Imports, allowed: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let folder = |module: &str| module.split("::").next().unwrap_or_default().to_owned();
    let mut faults = BTreeSet::new();
    for (module, others) in imports.iter().filter(|(module, _)| !module.is_empty()) {
        let from = folder(module);
        let Some(rule) = allowed.get(&from) else {
            faults.insert(format!("`{from}` has no row in the table of imports in ARCHITECTURE.md"));
            continue;
        };
        let is_allowed = |other: &&String| folder(other) == from || rule.contains(&folder(other));
        faults.extend(
            others
                .iter()
                .filter(|it| !is_allowed(it))
                .map(|other| format!("{module} must not import {other}")),
        );
    }
    faults
}

/// The rows `| folder | may import |` of the table in a Markdown text, with both as inline code.
fn allowed(markdown: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut rows =
        markdown.lines().skip_while(|line| !line.starts_with("| module of hotr-user | may import |"));
    rows.next();
    rows.next();
    let code =
        |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    rows.take_while(|line| line.starts_with('|'))
        .flat_map(|line| {
            let mut cells = line.trim_matches('|').split('|');
            let (who, what) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
            let may: BTreeSet<String> = code(what).into_iter().collect();
            code(who).into_iter().map(move |module| (module, may.clone()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sources: &[(&str, &str)]) -> Imports {
        let modules: BTreeSet<String> = sources.iter().map(|(module, _)| (*module).to_owned()).collect();
        sources
            .iter()
            .map(|(module, code)| ((*module).to_owned(), imported(module, &source::code_of(code), &modules)))
            .collect()
    }

    #[test]
    fn an_import_is_found_however_it_is_written() {
        let imports = of(&[
            ("a", "use crate::b::{C, d::{self, E}};\nmod x;\nfn f() { x::g(); }"),
            ("a::x", "use super::super::b as other; // use crate::c;\nconst TEXT: &str = \"use crate::c;\";"),
            ("b", "fn f() -> crate::c::Type { loop {} }\n#[cfg(test)]\nmod tests { use crate::a; }"),
            ("b::d", "use std::b::d;"),
            ("c", "pub(in crate::b) fn f() {}"),
        ]);
        let of = |module: &str| imports[module].iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(of("a"), ["a::x", "b", "b::d"]);
        assert_eq!(of("a::x"), ["b"]);
        assert_eq!(of("b"), ["c"]);
        assert!(of("b::d").is_empty() && of("c").is_empty());
    }

    #[test]
    fn circles_are_found_and_a_module_with_its_parts_is_none() {
        let imports = of(&[
            ("a", "use crate::b::B; mod x; use x::X;"),
            ("a::x", "use super::Y;"),
            ("b", "use crate::c::C;"),
            ("c", "use crate::a::x::X;"),
            ("d", "use crate::a::Y;"),
        ]);
        let found = circles(&imports);
        assert_eq!(found.len(), 1);
        assert_eq!(names(&found[0]), "a, a::x, b, c");
        assert!(circles(&of(&[("a", "mod x; use x::X;"), ("a::x", "use super::Y;")])).is_empty());
    }

    #[test]
    fn a_folder_imports_what_its_row_allows() {
        let table = "text\n| module of hotr-user | may import |\n| --- | --- |\n| `a` `b` | `c` |\n| `c` | |\n\n| `c` | `a` |";
        let rules = allowed(table);
        let imports = of(&[("a", "use crate::c::x::X;"), ("b", "use crate::a::A;"), ("c", ""), ("c::x", "")]);
        assert_eq!(folder_faults(&imports, &rules), ["b must not import a".to_owned()].into());
        assert_eq!(folder_faults(&of(&[("z", "")]), &rules).len(), 1);
    }
}
