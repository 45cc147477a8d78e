//! One line of a `.gitignore`, with git's meaning of it.
//!
//! In: the bytes of a file of patterns. Out: [`Rule`]s that match paths. The meaning is that of git's `dir.c`
//! (`parse_path_pattern`, `match_basename`, `match_pathname`) and `wildmatch.c`: braces are literal, `**` is special
//! only between slashes, a class never matches a slash. A pattern is matched in time proportional to pattern times
//! path, whatever its author wrote.

/// The kernel takes no longer path (include/uapi/linux/limits.h `PATH_MAX`), and no reasonable pattern is longer.
const LONGEST: usize = 4096;

/// One pattern of a file.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// It begins with `!`: what matches is not ignored.
    pub(super) is_negative: bool,
    /// It ends with `/`: only directories match.
    dirs_only: bool,
    /// It has a slash before its end: it matches paths from the directory of its file, not names.
    pub(super) is_anchored: bool,
    /// Compared byte by byte.
    literal: Box<[u8]>,
    /// What follows the literal part.
    rest: Box<[Token]>,
    /// A star and a literal: compared with the end of a name.
    is_suffix: bool,
}

/// One step of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// Any one byte but a slash.
    One,
    /// One byte of a set, which has no slash.
    Class(Box<[bool; 256]>),
    /// Any number of bytes but slashes.
    Star,
    /// Any number of bytes.
    Deep,
    /// Nothing, or [`Self::Directories`], which follows.
    Maybe,
    /// Any number of bytes, the last of which is a slash.
    Directories,
    /// The pattern is broken from here on.
    Never,
}

/// The rules of a file, in its order.
pub(super) fn parse(text: &[u8]) -> Vec<Rule> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    text.split(|byte| *byte == b'\n').filter_map(Rule::parse).collect()
}

/// Spaces at the end do not count, but for one after a backslash.
fn trim(line: &[u8]) -> &[u8] {
    let mut end = None;
    let mut at = 0;
    while at < line.len() {
        match line[at] {
            b' ' => end = end.or(Some(at)),
            b'\\' if at + 1 == line.len() => return line,
            byte => {
                at += usize::from(byte == b'\\');
                end = None;
            }
        }
        at += 1;
    }
    &line[..end.unwrap_or(line.len())]
}

fn is_special(byte: u8) -> bool {
    matches!(byte, b'*' | b'?' | b'[' | b'\\')
}

impl Rule {
    /// `None`: the line is empty, a comment, or longer than any path.
    fn parse(line: &[u8]) -> Option<Self> {
        if line.first() == Some(&b'#') {
            return None;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // git's lines are C strings.
        let line = trim(line.split(|byte| *byte == 0).next().unwrap_or_default());
        let (is_negative, pattern) = match line.strip_prefix(b"!") {
            Some(pattern) => (true, pattern),
            None => (false, line),
        };
        let (dirs_only, pattern) = match pattern.strip_suffix(b"/") {
            Some(pattern) => (true, pattern),
            None => (false, pattern),
        };
        let is_anchored = pattern.contains(&b'/');
        let pattern = pattern.strip_prefix(b"/").filter(|_| is_anchored).unwrap_or(pattern);
        if pattern.is_empty() || pattern.len() > LONGEST {
            return None;
        }
        let plain = pattern.iter().position(|byte| is_special(*byte)).unwrap_or(pattern.len());
        let is_suffix =
            !is_anchored && pattern[0] == b'*' && !pattern[1..].iter().any(|byte| is_special(*byte));
        let (literal, rest) = match pattern {
            [_, end @ ..] if is_suffix => (end, Vec::new()),
            _ if is_anchored || plain == pattern.len() => (&pattern[..plain], tokens(&pattern[plain..])),
            _ => (&[][..], tokens(pattern)),
        };
        Some(Self {
            is_negative,
            dirs_only,
            is_anchored,
            literal: literal.into(),
            rest: rest.into(),
            is_suffix,
        })
    }

    /// Whether it matches a path, which is relative to the directory of the pattern's file and not empty.
    pub(super) fn matches(&self, path: &[u8], is_dir: bool) -> bool {
        if self.dirs_only && !is_dir {
            return false;
        }
        let text = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) if !self.is_anchored => &path[slash + 1..],
            _ => path,
        };
        if self.is_suffix {
            return text.ends_with(&self.literal);
        }
        match text.strip_prefix(&*self.literal) {
            Some(rest) if self.rest.is_empty() => rest.is_empty(),
            Some(rest) => is_match(&self.rest, rest),
            None => false,
        }
    }
}

/// The pattern begins here, even where literal text stood before it: so does git compare.
fn tokens(pattern: &[u8]) -> Vec<Token> {
    let byte = |at: usize| pattern.get(at).copied();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = byte(at) {
        at += 1;
        match first {
            b'\\' => {
                tokens.push(byte(at).map_or(Token::Never, Token::Byte));
                at += 1;
            }
            b'?' => tokens.push(Token::One),
            b'*' => {
                let begin = at - 1;
                while byte(at) == Some(b'*') {
                    at += 1;
                }
                let is_alone = begin == 0 || byte(begin - 1) == Some(b'/');
                let end = (byte(at), byte(at + 1));
                match end {
                    _ if at - begin == 1 || !is_alone => tokens.push(Token::Star),
                    (None, _) | (Some(b'\\'), Some(b'/')) => tokens.push(Token::Deep),
                    (Some(b'/'), _) => {
                        tokens.extend([Token::Maybe, Token::Directories]);
                        at += 1;
                    }
                    _ => tokens.push(Token::Star),
                }
            }
            b'[' => {
                let (token, next) = class(pattern, at);
                tokens.push(token);
                at = next;
            }
            other => tokens.push(Token::Byte(other)),
        }
    }
    tokens
}

