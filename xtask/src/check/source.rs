//! Rust sources as far as the checks read them: code without comments, strings and tests, and the paths in it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::paths;

/// Every `.rs` file below a folder.
pub(super) fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// No `#[path]` leads out of its crate: what two crates need is imported.
pub(super) fn paths_stay_in_their_crate() -> Result<()> {
    for folder in ["hotr-common", "hotr-user", "tests", "xtask", "hotr-ebpf/src"] {
        for file in rust_files(&paths::root().join(folder))? {
            let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            let leads_out =
                |line: &str| line.trim().strip_prefix("#[path = ").is_some_and(|path| path.contains("../"));
            ensure!(!text.lines().any(leads_out), "{}: a #[path] leads out of the crate", file.display());
        }
    }
    Ok(())
}

/// A file without comments, what is between quotes, and the tests at its end.
pub(super) fn code_of(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let mut code = String::with_capacity(text.len());
    for line in text.lines() {
        let mut quoted = false;
        let mut before = ' ';
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            if !quoted && c == '/' && chars.peek() == Some(&'/') {
                break;
            }
            if c == '"' && before != '\\' && before != '\'' {
                quoted = !quoted;
            } else if !quoted {
                code.push(c);
            }
            before = if before == '\\' && c == '\\' { ' ' } else { c };
        }
        code.push('\n');
    }
    code
}

/// Every path of at least two words, and every name that a `use` brings in, with `{}` written out.
pub(super) fn paths_in(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let mut rest = code;
    while let Some(at) = use_at(rest) {
        paths_of_expressions(&rest[..at], &mut paths);
        let end = rest[at..].find(';').map_or(rest.len(), |end| at + end);
        let tree: String = rest[at + 4..end].split_whitespace().collect::<Vec<_>>().join(" ");
        expand("", &tree, &mut paths);
        rest = &rest[end..];
    }
    paths_of_expressions(rest, &mut paths);
    paths
}

/// Where the next `use` stands as a word.
fn use_at(code: &str) -> Option<usize> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices("use ").map(|(at, _)| at).find(|at| !code[..*at].ends_with(is_word))
}

/// `a::{b, c::d}` as `a::b` and `a::c::d`.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let mut depth = 0;
    let mut start = 0;
    let mut parts = Vec::new();
    for (at, c) in tree.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&tree[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&tree[start..]);
    for part in parts.into_iter().map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('{') {
            Some((head, inner)) => {
                let inner = inner.strip_suffix('}').unwrap_or(inner);
                expand(&format!("{prefix}{}", head.trim()), inner, paths);
            }
            None => {
                let path = part.split(" as ").next().unwrap_or_default().trim();
                paths.push(format!("{prefix}{path}").replace("::self", ""));
            }
        }
    }
}

/// Paths outside of `use`; `pub(in path)` brings nothing in.
fn paths_of_expressions(code: &str, paths: &mut Vec<String>) {
    let code: String = code
        .split("pub(in ")
        .enumerate()
        .map(|(at, part)| if at == 0 { part } else { part.split_once(')').map_or("", |(_, rest)| rest) })
        .collect();
    for word in code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
        let path = word.trim_matches(':');
        let before = word.len() - word.trim_start_matches(':').len();
        if before < 2 && path.contains("::") {
            paths.push(path.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_tests_are_no_code() {
        let text = "a(\"b // \\\" c\"); // d\n'\"' e\n#[cfg(test)]\nmod tests { f }";
        assert_eq!(code_of(text), "a(); \n'' e\n".replace("''", "'\"'"));
    }

    #[test]
    fn a_tree_of_uses_is_written_out() {
        let mut paths = Vec::new();
        expand("", "a::{self, b::{C, d::E}, f as g}", &mut paths);
        assert_eq!(paths, ["a", "a::b::C", "a::b::d::E", "a::f"]);
        assert_eq!(
            paths_in("pub use x::Y;\nlet _ = crate::z::W::new(v::V, ::std::io);"),
            ["x::Y", "crate::z::W::new", "v::V"]
        );
    }
}
