//! Reading sources: what of a file is product code.

use std::path::{Path, PathBuf};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every Rust source below a directory; none if there is no such directory.
pub(crate) fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The text of a source without comments, the contents of strings, and items for tests.
pub(crate) fn product_code(path: &Path) -> String {
    without_tests(&bare(&std::fs::read_to_string(path).unwrap()))
}

/// The text without comments and without the contents of strings and characters, so that every brace left is one.
pub(crate) fn bare(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = comment(rest).or_else(|| string(rest, out.chars().last())).or_else(|| character(rest));
        match skipped {
            Some(length) => {
                out.push(' ');
                rest = &rest[length..];
            }
            None => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    out
}

/// Octets of the comment that the text begins with.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    text.starts_with("/*").then(|| {
        let mut depth = 0;
        let ends = text.char_indices().find(|(at, _)| {
            match &text[*at..] {
                inner if inner.starts_with("/*") => depth += 1,
                inner if inner.starts_with("*/") => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        ends.map_or(text.len(), |(at, _)| at + 2)
    })
}

/// Octets of the string that the text begins with, raw or not.
fn string(text: &str, before: Option<char>) -> Option<usize> {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let prefixes = ["br", "cr", "b", "c", "r", ""].into_iter().filter(|prefix| prefix.is_empty() || !before.is_some_and(is_word));
    for prefix in prefixes {
        let Some(behind) = text.strip_prefix(prefix) else { continue };
        let hashes = if prefix.ends_with('r') { behind.len() - behind.trim_start_matches('#').len() } else { 0 };
        let Some(content) = behind[hashes..].strip_prefix('"') else { continue };
        let start = text.len() - content.len();
        let length = if prefix.ends_with('r') { raw_end(content, hashes) } else { end(content, '"') };
        return Some(start + length);
    }
    None
}

fn raw_end(content: &str, hashes: usize) -> usize {
    let close = format!("\"{}", "#".repeat(hashes));
    content.find(&close).map_or(content.len(), |at| at + close.len())
}

/// Octets up to the first `close` that is not escaped, with it.
fn end(content: &str, close: char) -> usize {
    let mut escaped = false;
    for (at, letter) in content.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == close => return at + letter.len_utf8(),
            _ => {}
        }
    }
    content.len()
}

/// Octets of the character that the text begins with; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let content = text.strip_prefix('\'')?;
    let mut letters = content.chars();
    let (first, second) = (letters.next()?, letters.next()?);
    (first == '\\' || second == '\'').then(|| 1 + end(content, '\''))
}

/// Bare text without each item that is compiled for tests only.
pub(crate) fn without_tests(bare: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::new();
    let mut rest = bare;
    while let Some((before, behind)) = rest.split_once(MARK) {
        out.push_str(before);
        rest = &behind[item(behind)..];
    }
    out + rest
}

/// Octets of the item that the text begins with, its other attributes included: up to a semicolon outside every bracket, or to the
/// brace that closes its body. In `use a::{b};` a semicolon comes behind.
fn item(text: &str) -> usize {
    let mut depth = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        let ends = depth == 0 && (letter == ';' || letter == '}' && !text[at + 1..].trim_start().starts_with(';'));
        if ends {
            return at + 1;
        }
    }
    text.len()
}

#[test]
fn code_behind_a_test_item_is_product_code() {
    let text = r##"
        mod a;
        #[cfg(test)]
        mod test_support;
        mod b; // #[cfg(test)] in a comment
        #[cfg(test)]
        use x::{y, z};
        fn c<'a>(text: &'a str) -> char { "}; #[cfg(test)]"; r#"{"# ; '{' }
        #[cfg(test)]
        #[derive(Debug)]
        fn gone(x: [u8; 2]) -> u8 { match x { [a, ';'] => { a } } }
        /* { /* nested */ */ fn d() {}
        #[cfg(test)]
        mod tests { fn e() { "}" } }
        fn f() {}
    "##;
    let code = without_tests(&bare(text));
    for kept in ["mod a;", "mod b;", "fn c<'a>", "fn d() {}", "fn f() {}"] {
        assert!(code.contains(kept), "{kept} is lost: {code}");
    }
    for gone in ["test_support", "x::", "gone", "fn e", "nested", "comment", "cfg"] {
        assert!(!code.contains(gone), "{gone} is left: {code}");
    }
    assert_eq!(code.matches('{').count(), code.matches('}').count());
}

#[test]
fn the_whole_of_a_source_is_read_whatever_stands_first() {
    let code = product_code(&root().join("gist/src/node/mod.rs"));
    assert!(code.contains("mod transmit;") && code.contains("impl Node"), "a test module in the list of modules hides nothing");
}