/// The class whose `[` is before `at`, and where the pattern continues.
fn class(pattern: &[u8], mut at: usize) -> (Token, usize) {
    let broken = (Token::Never, pattern.len());
    let byte = |at: usize| pattern.get(at).copied();
    let mut set = Box::new([false; 256]);
    let is_negated = matches!(byte(at), Some(b'!' | b'^'));
    at += usize::from(is_negated);
    let mut before = 0;
    let mut is_first = true;
    loop {
        let Some(mut one) = byte(at) else { return broken };
        if one == b']' && !is_first {
            break;
        }
        is_first = false;
        if one == b'\\' {
            at += 1;
            let Some(escaped) = byte(at) else { return broken };
            one = escaped;
            set[usize::from(one)] = true;
        } else if one == b'-' && before != 0 && byte(at + 1).is_some_and(|next| next != b']') {
            at += 1;
            if byte(at) == Some(b'\\') {
                at += 1;
            }
            let Some(last) = byte(at) else { return broken };
            for between in before..=last {
                set[usize::from(between)] = true;
            }
            one = 0;
        } else if one == b'[' && byte(at + 1) == Some(b':') {
            let begin = at + 2;
            let Some(length) = pattern[begin..].iter().position(|byte| *byte == b']') else { return broken };
            match pattern[begin..begin + length].strip_suffix(b":") {
                Some(name) => {
                    let Some(is_in) = named(name) else { return broken };
                    (0..128).filter(is_in).for_each(|byte| set[usize::from(byte)] = true);
                    at = begin + length;
                    one = 0;
                }
                None => set[usize::from(b'[')] = true,
            }
        } else {
            set[usize::from(one)] = true;
        }
        before = one;
        at += 1;
    }
    if is_negated {
        set.iter_mut().for_each(|one| *one = !*one);
    }
    set[usize::from(b'/')] = false;
    (Token::Class(set), at + 1)
}

/// A POSIX class of ASCII bytes; git's `space` has neither form feed nor vertical tab.
fn named(name: &[u8]) -> Option<fn(&u8) -> bool> {
    Some(match name {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |byte| matches!(byte, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |byte| matches!(byte, b' '..=b'~'),
        b"punct" => u8::is_ascii_punctuation,
        b"space" => |byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    })
}

/// All ways through the pattern at once.
fn is_match(tokens: &[Token], text: &[u8]) -> bool {
    let mut now = vec![false; tokens.len() + 1];
    let mut next = now.clone();
    enter(tokens, &mut now, 0);
    for byte in text {
        next.fill(false);
        let mut any = false;
        for (at, token) in tokens.iter().enumerate().filter(|(at, _)| now[*at]) {
            let (stays, passes) = match token {
                Token::Byte(one) => (false, one == byte),
                Token::One => (false, *byte != b'/'),
                Token::Class(set) => (false, set[usize::from(*byte)]),
                Token::Star => (*byte != b'/', false),
                Token::Deep => (true, false),
                Token::Directories => (true, *byte == b'/'),
                Token::Maybe | Token::Never => (false, false),
            };
            for (_, to) in [(stays, at), (passes, at + 1)].into_iter().filter(|(goes, _)| *goes) {
                enter(tokens, &mut next, to);
                any = true;
            }
        }
        if !any {
            return false;
        }
        std::mem::swap(&mut now, &mut next);
    }
    now[tokens.len()]
}

/// Enters a step, and all that can be reached from it without a byte.
fn enter(tokens: &[Token], states: &mut [bool], mut at: usize) {
    loop {
        if std::mem::replace(&mut states[at], true) {
            return;
        }
        at += match tokens.get(at) {
            Some(Token::Star | Token::Deep) => 1,
            Some(Token::Maybe) => {
                states[at + 1] = true;
                2
            }
            _ => return,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn one(pattern: &str) -> Rule {
        parse(pattern.as_bytes()).pop().unwrap()
    }

    #[test]
    fn lines_that_are_no_patterns() {
        for text in ["", "\n\n", "# x\n", "   \n", "/\n", "!\n", "\r\n", "\u{feff}# x"] {
            assert!(parse(text.as_bytes()).is_empty(), "{text:?}");
        }
    }

    #[test]
    fn a_malicious_pattern_costs_no_more_than_its_length() {
        let name = "a".repeat(255);
        let began = Instant::now();
        for pattern in
            ["*a".repeat(100) + "b", "**/a/".repeat(50) + "b", "[".repeat(200), "*a".repeat(90) + "?*b"]
        {
            let path = format!("{}/{name}", "a/".repeat(100));
            assert!(!one(&pattern).matches(path.as_bytes(), false), "{pattern}");
        }
        assert!(began.elapsed() < Duration::from_secs(20), "it would take for ever otherwise");
    }
}
